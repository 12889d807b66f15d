"""An object store that never answers."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def silent_server() -> Iterator[str]:
    """Yield a URL whose server takes connections and never says a word: whoever reads it waits."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        host, port = server.getsockname()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        yield "s3://bucket/silent.mp4"

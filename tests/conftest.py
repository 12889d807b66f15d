"""Fixtures that several test modules need: real clips, made video files, an S3 server."""

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from hypothesis import settings
from made_videos import MadeVideos
from moto.server import ThreadedMotoServer

settings.register_profile("quick", max_examples=15)  # of `make quick`; the suite draws 100
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared real material beside the checkout; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared folder with real clips is absent ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def made_videos(tmp_path_factory: pytest.TempPathFactory) -> MadeVideos:
    """Return made video files by name (`made_videos["vfr"]`), each built once per session."""
    return MadeVideos(tmp_path_factory.mktemp("made_videos"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run a server on loopback that speaks S3, and point this process and its children at it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """Return the URL of a new, empty bucket (`s3://...`)."""
    name = f"test-{secrets.token_hex(6)}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"

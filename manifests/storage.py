"""Put whole files in place atomically: what stands under a final name is complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; rename it into place if the block succeeds.

    The temporary name is unique to this attempt, so that a late twin of this process can never
    write into it; it is removed if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with open(attempt, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    except BaseException:
        attempt.unlink(missing_ok=True)
        raise


def write_atomic(path: Path | str, content: bytes) -> None:
    """Write `content` to `path` so that no reader ever sees a part of it."""
    with atomic_writer(path) as file:
        file.write(content)

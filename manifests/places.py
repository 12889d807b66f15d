"""Say where files are: beside a table or a plan, on this machine or in a bucket."""

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UsageError
from .storage import AnyPath, storage_errors, to_path
from .strict import first_line


def resolve_path(path: str, folder: str) -> str:
    """Return `path` as decoders want it: URLs and absolute paths stay, others are in `folder`.

    # "../b.mp4" in "s3://bucket/a": "s3://bucket/b.mp4", for object stores know no `..`

    Raises:
        UsageError: The path leads out of the bucket.
    """
    if "://" in path or os.path.isabs(path):
        return path
    if "://" not in folder:
        return os.path.join(folder, path)
    bucket, inner = _split_url(folder)
    key = posixpath.normpath(posixpath.join(inner, path))
    if key.partition("/")[0] in (".", ".."):
        raise UsageError(f"a path must lead to an object of its bucket, got {path!r} ({folder!r})")
    return f"{bucket}/{key}"


def relative_path(path: AnyPath | str, folder: AnyPath | str) -> str:
    """Return `path` relative to `folder` when it stands beside it, so that both can move.

    Beside it is: in the same bucket, or at most one folder up on this machine.
    """
    path, folder = to_path(path), to_path(folder)
    if isinstance(path, Path) and isinstance(folder, Path):
        relative = os.path.relpath(path, folder)
        return os.path.abspath(path) if relative.startswith(os.path.join("..", "..")) else relative
    if isinstance(path, Path):
        return os.path.abspath(path)
    bucket, inner = _split_url(str(path))
    if isinstance(folder, Path) or bucket != _split_url(str(folder))[0]:
        return str(path)
    return posixpath.relpath("/" + inner, "/" + _split_url(str(folder))[1])


def folder_of(path: AnyPath | str) -> str:
    """Return the folder that a file is in: absolute, or a URL."""
    path = to_path(path)
    return os.path.dirname(os.path.abspath(path)) if isinstance(path, Path) else str(path.parent)


def check_bucket(path: AnyPath) -> None:
    """Raise UsageError if the bucket of a URL is not there; of a local path nothing is asked."""
    if isinstance(path, Path) or not path.drive:
        return
    try:
        with at_place(path), suppress(PermissionError):  # to write there may be allowed
            path.fs.info(path.drive)
    except FileNotFoundError as err:
        raise UsageError(f"there is no bucket {_split_url(str(path))[0]!r}") from err


@contextmanager
def at_place(path: AnyPath) -> Iterator[None]:
    """Turn what an object store raises into one sentence, but for an object that is not there.

    What local files raise stays as it is.

    Raises:
        UsageError: The store does not answer, or refuses.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except storage_errors() as err:
        if isinstance(path, Path) or getattr(err, "errno", None) == errno.ENOSPC:
            raise  # no space is left for the file that is to be sent
        raise UsageError(f"{str(path)!r} cannot be reached: {first_line(err)}") from err


def _split_url(url: str) -> tuple[str, str]:
    """Return protocol and bucket, and the key inside the bucket."""
    protocol, _, place = url.partition("://")
    bucket, _, inner = place.partition("/")
    return f"{protocol}://{bucket}", inner

"""Files on this machine or objects under an fsspec URL (`s3://...`), put in place atomically.

What stands under a final name is complete: a local file is renamed into place, an object appears
when its upload has ended.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from upath import UPath

from .errors import UsageError

AnyPath: TypeAlias = Path | UPath  # with the same methods

# Where an upload shows nothing before it has ended; "memory" is for tests.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")


def to_path(path: str | os.PathLike[str] | AnyPath) -> AnyPath:
    """Return the path of a local file or of an object.

    Raises:
        UsageError: A URL of something that is no object store, or whose package is not installed.
    """
    if isinstance(path, UPath):
        return path
    protocol, is_url, place = str(path).partition("://")
    if not is_url:
        return Path(path)
    if protocol not in OBJECT_STORES:
        raise UsageError(
            f"a path must be local or in an object store ({', '.join(OBJECT_STORES[:-1])}), got "
            f"{str(path)!r}"
        )
    if not place.strip("/") or set(place) & set("*?[]"):
        raise UsageError(
            f"a URL must name a bucket, without any of the signs *?[], got {str(path)!r}"
        )
    try:
        found = UPath(path, use_listings_cache=False)  # others write there too
        _ = found.fs
    except ImportError as err:
        raise UsageError(f"{str(path)!r} cannot be opened: {err}") from err
    return cast(AnyPath, found)


def storage_errors() -> tuple[type[Exception], ...]:
    """Return what files and object stores raise: no credentials and no host are no OSError."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError, botocore.BotoCoreError, botocore.ClientError) if botocore else (OSError,)


@contextmanager
def atomic_writer(path: AnyPath | str) -> Iterator[BinaryIO]:
    """Open a temporary file; put it in place of `path` if the block succeeds.

    The temporary name is unique to this attempt, so that a late twin of this process can never
    write into it; it is removed if the block raises.
    """
    path = to_path(path)
    if not isinstance(path, Path):
        # without a name: nothing is left of it, however this process ends
        with tempfile.TemporaryFile() as file:
            yield cast(BinaryIO, file)
            file.flush()
            file.seek(0)
            path.fs.put_file(f"/dev/fd/{file.fileno()}", path.path)
        return
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


def write_atomic(path: AnyPath | str, content: bytes) -> None:
    """Write `content` to `path` so that no reader ever sees a part of it."""
    path = to_path(path)
    if isinstance(path, Path):
        with atomic_writer(path) as file:
            file.write(content)
    else:
        path.fs.pipe_file(path.path, content)


def file_sizes(folder: AnyPath, prefix: str, suffix: str) -> dict[str, int]:
    """Return the bytes of the files right in `folder` whose names begin and end so, by name."""
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as entries:
                return {
                    entry.name: entry.stat().st_size
                    for entry in entries
                    if entry.name.startswith(prefix)
                    and entry.name.endswith(suffix)
                    and entry.is_file()
                }
        except FileNotFoundError:
            return {}
    try:  # a walk would else take a store that does not answer for an empty folder
        found = folder.fs.find(folder.path, maxdepth=1, detail=True, on_error="raise")
    except FileNotFoundError:
        return {}
    sizes = {path.rpartition("/")[2]: record["size"] for path, record in found.items()}
    return {
        name: size
        for name, size in sizes.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }


def read_many(paths: Sequence[AnyPath]) -> list[bytes | None]:
    """Return the content of small files, None where there is none; of objects many at a time."""
    if not paths or isinstance(paths[0], Path):
        return [_read_if_there(path) for path in paths]
    keys = [path.path for path in cast(Sequence[UPath], paths)]
    contents = paths[0].fs.cat(keys, on_error="return")
    for content in contents.values():
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise content
    return [content if isinstance(content, bytes) else None for content in map(contents.get, keys)]


def _read_if_there(path: AnyPath) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None

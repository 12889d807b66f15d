"""Open shards for reading: verified before the first byte is served, remote ones from local disk.

A shard under a URL is downloaded whole into a folder that holds at most `max_bytes`; what was used
longest ago makes room. All processes of a machine may share the folder: its state is its files, and
locks on them order the processes. Local shards are read where they are.
"""

import fcntl
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from upath import UPath

from manifests import ShardError, UsageError, storage_errors
from synth import ShardIndex

CACHE_GB = 20
BLOCK_BYTES = 8 * 2**20  # of one request
WINDOWS = 2  # the one that is read, and the next, which comes in meanwhile
NAME = re.compile(r"[0-9a-f]{64}\.(tar|part)")  # anything else in the folder is not ours
PATIENCE_SECONDS = 0.05  # between two looks for room that other downloads will give


class ShardCache:
    """The verified shards of a process; a copy sent to another process verifies for itself.

    Args:
        folder: Where downloads lie; by default a temporary folder, removed when this process ends.
        max_bytes: Of all files in it, unfinished downloads included.
    """

    def __init__(self, folder: Path | str | None = None, max_bytes: int = CACHE_GB * 10**9) -> None:
        self.max_bytes = max_bytes
        self._folder = None if folder is None else Path(folder)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._verified: dict[Path, tuple[int, ...]] = {}
        self._turns: dict[Path, threading.Lock] = {}
        self._starting = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        temporary = self._temporary and self._temporary.name
        return _arrive, (self._folder, temporary, self.max_bytes)

    def open(self, shard: ShardIndex) -> IO[bytes]:
        """Open a shard for positioned reads, verified when this process opens it first.

        Safe in threads: those that want the same shard wait for the one that verifies it.

        Raises:
            ShardError: Its bytes are not those of its done record, or cannot be fetched.
            UsageError: It is larger than the whole cache, or the cache cannot be written.
        """
        if isinstance(shard.path, Path):
            try:
                return self._open_verified(shard.path, shard)
            except OSError as err:
                raise ShardError(f"shard {shard.path} cannot be read: {err.strerror}") from err
        try:
            path = self._copy_of(shard)
            file: IO[bytes] | None = None
            while file is None:
                file = self._open_copy(path, shard) or self._download(path, shard)
            used_now(file.fileno())
        except OSError as err:
            raise UsageError(f"the cache of shards must be writable, got {err}") from err
        return file

    def touch(self, shard: ShardIndex) -> None:
        """Keep a remote shard, if it is here, as if it had just been used."""
        with suppress(FileNotFoundError):
            used_now(self._copy_of(shard))

    def folder(self) -> Path:
        """Return the folder of the downloads, made when it is first needed."""
        with self._starting:
            if self._folder is None:
                self._temporary = self._temporary or tempfile.TemporaryDirectory(
                    prefix="seamline-shards-", ignore_cleanup_errors=True
                )
                return Path(self._temporary.name)
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._folder

    def check_room(self, shards: Sequence[ShardIndex], shuffle_shards: int) -> None:
        """Raise UsageError unless any two shuffle windows of remote shards fit at once.

        With less room, a shard would be downloaded again for almost every sample.
        """
        sizes = sorted((s.num_bytes for s in shards if not isinstance(s.path, Path)), reverse=True)
        needed = sum(sizes[: WINDOWS * shuffle_shards])
        if needed > self.max_bytes:
            raise UsageError(
                f"--cache-gb must hold two shuffle windows of {shuffle_shards} shards, "
                f"{needed / 1e9:.3g} GB, got {self.max_bytes / 1e9:.3g}: raise it, or lower "
                f"shuffle_shards in the recipe"
            )

    # -- files -----------------------------------------------------------------------------------

    def _copy_of(self, shard: ShardIndex) -> Path:
        return self.folder() / f"{shard.sha256}.tar"

    def _open_verified(self, path: Path, shard: ShardIndex) -> IO[bytes]:
        """Open a file; hash it if this process never saw this very file."""
        with ExitStack() as undo:
            file = undo.enter_context(open(path, "rb"))
            identity = _identity(file)
            if self._verified.get(path) != identity:
                with self._turns.setdefault(path, threading.Lock()):
                    if self._verified.get(path) != identity:
                        check_digest(shard, hashlib.file_digest(file, "sha256").hexdigest())
                        self._verified[path] = identity
            undo.pop_all()
        return file

    def _open_copy(self, path: Path, shard: ShardIndex) -> IO[bytes] | None:
        """Open what was downloaded before; a copy that has been damaged since is dropped."""
        try:
            return self._open_verified(path, shard)
        except FileNotFoundError:
            return None
        except ShardError:
            path.unlink(missing_ok=True)
            return None

    def _download(self, path: Path, shard: ShardIndex) -> IO[bytes] | None:
        """Download and open a shard; None if another thread or process did or dropped it."""
        part = path.with_suffix(".part")
        with ExitStack() as undo:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
            file = undo.enter_context(open(descriptor, "r+b"))
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for whoever downloads it
            if not _is_at(part, file):
                return None
            undo.callback(part.unlink)
            if path.exists():
                return None
            self._reserve(file, shard, path.parent)
            digest = hashlib.sha256()
            for block in read_blocks(shard):
                digest.update(block)
                file.write(block)
            file.flush()
            check_digest(shard, digest.hexdigest())
            self._verified[path] = _identity(file)
            with locked_folder(path.parent):  # whoever counts sees it once
                os.replace(part, path)
            fcntl.flock(file, fcntl.LOCK_UN)
            undo.pop_all()
        return file

    def _reserve(self, file: IO[bytes], shard: ShardIndex, folder: Path) -> None:
        """Give an empty file the size of a shard, once there is room for it."""
        if shard.num_bytes > self.max_bytes:
            raise UsageError(
                f"--cache-gb must hold shard {shard.path} of {shard.num_bytes / 1e9:.3g} GB, got "
                f"{self.max_bytes / 1e9:.3g}"
            )
        while True:
            with locked_folder(folder):
                file.truncate(0)  # of a download that was killed
                if make_room(folder, self.max_bytes - shard.num_bytes):
                    file.truncate(shard.num_bytes)
                    return
            time.sleep(PATIENCE_SECONDS)


def _arrive(folder: Path | None, temporary: str | None, max_bytes: int) -> ShardCache:
    """Make the cache of another process: in the same folder where it is on the same machine."""
    if folder is None and temporary is not None and Path(temporary).is_dir():
        folder = Path(temporary)
    return ShardCache(folder, max_bytes)


def check_digest(shard: ShardIndex, found: str) -> None:
    """Raise ShardError unless the sha256 of a shard is that of its done record."""
    if found != shard.sha256:
        raise ShardError(
            f"shard {shard.path} must have sha256 {shard.sha256[:16]}... as its done record says, "
            f"got {found[:16]}...: it is damaged, render it again"
        )


def read_blocks(shard: ShardIndex) -> Iterator[bytes]:
    """Yield the bytes of a remote shard, as many as its record says; ShardError if it has none."""
    left = shard.num_bytes
    try:
        with cast(UPath, shard.path).open("rb", cache_type="none") as source:
            while block := source.read(min(BLOCK_BYTES, left)):
                left -= len(block)
                yield block
    except storage_errors() as err:
        raise ShardError(f"shard {shard.path} cannot be fetched: {err}") from err


def make_room(folder: Path, max_bytes: int) -> bool:
    """Remove shards, the longest unused first, until `max_bytes` are left; False if more must stay.

    What is being downloaded stays; what a killed process left of a download goes first.
    """
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    files.append((Path(entry.path), entry.stat()))
    num_bytes = sum(stat.st_size for _, stat in files)
    files.sort(key=lambda file: (file[0].suffix != ".part", file[1].st_atime_ns))
    for path, stat in files:
        if num_bytes <= max_bytes:
            break
        if _remove(path):
            num_bytes -= stat.st_size
    return num_bytes <= max_bytes


def used_now(file: int | Path) -> None:
    """Note in the time of access that a file is in use; its other time says what it holds."""
    os.utime(file, ns=(time.time_ns(), os.stat(file).st_mtime_ns))


def _remove(path: Path) -> bool:
    """Remove a file unless somebody downloads it; return whether it is gone."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        if path.suffix == ".part":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        path.unlink()
    return True


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep others from making room in a folder, and from ending a download into it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(file: IO[bytes]) -> tuple[int, ...]:
    """Return what tells a file from its successors under the same name."""
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

"""Read a hostile file under watch: nothing started, written, called or unpickled, little taken."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bounds import GIB, memory_bound
from hypothesis import HealthCheck, settings

from manifests import SeamlineError

COUNTS: defaultdict[str, Counter[str]] = defaultdict(Counter)
FORBIDDEN = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"),
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"),
    *("os.spawn", "os.startfile", "pty.spawn", "pickle.find_class"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "shutil.move", "shutil.copyfile", "shutil.rmtree"),
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[str] | None = None  # what was done while somebody watches


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in FORBIDDEN:
        _seen.append(f"{event}{arguments}")
    elif event == "open":
        path, mode, flags = arguments
        writes = any(sign in mode for sign in "wax+") if mode else flags & WRITING
        if writes and not isinstance(path, int) and path != os.devnull:
            _seen.append(f"open{arguments}")


sys.addaudithook(_watch)  # stays for the life of the process, and does nothing outside of `watched`


@contextmanager
def watched() -> Iterator[None]:
    """Fail if the block starts, writes, calls or unpickles anything."""
    global _seen
    keeps_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _seen = []
    try:
        yield
    finally:
        done, _seen = _seen, None
        sys.dont_write_bytecode = keeps_bytecode
    assert not done, done


def attempt(name: str, read: Callable[[], object], most_bytes: int = GIB) -> None:
    """Let `read` read a hostile file: it succeeds, or raises one of our errors, in one sentence.

    Args:
        name: What is counted.
        read: Reads the file, in every way that the project does.
        most_bytes: What it may take of memory.
    """
    with memory_bound(most_bytes), watched():
        try:
            read()
            outcome = "read"
        except SeamlineError as err:
            outcome = "refused"
            check_sentence(str(err))
    COUNTS[name][outcome] += 1


def check_sentence(said: str) -> None:
    """Fail unless an error is something to read, on one line."""
    assert said.isprintable()
    assert len(said.split()) >= 3
    assert len(said) <= 10_000


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Put other bytes into a file for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def is_long() -> bool:
    """Return whether this is `make fuzz`, by the examples of its profile."""
    return settings().max_examples >= 1000


def fuzzed(share: float = 1.0, few: int = 15) -> settings:
    """Return how often a test draws: `few` times and always the same, or as often as `make fuzz`.

    Args:
        share: Of the examples of `make fuzz`, less for what is slow.
        few: Examples in the ordinary suite.
    """
    return settings(
        max_examples=int(settings().max_examples * share) if is_long() else few,
        derandomize=not is_long(),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

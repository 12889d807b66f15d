"""Measure what a block takes of memory at its peak, and stop one that takes far too much."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30


def status_bytes(name: str) -> int:
    """Return a line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def memory_bound(most: int = GIB) -> Iterator[None]:
    """Fail if the block holds more than `most` bytes at any moment; refuse it 2 GiB more than that.

    The refusal keeps the machine alive where the bound does not hold.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before, limits = status_bytes("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + most + 2 * GIB, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    taken = status_bytes("VmHWM") - before
    assert taken <= most, f"took {taken / 2**20:.0f} MiB, {most / 2**20:.0f} are allowed"

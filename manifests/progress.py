"""Show progress: a bar on a terminal, a plain line every so often elsewhere. Always on stderr."""

import sys
import time
from types import TracebackType
from typing import Self


class Progress:
    """Count finished units of long work and tell the user how far it is.

    Args:
        verb: What is being done ("render").
        unit: What is counted ("samples").
        total: How many there are.
        done: How many were finished before this run; they do not count towards the rate.
        every_seconds: Pause between plain lines when stderr is not a terminal.
    """

    def __init__(
        self, verb: str, unit: str, total: int, done: int = 0, every_seconds: float = 30.0
    ) -> None:
        self.verb, self.unit, self.total, self.done = verb, unit, total, done
        self._first = done
        self._start = self._shown = time.monotonic()
        self._tty = sys.stderr.isatty()
        self._pause = 0.1 if self._tty else every_seconds

    def __enter__(self) -> Self:
        if self._tty:
            self._show("")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show("")
        if self._tty:
            sys.stderr.write("\n")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units and show the state if enough time has passed."""
        self.done += count
        if time.monotonic() - self._shown >= self._pause:
            self._show(note)

    def skip(self, count: int) -> None:
        """Count units that an earlier run finished; they do not count towards the rate."""
        self.done += count
        self._first += count

    def _show(self, note: str) -> None:
        self._shown = time.monotonic()
        seconds = max(self._shown - self._start, 1e-9)
        rate = (self.done - self._first) / seconds
        left = f"{(self.total - self.done) / rate:,.0f} s left" if rate else "waiting"
        left = "done" if self.done >= self.total else left
        line = f"{self.verb}: {self.done:,}/{self.total:,} {self.unit}, {rate:,.1f}/s, {left}"
        line = f"{line} {note}".rstrip()
        sys.stderr.write(f"\r\x1b[2K{self._bar()} {line}" if self._tty else f"{line}\n")
        sys.stderr.flush()

    def _bar(self, width: int = 24) -> str:
        filled = width * self.done // max(self.total, 1)
        return "█" * filled + "░" * (width - filled)

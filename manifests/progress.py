"""Show progress: a bar on a terminal, a plain line a minute elsewhere. Always on stderr."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

Clock = Callable[[], float]

# The rate is that of the last quarter of an hour, or of the last 60 times something was finished
# where these lie further apart.
MARKS = 60
MARK_SECONDS = 15.0
BAR_PAUSE_SECONDS = 0.1


def say_seconds(seconds: float) -> str:
    """Return a duration in the two units that matter: "41 s", "5 min", "2 h 05 min", "3 d 4 h"."""
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def say_rate(per_second: float, unit: str) -> str:
    """Return a rate per second, minute or hour, whichever is no tiny number: "1.8 shards/min"."""
    for factor, name in ((1, "s"), (60, "min")):
        if per_second * factor >= 0.1:
            rate = per_second * factor
            return f"{rate:,.{1 if rate >= 10 else 2}f} {unit}/{name}"
    return f"{per_second * 3600:.2f} {unit}/h"


class Meter:
    """Count units, and how fast they come: what earlier runs did has no part in the rate.

    Args:
        unit: What is counted ("samples").
        total: How many there are.
        done: How many were finished before this run.
        clock: Gives seconds.
    """

    def __init__(self, unit: str, total: int, done: int = 0, clock: Clock = time.monotonic) -> None:
        self.unit, self.total, self.done = unit, total, done
        self._clock = clock
        self._made = 0
        self._start = clock()
        self._first_seconds: float | None = None
        self._marks = deque([(self._start, 0)], maxlen=MARKS)  # seconds, units made until then

    def advance(self, count: int) -> None:
        """Add units that were finished now."""
        if not count:
            return
        now = self._clock()
        if self._first_seconds is None:
            self._first_seconds = now - self._start
        self.done += count
        self._made += count
        if now - self._marks[-1][0] >= MARK_SECONDS:
            self._marks.append((now, self._made))

    def skip(self, count: int) -> None:
        """Add units that an earlier run finished; to find them takes nothing off the rate."""
        self.done += count
        if not self._made:
            self._start = self._clock()
            self._marks[0] = (self._start, 0)

    @property
    def seconds(self) -> float:
        """Return how long the work has taken."""
        return self._clock() - self._start

    @property
    def mean_rate(self) -> float:
        """Return the units per second of this whole run."""
        return self._made / max(self.seconds, 1e-9)

    @property
    def rate(self) -> float:
        """Return the units per second of late."""
        start, made = self._marks[0]
        return (self._made - made) / max(self._clock() - start, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Return how long the rest takes at the rate of late; None: that cannot be said yet.

        Of many workers that began together one is the first to finish. Only after twice that time
        have the others finished too, and the rate is theirs together.
        """
        if self._first_seconds is None or self.seconds < 2 * self._first_seconds or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate


class Progress:
    """Count finished units of long work and tell the user how far it is.

    Args:
        verb: What is being done ("render").
        unit: What is counted ("samples").
        total: How many there are.
        done: How many were finished before this run; they do not count towards the rate.
        parts: What the units come in, how many of these there are, and how many were finished
            before (("shards", 79, 24)).
        every_seconds: Pause between plain lines when stderr is not a terminal.
        clock: Gives seconds.
    """

    def __init__(
        self,
        verb: str,
        unit: str,
        total: int,
        done: int = 0,
        *,
        parts: tuple[str, int, int] | None = None,
        every_seconds: float = 60.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.verb = verb
        self._units = Meter(unit, total, done, clock)
        self._parts = Meter(*parts, clock=clock) if parts else None
        self._clock = clock
        self._shown = clock()
        self._note = ""
        self._tty = sys.stderr.isatty()
        self._pause = BAR_PAUSE_SECONDS if self._tty else every_seconds

    def __enter__(self) -> Self:
        if self._tty:
            self._show(self._line())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show(self._line(is_over=True), is_last=True)

    def advance(self, count: int = 1, note: str | None = None, parts: int = 0) -> None:
        """Add finished units and parts, and show the state if enough time has passed.

        Args:
            count: Finished units; 0 shows the time pass.
            note: What else there is to say, from now on.
            parts: Finished parts.
        """
        self._units.advance(count)
        if self._parts:
            self._parts.advance(parts)
        self._note = self._note if note is None else note
        if self._clock() - self._shown >= self._pause:
            self._show(self._line())

    def skip(self, count: int, parts: int = 0) -> None:
        """Count units and parts that an earlier run finished; they do not count for the rate."""
        self._units.skip(count)
        if self._parts:
            self._parts.skip(parts)

    def _line(self, is_over: bool = False) -> str:
        units, parts = self._units, self._parts
        line = f"{self.verb}: {units.done:,}/{units.total:,} {units.unit}"
        if parts:
            line += f" ({parts.done:,}/{parts.total:,} {parts.unit})"
        is_done = units.done >= units.total
        for meter in filter(None, (units, parts)):
            rate = meter.mean_rate if is_over or is_done else meter.rate
            if rate:
                line += f", {say_rate(rate, meter.unit)}"
        return f"{line}, {self._when(is_over, is_done)}{', ' if self._note else ''}{self._note}"

    def _when(self, is_over: bool, is_done: bool) -> str:
        took = say_seconds(self._units.seconds)
        if is_done:
            return f"done in {took}" if self._units.mean_rate else "done"
        if is_over:
            return f"stopped after {took}"
        left = self._units.seconds_left
        return "time left not known yet" if left is None else f"{say_seconds(left)} left"

    def _show(self, line: str, is_last: bool = False) -> None:
        self._shown = self._clock()
        if self._tty:
            line = f"{self._bar()} {line}"
            # A line that wraps could not be overwritten.
            line = "\r\x1b[2K" + (f"{line}\n" if is_last else line[: _columns() - 1])
        else:
            line += "\n"
        sys.stderr.write(line)
        sys.stderr.flush()

    def _bar(self, width: int = 24) -> str:
        filled = min(width * self._units.done // max(self._units.total, 1), width)
        return "█" * filled + "░" * (width - filled)


def _columns() -> int:
    """Return the width of the terminal; one that does not know its own gets whole lines."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 10_000
    except OSError:
        return 10_000

"""Interleaved timing, and one table row."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, against what, and what is asked for."""

    name: str
    ours: str
    limit: str
    ratio: float | None
    target: str
    is_met: bool

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = "met" if self.is_met else "missed"
        return f"| {self.name} | {self.ours} | {self.limit} | {ratio} | {self.target} | {verdict} |"


HEADER = "| what | ours | limit | ratio | target | |\n|---|---|---|---|---|---|"


def seconds_of(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(repeats: int, *works: Callable[[], object], warm_up: bool = True) -> list[float]:
    """Time each work `repeats` times, taking turns, and return the median seconds of each."""
    if warm_up:
        for work in works:
            work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, seconds in zip(works, times, strict=True):
            seconds.append(seconds_of(work))
    return [statistics.median(seconds) for seconds in times]


def rate_row(name: str, unit: str, count: int, ours: float, limit: float, least: float) -> Row:
    """Compare two times for the same `count` of units; the ratio is of speeds."""
    ratio = limit / ours
    return Row(
        name,
        f"{count / ours:,.1f} {unit}/s",
        f"{count / limit:,.1f} {unit}/s",
        ratio,
        f">= {least:.2f}",
        ratio >= least,
    )

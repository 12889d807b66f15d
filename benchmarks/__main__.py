"""Measure everything and print the table of docs/performance.md: `python -m benchmarks [FOLDER]`.

Takes about ten minutes on two cores. Clips are made in FOLDER (a temporary one by
default); real ones are used instead if FOLDER/sources.parquet exists.
"""

import itertools
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import baselines, clips, extraction, growth, loader, memory, render, restart, training
from .measure import HEADER, Row

NUM_CLIPS = 48
MANY = (100_000, 10, 50)  # videos, samples per video and per shard: a million in 20,000 shards


def main(folder: Path) -> None:
    """Measure and print row by row, so that a slow row does not hide the others."""
    cores = os.cpu_count() or 1
    sources = folder / "sources.parquet"
    if not sources.exists():
        sources = clips.make_sources(folder / "clips", NUM_CLIPS)
    work = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=folder))
    rows: list[Callable[[], Row]] = [
        lambda: render.measure(work, sources, cores, samples_per_video=1),
        lambda: render.measure(work, sources, cores, samples_per_video=4),
        lambda: loader.measure(work / "out", cores),
        lambda: extraction.measure(work, sources, cores),
        lambda: extraction.measure_usual(work, sources, cores),
        lambda: memory.worker_row(work, sources),
        lambda: memory.plan_row(work, *MANY),
    ]
    print(f"{cores} cores, {platform.machine()}, Python {platform.python_version()}\n\n{HEADER}")
    for row in rows:
        print(row(), flush=True)
    others = (
        restart.measure(work),
        growth.measure(work, sources),
        training.measure(work, sources),
        baselines.measure(work, sources, cores),
    )
    for line in itertools.chain(*others):
        print(line, flush=True)


if __name__ == "__main__":
    clips.run_in_folder(main)

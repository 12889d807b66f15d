"""Whether a long run costs more per sample than a short one, in CPU seconds and in memory.

    python -m benchmarks.growth [FOLDER]

One process renders shard after shard, as a worker does. The clips are made in FOLDER (a temporary
one by default); real ones are used instead if FOLDER/sources.parquet exists.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests import read_sources
from synth.attempt import memory_of
from synth.plan_files import read_plan, read_plan_sources, write_plan
from synth.render import ShardTask, render_shard

from .clips import make_sources, run_in_folder, write_recipe
from .measure import HEADER, Row

NUM_CLIPS = 25
SHORT, LONG = 500, 5_000
IN_SHARD = 50


@dataclass(frozen=True)
class State:
    """The process after so many samples: CPU seconds of the last shard, resident bytes."""

    samples: int
    cpu_seconds: float
    resident_bytes: int


def render(folder: Path, sources: Path) -> Iterator[State]:
    """Render LONG samples, the first shard twice: it warms up."""
    recipe = write_recipe(folder / "growth.toml", LONG // len(read_sources(sources)), IN_SHARD)
    write_plan(recipe, sources, folder / "growth_plan")
    plan = read_plan(folder / "growth_plan")
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    out, samples, is_warm = str(folder / "growth_out"), 0, False
    for shard, rows in plan.shards():
        task = ShardTask(shard, rows, videos, out, "filmstrip", plan.digest)
        if not is_warm:
            render_shard(task)
            is_warm = True
        start = time.process_time()
        report = render_shard(task)
        if report.rejected:
            raise RuntimeError(f"samples were rejected: {report.reasons}")
        samples += report.rendered
        seconds = time.process_time() - start
        yield State(samples, seconds, memory_of(os.getpid(), "VmRSS"))


def measure(folder: Path, sources: Path) -> Iterator[Row]:
    """Compare the first SHORT samples with all, and the memory over the run."""
    states = list(render(folder, sources))
    early = [state for state in states if state.samples <= SHORT]
    short = sum(state.cpu_seconds for state in early) / early[-1].samples
    long = sum(state.cpu_seconds for state in states) / states[-1].samples
    yield Row(
        f"CPU time per sample, {states[-1].samples:,} against {early[-1].samples:,} samples",
        f"{1000 * long:.2f} ms",
        f"{1000 * short:.2f} ms",
        short / long,
        ">= 0.95",
        short / long >= 0.95,
    )
    ends = range(SHORT, states[-1].samples + IN_SHARD, SHORT)
    reached = [next(state for state in states if state.samples > end - IN_SHARD) for end in ends]
    marks = [state.resident_bytes / 1e6 for state in reached]
    first, last = marks[0], marks[-1]
    yield Row(
        f"memory of a worker after about {SHORT:,}, {2 * SHORT:,}, ... {LONG:,} samples",
        " ".join(f"{mark:,.0f}" for mark in marks) + " MB",
        "",
        first / last,
        ">= 0.95",
        first / last >= 0.95,
    )


def main(folder: Path) -> None:
    """Measure and print."""
    sources = folder / "sources.parquet"
    if not sources.exists():
        sources = make_sources(folder / "clips", NUM_CLIPS)
    work = Path(tempfile.mkdtemp(prefix="growth-", dir=folder))
    print(HEADER)
    for row in measure(work, sources):
        print(row, flush=True)


if __name__ == "__main__":
    run_in_folder(main)

"""Where the time of rendering goes, stage by stage: `python -m benchmarks.stages [FOLDER]`.

One process renders one plan; the functions of each stage are wrapped with a clock. Times are of the
process's CPU, so that what else runs on the machine does not count.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from synth import clip_reader, planned, render
from synth.plan_files import read_plan, read_plan_sources, write_plan
from synth.render import ShardTask, render_shard

from .clips import make_sources, run_in_folder, write_recipe

NUM_CLIPS = 24
SAMPLES_PER_VIDEO = (1, 4)


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, its calls counted as `stage`."""

        def call(*words: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*words, **named)
            finally:
                self.seconds[stage] += time.process_time() - start

        return call

    def timed_iterator(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, the steps of its iterators counted as `stage`."""

        def call(*words: Any, **named: Any) -> Iterator[Any]:
            steps = iter(function(*words, **named))
            step = self.timed(stage, lambda: next(steps, None))
            while (item := step()) is not None:
                yield item

        return call


def measure(folder: Path, sources: Path, samples_per_video: int) -> tuple[Counter[str], int]:
    """Return CPU seconds by stage, and how many samples were rendered."""
    recipe = write_recipe(folder / "stages.toml", samples_per_video, samples_per_shard=16)
    write_plan(recipe, sources, folder / "stages_plan")
    plan = read_plan(folder / "stages_plan")
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    out = str(folder / "stages_out")
    tasks = [
        ShardTask(shard, rows, videos, out, "filmstrip", plan.digest)
        for shard, rows in plan.shards()
    ]
    render_shard(tasks[0])  # warms up
    clock = Clock()
    encoders = {name: clock.timed("encode", encode) for name, encode in render.ENCODERS.items()}
    cut = clock.timed("resize, crop, flip", planned.PlannedSource.cut)
    with (
        mock.patch.object(
            clip_reader, "frame_batches", clock.timed_iterator("decode", clip_reader.frame_batches)
        ),
        mock.patch.object(planned.PlannedSource, "cut", lambda *words: cut(*words)),
        mock.patch.object(
            render, "evaluate_frames", clock.timed("blend, paste, freeze", render.evaluate_frames)
        ),
        mock.patch.object(render, "ENCODERS", encoders),
        mock.patch.object(render, "check_row", clock.timed("check rows", render.check_row)),
        mock.patch.object(render, "sample_meta", clock.timed("labels", render.sample_meta)),
        mock.patch.object(
            render.TarWriter, "_write", _method(clock, "hash, write", render.TarWriter._write)
        ),
    ):
        start = time.process_time()
        for task in tasks:
            render_shard(task)
        spent = time.process_time() - start
    clock.seconds["the rest"] = spent - sum(clock.seconds.values())
    return clock.seconds, plan.num_samples


def _method(clock: Clock, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    timed = clock.timed(stage, function)
    return lambda *words: timed(*words)


def main(folder: Path) -> None:
    """Print the CPU time per sample of every stage."""
    sources = folder / "sources.parquet"
    if not sources.exists():
        sources = make_sources(folder / "clips", NUM_CLIPS)
    work = Path(tempfile.mkdtemp(prefix="stages-", dir=folder))
    print("| samples per video | stage | CPU ms per sample | share |\n|---|---|---|---|")
    for samples_per_video in SAMPLES_PER_VIDEO:
        seconds, num_samples = measure(work, sources, samples_per_video)
        for stage, spent in seconds.most_common():
            print(
                f"| {samples_per_video} | {stage} | {1000 * spent / num_samples:.2f} "
                f"| {spent / sum(seconds.values()):.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    run_in_folder(main)

"""Peak memory of a render process and of the planner, each in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

from manifests import SourceVideo, write_sources
from synth.attempt import Limits, ShardResult, attempt_shard
from synth.plan_files import read_plan, read_plan_sources, write_plan
from synth.render import ShardTask

from .clips import write_recipe
from .measure import Row

GIGABYTE = 10**9


def _call(work: Callable[..., object], words: tuple, results: multiprocessing.Queue) -> None:
    start = time.perf_counter()
    work(*words)
    results.put((time.perf_counter() - start, peak_bytes()))


def peak_bytes() -> int:
    """Return the peak resident bytes of this process since it was started (Linux).

    Not `ru_maxrss`: that begins with what the parent had when it forked.
    """
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_a_process(work: Callable[..., object], *words: object) -> tuple[float, int]:
    """Run `work` in a fresh process; return its seconds and peak resident bytes."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_call, args=(work, words, results))
    process.start()
    measured = results.get()
    process.join()
    return measured


def worker_row(folder: Path, sources: Path) -> Row:
    """Render 512 samples as one shard, as a worker does: in a child."""
    recipe = write_recipe(folder / "worker.toml", samples_per_video=16, samples_per_shard=512)
    write_plan(recipe, sources, folder / "worker_plan")
    plan = read_plan(folder / "worker_plan")
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    shard, rows = next(plan.shards())
    out = folder / "worker_out"
    out.mkdir()
    task = ShardTask(shard, rows, videos, str(out), "filmstrip", plan.digest)
    outcome = attempt_shard(task, Limits(600.0, 2**33))
    if not isinstance(outcome, ShardResult) or outcome.report.rejected:
        raise RuntimeError(f"the shard was not made whole: {outcome}")
    return Row(
        "memory of a render process",
        f"{outcome.peak_bytes / 1e6:,.0f} MB",
        "",
        None,
        "< 1,000 MB",
        outcome.peak_bytes < GIGABYTE,
    )


def many_sources(path: Path, num_videos: int) -> Path:
    """Write the table of videos that nobody has, and return its path."""
    videos = [
        SourceVideo(
            f"v{number:07d}", f"v{number}.mp4", f"c{number % 400}", number % 400,
            num_frames=300, fps_num=30, width=340, height=256, end_frame=300,
        )
        for number in range(num_videos)
    ]  # fmt: skip
    write_sources(path, videos, [f"c{label_id}" for label_id in range(400)])
    return path


def plan_row(folder: Path, num_videos: int, samples_per_video: int, samples_per_shard: int) -> Row:
    """Plan many samples, in `folder`/many_plan."""
    sources = many_sources(folder / "many.parquet", num_videos)
    recipe = write_recipe(folder / "many.toml", samples_per_video, samples_per_shard)
    seconds, peak = in_a_process(write_plan, recipe, sources, folder / "many_plan")
    num_samples = num_videos * samples_per_video
    return Row(
        f"plan of {num_samples:,} samples from {num_videos:,} videos",
        f"{seconds:,.0f} s, {peak / 1e6:,.0f} MB",
        "",
        None,
        "< 2,000 MB",
        peak < 2 * GIGABYTE,
    )

"""Render throughput against "decode each needed window once with decord + encode each sample".

Both run on the same plan and on as many processes; Ray is started before the clock, as it is once
per job. The limit does nothing but decode and encode: no views, no blending, no labels, no files.
"""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import decord
import numpy as np
import ray

from manifests import SourceTable, SourceVideo
from synth.codecs import encode_filmstrip
from synth.job import render_plan
from synth.plan_files import Plan, read_plan, read_plan_sources, write_plan

from .clips import write_recipe
from .measure import Row, interleaved, rate_row

Passes = list[tuple[SourceVideo, np.ndarray]]


def decoding_passes(plan: Plan, table: SourceTable) -> list[tuple[Passes, int]]:
    """Return, for each shard, the frames of each video that it shows, and its sample count."""
    videos = {video.video_id: video for video in table}
    shards = []
    for _, rows in plan.shards():
        wanted: dict[str, set[int]] = {}
        for source in (source for row in rows["sources"].to_pylist() for source in row):
            last = source["start_frame"] + source["num_frames"] * source["frame_stride"]
            shown = range(source["start_frame"], last, source["frame_stride"])
            wanted.setdefault(source["video_id"], set()).update(shown)
        passes = [(videos[key], np.array(sorted(shown))) for key, shown in wanted.items()]
        shards.append((passes, len(rows)))
    return shards


def decode_and_encode(shard: tuple[Passes, int]) -> int:
    """Do the work that nobody can leave out; returns the bytes encoded."""
    passes, num_samples = shard
    num_bytes = 0
    for number, (video, indices) in enumerate(passes):
        reader = decord.VideoReader(video.path, ctx=decord.cpu(0), num_threads=1)
        frames_THWC = reader.get_batch(indices).asnumpy()
        del reader
        first = num_samples * number // len(passes)
        for _ in range(first, num_samples * (number + 1) // len(passes)):
            clip = np.ascontiguousarray(frames_THWC[:16, :224, :224])
            num_bytes += len(encode_filmstrip(clip))
    return num_bytes


def measure(folder: Path, sources: Path, workers: int, samples_per_video: int) -> Row:
    """Measure one recipe; three turns of each side after a warm-up."""
    recipe = write_recipe(folder / "render.toml", samples_per_video, samples_per_shard=16)
    write_plan(recipe, sources, folder / "plan")
    plan = read_plan(folder / "plan")
    shards = decoding_passes(plan, read_plan_sources(plan, None))

    def ours() -> Any:
        shutil.rmtree(folder / "out", ignore_errors=True)
        report = render_plan(folder / "plan", folder / "out")
        if report.rendered != plan.num_samples:
            raise RuntimeError(f"{report.rejected} samples were rejected: {report.reasons}")

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:

        def limit() -> Any:
            list(pool.map(decode_and_encode, shards))

        ours_seconds, limit_seconds = interleaved(3, ours, limit)
    ray.shutdown()
    per_sample = plan.record["counts"]["decodes_per_sample"]
    return rate_row(
        f"render, {workers} workers, {per_sample:.2f} decodes/sample",
        "samples",
        plan.num_samples,
        ours_seconds,
        limit_seconds,
        0.90,
    )

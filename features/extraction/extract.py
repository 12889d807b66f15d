"""Extract snippet features of whole videos: plan everything, then fill what the store lacks.

In this process (`pipeline.py`), or by Ray actors that each fill shards of their own (`actors.py`):
the same code on the same batches, so the same bytes.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from manifests import Progress, SourceVideo, UsageError

from ..store.feature_store import FeatureStore
from ..store.writer import StoreWriter
from .actors import Crew, checkpoint_paths, open_crew
from .encoder import DEFAULT_BATCH, Encoder
from .extract_plan import ExtractPlan, plan_cut, plan_extraction
from .pipeline import Pipeline, ShardWork
from .streams import Checkpoint, Streams, open_streams

DECODE_SECONDS = 120.0
Fill = Callable[[ExtractPlan, StoreWriter, Sequence[int], Progress], Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        store: Where it wrote.
        num_videos: Rows of the sources table.
        num_snippets: Rows of the store that belong to videos.
        num_extracted: Those of them that this run computed; the others were there before.
        rejected: (video_id, reason) of every video without rows.
        seconds: Wall time of this run.
        max_rejected: Share of the videos that may be rejected.
        digest: Of the store; "" if it is not finished.
        failed: Shards that could not be filled, by number, with the reason: the store lacks them
            and is not finished; to run the same extraction again tries them again.
    """

    store: Path
    num_videos: int
    num_snippets: int
    num_extracted: int
    rejected: tuple[tuple[str, str], ...]
    seconds: float
    max_rejected: float
    digest: str
    failed: Mapping[int, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether all shards stand and no more videos were rejected than may be."""
        return not self.failed and len(self.rejected) <= self.max_rejected * self.num_videos


def extract_features(
    sources: Iterable[SourceVideo],
    checkpoint: Checkpoint | Mapping[str, Checkpoint],
    store: Path | str,
    *,
    snippet_len: int | None = None,
    snippet_stride: int | None = None,
    fps: Fraction | None = None,
    tail: str = "pad",
    alignment: str = "left",
    per_frame: bool = False,
    short_side: int | None = None,
    crop: str = "centre",
    crop_pooling: str = "mean",
    batch: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_rejected: float = 0.01,
    actors: int | None = None,
    address: str | None = None,
    decode_seconds: float = DECODE_SECONDS,
) -> ExtractReport:
    """Extract one feature vector per snippet of every video; run again to finish what is missing.

    Args:
        sources: The sources table, or its rows. A rejected row becomes a row without features.
        checkpoint: Folder of a training run, a `.pt2` program with its TOML, or an `Encoder`; or
            several by stream name: every video is decoded once, and their vectors lie side by side
            in this order.
        store: Folder of the feature store; made, resumed, or left as it is when complete.
        snippet_len: Sampled frames of a snippet; the run's own number by default.
        snippet_stride: Sampled frames between snippets; half of `snippet_len` by default.
        fps: Sampling rate; None takes what the encoder says, or the video's own frames.
        tail: "pad" or "drop" (`SnippetGrid`).
        alignment: "left" or "centre" (`SnippetGrid`).
        per_frame: A row for every sampled frame: the features of runs before they are pooled over
            time, averaged over the windows of `snippet_len` frames that show the frame.
        short_side: Of frames after resizing; by default the shorter side of the crop, or 8/7 of it
            for ten crops.
        crop: "centre", "three" (along the longer side) or "ten" (corners, centre, and mirrored).
        crop_pooling: "mean" of the crops' vectors, or "keep": all of them side by side.
        batch: Snippets per forward pass; by default 2 on a CPU and 32 on a GPU.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        workers: Decoding threads (of each actor); the number of its processors, at most 8, by
            default.
        max_rejected: Share of the videos that may be rejected before the report is not `ok`.
        actors: Ray actors that share the shards of the store; 0 works in this process. None: one
            per GPU of the cluster, or one per node where there is none; without `address`, and with
            one GPU or none here, or an `Encoder`, 0. Actors survive decoders that crash or hang,
            this process does not; they open encoders from folders, so an `Encoder` works in this
            process only.
        address: A running Ray cluster to join.
        decode_seconds: An actor's decoder that gives no frame for so long is ended, and its video
            rejected.

    Raises:
        UsageError: Numbers out of range, no video, encoders that don't fit together, or no cluster.
        CheckpointError: The folder holds no run.
        StoreError: The path holds something else, another spec, or other videos.
        VideoUnavailable: The disk of a video does not answer; finished shards are kept.
        SeamlineError: An actor met an error that another attempt would meet again.
    """
    started, videos = time.monotonic(), list(sources)
    _check_counts(videos, batch, workers, actors, address, decode_seconds)
    opening: dict[str, Any] = {
        "per_frame": per_frame,
        "short_side": short_side,
        "crop": crop,
        "crop_pooling": crop_pooling,
    }

    def run(streams: Streams, device: str, precision: str, fill: Fill) -> ExtractReport:
        cut = plan_cut(streams, snippet_len, snippet_stride, fps, tail, alignment)
        size = DEFAULT_BATCH[device] if batch is None else batch
        plan = plan_extraction(videos, streams, cut, size, device, precision)
        return _extract(plan, Path(store), fill, started, max_rejected)

    if (
        actors is None
        and address is None
        and (_is_here(checkpoint) or torch.cuda.device_count() < 2)
    ):
        actors = 0
    if actors == 0:
        streams = open_streams(checkpoint, device, **opening)
        fill = _filler(streams, min(os.cpu_count() or 1, 8) if workers is None else workers)
        return run(streams, streams.device.type, streams.first.precision, fill)
    crew = Crew(checkpoint_paths(checkpoint), opening, decode_seconds, actors, workers)
    with open_crew(crew, device, address) as (kind, precision):
        return run(open_streams(checkpoint, "cpu", **opening), kind, precision, crew.fill)


def _is_here(checkpoint: Checkpoint | Mapping[str, Checkpoint]) -> bool:
    """Return whether an encoder is already open, in this process, which it cannot leave."""
    named = checkpoint if isinstance(checkpoint, Mapping) else {"": checkpoint}
    return any(isinstance(source, Encoder) for source in named.values())


def _check_counts(
    videos: Sequence[SourceVideo],
    batch: int | None,
    workers: int | None,
    actors: int | None,
    address: str | None,
    decode_seconds: float,
) -> None:
    if not videos or (workers is not None and workers < 1) or (batch is not None and batch < 1):
        raise UsageError(
            f"extraction needs a video, batch >= 1 and workers >= 1, got {len(videos)} videos, "
            f"batch {batch} and workers {workers}"
        )
    if actors == 0 and address is not None:
        raise UsageError(f"a cluster is joined by actors, got actors 0 and address {address!r}")
    if (actors is not None and actors < 0) or not decode_seconds > 0:
        raise UsageError(
            f"extraction needs actors >= 0 and decode_seconds > 0, got {actors} and "
            f"{decode_seconds:g}"
        )


def _filler(streams: Streams, workers: int) -> Fill:
    """Return what fills shards in this process."""

    def fill(
        plan: ExtractPlan, writer: StoreWriter, missing: Sequence[int], progress: Progress
    ) -> Mapping[int, str]:
        work = ShardWork(plan.videos, plan.stored, plan.layout, missing)
        pipeline = Pipeline(work, writer.shards, streams, plan.cut, plan.batch)
        pipeline.run(workers, progress.advance)
        return {}

    return fill


def _extract(
    plan: ExtractPlan, store: Path, fill: Fill, started: float, max_rejected: float
) -> ExtractReport:
    """Fill what the store lacks, and finish it if nothing failed."""
    writer = StoreWriter(store, plan.spec, plan.stored, plan.layout, plan.sources_digest)
    missing = writer.missing_shards()
    total, todo = plan.num_clips(range(plan.layout.num_shards)), plan.num_clips(missing)
    with Progress("extract", "snippets", total, done=total - todo) as progress:
        failed = fill(plan, writer, missing, progress)
    if failed:
        done = [shard for shard in range(plan.layout.num_shards) if shard not in failed]
        rows, digest = writer.committed(done), ""
    else:
        writer.finish()
        finished = FeatureStore.open(store)
        rows, digest = finished.index.to_pylist(), finished.digest
    return ExtractReport(
        store=store,
        num_videos=len(plan.videos),
        num_snippets=sum(row["num_snippets"] for row in rows),
        num_extracted=plan.num_rows([shard for shard in missing if shard not in failed]),
        rejected=tuple((row["video_id"], row["reason"]) for row in rows if row["status"] != "ok"),
        seconds=time.monotonic() - started,
        max_rejected=max_rejected,
        digest=digest,
        failed=failed,
    )

"""Extract snippet features of whole videos: plan everything, then fill what the store lacks.

The number of snippets follows from the sources table alone, so layout and batches are fixed before
the first frame is decoded (`pipeline.py` does the work).
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from manifests import SnippetGrid, SourceVideo, UsageError, num_sampled_frames

from .decoding import SnippetCut
from .encoder import DEFAULT_BATCH, Encoder, encoder_of_run
from .layout import StoreLayout, plan_layout
from .pipeline import Pipeline
from .spec import FeatureSpec
from .store import FeatureStore
from .stored import StoredVideo
from .writer import StoreWriter

# What decides pixels and sums, beside our own code.
VERSIONED = ("av", "decord", "numpy", "opencv-python-headless", "torch")


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
        digest: Of the store.
    """

    store: Path
    num_videos: int
    num_snippets: int
    num_extracted: int
    rejected: tuple[tuple[str, str], ...]
    seconds: float
    max_rejected: float
    digest: str

    @property
    def ok(self) -> bool:
        """Return whether no more videos were rejected than may be."""
        return len(self.rejected) <= self.max_rejected * self.num_videos


def extract_features(
    sources: Iterable[SourceVideo],
    checkpoint: Path | str | Encoder,
    store: Path | str,
    *,
    snippet_len: int | None = None,
    snippet_stride: int | None = None,
    fps: Fraction | None = None,
    tail: str = "pad",
    batch: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_rejected: float = 0.01,
) -> ExtractReport:
    """Extract one feature vector per snippet of every video; run again to finish what is missing.

    Args:
        sources: The sources table, or its rows. A rejected row becomes a row without features.
        checkpoint: Folder of a training run, or an `Encoder`.
        store: Folder of the feature store; made, resumed, or left as it is when complete.
        snippet_len: Sampled frames of a snippet; the run's own number by default.
        snippet_stride: Sampled frames between snippets; half of `snippet_len` by default.
        fps: Sampling rate; None takes the video's own frames.
        tail: "pad" or "drop" (`SnippetGrid`).
        batch: Snippets per forward pass; by default 2 on a CPU and 32 on a GPU.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        workers: Decoding threads; the number of processors, at most 8, by default.
        max_rejected: Share of the videos that may be rejected before the report is not `ok`.

    Raises:
        UsageError: Numbers out of range, or no video.
        CheckpointError: The folder holds no run.
        StoreError: The path holds something else, another spec, or other videos.
    """
    started, videos = time.monotonic(), list(sources)
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    if not videos or workers < 1 or (batch is not None and batch < 1):
        raise UsageError(
            f"extraction needs a video, batch >= 1 and workers >= 1, got {len(videos)} videos, "
            f"batch {batch} and workers {workers}"
        )
    encoder = checkpoint if isinstance(checkpoint, Encoder) else encoder_of_run(checkpoint, device)
    batch = DEFAULT_BATCH[encoder.device.type] if batch is None else batch
    cut = _plan_cut(encoder, snippet_len, snippet_stride, fps, tail)
    spec = _spec(encoder, cut, batch)
    stored, layout = _plan_store(videos, replace(cut, grid=spec.grid))
    writer = StoreWriter(store, spec, stored, layout)
    num_extracted = Pipeline(videos, stored, writer, encoder, cut, batch).run(workers)
    writer.finish()
    finished = FeatureStore.open(store)
    rows = finished.index.to_pylist()
    return ExtractReport(
        store=Path(store),
        num_videos=len(videos),
        num_snippets=sum(row["num_snippets"] for row in rows),
        num_extracted=num_extracted,
        rejected=tuple((row["video_id"], row["reason"]) for row in rows if row["status"] != "ok"),
        seconds=time.monotonic() - started,
        max_rejected=max_rejected,
        digest=finished.digest,
    )


def _plan_cut(
    encoder: Encoder,
    snippet_len: int | None,
    snippet_stride: int | None,
    fps: Fraction | None,
    tail: str,
) -> SnippetCut:
    length = encoder.num_frames if snippet_len is None else snippet_len
    stride = max(length // 2, 1) if snippet_stride is None else snippet_stride
    try:
        if fps is not None:
            num_sampled_frames(1.0, fps)
        grid = SnippetGrid(length, stride, tail)
    except ValueError as err:
        raise UsageError(str(err)) from err
    if encoder.per_frame and (stride > length or tail != "pad"):
        raise UsageError(
            f"windows must leave no frame out: window_stride must be at most their {length} "
            f"frames, got {stride}"
        )
    short_side = min(encoder.height, encoder.width)
    return SnippetCut(grid, fps, encoder.height, encoder.width, short_side)


def _spec(encoder: Encoder, cut: SnippetCut, batch: int) -> FeatureSpec:
    grid = encoder.row_grid(cut.grid)
    return FeatureSpec(
        backbone=encoder.name,
        backbone_arguments=encoder.arguments,
        weights_digest=encoder.weights_digest,
        feature_dim=encoder.feature_dim,
        snippet_len=grid.snippet_len,
        snippet_stride=grid.snippet_stride,
        tail=grid.tail,
        fps=None if cut.fps is None else str(cut.fps),
        height=cut.height,
        width=cut.width,
        short_side=cut.short_side,
        mean=encoder.mean,
        std=encoder.std,
        precision=encoder.precision,
        device=encoder.device.type,
        batch=batch,
        versions={name: version(name) for name in VERSIONED},
        pooling="frame" if encoder.per_frame else "snippet",
        prediction=None if encoder.prediction is None else {**_windows(cut), **encoder.prediction},
    )


def _windows(cut: SnippetCut) -> dict[str, Any]:
    return {"window_len": cut.grid.snippet_len, "window_stride": cut.grid.snippet_stride}


def _plan_store(
    videos: Sequence[SourceVideo], cut: SnippetCut
) -> tuple[list[StoredVideo], StoreLayout]:
    """Plan the index and the layout from the sources table alone."""
    counts = [cut.num_snippets(video) if video.status == "ok" else 0 for video in videos]
    layout = plan_layout(counts)
    stored = []
    for video, row_start, count in zip(videos, layout.row_start_V.tolist(), counts, strict=True):
        reason = video.reason or "rejected by the probe"
        if video.status == "ok":
            reason = f"it is shorter than one snippet of {cut.grid.snippet_len} frames"
        stored.append(
            StoredVideo(
                video_id=video.video_id,
                row_start=row_start,
                num_snippets=count,
                duration_seconds=video.duration_seconds,
                fps_num=video.fps_num,
                fps_den=video.fps_den,
                num_frames=video.end_frame - video.first_frame,
                status="ok" if count else "rejected",
                reason=None if count else reason,
            )
        )
    return stored, layout

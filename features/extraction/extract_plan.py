"""Plan an extraction: the cut, the FeatureSpec, and every video's rows, before a frame is decoded.

The number of snippets follows from the sources table alone, so layout and batches are fixed first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from typing import Any

from manifests import SnippetGrid, SourceVideo, UsageError, num_sampled_frames

from ..store.feature_store import StoredVideo
from ..store.layout import StoreLayout, plan_layout
from ..store.spec import FeatureSpec, canonical_digest
from .decoding import SnippetCut
from .own_encoder import MOST_FRAMES
from .streams import Streams, common_fps, common_num_frames

LONGEST = 10**7  # seconds
# Of the numbers of the sources table that a plan is made from.
LIMITS = {
    **dict.fromkeys(("width", "height"), (1, 2**16)),
    "fps_den": (1, 2**31 - 1),
    "num_bytes": (0, 2**63),
    **dict.fromkeys(("num_frames", "first_frame", "end_frame", "fps_num"), (0, 2**31 - 1)),
    "duration_seconds": (0, LONGEST),
    **dict.fromkeys(("start_seconds", "end_seconds"), (-LONGEST, LONGEST)),
}
# What decides pixels and sums, beside our own code.
VERSIONED = ("av", "decord", "numpy", "opencv-python-headless", "torch")


@dataclass(frozen=True, eq=False)
class ExtractPlan:
    """What an extraction will write, and how.

    Attributes:
        videos: Rows of the sources table.
        stored: Their index rows, `digest` still None.
        layout: Where their rows lie.
        cut: How clips are cut from them.
        spec: What their rows are.
        batch: Clips per forward pass.
    """

    videos: Sequence[SourceVideo]
    stored: Sequence[StoredVideo]
    layout: StoreLayout
    cut: SnippetCut
    spec: FeatureSpec
    batch: int

    def num_clips(self, shards: Sequence[int]) -> int:
        """Return how many clips go through the network for these shards."""
        return sum(
            self.cut.num_snippets(self.videos[position])
            for shard in shards
            for position in self.layout.videos_of(shard)
            if self.stored[position].num_snippets
        )

    @property
    def sources_digest(self) -> str:
        """Return a digest of which part of which file each row means; files may move."""
        return canonical_digest(
            [
                [v.num_bytes, v.first_frame, v.end_frame, str(v.start_seconds), str(v.end_seconds)]
                for v in self.videos
            ]
        )

    def num_rows(self, shards: Sequence[int]) -> int:
        """Return how many rows videos have in these shards, bad ones included."""
        videos = (position for shard in shards for position in self.layout.videos_of(shard))
        return sum(self.stored[position].num_snippets for position in videos)


def plan_cut(
    streams: Streams,
    snippet_len: int | None,
    snippet_stride: int | None,
    fps: Fraction | None,
    tail: str,
    alignment: str,
) -> SnippetCut:
    """Return how clips are cut, or say which number is out of range.

    Raises:
        UsageError: Of numbers that no grid has, or windows that leave frames out.
    """
    length = common_num_frames(streams.encoders, snippet_len)
    fps = common_fps(streams.encoders) if fps is None else fps
    stride = max(length // 2, 1) if snippet_stride is None else snippet_stride
    try:
        if fps is not None:
            num_sampled_frames(1.0, fps)
        grid = SnippetGrid(length, stride, tail, alignment)
    except ValueError as err:
        raise UsageError(str(err)) from err
    if length > MOST_FRAMES:
        raise UsageError(f"snippet_len must be at most {MOST_FRAMES}, got {length}")
    if streams.per_frame and stride > length:
        raise UsageError(
            f"windows must leave no frame out: window_stride must be at most their {length} "
            f"frames, got {stride}"
        )
    if streams.per_frame and (tail, alignment) != ("pad", "left"):
        raise UsageError(
            f"rows per frame need tail 'pad' and alignment 'left', got {tail!r} and {alignment!r}"
        )
    return SnippetCut(grid, fps, streams.distinct_framings)


def plan_extraction(
    videos: Sequence[SourceVideo],
    streams: Streams,
    cut: SnippetCut,
    batch: int,
    device: str,
    precision: str,
) -> ExtractPlan:
    """Return the plan: spec, index and layout.

    Args:
        videos: Rows of the sources table.
        streams: The encoders, wherever they are open.
        cut: Of `plan_cut`.
        batch: Clips per forward pass.
        device: Kind of device that computes, "cpu" or "cuda".
        precision: Its arithmetic.

    Raises:
        UsageError: Of numbers that no spec has.
    """
    grid, prediction = streams.row_grid(cut.grid), streams.first.prediction
    windows: dict[str, Any] = {}
    if streams.per_frame:
        windows = {"window_len": cut.grid.snippet_len, "window_stride": cut.grid.snippet_stride}
    try:
        spec = FeatureSpec(
            **streams.spec_fields(),
            snippet_len=grid.snippet_len,
            snippet_stride=grid.snippet_stride,
            tail=grid.tail,
            alignment=grid.alignment,
            fps=None if cut.fps is None else str(cut.fps),
            precision=precision,
            device=device,
            batch=batch,
            versions={name: version(name) for name in VERSIONED},
            pooling="frame" if streams.per_frame else "snippet",
            prediction=None if prediction is None else {**windows, **prediction},
            **(windows if prediction is None else {}),
        )
    except ValueError as err:  # a number that no store can hold
        raise UsageError(str(err)) from err
    stored, layout = _plan_store(videos, cut, spec.grid)
    return ExtractPlan(videos, stored, layout, cut, spec, batch)


def _plan_store(
    videos: Sequence[SourceVideo], cut: SnippetCut, grid: SnippetGrid
) -> tuple[list[StoredVideo], StoreLayout]:
    """Plan the index and the layout from the sources table alone."""
    for video in videos:
        _check_row(video)
    rows = replace(cut, grid=grid)
    counts = [rows.num_snippets(video) if video.status == "ok" else 0 for video in videos]
    layout = plan_layout(counts)
    stored = []
    for video, row_start, count in zip(videos, layout.row_start_V.tolist(), counts, strict=True):
        reason = video.reason or "rejected by the probe"
        if video.status == "ok":
            reason = f"it is shorter than one snippet of {grid.snippet_len} frames"
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


def _check_row(video: SourceVideo) -> None:
    """Raise UsageError if a row of a table made elsewhere lacks numbers, or has impossible ones."""
    if video.status != "ok":
        return
    for name, (least, most) in LIMITS.items():
        value = getattr(video, name)
        if value is None and name in ("start_seconds", "end_seconds"):
            continue
        if value is None or not least <= value <= most:
            raise UsageError(
                f"{name} of video {video.video_id!r} must be from {least} to {most} in the sources "
                f"table, got {value}"
            )

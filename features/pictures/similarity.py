"""Draw how similar the snippets of a video are to each other, for the video and re-timed copies.

Every picture is a row of matrices: the cosine similarity of each snippet with each other, over
time, with the annotated segments along both axes. Where the features follow time, what an action
looks like in the video's matrix it looks like in the copies', at its new place and length; the
temporal equivariance (`equivariance.py`) says how well, for every copy.
Source: PAL, figure 3 (similarity of snippets with the ground truth); the number is our own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from manifests import AnyPath, Progress, SampledFrames, SourceTable, SourceVideo, UsageError

from ..annotations import AnnotatedSegment, Annotations
from ..exports.report import file_name
from ..extraction.streams import Checkpoint, Streams
from ..store.feature_store import FeatureStore
from .boundaries import check_features
from .equivariance import LEAST_COMPARED, RETIMINGS, unit_rows
from .figure import (
    INK,
    LABEL,
    SOFT,
    TICK,
    TITLE,
    class_legend,
    ground_truth_bar,
    new_figure,
    style_axes,
    write_figure,
)
from .retimed import RetimedCopy, encode_copies, equivariance_of_copies, streams_of_store

DEFAULT_VIDEOS = 8
MOST_CELLS = 400  # along an axis; of more snippets, so many are drawn
BAR, GAP = 0.045, 0.018  # thickness of a ground-truth bar and its distance, of the matrix's side


@dataclass(frozen=True, slots=True)
class SimilarityReport:
    """What was drawn, and the temporal equivariance behind it.

    Attributes:
        pictures: The PNG file of every video, by id.
        equivariance: By video and name of the re-timing; NaN where a copy has fewer than 3
            snippets to compare; empty without copies.
    """

    pictures: Mapping[str, Path]
    equivariance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def per_retiming(self) -> dict[str, float]:
        """Return the mean over videos for every re-timing."""
        names = {name: None for values in self.equivariance.values() for name in values}
        return {
            name: _mean([values[name] for values in self.equivariance.values()]) for name in names
        }

    @property
    def mean(self) -> float:
        """Return the mean over re-timings of the means over videos; NaN without copies."""
        return _mean(list(self.per_retiming.values()))

    def lines(self) -> list[str]:
        """Return the numbers in words."""
        number, folder = len(self.pictures), next(iter(self.pictures.values())).parent
        drawn = f"{number} picture{'' if number == 1 else 's'} in {folder}"
        if not self.equivariance:
            return [drawn]
        parts = ", ".join(f"{name} {_shown(value)}" for name, value in self.per_retiming.items())
        return [f"temporal equivariance {_shown(self.mean)} ({parts})", drawn]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values (NaN as None)."""
        return {
            "temporal_equivariance": _or_none(self.mean),
            "per_retiming": {name: _or_none(v) for name, v in self.per_retiming.items()},
            "per_video": {
                video_id: {name: _or_none(value) for name, value in values.items()}
                for video_id, values in self.equivariance.items()
            },
            "pictures": {video_id: str(path) for video_id, path in self.pictures.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """One matrix: features and segments on one clock."""

    title: str
    feats_SD: np.ndarray
    times_S3: np.ndarray
    segments: Sequence[tuple[float, float, int]]
    span_seconds: tuple[float, float]


def draw_similarity(
    store: FeatureStore,
    out: Path | str,
    *,
    annotations: Annotations | None = None,
    checkpoint: Checkpoint | Mapping[str, Checkpoint] | None = None,
    sources: SourceTable | None = None,
    videos: Sequence[str] | None = None,
    device: str | None = None,
) -> SimilarityReport:
    """Draw a picture per video, and measure temporal equivariance where the copies can be made.

    Args:
        store: Features of the videos.
        out: Folder for `VIDEO.png`.
        annotations: Segments to draw along the axes.
        checkpoint: The run that made the store (or its streams by name); with `sources`, re-timed
            copies are encoded and drawn beside the video.
        sources: The sources table that the store was extracted from.
        videos: Which videos; by default the first 8 with at least 3 snippets.
        device: To encode copies on: "cpu" or "cuda"; None takes CUDA where there is one.

    Raises:
        UsageError: Class probabilities instead of features, a video with fewer than 3 snippets or
            without a row among the sources, a checkpoint without sources or the reverse.
        StoreError: A video is not in the store.
        CheckpointError: The checkpoint is not what made the store.
        VideoError: A video cannot be read, or is not the one that was probed.
    """
    check_features(store)
    if (checkpoint is None) != (sources is None):
        given = "sources" if checkpoint is None else "a checkpoint"
        raise UsageError(f"re-timed copies need a checkpoint and sources, got only {given}")
    chosen = _choose(store, videos)
    rows = {} if sources is None else _source_rows(sources, chosen)
    streams = None if checkpoint is None else streams_of_store(store, checkpoint, device)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pictures, equivariance = {}, {}
    with Progress("draw", "videos", len(chosen)) as progress:
        for video_id in chosen:
            segments = () if annotations is None else annotations.segments.get(video_id, ())
            panels = [_original(store, video_id, segments)]
            if streams is not None:
                copies, values = _copies(store, rows[video_id], streams, segments)
                equivariance[video_id] = values
                panels += copies
            pictures[video_id] = out / f"{file_name(video_id)}.png"
            classes = () if annotations is None else annotations.classes
            figure = _draw(video_id, panels, classes, equivariance.get(video_id))
            write_figure(pictures[video_id], figure)
            progress.advance(1)
    return SimilarityReport(pictures, equivariance)


def compare_similarity(
    stores: Mapping[str, FeatureStore],
    video_id: str,
    path: AnyPath | str,
    *,
    annotations: Annotations | None = None,
) -> None:
    """Draw the similarity matrices of one video in several stores side by side.

    Every matrix has its own scale of colours, from the first percentile of its similarities (0.99
    at most) to 1: encoders differ in how alike the features are that they give to anything.

    Args:
        stores: Features of the video, by the name of what made them; at least one.
        video_id: Which video.
        path: The PNG file to write.
        annotations: Segments to draw along the axes.

    Raises:
        UsageError: Class probabilities instead of features, or fewer than 3 snippets.
        StoreError: The video is not in one of the stores.
    """
    segments = () if annotations is None else annotations.segments.get(video_id, ())
    panels = []
    for name, store in stores.items():
        check_features(store)
        _choose(store, [video_id])
        panels.append(replace(_original(store, video_id, segments), title=name))
    shown = [index for panel in panels for _, _, index in panel.segments]
    figure = new_figure(3.75 * len(panels), 3.7 + 0.25 * bool(shown))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        edges, similar_SS = _similarity(panel)
        least = min(float(np.quantile(similar_SS, 0.01)), 0.99)
        _add_scale(figure, [axes], _draw_panel(axes, panel, edges, similar_SS, least))
    row[0].set_ylabel("time [s]", fontsize=LABEL, color=SOFT)
    class_legend(figure, () if annotations is None else annotations.classes, shown)
    write_figure(path, figure)


def _choose(store: FeatureStore, videos: Sequence[str] | None) -> list[str]:
    """Return the videos to draw: those named, or the first that can be."""
    if videos is not None:
        for video_id in videos:
            found = store.video(video_id).num_snippets
            if found < LEAST_COMPARED:
                raise UsageError(
                    f"a similarity picture needs at least {LEAST_COMPARED} snippets, but video "
                    f"{video_id!r} has {found}"
                )
        return list(dict.fromkeys(videos))
    chosen: list[str] = []
    for video_id in store.video_ids:
        if len(chosen) == DEFAULT_VIDEOS:
            break
        if store.video(video_id).num_snippets >= LEAST_COMPARED:
            chosen.append(video_id)
    if not chosen:
        raise UsageError(
            f"a similarity picture needs at least {LEAST_COMPARED} snippets, but no video of "
            f"{str(store.path)!r} has so many"
        )
    return chosen


def _source_rows(sources: SourceTable, chosen: Sequence[str]) -> dict[str, SourceVideo]:
    known = set(sources.column("video_id"))
    for video_id in chosen:
        if video_id not in known:
            raise UsageError(f"video {video_id!r} of the store is not in the sources table")
    return sources.select(chosen)


def _original(store: FeatureStore, video_id: str, segments: Sequence[AnnotatedSegment]) -> _Panel:
    times_S3 = store.times(video_id)
    span = (float(times_S3[0, 0]), float(times_S3[-1, 2]))
    return _Panel("as it is", store[video_id], times_S3, _within(segments, span), span)


def _copies(
    store: FeatureStore,
    video: SourceVideo,
    streams: Streams,
    segments: Sequence[AnnotatedSegment],
) -> tuple[list[_Panel], dict[str, float]]:
    """Return the re-timed copies of a video, and how equivariant its features are to each."""
    frames, copies = encode_copies(video, store.spec, streams, RETIMINGS)
    values = equivariance_of_copies(store, video.video_id, len(frames), copies)
    panels = [_copy_panel(frames, copy, segments, values[copy.retiming.name]) for copy in copies]
    return panels, values


def _copy_panel(
    frames: SampledFrames, copy: RetimedCopy, segments: Sequence[AnnotatedSegment], value: float
) -> _Panel:
    """Return a copy on its own clock, on which every frame stands for the video's mean time."""
    edges_N = np.append(frames.start_seconds_N, frames.end_seconds_N[-1])
    place = np.arange(len(edges_N), dtype=np.float64)
    placed = [
        (float(np.interp(start, edges_N, place)), float(np.interp(end, edges_N, place)), index)
        for start, end, index in segments
    ]
    moved = copy.retiming.copy_segments(placed, len(frames))
    each = float(edges_N[-1] - edges_N[0]) / len(frames)
    span = (0.0, copy.num_frames * each)
    in_seconds = [(start * each, end * each, index) for start, end, index in moved]
    title = f"{copy.retiming.name}: {_shown(value)}"
    return _Panel(title, copy.feats_RD, copy.positions_R3 * each, _within(in_seconds, span), span)


def _within(
    segments: Iterable[tuple[float, float, int]], span: tuple[float, float]
) -> list[tuple[float, float, int]]:
    cut = [(max(start, span[0]), min(end, span[1]), index) for start, end, index in segments]
    return [(start, end, index) for start, end, index in cut if start < end]


def _draw(
    video_id: str,
    panels: Sequence[_Panel],
    classes: Sequence[str],
    values: Mapping[str, float] | None,
) -> Figure:
    shown = [index for panel in panels for _, _, index in panel.segments]
    figure = new_figure(3.05 * len(panels) + 1.0, 3.9 + 0.25 * bool(shown))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    matrices = [_similarity(panel) for panel in panels]
    least = min(float(np.quantile(similar_SS, 0.01)) for _, similar_SS in matrices)
    for axes, panel, (edges, similar_SS) in zip(row, panels, matrices, strict=True):
        mesh = _draw_panel(axes, panel, edges, similar_SS, min(least, 0.99))
    row[0].set_ylabel("time [s]", fontsize=LABEL, color=SOFT)
    _add_scale(figure, list(row), mesh)
    mean = "" if values is None else _shown(_mean(list(values.values())))
    name = video_id if len(video_id) <= 40 else f"{video_id[:39]}…"
    number = f", temporal equivariance {mean}" if mean else ""
    figure.suptitle(f"{name}{number}", fontsize=TITLE + 1, color=INK, x=0.01, ha="left")
    class_legend(figure, classes, shown)
    return figure


def _similarity(panel: _Panel) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine similarity of all pairs, and where cells begin and end in seconds.

    Cells meet half way between centres; the outermost ones reach to the ends.
    """
    count = len(panel.feats_SD)
    drawn = np.unique(np.linspace(0, count - 1, min(count, MOST_CELLS)).round().astype(int))
    centres_S = panel.times_S3[drawn, 1]
    inner = (centres_S[1:] + centres_S[:-1]) / 2
    units_SD = unit_rows(panel.feats_SD[drawn])
    return np.concatenate([panel.span_seconds[:1], inner, panel.span_seconds[1:]]), (
        units_SD @ units_SD.T
    )


def _draw_panel(
    axes: Axes, panel: _Panel, edges: np.ndarray, similar_SS: np.ndarray, least: float
) -> QuadMesh:
    style_axes(
        axes,
        title=panel.title,
        x_label="time [s]",
        grid=False,
        title_pad=15 if panel.segments else 6,
    )
    mesh = axes.pcolormesh(edges, edges, similar_SS, vmin=least, vmax=1, cmap="viridis")
    axes.set(aspect="equal", xlim=panel.span_seconds, ylim=panel.span_seconds[::-1])
    axes.locator_params(nbins=6)
    if panel.segments:
        above = axes.inset_axes((0, 1 + GAP, 1, BAR))
        beside = axes.inset_axes((1 + GAP, 0, BAR, 1))
        ground_truth_bar(above, panel.segments, panel.span_seconds)
        ground_truth_bar(beside, panel.segments, panel.span_seconds, vertical=True)
    return mesh


def _add_scale(figure: Figure, axes: list[Axes], mesh: QuadMesh) -> None:
    bar = figure.colorbar(mesh, ax=axes, shrink=0.72, aspect=26, pad=0.02, extend="min")
    bar.set_label("cosine similarity", fontsize=LABEL, color=SOFT)
    bar.ax.tick_params(labelsize=TICK, labelcolor=SOFT, color=SOFT, length=2)
    bar.outline.set_visible(False)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _shown(value: float) -> str:
    return "too short" if math.isnan(value) else f"{value:.2f}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value

"""Draw the timeline of every test video as a PNG: what a head says, and the truth under it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from manifests import Progress

from ..exports.report import file_name
from ..probing.detections import DetectedVideo
from ..probing.probe_frames import ProbedVideo
from .colours import class_rgb
from .figure import INK, LABEL, LANE, LINE, SOFT, new_figure, shortened, style_axes, write_figure
from .timeline_page import shown_classes, shown_span

WIDTH_INCHES, LANE_INCHES, FRAME_INCHES = 10.0, 0.55, 0.85
BAR = 0.17  # height of the truth's bar under predictions, whose axis goes from 0 to 1
MAX_DETECTIONS = 100  # of a video, the best ones


def draw_timeline_figures(
    videos: Sequence[ProbedVideo | DetectedVideo],
    classes: Sequence[str],
    folder: Path | str,
) -> list[Path]:
    """Write `<video id>.png` for every test video of a probe.

    Args:
        videos: Of a head that predicts frames, or of one that predicts segments.
        classes: Names in id order.
        folder: Made if it does not exist.

    Returns:
        The files, in the order of the videos.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / f"{file_name(video.video_id)}.png" for video in videos]
    with Progress("draw", "videos", len(videos)) as progress:
        for video, path in zip(videos, paths, strict=True):
            draw_timeline(video, classes, path)
            progress.advance(1)
    return paths


def draw_timeline(
    video: ProbedVideo | DetectedVideo, classes: Sequence[str], path: Path | str
) -> None:
    """Write one timeline: a lane for each class that is annotated or that the head believes in.

    In a lane: a bar at the foot, and a shade, where the class is annotated. Above the bar, of a
    head that predicts frames, the probability of the class at the centre of each snippet, from 0 to
    1 with a dotted line at one half; of one that predicts segments, each segment as a line at the
    height of its score, as a share of the best score in the video.
    """
    if isinstance(video, ProbedVideo):
        shown, span = shown_classes(video), shown_span(video)
        said = f"{len(video.times_S3)} snippets"
    else:
        shown, span = _detected_classes(video, classes), _detected_span(video)
        said = f"{len(video.detections)} detections"
    figure = new_figure(WIDTH_INCHES, FRAME_INCHES + LANE_INCHES * max(len(shown), 1))
    lanes = figure.subplots(max(len(shown), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axes, index in zip(lanes, shown, strict=False):  # without a class, one empty lane
        _draw_truth(axes, video, index)
        if isinstance(video, ProbedVideo):
            _draw_curve(axes, video, index)
        else:
            _draw_segments(axes, video, classes, index)
        _name_lane(axes, classes[index])
    for axes in lanes:
        style_axes(axes, grid=False)
        axes.set(xlim=span, ylim=(-BAR, 1.04), facecolor=LANE)  # a line at 1 is whole
        axes.tick_params(left=False, labelleft=False, bottom=axes is lanes[-1])
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom" and axes is lanes[-1])
    title = (
        f"{video.video_id}    {span[1] - span[0]:.1f} s, {said}, "
        f"{len(video.segments)} annotated segments"
    )
    lanes[0].set_title(title, fontsize=LABEL, color=INK, loc="left")
    lanes[-1].set_xlabel("seconds", fontsize=LABEL, color=SOFT)
    write_figure(path, figure)


def _detected_classes(video: DetectedVideo, classes: Sequence[str]) -> list[int]:
    """Return the classes that are annotated, or found with half the best score or more."""
    best = max((found.score for found in video.detections), default=0.0)
    found = {d.label for d in video.detections if d.score >= best / 2}
    annotated = {class_index for _, _, class_index in video.segments}
    return sorted(annotated | {index for index, name in enumerate(classes) if name in found})


def _detected_span(video: DetectedVideo) -> tuple[float, float]:
    return 0.0, max([video.duration_seconds, *(end for _, end, _ in video.segments), 1e-3])


def _draw_truth(axes: Axes, video: ProbedVideo | DetectedVideo, index: int) -> None:
    for start, end, class_index in video.segments:
        if class_index == index:
            axes.axvspan(start, end, color=class_rgb(index), alpha=0.13, linewidth=0)
            axes.fill_between([start, end], -BAR, -0.02, color=class_rgb(index), linewidth=0)
    axes.axhline(0, color=LINE, linewidth=0.7)


def _draw_curve(axes: Axes, video: ProbedVideo, index: int) -> None:
    colour, seconds_S, scores_S = class_rgb(index), video.times_S3[:, 1], video.scores_SC[:, index]
    axes.axhline(0.5, color=SOFT, linewidth=0.7, linestyle=(0, (1, 3)))
    axes.fill_between(seconds_S, np.zeros(len(scores_S)), scores_S, color=colour, alpha=0.28, lw=0)
    axes.plot(seconds_S, scores_S, color=colour, linewidth=1.4)


def _draw_segments(axes: Axes, video: DetectedVideo, classes: Sequence[str], index: int) -> None:
    found = sorted(video.detections, key=lambda detection: -detection.score)[:MAX_DETECTIONS]
    for start, end, score, label in reversed(found):  # the best ones on top
        if label == classes[index] and score > 0:
            share = score / found[0].score
            axes.plot(
                [start, end],
                [share, share],
                color=class_rgb(index),
                alpha=0.25 + 0.75 * share,
                linewidth=2.5,
                solid_capstyle="butt",
            )


def _name_lane(axes: Axes, name: str) -> None:
    axes.text(
        -0.01,
        0.45,
        shortened(name),
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=LABEL,
        color=INK,
    )

"""How far the seconds that a tool gives to its rows are from the store's own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from manifests import StoreError, UsageError

from .request import ExportedVideo, ExportRequest

# float64 of the same sums in another order, over hours: 1e-9; files may hold 6 decimals.
TOLERANCE_SECONDS = 1e-5

LATE_SECONDS = 1.0  # containers may begin a little after 0; a part of a video begins anywhere

RowSeconds = Callable[[ExportedVideo], np.ndarray]


@dataclass(frozen=True, slots=True)
class Clock:
    """The largest difference between a tool's seconds and the store's, over all rows.

    Attributes:
        largest_seconds: That difference; 0 for a store without videos.
        video_id: Where it is.
        num_beyond: Videos in which it is more than half a stride.
    """

    largest_seconds: float
    video_id: str
    num_beyond: int


def centres_by_formula(request: ExportRequest) -> RowSeconds:
    """Return `t = (i * stride + offset) / fps` (ActionFormer, OpenTAD)."""
    stride, offset = request.stride, request.offset
    return lambda video: (np.arange(video.num_rows) * stride + offset) / video.fps


def left_edges(request: ExportRequest) -> RowSeconds:
    """Return `t = i * duration / S` (TGM, super-events, PDAN, MS-TCT)."""
    return lambda video: (
        np.arange(request.num_rows(video)) * video.duration_seconds / request.num_rows(video)
    )


def bin_centres(request: ExportRequest) -> RowSeconds:
    """Return `t = (i + 1/2) * duration / S`: rows are equal parts of the video (resized)."""
    return lambda video: (
        (np.arange(request.num_rows(video)) + 0.5)
        * video.duration_seconds
        / request.num_rows(video)
    )


def measure_clock(
    request: ExportRequest, tool: RowSeconds, truth: RowSeconds | None = None
) -> Clock:
    """Compare a tool's seconds with the store's on every row of every video.

    Args:
        request: The export.
        tool: The seconds by the tool's formula.
        truth: The seconds that the exported rows really stand for; NaN where a row stands for none;
            None: the seconds of the snippets' middles.

    Raises:
        UsageError: A video begins more than a second after 0: every one of these tools counts from
            0, and its segments too.
    """
    largest, worst, num_beyond = 0.0, "", 0
    for video in request.videos:
        _require_start(request, video)
        true_S = (truth or request.row_seconds)(video)
        off = float(np.nanmax(np.abs(tool(video) - true_S), initial=0.0))
        num_beyond += off > request.stride / video.fps / 2
        if off > largest or not worst:
            largest, worst = off, video.video_id
    return Clock(largest, worst, num_beyond)


def _require_start(request: ExportRequest, video: ExportedVideo) -> None:
    first_seconds = float(request.store.times(video.video_id)[0, 0])
    if first_seconds > LATE_SECONDS:
        raise UsageError(
            f"{request.format} takes every video to begin at 0, but the first row of "
            f"{video.video_id!r} is at {first_seconds:.3f} s; cut parts of videos into files of "
            "their own, extract those, and count their segments from 0"
        )


def require_formula(request: ExportRequest, clock: Clock) -> None:
    """Refuse a store whose rows a formula in frames would place more than half a stride away.

    Raises:
        UsageError: There is such a video.
    """
    if clock.num_beyond:
        raise UsageError(
            f"{request.format} takes a row's time to be (i * stride + offset) / fps, but in "
            f"{clock.num_beyond:,} of {len(request.videos):,} videos that is more than half a "
            f"stride away from the presentation times, most of all in {clock.video_id!r} "
            f"({clock.largest_seconds:.3f} s): their frame rate varies; extract with --fps, which "
            "samples at even times"
        )


def check_ends(
    request: ExportRequest,
    video: ExportedVideo,
    read: tuple[int, float, float],
    expected: tuple[int, float, float],
) -> None:
    """Check what a tool's loader got for a video: its rows, the seconds of the first and the last.

    Raises:
        StoreError: Another number of rows, or seconds more than `TOLERANCE_SECONDS` away.
    """
    if read[0] != expected[0] or not np.allclose(
        read[1:], expected[1:], rtol=0, atol=TOLERANCE_SECONDS
    ):
        raise StoreError(
            f"{request.format} would read {read[0]:,} rows from {read[1]:.6f} to {read[2]:.6f} s "
            f"of video {video.video_id!r}, but the store has {expected[0]:,} from "
            f"{expected[1]:.6f} to {expected[2]:.6f} s"
        )

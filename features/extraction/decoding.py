"""Decode a video once and put every frame where its snippets want it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from manifests import (
    SampledFrames,
    SnippetGrid,
    SourceVideo,
    VideoError,
    num_sampled_frames,
    sample_frames,
    scan_packets,
)
from synth import frame_batches

from .crops import Framing, cut_pictures

# Entered with a video's id while a decoder works on it, so that a watcher can tell when it hangs.
Noted = Callable[[str], AbstractContextManager[None]]

DURATION_SLACK_SECONDS = 1e-3  # tables made elsewhere round


@dataclass(frozen=True, slots=True)
class SnippetCut:
    """How videos become snippets: in time by grid and rate, in space by each of the framings."""

    grid: SnippetGrid
    fps: Fraction | None
    framings: tuple[Framing, ...]

    def num_snippets(self, video: SourceVideo) -> int:
        """Return the snippets of a video, from its row in the sources table alone.

        Sampled frames: the native ones from `first_frame` to `end_frame`, or, with `fps`, those of
        `num_sampled_frames` over the part of the file that is meant.
        """
        if self.fps is None:
            return self.grid.num_snippets(video.end_frame - video.first_frame)
        start, end = _part_seconds(video)
        return self.grid.num_snippets(num_sampled_frames(end - start, self.fps))


def sampled_frames(video: SourceVideo, fps: Fraction | None) -> SampledFrames:
    """Scan the packets of a video and choose the frames that its snippets are cut from.

    Raises:
        VideoError: The file cannot be read, or is not the one that was probed.
    """
    scan = scan_packets(video.path)
    difference_seconds = abs(scan.duration_seconds - video.duration_seconds)
    if len(scan) != video.num_frames or not difference_seconds <= DURATION_SLACK_SECONDS:
        raise VideoError(
            video.path,
            f"changed since it was probed ({len(scan):,} frames in {scan.duration_seconds:g} s, "
            f"then {video.num_frames:,} in {video.duration_seconds:g} s)",
        )
    if not 0 <= video.first_frame < video.end_frame <= len(scan):
        raise VideoError(
            video.path,
            f"has {len(scan):,} frames, so its part cannot be {video.first_frame:,} to "
            f"{video.end_frame:,}",
        )
    pts_seconds_N = scan.times_N[video.first_frame : video.end_frame]
    start, end = _part_seconds(video)
    if fps is None and video.end_frame < len(scan):
        end = float(scan.times_N[video.end_frame])  # the last frame presents until the next one
    return sample_frames(pts_seconds_N, end, fps, start, video.first_frame)


def fill_snippets(
    video: SourceVideo,
    frames: SampledFrames,
    cut: SnippetCut,
    slot: Callable[[int], Sequence[np.ndarray]],
    complete: Callable[[int], None],
    noted: Noted = lambda video_id: nullcontext(),
) -> None:
    """Decode a video once, in order, and copy every frame into all snippets that show it.

    Args:
        video: What to decode.
        frames: Of `sampled_frames`.
        cut: How snippets are cut.
        slot: Gives the places of snippet `i`, uint8 `(P, T, H, W, 3)`, `P` pictures of each frame,
            for every framing.
        complete: Told when all frames of snippet `i` are in place, in ascending order of `i`.
        noted: Entered whenever the decoder works.

    Raises:
        VideoError: The file is damaged, or not the one that was probed.
    """
    frame_index_SL = frames.frame_index_N[cut.grid.frame_positions(len(frames))]
    length = cut.grid.snippet_len
    # Uses of a frame: places `snippet * length + position`, grouped by frame, ascending.
    places = np.argsort(frame_index_SL, axis=None, kind="stable")
    wanted_U, first_U = np.unique(frame_index_SL.ravel()[places], return_index=True)
    bounds = np.append(first_U, len(places)).tolist()
    views_F = [framing.views(video.height, video.width) for framing in cut.framings]
    used, filled = 0, 0
    for indices, batch_THWC in _noted_batches(video, wanted_U, noted):
        for frame_HWC in batch_THWC:
            pictures_F = [cut_pictures(frame_HWC, views) for views in views_F]
            for place in places[bounds[used] : bounds[used + 1]].tolist():
                snippet, position = divmod(place, length)
                for slot_PTHWC, pictures in zip(slot(snippet), pictures_F, strict=True):
                    for slot_THWC, picture_HWC in zip(slot_PTHWC, pictures, strict=True):
                        slot_THWC[position] = picture_HWC
            used += 1
        # The last snippet waits until the decoder has found nothing wrong at the end either.
        while filled < len(frame_index_SL) - 1 and frame_index_SL[filled, -1] <= indices[-1]:
            complete(filled)
            filled += 1
    for snippet in range(filled, len(frame_index_SL)):
        complete(snippet)


def _noted_batches(
    video: SourceVideo, wanted_U: np.ndarray, noted: Noted
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what `frame_batches` does; only its own work is noted, not that of who takes them."""
    batches = frame_batches(video, wanted_U)
    while True:
        with noted(video.video_id):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _part_seconds(video: SourceVideo) -> tuple[float, float]:
    """Return the part of the file that is meant, in seconds of the container."""
    start = max(video.start_seconds or 0.0, 0.0)
    end = video.duration_seconds if video.end_seconds is None else video.end_seconds
    return start, min(end, video.duration_seconds)

"""Pseudo action localization: a region of an action video is pasted into a background video.

A composed video is `J` clips of equally many frames. Clips `s..e` of the background, counted from
1, become `beta * action + (1 - beta) * background`; at least one clip of background stays on each
side. A pair of such videos, one action before two backgrounds, is a sample.

Source: PAL (Zhang et al., "Unsupervised Pre-training for Temporal Action Localization Tasks", CVPR
2022), section 3.2 (composition) and 4.1 (lengths, strides).
"""

from collections.abc import Sequence

import numpy as np

from .labels import LabelTrack, add_tracks, no_weights
from .mixup import blend, check_frame_sizes


def draw_region(rng: np.random.Generator, num_clips: int, most: int) -> tuple[int, int]:
    """Draw the clips `s..e` that the action takes, counted from 1.

    `L = e - s + 1` is uniform in `[1, min(J - 2, most)]`, then `s` in `[2, J - L]`.

    Args:
        rng: The row's generator.
        num_clips: `J`, clips of the composed video.
        most: Clips that the action video can fill.

    Raises:
        ValueError: No room for a region: `J < 3` or `most < 1`.
    """
    longest = min(num_clips - 2, most)
    if longest < 1:
        raise ValueError(
            f"a region needs num_clips >= 3 and an action of at least one clip, got {num_clips} "
            f"and {most}"
        )
    length = int(rng.integers(1, longest + 1))
    s = int(rng.integers(2, num_clips - length + 1))
    return s, s + length - 1


def background_starts(first_frame: int, end_frame: int, num_clips: int, clip_len: int) -> list[int]:
    """Spread `num_clips` clips uniformly over the frames `first_frame..end_frame` (half-open).

    The first clip starts at `first_frame`, the last one ends at `end_frame`; those between start at
    the nearest frame. In a short video they overlap.

    # 0..20, three clips of 8: 0, 6, 12

    Returns:
        The first frame of each clip; a clip is `clip_len` consecutive frames.

    Raises:
        ValueError: Fewer than two clips, or a range shorter than one clip.
    """
    if num_clips < 2 or clip_len < 1:
        raise ValueError(
            f"a background needs at least two clips of at least one frame, got {num_clips} of "
            f"{clip_len}"
        )
    spare = end_frame - first_frame - clip_len
    if spare < 0:
        raise ValueError(
            f"a background needs at least one clip of {clip_len} frames, got "
            f"{end_frame - first_frame} frames"
        )
    gaps = num_clips - 1
    return [first_frame + (2 * j * spare + gaps) // (2 * gaps) for j in range(num_clips)]


def region_stride(num_frames: int, region_frames: int, stride: int) -> int:
    """Return `stride`, or the largest smaller one at which the region fits into the video.

    Source: PAL, section 3.2 (scale-aware sampling).

    # 20 frames, a region of 8 drawn at stride 4: 2 (it spans 7 * 2 + 1 = 15)

    Args:
        num_frames: Source frames of the action video.
        region_frames: Sampled frames of the region.
        stride: The stride drawn.

    Raises:
        ValueError: A stride below 1, or a video too short even for stride 1.
    """
    if stride < 1:
        raise ValueError(f"the stride of a region must be >= 1, got {stride}")
    if not 1 <= region_frames <= num_frames:
        raise ValueError(
            f"a region must have 1..{num_frames} frames, the length of its video, got "
            f"{region_frames}"
        )
    if region_frames == 1:
        return stride
    return min(stride, (num_frames - 1) // (region_frames - 1))


def check_paste(num_background: int, num_action: int, s: int, e: int, beta: float) -> None:
    """Raise ValueError unless `num_action` frames fit clips `s..e` of the background."""
    if s > e:
        raise ValueError(f"a region must have s <= e, got s={s} and e={e}")
    if s < 2:
        raise ValueError(f"a region must leave a clip of background before it (s >= 2), got s={s}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    length = e - s + 1
    if num_action < length or num_action % length:
        raise ValueError(f"the action must fill {length} whole clips, got {num_action} frames")
    clip_len = num_action // length
    if num_background % clip_len:
        raise ValueError(
            f"the background must be whole clips of {clip_len} frames, got {num_background} frames"
        )
    num_clips = num_background // clip_len
    if e > num_clips - 1:
        raise ValueError(
            f"a region must leave a clip of background after it (e <= {num_clips - 1}), got e={e}"
        )


def _place(num_action: int, s: int, e: int) -> slice:
    """Return the frames of the composed video that show the action."""
    start = (s - 1) * (num_action // (e - s + 1))
    return slice(start, start + num_action)


def paste_frames(
    background_THWC: np.ndarray, action_THWC: np.ndarray, s: int, e: int, beta: float
) -> np.ndarray:
    """Blend the action into clips `s..e` of the background; uint8, rounded to nearest.

    Args:
        background_THWC: uint8, `J` clips.
        action_THWC: uint8, `e - s + 1` clips of the same length and size.
        s, e: First and last clip replaced, counted from 1.
        beta: Weight of the action.

    Returns:
        A new array; everything outside the region is the background's.

    Raises:
        ValueError: See `check_paste`; or frames of different sizes.
    """
    check_paste(len(background_THWC), len(action_THWC), s, e, beta)
    check_frame_sizes(background_THWC, action_THWC)
    composed_THWC = background_THWC.copy()
    for frame, action in zip(
        composed_THWC[_place(len(action_THWC), s, e)], action_THWC, strict=True
    ):
        blend(action, frame, beta, out=frame)
    return composed_THWC


def paste_labels(
    background_track: LabelTrack, action_track: LabelTrack, s: int, e: int, beta: float
) -> LabelTrack:
    """Mix the labels of clips `s..e` with weight `beta` of the action; PAL itself uses none.

    Raises:
        ValueError: See `check_paste`.
    """
    num_background, num_action = background_track.num_frames, action_track.num_frames
    check_paste(num_background, num_action, s, e, beta)
    place = _place(num_action, s, e)
    index_T = np.clip(np.arange(num_background) - place.start, 0, num_action - 1)
    weight_T = np.zeros(num_background)
    weight_T[place] = beta
    return add_tracks(
        action_track.take(index_T).scale(weight_T), background_track.scale(1.0 - weight_T)
    )


def concat_frames(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Join clips `(T, H, W, 3)` of one frame size in time.

    Raises:
        ValueError: No clip, or frames of different sizes.
    """
    _check_any(clips)
    for clip_THWC in clips:
        check_frame_sizes(clips[0], clip_THWC)
    return np.concatenate(clips)


def concat_labels(tracks: Sequence[LabelTrack]) -> LabelTrack:
    """Join the label tracks of clips in time.

    Raises:
        ValueError: No track.
    """
    _check_any(tracks)
    ids = np.unique(np.concatenate([track.class_ids for track in tracks]))
    weights_CT = no_weights(len(ids), sum(track.num_frames for track in tracks))
    start = 0
    for track in tracks:
        rows = np.searchsorted(ids, track.class_ids)
        weights_CT[rows, start : start + track.num_frames] = track.weights_CT
        start += track.num_frames
    return LabelTrack(ids, weights_CT, all(track.exclusive for track in tracks))


def _check_any(clips: Sequence[object]) -> None:
    if not clips:
        raise ValueError("joining needs at least one clip, got none")

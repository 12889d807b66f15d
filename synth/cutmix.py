"""Volume CutMix: a vertical plane splits the frame between two clips, and moves over time.

Source: SSDet (AAAI 2023), Eq. 4-5, Fig. 6 and Appendix. The share of clip 1 in column `x = 0..W-1`
is `M[t](x) = clip01((w_t + delta - (x + 1/2)) / (2 delta))`; `w_t = W` and `w_t = 0` show one clip.
"""

import numpy as np

from .labels import LabelTrack, add_tracks
from .mixup import (
    Overlap,
    aligned_index,
    check_frame_sizes,
    check_lengths,
    mix_tracks,
    mixing_weights,
)

TIE = 1e-7  # far above float error, far below the distance of any other value from a tie


def round_half_up(x: np.ndarray | float) -> np.ndarray:
    """Round to nearest, ties up: `floor(x + 1/2)` as int64, the rounding of every recipe."""
    return np.floor(np.asarray(x) + (0.5 + TIE)).astype(np.int64)


def column_mask(width: int, plane: int, delta: float) -> np.ndarray:
    """Return `M(x)`, the share of clip 1 in each column, `(W,)` float64.

    Raises:
        ValueError: A negative ramp.
    """
    if not 0 <= delta < np.inf:
        raise ValueError(f"delta must be >= 0 and finite, got {delta}")
    if plane in (0, width):
        return np.full(width, float(plane == width))
    distance = plane - (np.arange(width) + 0.5)
    if delta == 0:
        return (distance > 0).astype(np.float64)
    return np.clip((distance + delta) / (2 * delta), 0.0, 1.0)


def paste_columns(
    left_HWC: np.ndarray,
    right_HWC: np.ndarray,
    mask_W: np.ndarray,
    out: np.ndarray,
    slide: int = 0,
) -> None:
    """Write `M left + (1 - M) right` into `out` (uint8, rounded to nearest).

    `left` is shown at columns `x + slide`, `right` at columns `x - slide`. Only the columns of the
    ramp are computed; all others are copies.
    """
    width = len(mask_W)
    start = int(np.argmax(mask_W < 1.0)) if mask_W[-1] < 1.0 else width
    stop = int(np.argmax(mask_W == 0.0)) if mask_W[-1] == 0.0 else width
    out[:, :start] = _columns(left_HWC, slide, start + slide)
    out[:, stop:] = _columns(right_HWC, stop - slide, width - slide)
    if start < stop:
        mask = mask_W[start:stop, None]
        ramp = mask * _columns(left_HWC, start + slide, stop + slide)
        ramp += (1.0 - mask) * _columns(right_HWC, start - slide, stop - slide)
        out[:, start:stop] = np.floor(ramp + (0.5 + TIE))


def _columns(frame_HWC: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return columns `start..stop`; rounding may ask for one beyond the edge, which repeats it."""
    width = frame_HWC.shape[1]
    if start >= 0 and stop <= width:
        return frame_HWC[:, start:stop]
    return frame_HWC[:, np.clip(np.arange(start, stop), 0, width - 1)]


def window_masks(width: int, overlap: Overlap, delta: float) -> np.ndarray:
    """Return the masks of the transient window: the plane stands at `round(W a[t])`, `(T, W)`."""
    planes_T = round_half_up(width * mixing_weights(overlap))
    return np.stack([column_mask(width, int(plane), delta) for plane in planes_T])


def cutmix_window_frames(
    frames1_THWC: np.ndarray, frames2_THWC: np.ndarray, overlap: Overlap, delta: float
) -> np.ndarray:
    """Transient Window: clip 1 left of a plane that sweeps the frame, clip 2 right of it.

    Raises:
        ValueError: Clips shorter than `n1` and `n2`, or a negative ramp.
    """
    check_lengths(overlap, len(frames1_THWC), len(frames2_THWC))
    check_frame_sizes(frames1_THWC, frames2_THWC)
    index1_T, index2_T = aligned_index(overlap)
    masks_TW = window_masks(frames1_THWC.shape[2], overlap, delta)
    mixed_THWC = np.empty((overlap.num_frames, *frames1_THWC.shape[1:]), np.uint8)
    for t, mask_W in enumerate(masks_TW):
        paste_columns(frames1_THWC[index1_T[t]], frames2_THWC[index2_T[t]], mask_W, mixed_THWC[t])
    return mixed_THWC


def cutmix_window_labels(
    track1: LabelTrack, track2: LabelTrack, overlap: Overlap, delta: float, width: int
) -> LabelTrack:
    """Mix the labels with the shares of the frame, `|M[t]|` and `1 - |M[t]|`."""
    check_lengths(overlap, track1.num_frames, track2.num_frames)
    return mix_tracks(track1, track2, overlap, window_masks(width, overlap, delta).mean(axis=1))


def view_slides(num_frames: int, width: int, delta: float) -> np.ndarray:
    """Return `p_t = round((W/2 - delta) (t-1)/(T-1))`, the columns each half slides, `(T,)` int64.

    Raises:
        ValueError: A ramp that does not fit into the frame.
    """
    check_view_delta(width, delta)
    steps_T = np.arange(num_frames) / max(num_frames - 1, 1)
    return round_half_up((width / 2 - delta) * steps_T)


def cutmix_view_frames(
    frames1_THWC: np.ndarray, frames2_THWC: np.ndarray, delta: float
) -> np.ndarray:
    """Transient View: the plane stands still; each clip slides inside its half of the frame.

    With `p_t` of `view_slides` the left half shows clip 1 at columns `x + p_t` and the right half
    clip 2 at columns `x - p_t`, so each half sweeps its clip's whole width.

    Raises:
        ValueError: Clips of different lengths, or a negative ramp.
    """
    num_frames, width = _same_length(len(frames1_THWC), len(frames2_THWC)), frames1_THWC.shape[2]
    check_frame_sizes(frames1_THWC, frames2_THWC)
    slide_T = view_slides(num_frames, width, delta)
    mask_W = column_mask(width, int(round_half_up(width / 2)), delta)
    mixed_THWC = np.empty_like(frames1_THWC)
    for t, slide in enumerate(slide_T.tolist()):
        paste_columns(frames1_THWC[t], frames2_THWC[t], mask_W, mixed_THWC[t], slide)
    return mixed_THWC


def check_view_delta(width: int, delta: float) -> None:
    """Raise ValueError unless the ramp fits into the frame, so that both halves slide inwards."""
    if not 0 <= delta <= width / 2:
        raise ValueError(f"delta must be in [0, {width / 2}], half the width, got {delta}")


def cutmix_view_labels(track1: LabelTrack, track2: LabelTrack) -> LabelTrack:
    """Label both clips with weight 0.5 throughout."""
    half_T = np.full(_same_length(track1.num_frames, track2.num_frames), 0.5)
    return add_tracks(track1.scale(half_T), track2.scale(half_T))


def _same_length(length1: int, length2: int) -> int:
    if length1 != length2:
        raise ValueError(f"both clips must be equally long, got {length1} and {length2} frames")
    return length1

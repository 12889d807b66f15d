"""Volume MixUp: one action dissolves into another over time, and the labels with it.

Source: SSDet (AAAI 2023), Eq. 2-3, Fig. 5 and Fig. A.1. Clip 1 has `n1` frames, clip 2 has `n2` and
starts `r` frames later: `VM[t] = a[t] v1[t] + (1 - a[t]) v2[t - r]`. Frames are counted from 1.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from .labels import LabelTrack, add_tracks

Boundary = Literal["smooth", "hard"]
Scenarios = Literal["both", "first", "second"]
ROUND_TIES_UP = 1e-3  # cv2 rounds ties to even; weights are fractions of at most ~100 frames


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two clips lie in time: clip 2 of `n2` frames starts `r` frames after clip 1 of `n1`."""

    n1: int
    n2: int
    r: int

    def __post_init__(self) -> None:
        if not (self.n1 >= 2 and self.n2 >= 1 and 1 <= self.r < self.n1):
            raise ValueError(f"mixing needs n1 >= 2, n2 >= 1 and 1 <= r < n1, got {self}")

    @property
    def num_frames(self) -> int:
        """Length `T` of the mixed clip."""
        return max(self.n1, self.n2 + self.r)

    @property
    def is_first_scenario(self) -> bool:
        """Whether clip 1 gives way to clip 2 for good (otherwise clip 1 returns)."""
        return self.n2 + self.r >= self.n1


def draw_overlap(
    rng: np.random.Generator,
    num_frames: int,
    min_overlap: float = 0.25,
    scenarios: Scenarios = "both",
) -> Overlap:
    """Draw `n1`, `n2` and `r` so that the mixed clip has exactly `num_frames` frames.

    The overlap is at least `ceil(min_overlap * T)` frames. Scenario 1: `r` uniform, then `n1`
    uniform, `n2 = T - r`. Scenario 2: `n1 = T`, `n2` uniform, then `r` uniform, `r + n2 < T`.
    """
    shortest = max(1, int(np.ceil(min_overlap * num_frames)))
    first = scenarios == "first" or (scenarios == "both" and rng.random() < 0.5)
    if first:
        r = int(rng.integers(1, num_frames - shortest + 1))
        n1 = int(rng.integers(r + shortest, num_frames + 1))
        return Overlap(n1, num_frames - r, r)
    n2 = int(rng.integers(max(2, shortest), num_frames - 1))
    r = int(rng.integers(1, num_frames - n2))
    return Overlap(num_frames, n2, r)


def mixing_weights(overlap: Overlap, boundary: Boundary = "smooth") -> np.ndarray:
    """Return the weight `a[t]` of clip 1 on every frame, `(T,)` float64.

    Source: SSDet Eq. 2-3. Scenario 1: `clip01((n1 - t) / (n1 - r))`; scenario 2:
    `clip01(|n2 + 2r - 2t| / n2)`. "hard" (ablation): 0.5 on the whole overlap, 1 or 0 outside.

    # n1=4, n2=4, r=2: a = 1 1 1/2 0 0 0
    """
    n1, n2, r = overlap.n1, overlap.n2, overlap.r
    t = np.arange(1, overlap.num_frames + 1)
    if boundary == "hard":
        both = (t > r) & (t <= min(n1, n2 + r))
        return np.where(both, 0.5, np.where((t > r) & overlap.is_first_scenario, 0.0, 1.0))
    if overlap.is_first_scenario:
        return np.clip((n1 - t) / (n1 - r), 0.0, 1.0)
    return np.clip(np.abs(n2 + 2 * r - 2 * t) / n2, 0.0, 1.0)


def aligned_index(overlap: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """Return, from 0, the frame of clip 1 and of clip 2 that shows on each frame.

    Where a clip has no frame its weight is 0 and the index is only a stand-in inside the clip.
    """
    t = np.arange(overlap.num_frames)
    return np.minimum(t, overlap.n1 - 1), np.clip(t - overlap.r, 0, overlap.n2 - 1)


def check_lengths(overlap: Overlap, length1: int, length2: int) -> None:
    """Raise ValueError unless the clips have the frames that the overlap reads."""
    if length1 < overlap.n1 or length2 < overlap.n2:
        raise ValueError(
            f"mixing reads {overlap.n1} and {overlap.n2} frames, got clips of {length1} and "
            f"{length2}"
        )


def check_frame_sizes(frames1_THWC: np.ndarray, frames2_THWC: np.ndarray) -> None:
    """Raise ValueError unless the frames of both clips have one size."""
    if frames1_THWC.shape[1:] != frames2_THWC.shape[1:]:
        raise ValueError(
            f"both clips must have one size, got frames {frames1_THWC.shape[1:]} and "
            f"{frames2_THWC.shape[1:]}"
        )


def blend(frame1: np.ndarray, frame2: np.ndarray, weight: float, out: np.ndarray) -> None:
    """Write `floor(weight * frame1 + (1 - weight) * frame2 + 1/2)` into `out` (uint8)."""
    if weight == 1.0:
        np.copyto(out, frame1)
    elif weight == 0.0:
        np.copyto(out, frame2)
    else:
        cv2.addWeighted(frame1, weight, frame2, 1.0 - weight, ROUND_TIES_UP, dst=out)


def mixup_frames(
    frames1_THWC: np.ndarray,
    frames2_THWC: np.ndarray,
    overlap: Overlap,
    boundary: Boundary = "smooth",
) -> np.ndarray:
    """Dissolve clip 1 into clip 2 (and back, in scenario 2); uint8, rounded to nearest.

    Raises:
        ValueError: Clips shorter than `n1` and `n2`, or of different sizes.
    """
    check_lengths(overlap, len(frames1_THWC), len(frames2_THWC))
    check_frame_sizes(frames1_THWC, frames2_THWC)
    index1_T, index2_T = aligned_index(overlap)
    mixed_THWC = np.empty((overlap.num_frames, *frames1_THWC.shape[1:]), np.uint8)
    for t, weight in enumerate(mixing_weights(overlap, boundary).tolist()):
        blend(frames1_THWC[index1_T[t]], frames2_THWC[index2_T[t]], weight, mixed_THWC[t])
    return mixed_THWC


def mixup_labels(
    track1: LabelTrack, track2: LabelTrack, overlap: Overlap, boundary: Boundary = "smooth"
) -> LabelTrack:
    """Mix the labels with the same weights `a[t]` and `1 - a[t]`."""
    check_lengths(overlap, track1.num_frames, track2.num_frames)
    return mix_tracks(track1, track2, overlap, mixing_weights(overlap, boundary))


def mix_tracks(
    track1: LabelTrack, track2: LabelTrack, overlap: Overlap, weight_T: np.ndarray
) -> LabelTrack:
    """Add the tracks of two overlapping clips, weighted by `weight_T` and `1 - weight_T`."""
    check_lengths(overlap, track1.num_frames, track2.num_frames)
    index1_T, index2_T = aligned_index(overlap)
    return add_tracks(
        track1.take(index1_T).scale(weight_T), track2.take(index2_T).scale(1.0 - weight_T)
    )

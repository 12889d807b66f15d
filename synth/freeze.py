"""Volume Freeze: one frame stays while the action should go on; the frozen frames are background.

Source: SSDet (AAAI 2023), Eq. 1 and Fig. 4. `VF(v) = concat(v[1:r-1], v[r] m times, v[r+1:n-m+1])`;
with several segments the operation is applied to disjoint, ordered intervals (ablation).
Frames are counted from 1, as in the paper.
"""

from collections.abc import Sequence

import numpy as np

from .labels import LabelTrack

Intervals = Sequence[tuple[int, int]]


def draw_freeze(
    rng: np.random.Generator, num_frames: int, segments: int = 1
) -> list[tuple[int, int]]:
    """Draw the frozen intervals `(r, m)` of a clip of `num_frames`.

    One segment: `r` uniform in [1, n-1], then `m` uniform in [2, n-r+1]. Several: the same inside
    each of `segments` equal parts of the clip, so that they are disjoint and ordered.
    """
    intervals = []
    for part in range(segments):
        first = num_frames * part // segments + 1
        last = num_frames * (part + 1) // segments
        r = int(rng.integers(first, last))
        m = int(rng.integers(2, last - r + 2))
        intervals.append((r, m))
    return intervals


def frozen_index(num_frames: int, intervals: Intervals) -> tuple[np.ndarray, np.ndarray]:
    """Return for each output frame its source frame, from 0, and whether it is frozen.

    # n=6, r=2, m=3: source 0 1 1 1 2 3, frozen - x x x - -

    Raises:
        ValueError: Intervals that do not lie inside the clip, or are not disjoint and ordered.
    """
    index_T = np.arange(num_frames)
    frozen_T = np.zeros(num_frames, bool)
    free = 1
    for r, m in intervals:
        if not (r >= free and m >= 2 and r + m - 1 <= num_frames):
            raise ValueError(
                f"frozen intervals (r, m) must be disjoint, ordered, m >= 2 and inside "
                f"1..{num_frames}, got {list(intervals)}"
            )
        free = r + m
        start = r - 1
        shifted = np.arange(num_frames)
        shifted[start : start + m] = start
        shifted[start + m :] -= m - 1
        index_T = index_T[shifted]
        frozen_T[start : start + m] = True
    return index_T, frozen_T


def freeze_frames(frames_THWC: np.ndarray, intervals: Intervals) -> np.ndarray:
    """Return the clip with frame `r` repeated `m` times; its length stays, the overflow drops."""
    return frames_THWC[frozen_index(len(frames_THWC), intervals)[0]]


def freeze_labels(track: LabelTrack, intervals: Intervals) -> LabelTrack:
    """Return hard labels: background on the `m` frozen frames, the original label elsewhere."""
    index_T, frozen_T = frozen_index(track.num_frames, intervals)
    return track.take(index_T).scale(np.where(frozen_T, 0.0, 1.0))

"""Slow, literal oracles of the synthesis formulas: frames from 1, exact fractions, plain loops.

Nothing here imports `synth`. A clip is a function-like list of frames addressed from 1; a label is
a dict from class id to an exact weight. Reading a frame that a clip does not have is an IndexError.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

HALF = Fraction(1, 2)


def nearest(x: Fraction) -> int:
    """Return `floor(x + 1/2)`, exactly."""
    return floor(x + HALF)


def clip01(x: Fraction) -> Fraction:
    """Clamp to [0, 1]."""
    return min(max(x, Fraction(0)), Fraction(1))


def frame(clip: Sequence[np.ndarray], t: int) -> np.ndarray:
    """Return frame `t`, counted from 1."""
    if not 1 <= t <= len(clip):
        raise IndexError(f"frame {t} of a clip of {len(clip)}")
    return clip[t - 1]


def mixed_pixels(left: np.ndarray, right: np.ndarray, weight: Fraction) -> np.ndarray:
    """Return `floor(weight * left + (1 - weight) * right + 1/2)` in whole numbers only."""
    p, q = weight.numerator, weight.denominator
    doubled = 2 * (p * left.astype(np.int64) + (q - p) * right.astype(np.int64)) + q
    return doubled // (2 * q)


def freeze_order(n: int, r: int, m: int) -> list[int]:
    """Return Eq. 1 literally: `concat(1..r-1, r repeated m times, r+1..n-m+1)`."""
    return [*range(1, r), *[r] * m, *range(r + 1, n - m + 2)]


def mixing_weight(t: int, n1: int, n2: int, r: int, boundary: str = "smooth") -> Fraction:
    """Return `a[t]` of Eq. 2-3, or of the hard ablation."""
    if boundary == "hard":
        if r + 1 <= t <= min(n1, n2 + r):
            return HALF
        in_second_only = t > r and t <= n2 + r
        return Fraction(0) if in_second_only else Fraction(1)
    if n2 + r >= n1:
        return clip01(Fraction(n1 - t, n1 - r))
    return clip01(Fraction(abs(n2 + 2 * r - 2 * t), n2))


def mix_labels(
    labels1: Sequence[dict], labels2: Sequence[dict], weights: Sequence[Fraction], r: int
) -> list[dict]:
    """Mix per-frame labels with `weights[t-1]`; clip 2 is shifted by `r`; unread at weight 0."""
    mixed = []
    for t, weight in enumerate(weights, start=1):
        row: dict[int, Fraction] = {}
        if weight > 0:
            for class_id, value in frame(labels1, t).items():
                row[class_id] = row.get(class_id, Fraction(0)) + weight * value
        if weight < 1:
            for class_id, value in frame(labels2, t - r).items():
                row[class_id] = row.get(class_id, Fraction(0)) + (1 - weight) * value
        mixed.append(row)
    return mixed


def mixup(
    v1: Sequence[np.ndarray],
    v2: Sequence[np.ndarray],
    n1: int,
    n2: int,
    r: int,
    boundary: str = "smooth",
) -> np.ndarray:
    """Return `VM[t] = a[t] v1[t] + (1 - a[t]) v2[t-r]` for `t = 1..max(n1, n2 + r)`."""
    mixed = []
    for t in range(1, max(n1, n2 + r) + 1):
        a = mixing_weight(t, n1, n2, r, boundary)
        if a == 1:
            mixed.append(frame(v1[:n1], t).astype(np.int64))
        elif a == 0:
            mixed.append(frame(v2[:n2], t - r).astype(np.int64))
        else:
            mixed.append(mixed_pixels(frame(v1[:n1], t), frame(v2[:n2], t - r), a))
    return np.stack(mixed)


def mask(width: int, plane: int, delta: Fraction) -> list[Fraction]:
    """Return Eq. 5's ramp per column, with the two special planes."""
    if plane == width:
        return [Fraction(1)] * width
    if plane == 0:
        return [Fraction(0)] * width
    return [clip01((plane + delta - (x + HALF)) / (2 * delta)) for x in range(width)]


def paste(
    left: np.ndarray, right: np.ndarray, columns: Sequence[Fraction], slide: int = 0
) -> np.ndarray:
    """Return `M left(x + slide) + (1 - M) right(x - slide)`, column by column."""
    width = len(columns)
    out = np.empty(left.shape, np.int64)
    for x, weight in enumerate(columns):
        # A rounded slide may ask for the column one beyond the edge: the edge is shown again.
        x1, x2 = min(x + slide, width - 1), max(x - slide, 0)
        if weight == 1:
            out[:, x] = left[:, x1]
        elif weight == 0:
            out[:, x] = right[:, x2]
        else:
            out[:, x] = mixed_pixels(left[:, x1], right[:, x2], weight)
    return out


def window_planes(width: int, n1: int, n2: int, r: int) -> list[int]:
    """Return `w_t = round(W a[t])`."""
    num_frames = max(n1, n2 + r)
    return [nearest(width * mixing_weight(t, n1, n2, r)) for t in range(1, num_frames + 1)]


def cutmix_window(
    v1: Sequence[np.ndarray],
    v2: Sequence[np.ndarray],
    n1: int,
    n2: int,
    r: int,
    delta: Fraction,
) -> tuple[np.ndarray, list[Fraction]]:
    """Return the frames of the transient window and `|M[t]|`."""
    width = v1[0].shape[1]
    frames, shares = [], []
    for t, plane in enumerate(window_planes(width, n1, n2, r), start=1):
        columns = mask(width, plane, delta)
        if plane == width:
            frames.append(frame(v1[:n1], t).astype(np.int64))
        elif plane == 0:
            frames.append(frame(v2[:n2], t - r).astype(np.int64))
        else:
            frames.append(paste(frame(v1[:n1], t), frame(v2[:n2], t - r), columns))
        shares.append(sum(columns, Fraction(0)) / width)
    return np.stack(frames), shares


def view_slide(t: int, num_frames: int, width: int, delta: Fraction) -> int:
    """Return `p_t = round((W/2 - delta)(t-1)/(T-1))`."""
    return nearest((Fraction(width, 2) - delta) * Fraction(t - 1, num_frames - 1))


def cutmix_view(v1: Sequence[np.ndarray], v2: Sequence[np.ndarray], delta: Fraction) -> np.ndarray:
    """Return the frames of the transient view."""
    num_frames, width = len(v1), v1[0].shape[1]
    columns = mask(width, nearest(Fraction(width, 2)), delta)
    return np.stack(
        [
            paste(frame(v1, t), frame(v2, t), columns, view_slide(t, num_frames, width, delta))
            for t in range(1, num_frames + 1)
        ]
    )


def all_overlaps(num_frames: int) -> list[tuple[int, int, int]]:
    """Return every `(n1, n2, r)` that section 2 allows for a sample of `num_frames`."""
    at_least = -(-num_frames // 4)
    found = []
    for r in range(1, num_frames):
        for n1 in range(r + 1, num_frames + 1):
            if n1 - r >= at_least:
                found.append((n1, num_frames - r, r))
    for n2 in range(max(2, at_least), num_frames):
        found += [(num_frames, n2, r) for r in range(1, num_frames - n2)]
    return found


def random_clip(seed: int, num_frames: int, height: int = 3, width: int = 8) -> np.ndarray:
    """Return a read-only uint8 clip `(T, H, W, 3)` of noise."""
    clip = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3))
    frames = clip.astype(np.uint8)
    frames.flags.writeable = False
    return frames

"""Slow, literal oracles of section 6 (PAL): clips and frames from 1, exact fractions, plain loops.

Nothing here imports `synth`.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from oracle_synthesis import frame, mixed_pixels, nearest


def clip_of(t: int, clip_len: int) -> int:
    """Return the clip of frame `t`, both counted from 1."""
    clip = 1
    while t > clip * clip_len:
        clip += 1
    return clip


def paste(
    background: Sequence[np.ndarray],
    action: Sequence[np.ndarray],
    s: int,
    e: int,
    beta: Fraction,
    clip_len: int,
) -> np.ndarray:
    """Return the frames: `beta action + (1 - beta) background` in clips `s..e`."""
    composed, shown = [], 0
    for t in range(1, len(background) + 1):
        if s <= clip_of(t, clip_len) <= e:
            shown += 1
            composed.append(mixed_pixels(frame(action, shown), frame(background, t), beta))
        else:
            composed.append(frame(background, t).astype(np.int64))
    assert shown == len(action)
    return np.stack(composed)


def paste_labels(
    background: Sequence[dict],
    action: Sequence[dict],
    s: int,
    e: int,
    beta: Fraction,
    clip_len: int,
) -> list[dict]:
    """Return per-frame dicts of exact weights."""
    mixed, shown = [], 0
    for t in range(1, len(background) + 1):
        row: dict[int, Fraction] = {}
        inside = s <= clip_of(t, clip_len) <= e
        for class_id, value in background[t - 1].items():
            row[class_id] = (1 - beta if inside else 1) * value
        if inside:
            shown += 1
            for class_id, value in action[shown - 1].items():
                row[class_id] = row.get(class_id, Fraction(0)) + beta * value
        mixed.append(row)
    return mixed


def regions(num_clips: int, most: int) -> dict[tuple[int, int], Fraction]:
    """Return the probability of every region `(s, e)`: `L` uniform, then `s` uniform."""
    lengths = [length for length in range(1, num_clips - 1) if length <= most]
    found = {}
    for length in lengths:
        places = [s for s in range(2, num_clips) if s + length - 1 <= num_clips - 1]
        for s in places:
            found[s, s + length - 1] = Fraction(1, len(lengths) * len(places))
    return found


def background_starts(first: int, end: int, num_clips: int, clip_len: int) -> list[int]:
    """Return where clip `j = 1..J` starts: uniformly from `first` to `end - clip_len`."""
    last = end - clip_len
    return [
        first + nearest(Fraction((j - 1) * (last - first), num_clips - 1))
        for j in range(1, num_clips + 1)
    ]


def region_stride(num_frames: int, region_frames: int, stride: int) -> int | None:
    """Return the largest stride up to `stride` whose last frame is in the video, or None."""
    for tried in range(stride, 0, -1):
        if 1 + (region_frames - 1) * tried <= num_frames:
            return tried
    return None

"""Slow, literal oracle of boundary-sensitive synthesis: frames from 1, exact fractions, loops.

Nothing here imports `synth`; frames and labels are addressed as in `oracle_synthesis`.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from oracle_synthesis import frame, mixed_pixels, nearest

Labels = dict[int, Fraction]


def shown(
    op: str, i: int, tau: int, eps: int = 0, t: int = 0, gamma: Fraction = Fraction(1)
) -> list[tuple[Fraction, int, int]]:
    """Return what frame `i` of a sample shows: (weight, clip 1 or 2, frame of that clip) each."""
    whole = Fraction(1)
    if op == "diff_class":
        if i <= tau - eps:
            return [(whole, 1, i)]
        if i <= tau + eps:
            w1, w2 = Fraction(tau + eps - i, 2 * eps), Fraction(i - tau + eps, 2 * eps)
            return [(w1, 1, i), (w2, 2, i - tau + eps)]
        return [(whole, 2, i - tau + eps)]
    if op == "same_class":
        return [(whole, 1, i)] if i <= tau else [(whole, 2, i - tau)]
    if op == "diff_speed":
        return [(whole, 1, i)] if i <= t else [(whole, 1, nearest(t + gamma * (i - t)))]
    return [(whole, 1, i)]


def frames_of(
    show: Callable[[int], list[tuple[Fraction, int, int]]],
    clips: Sequence[Any],
    tau: int,
) -> np.ndarray:
    """Return the `2 tau` frames of a sample as int64."""
    frames = []
    for i in range(1, 2 * tau + 1):
        parts = [(weight, frame(clips[clip - 1], j)) for weight, clip, j in show(i)]
        if len(parts) == 1:
            frames.append(parts[0][1].astype(np.int64))
        else:
            (w1, left), (w2, right) = parts
            assert w1 + w2 == 1
            frames.append(mixed_pixels(left, right, w1))
    return np.stack(frames)


def labels_of(
    show: Callable[[int], list[tuple[Fraction, int, int]]],
    tracks: Sequence[Any],
    tau: int,
) -> list[Labels]:
    """Return the labels of the `2 tau` frames; weights of one class add up."""
    mixed = []
    for i in range(1, 2 * tau + 1):
        row: Labels = {}
        for weight, clip, j in show(i):
            labels: Any = frame(tracks[clip - 1], j)
            for class_id, value in labels.items():
                row[class_id] = row.get(class_id, Fraction(0)) + weight * value
        mixed.append(row)
    return mixed


def frames_read(op: str, tau: int, **numbers: Any) -> list[int]:
    """Return how many frames a sample reads of clip 1 and of clip 2."""
    places = [part for i in range(1, 2 * tau + 1) for part in shown(op, i, tau, **numbers)]
    return [max((j for _, clip, j in places if clip == which), default=0) for which in (1, 2)]

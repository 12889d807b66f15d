"""Charades action localization on 25 frames per video, plain and weighted by class.

Frame `j = 1 .. 25` of a video stands at `(j - 1) / 25 * length` seconds and shows every action
whose segment contains that time, both ends included. AP is per class over all frames of all videos
(the sum of precision at positives over their number, not interpolated). `map` is the mean over
classes, `wap` the mean weighted by the number of positive frames of the class, which the script
computes and does not return. Frames that the submission lacks score -infinity.

Ties stand in the order of the truth, as in MATLAB's stable sort. A class without a positive frame
makes the script's means 0 / 0; here it has AP NaN and is left out of both.

Source: Charades_v1_localize.m (Charades, Allen Institute for AI).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .average_precision import mean_average_precision

CHARADES_FRAMES = 25


@dataclass(frozen=True, slots=True, eq=False)
class CharadesScore:
    """AP of every class on the 25 frames.

    Attributes:
        map: Mean over classes.
        wap: Mean weighted by positive frames.
        ap_C: float64, NaN for a class without positive frames.
        num_positives_C: int64, frames of each class.
    """

    map: float
    wap: float
    ap_C: np.ndarray
    num_positives_C: np.ndarray


def charades_labels(
    length_seconds: float, segments: Sequence[tuple[float, float, int]], num_classes: int
) -> np.ndarray:
    """Return bool `(25, C)`: the actions at each of the 25 frames.

    Args:
        length_seconds: Of the video, as in the annotation.
        segments: (start_seconds, end_seconds, class index).
        num_classes: `C`.
    """
    seconds_J = np.arange(CHARADES_FRAMES) / CHARADES_FRAMES * length_seconds
    labels_JC = np.zeros((CHARADES_FRAMES, num_classes), bool)
    for start, end, class_index in segments:
        labels_JC[:, class_index] |= (start <= seconds_J) & (seconds_J <= end)
    return labels_JC


def charades_score(scores_NC: np.ndarray, labels_NC: np.ndarray) -> CharadesScore:
    """Score the 25 frames of every video, laid end to end in the order of the truth.

    Args:
        scores_NC: float, -infinity for a frame that was not submitted.
        labels_NC: bool, of `charades_labels`.

    Raises:
        ValueError: Shapes differ or a score is NaN.
    """
    found = mean_average_precision(scores_NC, labels_NC, ties="stable")
    seen_C = found.num_positives_C > 0
    weights_C = found.num_positives_C[seen_C]
    total = weights_C.sum()
    wap = float((found.per_class_C[seen_C] * weights_C).sum() / total) if total else float("nan")
    return CharadesScore(found.mean, wap, found.per_class_C, found.num_positives_C)

"""Per-frame mAP on kinds of frames: one or several actions at once, at or away from boundaries.

SSDet (Kahatapitiya et al., AAAI 2023, Table 2e) breaks the per-frame mAP of a model down so. Which
frames are meant is decided here, from the rows of labels of a video:

- single-action: exactly one class is active; multi-action: two or more. Frames of pure background
  belong to neither, so negatives of a class are frames of other actions;
- boundary: the row of labels differs from a row at most `radius` rows away on the other side of a
  change, that is, the `radius` rows before and after every row where any class starts or ends;
  non-boundary: all others, background among them. The ends of a video are no boundaries.

AP is `mean_average_precision` over the frames of the set, of all videos; the mean is over the
classes that have positives in the set, so the four numbers average over different classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .average_precision import AveragePrecision, mean_average_precision


@dataclass(frozen=True, slots=True, eq=False)
class FrameBreakdown:
    """The score on each kind of frames, and how many there are.

    Attributes:
        scores: "single_action", "multi_action", "boundary", "non_boundary" -> its AP.
        num_frames: The same keys -> number of frames.
    """

    scores: dict[str, AveragePrecision]
    num_frames: dict[str, int]


def frame_breakdown(
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    radius: int = 1,
    ties: str = "stable",
) -> FrameBreakdown:
    """Score each kind of frames.

    Args:
        scores: Per video, float `(T, C)`.
        labels: Per video, bool `(T, C)`.
        radius: Rows on either side of a change that count as boundary, >= 1.
        ties: As in `mean_average_precision`.

    Raises:
        ValueError: There is no video, shapes differ, a score is NaN, or `radius` is below 1.
    """
    if not labels or radius < 1:
        raise ValueError(f"needs a video and a radius >= 1, got {len(labels)} and {radius}")
    scores_NC, labels_NC = np.concatenate(scores), np.concatenate(labels).astype(bool)
    at_boundary_N = np.concatenate([boundary_rows(labels_TC, radius) for labels_TC in labels])
    num_active_N = labels_NC.sum(axis=1)
    kinds = {
        "single_action": num_active_N == 1,
        "multi_action": num_active_N >= 2,
        "boundary": at_boundary_N,
        "non_boundary": ~at_boundary_N,
    }
    return FrameBreakdown(
        {
            name: mean_average_precision(scores_NC[kind_N], labels_NC[kind_N], ties)
            for name, kind_N in kinds.items()
        },
        {name: int(kind_N.sum()) for name, kind_N in kinds.items()},
    )


def boundary_rows(labels_TC: np.ndarray, radius: int) -> np.ndarray:
    """Return bool `(T,)`: the `radius` rows before and after every change of the labels.

    A change between rows 3 and 4 with radius 2 marks rows 2 3 4 5.
    """
    changed = np.flatnonzero((labels_TC[1:] != labels_TC[:-1]).any(axis=1)) + 1
    edges = np.zeros(len(labels_TC) + 1, np.int64)
    np.add.at(edges, np.maximum(changed - radius, 0), 1)
    np.add.at(edges, np.minimum(changed + radius, len(labels_TC)), -1)
    return np.cumsum(edges)[:-1] > 0

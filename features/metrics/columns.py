"""Records of segments by video as columns of arrays: where every evaluator of segments begins."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np


def columns(
    by_video: Mapping[str, Sequence[tuple[Any, ...]]], video_of: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, tuple[Hashable, ...], np.ndarray]:
    """Lay the segments of all videos end to end.

    Args:
        by_video: Video id -> (start_seconds, end_seconds, label) or (..., label, score).
        video_of: Index of a video; those that it lacks get -1.

    Returns:
        Times float64 `(N, 2)`, video index int64 `(N,)`, labels, scores float64 `(N,)` (0 where
        the records have none).

    Raises:
        ValueError: A score is NaN.
    """
    counts = [len(found) for found in by_video.values()]
    by_field = list(zip(*(row for found in by_video.values() for row in found), strict=True))
    if not by_field:
        return np.zeros((0, 2)), np.zeros(0, np.int64), (), np.zeros(0)
    times_N2 = np.stack([np.array(by_field[0], float), np.array(by_field[1], float)], axis=1)
    video_N = np.repeat([video_of.get(video_id, -1) for video_id in by_video], counts)
    scores_N = np.array(by_field[3], float) if len(by_field) > 3 else np.zeros(len(video_N))
    if np.isnan(scores_N).any():
        raise ValueError("scores must not be NaN")
    return times_N2, video_N, by_field[2], scores_N


def class_indices(
    labels: Sequence[Hashable], class_of: Mapping[Hashable, int], drop_unknown: bool
) -> np.ndarray:
    """Return int64 `(N,)`, -1 for a label that is no class.

    Raises:
        ValueError: A label is no class, and these are not to be dropped.
    """
    class_N = np.array([class_of.get(label, -1) for label in labels], np.int64)
    unknown_N = np.flatnonzero(class_N < 0).tolist()
    if unknown_N and not drop_unknown:
        others = sorted({str(labels[at]) for at in unknown_N})
        raise ValueError(
            f"predictions must carry labels of the truth, got {len(unknown_N)} with "
            f"{len(others)} others: {', '.join(map(repr, others[:5]))}"
            f"{', ...' if len(others) > 5 else ''}"
        )
    return class_N

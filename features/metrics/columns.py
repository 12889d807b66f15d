"""Records of segments by video as columns of arrays: where every evaluator of segments begins."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np


def columns(
    by_video: Mapping[str, Sequence[tuple[Any, ...]]], video_of: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, list[Hashable], np.ndarray]:
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
    rows = list(chain.from_iterable(by_video.values()))
    video_N = np.repeat([video_of.get(video_id, -1) for video_id in by_video], counts)
    times_N2 = np.stack([_numbers(rows, 0), _numbers(rows, 1)], axis=1)
    has_scores = bool(rows) and len(rows[0]) > 3
    scores_N = _numbers(rows, 3) if has_scores else np.zeros(len(rows))
    if np.isnan(scores_N).any():
        raise ValueError("scores must not be NaN")
    return times_N2, video_N.astype(np.int64), [row[2] for row in rows], scores_N


def _numbers(rows: list[tuple[Any, ...]], field: int) -> np.ndarray:
    return np.fromiter(map(itemgetter(field), rows), np.float64, len(rows))


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

"""Average precision, for validation while training."""

import numpy as np


def average_precision(scores_S: np.ndarray, positive_S: np.ndarray) -> float:
    """Return the area under the precision-recall steps of one class.

    Equal scores are one step: their order carries no knowledge.

    Args:
        scores_S: Larger means more likely.
        positive_S: bool, with at least one True.
    """
    order = np.argsort(-scores_S, kind="stable")
    hits = np.cumsum(positive_S[order])
    last = np.append(np.flatnonzero(np.diff(scores_S[order])), len(order) - 1)  # ends of ties
    recall_gain = np.diff(hits[last], prepend=0) / hits[-1]
    return float((recall_gain * hits[last] / (last + 1)).sum())


def mean_average_precision(scores_SC: np.ndarray, positive_SC: np.ndarray) -> float:
    """Return the mean of `average_precision` over the classes that have a positive sample.

    Args:
        scores_SC: `(S, C)` scores.
        positive_SC: `(S, C)` bool, at least one True.
    """
    present = np.flatnonzero(positive_SC.any(0))
    values = [average_precision(scores_SC[:, c], positive_SC[:, c]) for c in present]
    return float(np.mean(values))

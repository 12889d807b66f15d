"""Accuracy and average precision, for validation while training; each beside its chance."""

import numpy as np

POSITIVE_WEIGHT = 0.5


def accuracy_scores(predictions_NC: np.ndarray, targets_NC: np.ndarray) -> dict[str, float]:
    """Return the share of samples whose likeliest class is (one of) their heaviest.

    Beside it stands what the best constant answer would get. Samples without a class do not count;
    nothing is returned where all are such.

    Args:
        predictions_NC: Larger means more likely.
        targets_NC: Class weights of each sample, all zero if it has no class.
    """
    labelled_N = targets_NC.sum(1) > 0
    if not labelled_N.any():
        return {}
    predictions_NC, targets_NC = predictions_NC[labelled_N], targets_NC[labelled_N]
    heaviest_NC = targets_NC >= targets_NC.max(1, keepdims=True) - 1e-6
    hit_N = heaviest_NC[np.arange(len(heaviest_NC)), predictions_NC.argmax(1)]
    return {
        "accuracy": float(hit_N.mean()),
        "accuracy_chance": float(heaviest_NC.mean(0).max()),
    }


def frame_scores(predictions_NCT: np.ndarray, targets_NCT: np.ndarray) -> dict[str, float]:
    """Return the per-frame mAP; a frame counts for a class whose weight is at least one half.

    Beside the mAP stands what scores without knowledge would get. Nothing is returned where no
    class has a frame.
    """
    scores_SC, weights_SC = (
        array_NCT.swapaxes(1, 2).reshape(-1, array_NCT.shape[1])
        for array_NCT in (predictions_NCT, targets_NCT)
    )
    positive_SC = weights_SC >= POSITIVE_WEIGHT
    present_C = positive_SC.any(0)
    if not present_C.any():
        return {}
    return {
        "frame_map": mean_average_precision(scores_SC, positive_SC),
        "frame_map_chance": float(positive_SC[:, present_C].mean()),
    }


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

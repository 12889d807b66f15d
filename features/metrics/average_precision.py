"""Per-frame average precision: rank all frames of all videos by score, class by class.

`AP = sum over positives of (positives so far / rank) / number of positives`, not interpolated: the
definition of the per-frame meters of MultiTHUMOS and Charades-dense and of scikit-learn's
`average_precision_score`. These differ in two places, which are parameters here:

- frames of equal score: "stable" ranks them in the order given (per-frame meters sort, and leave
  ties to the sort); "grouped" lets them share one threshold, so that order cannot matter
  (scikit-learn);
- a class without positives has no AP: NaN here, and left out of the mean. Meters that count it as
  0 get the same by `np.nan_to_num(per_class_C).mean()`.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class AveragePrecision:
    """AP of every class and their mean.

    Attributes:
        mean: Over the classes that have positives, each counting alike; NaN if none has.
        per_class_C: float64, NaN for a class without positives.
        num_positives_C: int64.
    """

    mean: float
    per_class_C: np.ndarray
    num_positives_C: np.ndarray


def average_precision(scores_N: np.ndarray, positive_N: np.ndarray, ties: str = "stable") -> float:
    """Return the average precision of one class, NaN without positives.

    Args:
        scores_N: Higher is surer.
        positive_N: bool.
        ties: "stable" or "grouped" (see the module).

    Raises:
        ValueError: Lengths differ, a score is NaN, or `ties` is unknown.
    """
    scores_N, positive_N = np.asarray(scores_N), np.asarray(positive_N, bool)
    if scores_N.shape != positive_N.shape or scores_N.ndim != 1:
        raise ValueError(
            f"scores and labels must be vectors of one length, got {scores_N.shape} and "
            f"{positive_N.shape}"
        )
    if np.isnan(scores_N).any():
        raise ValueError("scores must not be NaN")
    if ties not in ("stable", "grouped"):
        raise ValueError(f"ties must be 'stable' or 'grouped', got {ties!r}")
    num_positives = int(positive_N.sum())
    if num_positives == 0:
        return float("nan")
    order_N = np.argsort(-scores_N.astype(np.float64), kind="stable")
    ranked_N = positive_N[order_N]
    hits_N = np.cumsum(ranked_N)
    ranks_N = np.arange(1, len(ranked_N) + 1)
    if ties == "grouped":
        # Every frame of a group of equal scores sees the precision at the group's last rank.
        sorted_N = scores_N[order_N]
        last_N = np.searchsorted(-sorted_N.astype(np.float64), -sorted_N, side="right") - 1
        hits_N, ranks_N = hits_N[last_N], ranks_N[last_N]
    return float((hits_N[ranked_N] / ranks_N[ranked_N]).sum() / num_positives)


def mean_average_precision(
    scores_NC: np.ndarray, positive_NC: np.ndarray, ties: str = "stable"
) -> AveragePrecision:
    """Return AP per class over all frames `N`, and the mean over classes with positives.

    Raises:
        ValueError: As `average_precision` does.
    """
    scores_NC, positive_NC = np.asarray(scores_NC), np.asarray(positive_NC, bool)
    if scores_NC.shape != positive_NC.shape or scores_NC.ndim != 2:
        raise ValueError(
            f"scores and labels must be one shape (frames, classes), got {scores_NC.shape} and "
            f"{positive_NC.shape}"
        )
    per_class_C = np.array(
        [
            average_precision(scores_NC[:, c], positive_NC[:, c], ties)
            for c in range(scores_NC.shape[1])
        ]
    )
    counted_C = ~np.isnan(per_class_C)
    mean = float(per_class_C[counted_C].mean()) if counted_C.any() else float("nan")
    return AveragePrecision(mean, per_class_C, positive_NC.sum(axis=0))


def chance_average_precision(num_positives: int, num_frames: int) -> float:
    """Return the expected AP of scores that know nothing: every ranking equally likely.

    With `P` positives among `N` frames, a positive at rank `k` has in expectation
    `(k - 1) (P - 1) / (N - 1)` others before it; averaging `precision = (1 + others) / k` over `k`
    gives `H/N + (P - 1)/(N - 1) (1 - H/N)` with the harmonic number `H = 1 + 1/2 + ... + 1/N`: the
    prevalence `P/N`, and a little more when `N` is small. NaN without positives.
    """
    if num_positives < 1:
        return float("nan")
    first = float((1.0 / np.arange(1, num_frames + 1)).sum()) / num_frames
    if num_frames == 1:
        return 1.0
    return first + (num_positives - 1) / (num_frames - 1) * (1 - first)

"""Per-frame average precision: rank all frames of all videos by score, class by class.

`AP = sum over positives of (positives so far / rank) / number of positives`, not interpolated: the
definition of torchnet's APMeter, with which MultiTHUMOS and Charades are scored per frame, and of
scikit-learn's `average_precision_score`. They differ in frames of equal score, and so does `ties`:

- "stable" (APMeter): ranked one after another. The meter leaves their order to its sort; here it is
  the order given;
- "grouped" (scikit-learn): they share one threshold, so that order cannot matter.

A class without positives has no AP: NaN here, 0 in the meter. Reported means differ in that:
`mean` leaves it out (scikit-learn's users, online detection), `mean_of_all` counts 0 (TGM,
super-events, SSDet, MS-TCT), `mean_of_nonzero` divides the sum by the number of classes whose AP is
not 0 (the log of PDAN). The meter adds up in float32; this in float64, so the two agree to 1e-6.
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

    @property
    def mean_of_all(self) -> float:
        """Mean over all classes, where one without positives counts 0."""
        return float(np.nan_to_num(self.per_class_C).mean())

    @property
    def mean_of_nonzero(self) -> float:
        """Sum over the number of classes with another AP than 0; NaN if there is none."""
        ap_C = np.nan_to_num(self.per_class_C)
        return float(ap_C.sum() / num) if (num := np.count_nonzero(ap_C)) else float("nan")


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
    if not positive_N.any():
        return float("nan")
    hits_P, ranks_P = _ranks(scores_N, positive_N, ties)
    return float((hits_P / ranks_P).sum() / len(ranks_P))


def _ranks(
    scores_N: np.ndarray, positive_N: np.ndarray, ties: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each positive, best first, how many positives and how many frames are up to it.

    Sorting scores is several times faster than sorting places, and tells all where no other frame
    has the score of a positive: as many are up to it as score at least as high.
    """
    sorted_N, sorted_P = np.sort(scores_N), np.sort(scores_N[positive_N])
    best_P = sorted_P[::-1]
    above_P = len(sorted_N) - np.searchsorted(sorted_N, best_P, "right")
    ranks_P = len(sorted_N) - np.searchsorted(sorted_N, best_P, "left")
    if ties == "grouped":
        return len(best_P) - np.searchsorted(sorted_P, best_P, "left"), ranks_P
    tied_P = ranks_P - above_P > 1
    if tied_P.any():
        values_V, one_V = np.unique(best_P[tied_P], return_index=True)
        slot_N = np.minimum(np.searchsorted(values_V, scores_N), len(values_V) - 1)
        equal = np.flatnonzero(values_V[slot_N] == scores_N)
        equal = equal[np.argsort(slot_N[equal], kind="stable")]  # group by group, as given
        group = slot_N[equal]
        place = np.arange(len(equal)) - np.searchsorted(group, group, "left")
        up_to = above_P[tied_P][one_V][group] + place + 1
        ranks_P[tied_P] = np.sort(up_to[positive_N[equal]])
    return np.arange(1, len(best_P) + 1), ranks_P


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

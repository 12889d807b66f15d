"""Temporal grounding of sentences: R@n,IoU=m and mIoU, by the rules of LGI and of 2D-TAN.

R@n,IoU=m is the share of queries where one of the first `n` predictions has IoU with the annotated
segment of at least `m` (LGI, TALL: >=) or more than `m` (2D-TAN: strictly). mIoU is the mean over
queries of the best IoU among the first five predictions (LGI) or of the first prediction's
(2D-TAN). 2D-TAN also clips the annotated end to the video's length. Its non-maximum suppression (a
prediction that overlaps a better one by more than 0.5 is dropped) is left to who writes the
predictions: they are scored as they are. IoU is intersection over the span of both, 0 where they do
not overlap; two equal segments without length have 0 here.

Sources: JonghwanMun/LGI4temporalgrounding (199e7ab); microsoft/2D-TAN (2f7410f) `lib/core/eval.py`.
"""

from dataclasses import dataclass

import numpy as np

from .thumos import overlap

RULES = ("lgi", "2d-tan")
DEFAULT_IOUS = (0.1, 0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True, eq=False)
class GroundingScore:
    """Recall of the first predictions, and mean IoU.

    Attributes:
        recall: (n, m) -> R@n,IoU=m.
        miou: Mean IoU by the rule.
        num_queries: Sentences.
    """

    recall: dict[tuple[int, float], float]
    miou: float
    num_queries: int


def grounding_score(
    truth_Q2: np.ndarray,
    predictions_QK2: np.ndarray,
    ns: tuple[int, ...] = (1, 5),
    ious: tuple[float, ...] = DEFAULT_IOUS,
    rule: str = "lgi",
    durations_Q: np.ndarray | None = None,
) -> GroundingScore:
    """Score ranked segments for each sentence.

    Args:
        truth_Q2: float64, start and end in seconds.
        predictions_QK2: float64, best first; NaN where a sentence has fewer than `K`.
        ns: How many of the first predictions may hit.
        ious: Thresholds.
        rule: "lgi" or "2d-tan".
        durations_Q: Lengths of the videos in seconds, for the rule "2d-tan".

    Raises:
        ValueError: An unknown rule, no sentence, shapes that do not fit, or no durations.
    """
    truth_Q2, predictions_QK2 = np.asarray(truth_Q2, float), np.asarray(predictions_QK2, float)
    if rule not in RULES:
        raise ValueError(f"the rule must be one of {', '.join(RULES)}, got {rule!r}")
    if predictions_QK2.ndim != 3 or predictions_QK2.shape[::2] != truth_Q2.shape:
        raise ValueError(
            f"predictions must be (queries, K, 2) for truth (queries, 2), got "
            f"{predictions_QK2.shape} and {truth_Q2.shape}"
        )
    if not predictions_QK2.size:
        raise ValueError("there must be a query and a prediction")
    if rule == "2d-tan":
        if durations_Q is None:
            raise ValueError("the rule '2d-tan' needs the lengths of the videos")
        ends_Q = np.minimum(truth_Q2[:, 1], durations_Q)
        truth_Q2 = np.stack([truth_Q2[:, 0], ends_Q], axis=1)
    num_queries, most = predictions_QK2.shape[:2]
    iou_QK = overlap(predictions_QK2.reshape(-1, 2), np.repeat(truth_Q2, most, axis=0))
    best_QK = np.maximum.accumulate(iou_QK.reshape(num_queries, most), axis=1)
    compare = np.greater_equal if rule == "lgi" else np.greater
    return GroundingScore(
        recall={
            (n, iou): float(compare(best_QK[:, min(n, most) - 1], iou).mean())
            for n in ns
            for iou in ious
        },
        miou=float(best_QK[:, min(5, most) - 1 if rule == "lgi" else 0].mean()),
        num_queries=num_queries,
    )

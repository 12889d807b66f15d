"""Mean average precision of temporal detections at tIoU thresholds, by the ActivityNet script.

Class by class, predictions of all videos in falling order of score: each takes, among the
annotated segments of its class and video, the one of highest tIoU that is free and has
tIoU >= threshold, separately for every threshold. AP is the area under precision, made monotone
from the right, over recall ("all points"); mAP averages over the classes of the truth.

What the script does at the edges, and so does this:

- classes are those of the truth, in order of appearance; one without predictions has AP 0;
- predictions in a video without annotated segments of the class, or not in the truth at all, are
  false positives;
- two segments at one time without length have tIoU 0 / 0 = NaN, and NaN < threshold is false: they
  match;
- ties: equal scores stand in the order of NumPy's default `argsort`, reversed, which for long lists
  depends on NumPy's version and the processor; the same call on the same list is made here, so the
  two agree on one machine. Of segments of equal tIoU the last in the file is tried first, as the
  script does with the few segments of a video; only its order among many is NumPy's own.

G-TAD's copy computes the same. mmaction2's takes tIoU in float32 and sorts stably: it may fall on
the other side of a threshold that is met exactly, such as 0.9, or where scores are equal.

Source: ActivityNet/Evaluation/eval_detection.py (activitynet/ActivityNet, 82304fa).
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .columns import class_indices, columns
from .matching import match_in_turn, pairs_of_groups, temporal_iou

ACTIVITYNET_TIOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
THUMOS_TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
SAME_SECONDS = 1e-3

Truth = Mapping[str, Sequence[tuple[float, float, Hashable]]]
Predictions = Mapping[str, Sequence[tuple[float, float, Hashable, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionScore:
    """AP of every class at every threshold.

    Attributes:
        map: Mean over thresholds of the mean over classes.
        map_T: float64, mean over classes at each threshold.
        ap_TC: float64.
        tious: The thresholds.
        classes: Labels of the truth, in order of appearance.
        num_segments: Annotated segments.
        num_predictions: Predictions that were scored.
        num_foreign: Those among them in videos that the truth lacks; false positives all.
        num_unknown: Predictions left out because the truth lacks their label.
    """

    map: float
    map_T: np.ndarray
    ap_TC: np.ndarray
    tious: tuple[float, ...]
    classes: tuple[Hashable, ...]
    num_segments: int
    num_predictions: int
    num_foreign: int
    num_unknown: int


@dataclass(frozen=True, slots=True, eq=False)
class DetectionMatches:
    """Which predictions find an annotated segment: all that AP depends on.

    Attributes:
        hits_TP: bool, by threshold; predictions in order of class, then of score.
        class_P: int64, ascending.
        video_P: int64, in the order of the truth; -1 for a video that it lacks.
        class_N: int64, of each annotated segment.
        video_N: int64.
        tious: The thresholds.
        classes: Labels of the truth, in order of appearance.
        num_unknown: Predictions left out because the truth lacks their label.
    """

    hits_TP: np.ndarray
    class_P: np.ndarray
    video_P: np.ndarray
    class_N: np.ndarray
    video_N: np.ndarray
    tious: tuple[float, ...]
    classes: tuple[Hashable, ...]
    num_unknown: int


def detection_map(
    truth: Truth,
    predictions: Predictions,
    tious: Iterable[float] = ACTIVITYNET_TIOUS,
    *,
    drop_unknown: bool = False,
) -> DetectionScore:
    """Score detections by the ActivityNet rule.

    Args:
        truth: Video id -> (start_seconds, end_seconds, label).
        predictions: Video id -> (start_seconds, end_seconds, label, score).
        tious: Thresholds.
        drop_unknown: Leave out predictions whose label the truth lacks, as ActionFormer and
            OpenTAD do; the ActivityNet script stops with a KeyError there, and so does this.

    Raises:
        ValueError: There is no annotated segment, a score is NaN, or a label is unknown.
    """
    found = match_detections(truth, predictions, tious, drop_unknown=drop_unknown)
    ap_TC = _ap_per_class(found.hits_TP, found.class_P, np.bincount(found.class_N))
    map_T = ap_TC.mean(axis=1)
    return DetectionScore(
        map=float(map_T.mean()),
        map_T=map_T,
        ap_TC=ap_TC,
        tious=found.tious,
        classes=found.classes,
        num_segments=len(found.class_N),
        num_predictions=len(found.class_P),
        num_foreign=int((found.video_P < 0).sum()),
        num_unknown=found.num_unknown,
    )


def match_detections(
    truth: Truth,
    predictions: Predictions,
    tious: Iterable[float] = ACTIVITYNET_TIOUS,
    *,
    drop_unknown: bool = False,
) -> DetectionMatches:
    """Let predictions take annotated segments by the ActivityNet rule; as `detection_map`.

    What is found in one video does not depend on the others.
    """
    thresholds = tuple(float(tiou) for tiou in tious)
    video_of = {video_id: index for index, video_id in enumerate(truth)}
    gt_N2, gt_video_N, gt_labels, _ = columns(truth, video_of)
    if not gt_labels:
        raise ValueError("the truth must hold at least one segment")
    classes = tuple(dict.fromkeys(gt_labels))
    class_of = {label: index for index, label in enumerate(classes)}
    gt_class_N = np.array([class_of[label] for label in gt_labels])
    times_P2, video_P, labels, scores_P = columns(predictions, video_of)
    class_P = class_indices(labels, class_of, drop_unknown)
    known = class_P >= 0
    times_P2, video_P, scores_P = times_P2[known], video_P[known], scores_P[known]
    class_P = class_P[known]
    order = _official_order(class_P, scores_P, len(classes))
    times_P2, video_P, class_P = times_P2[order], video_P[order], class_P[order]
    hits_TP = _hits(
        (times_P2, class_P * len(video_of) + video_P, video_P >= 0),
        (gt_N2, gt_class_N * len(video_of) + gt_video_N),
        thresholds,
    )
    num_unknown = int((~known).sum())
    return DetectionMatches(
        hits_TP, class_P, video_P, gt_class_N, gt_video_N, thresholds, classes, num_unknown
    )


def without_duplicates(truth: Truth) -> dict[str, list[tuple[float, float, Hashable]]]:
    """Leave out segments shorter than a millisecond, and repetitions of one within a millisecond.

    Source: ActionFormer `remove_duplicate_annotations`, and OpenTAD, both before they score.
    """
    kept: dict[str, list[tuple[float, float, Hashable]]] = {}
    for video_id, segments in truth.items():
        found: list[tuple[float, float, Hashable]] = []
        for start, end, label in segments:
            is_again = any(
                label == other
                and abs(start - begin) <= SAME_SECONDS
                and abs(end - stop) <= SAME_SECONDS
                for begin, stop, other in found
            )
            if end - start >= SAME_SECONDS and not is_again:
                found.append((start, end, label))
        kept[video_id] = found
    return kept


def _official_order(class_P: np.ndarray, scores_P: np.ndarray, num_classes: int) -> np.ndarray:
    """Return predictions class by class, each class in the order of the script's own sort."""
    by_class = np.argsort(class_P, kind="stable")
    ends = np.searchsorted(class_P[by_class], np.arange(num_classes), "right")
    parts = np.split(by_class, ends[:-1])
    return np.concatenate([part[np.argsort(scores_P[part])[::-1]] for part in parts])


def _hits(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
    annotated: tuple[np.ndarray, np.ndarray],
    tious: tuple[float, ...],
) -> np.ndarray:
    """Return bool `(T, P)`: which predictions find an annotated segment at which threshold.

    Args:
        predicted: Times `(P, 2)`, group, and whether the truth has the video; in order of score.
        annotated: Times `(N, 2)` and group, one per class and video.
        tious: Thresholds.
    """
    times_P2, group_P, is_known_P = predicted
    by_group = np.argsort(annotated[1], kind="stable")
    gt_N2, gt_group_N = annotated[0][by_group], annotated[1][by_group]
    group_P = np.where(is_known_P, group_P, -1)
    found = [
        _wishes(left, right, temporal_iou(times_P2[left], gt_N2[right]), min(tious))
        for left, right in pairs_of_groups(group_P, gt_group_N)
    ]
    if not found:
        return np.zeros((len(tious), 0), bool)
    left, right, tiou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    hits_TP = np.zeros((len(tious), len(times_P2)), bool)
    for row, threshold in enumerate(tious):
        near = ~(tiou < threshold)
        hits_TP[row] = match_in_turn(left[near], right[near], len(times_P2), len(gt_N2)) >= 0
    return hits_TP


def _wishes(
    left: np.ndarray, right: np.ndarray, tiou: np.ndarray, lowest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the pairs of each prediction by falling tIoU, NaN first; drop those below `lowest`."""
    near = np.flatnonzero(~(tiou < lowest))
    left, right, tiou = left[near], right[near], tiou[near]
    is_same = left[1:] == left[:-1]  # few have more than one wish
    many = np.flatnonzero(np.append(is_same, False) | np.insert(is_same, 0, False))
    falling = np.where(np.isnan(tiou[many]), -np.inf, -tiou[many])
    order = np.arange(len(left))
    order[many] = many[np.lexsort((-right[many], falling, left[many]))]
    return left[order], right[order], tiou[order]


def _ap_per_class(
    hits_TP: np.ndarray, class_P: np.ndarray, num_segments_C: np.ndarray
) -> np.ndarray:
    """Return AP `(T, C)` of predictions in order of class and score."""
    ap_TC = np.zeros((len(hits_TP), len(num_segments_C)))
    ends = np.searchsorted(class_P, np.arange(len(num_segments_C)), "right")
    for c, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        for row in range(len(hits_TP)):
            ap_TC[row, c] = interpolated_ap(hits_TP[row, start:end], int(num_segments_C[c]))
    return ap_TC


def interpolated_ap(hits_P: np.ndarray, num_segments: int) -> float:
    """Return the area under precision made monotone from the right, over recall.

    Only the ranks of hits count: recall stands still elsewhere, and precision falls.

    Args:
        hits_P: bool, in order of score.
        num_segments: Annotated segments, the denominator of recall.
    """
    rank_H = np.flatnonzero(hits_P) + 1
    found_H = np.arange(1, len(rank_H) + 1)
    precision_H = np.maximum.accumulate((found_H / rank_H)[::-1])[::-1]
    if len(rank_H) < num_segments:  # the script's last step, to recall 1, of precision 0
        found_H, precision_H = np.r_[found_H, num_segments], np.r_[precision_H, 0.0]
    return float(np.sum(np.diff(found_H / num_segments, prepend=0.0) * precision_H))

"""Mean average precision of temporal detections by the rule of THUMOS'14 (its evaluation kit).

It differs from the ActivityNet rule (`detection.py`, which most papers since use on THUMOS'14 with
`THUMOS_TIOUS`) in five places:

- the annotated segments choose, in the order of the file: each takes the free detection of highest
  overlap in its video, if that is > threshold, strictly;
- overlap is intersection over the span of both, 0 where they only touch;
- a detection that finds nothing but meets a segment labelled Ambiguous is left out, not false;
- AP is the sum of precision at the ranks of hits over the number of segments: not interpolated;
- equal scores stand in the order of video names, then of the file, and the highest overlap goes to
  the surer of two detections: nothing depends on the sort.

Classes are the labels of the truth without Ambiguous; one without detections has AP 0.

Source: TH14evalDet.m of the THUMOS'14 evaluation kit.
"""

from collections.abc import Iterable

import numpy as np

from .columns import class_indices, columns
from .detection import THUMOS_TIOUS, DetectionScore, Predictions, Truth
from .matching import match_in_turn, pairs_of_groups

AMBIGUOUS = "Ambiguous"


def thumos_map(
    truth: Truth,
    predictions: Predictions,
    tious: Iterable[float] = THUMOS_TIOUS,
    *,
    drop_unknown: bool = False,
) -> DetectionScore:
    """Score detections by the rule of the THUMOS'14 kit.

    Args:
        truth: Video id -> (start_seconds, end_seconds, label), ambiguous segments among them.
        predictions: Video id -> (start_seconds, end_seconds, label, score).
        tious: Thresholds.
        drop_unknown: Leave out predictions whose label the truth lacks (the kit does, with a
            warning).

    Raises:
        ValueError: There is no annotated segment, a score is NaN, or a label is unknown.
    """
    thresholds = tuple(float(tiou) for tiou in tious)
    names = sorted({*truth, *predictions})
    video_of = {video_id: index for index, video_id in enumerate(names)}
    gt_N2, gt_video_N, gt_labels, _ = columns(truth, video_of)
    classes = tuple(label for label in dict.fromkeys(gt_labels) if label != AMBIGUOUS)
    if not classes:
        raise ValueError("the truth must hold at least one segment that is not ambiguous")
    class_of = {label: index for index, label in enumerate(classes)}
    gt_class_N = np.array([class_of.get(label, -1) for label in gt_labels])
    times_P2, video_P, labels, scores_P = columns(predictions, video_of)
    class_P = class_indices(labels, class_of, drop_unknown)
    order = np.lexsort((video_P, -scores_P, class_P))  # stable: then as in the file
    order = order[class_P[order] >= 0]
    times_P2, video_P, class_P = np.sort(times_P2[order], axis=1), video_P[order], class_P[order]
    gt_N2 = np.sort(gt_N2, axis=1)
    is_vague_N = gt_class_N < 0
    vague_P = _meet(times_P2, video_P, gt_N2[is_vague_N], gt_video_N[is_vague_N])
    sure = np.flatnonzero(~is_vague_N)
    hits_TP = _hits(
        (gt_N2[sure], gt_class_N[sure] * len(names) + gt_video_N[sure]),
        (times_P2, class_P * len(names) + video_P),
        thresholds,
    )
    num_segments_C = np.bincount(gt_class_N[sure])
    ends = np.searchsorted(class_P, np.arange(len(classes)), "right")
    ap_TC = np.zeros((len(thresholds), len(classes)))
    for c, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        for row, hits_P in enumerate(hits_TP[:, start:end]):
            ap_TC[row, c] = summed_ap(hits_P[hits_P | ~vague_P[start:end]], num_segments_C[c])
    map_T = ap_TC.mean(axis=1)
    known_videos = np.array([video_id in truth for video_id in names])
    return DetectionScore(
        map=float(map_T.mean()),
        map_T=map_T,
        ap_TC=ap_TC,
        tious=thresholds,
        classes=classes,
        num_segments=len(sure),
        num_predictions=len(class_P),
        num_foreign=int((~known_videos[video_P]).sum()),
        num_unknown=len(labels) - len(class_P),
    )


def overlap(one_N2: np.ndarray, other_N2: np.ndarray) -> np.ndarray:
    """Return intersection over the span of both, row by row; 0 without a common part."""
    shared_N = np.minimum(one_N2[:, 1], other_N2[:, 1]) - np.maximum(one_N2[:, 0], other_N2[:, 0])
    span_N = np.maximum(one_N2[:, 1], other_N2[:, 1]) - np.minimum(one_N2[:, 0], other_N2[:, 0])
    return np.divide(shared_N, span_N, out=np.zeros(len(shared_N)), where=shared_N > 0)


def summed_ap(hits_P: np.ndarray, num_segments: int) -> float:
    """Return the precision at every hit, added up in order of score, over `num_segments`."""
    rank_H = np.flatnonzero(hits_P) + 1
    if not len(rank_H):
        return 0.0
    return float(np.cumsum(np.arange(1, len(rank_H) + 1) / rank_H)[-1] / num_segments)


def _hits(
    annotated: tuple[np.ndarray, np.ndarray],
    predicted: tuple[np.ndarray, np.ndarray],
    tious: tuple[float, ...],
) -> np.ndarray:
    """Return bool `(T, P)`: which predictions, surest first, are taken at which threshold."""
    gt_N2, gt_group_N = annotated
    times_P2, group_P = predicted
    by_group = np.argsort(group_P, kind="stable")
    blocks = []
    for left, right in pairs_of_groups(gt_group_N, group_P[by_group]):
        right = by_group[right]
        share = overlap(gt_N2[left], times_P2[right])
        near = np.flatnonzero(share > min(tious))
        near = near[np.lexsort((right[near], -share[near], left[near]))]
        blocks.append((left[near], right[near], share[near]))
    left, right, share = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    hits_TP = np.zeros((len(tious), len(times_P2)), bool)
    for row, threshold in enumerate(tious):
        enough = share > threshold
        taken_N = match_in_turn(left[enough], right[enough], len(gt_N2), len(times_P2))
        hits_TP[row, taken_N[taken_N >= 0]] = True
    return hits_TP


def _meet(
    times_P2: np.ndarray, video_P: np.ndarray, vague_N2: np.ndarray, vague_video_N: np.ndarray
) -> np.ndarray:
    """Return bool `(P,)`: the prediction has a part in common with an ambiguous segment."""
    by_video = np.argsort(vague_video_N, kind="stable")
    vague_N2, vague_video_N = vague_N2[by_video], vague_video_N[by_video]
    meets_P = np.zeros(len(times_P2), bool)
    for left, right in pairs_of_groups(video_P, vague_video_N):
        meets_P[left[overlap(times_P2[left], vague_N2[right]) > 0]] = True
    return meets_P

"""Suppression of overlapping detections as ActionFormer and what descends from it do it.

Source: Zhang, Wu and Li, "ActionFormer", ECCV 2022, Section 4 (Soft-NMS, voting); Bodla et al.,
"Soft-NMS", ICCV 2017, eq. 3. Arithmetic is float32, as in the public code.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MARGIN = np.float32(1e-6)  # added to every length where overlaps suppress, not where they vote


@dataclass(frozen=True, slots=True)
class SegmentNms:
    """How segments of one video suppress one another; the defaults are those for THUMOS."""

    is_soft: bool = True
    """Decay scores, or drop what overlaps."""
    per_class: bool = True
    """Only segments of one class suppress one another; else all do, and the votes are counted."""
    sigma: float = 0.5
    """Width of the Gaussian decay; 0.75 where classes are not told apart."""
    min_score: float = 1e-3
    """What falls below is dropped; the first pick of a soft suppression is never tested."""
    num_kept: int = 200
    """At most so many, per class first and then of all."""
    iou_threshold: float = 0.1
    """From this overlap on a segment is dropped; a soft suppression does not read it."""
    voting_threshold: float = 0.7
    """From this overlap on a segment votes on the ends of a kept one; 0: no vote."""


class LabelledSegments(NamedTuple):
    """Scored segments of one video.

    Attributes:
        segments_N2: float32, start and end.
        scores_N: float32.
        class_N: int64.
    """

    segments_N2: np.ndarray
    scores_N: np.ndarray
    class_N: np.ndarray


def nms_actionformer(found: LabelledSegments, nms: SegmentNms = SegmentNms()) -> LabelledSegments:
    """Return what is left of the segments of one video, best first.

    Args:
        found: All candidates.
        nms: The rule; `iou_threshold` only counts where it is hard.
    """
    segments_N2 = np.asarray(found.segments_N2, np.float32).reshape(-1, 2)
    scores_N, class_N = np.asarray(found.scores_N, np.float32), np.asarray(found.class_N, np.int64)
    groups = [class_N == c for c in np.unique(class_N)] if nms.per_class else [class_N == class_N]
    suppress = _soft if nms.is_soft else _hard
    index, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for member_N in groups:
        members = np.flatnonzero(member_N)
        kept, left = suppress(segments_N2[members], scores_N[members], nms)
        index.append(members[kept])
        scores.append(left)
    index_K, scores_K = np.concatenate(index), np.concatenate(scores)
    kept_K2 = segments_N2[index_K]
    if not nms.per_class and nms.voting_threshold > 0 and len(kept_K2):
        kept_K2 = _vote(kept_K2, segments_N2, scores_N, nms.voting_threshold)
    order = np.argsort(-scores_K, kind="stable")[: nms.num_kept]
    return LabelledSegments(kept_K2[order], scores_K[order], class_N[index_K][order])


def _soft(
    segments_N2: np.ndarray, scores_N: np.ndarray, nms: SegmentNms
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and decayed scores in order of selection."""
    left_N = scores_N.copy()
    kept: list[int] = []
    scores: list[np.float32] = []
    while len(kept) < min(nms.num_kept, len(left_N)):
        best = int(left_N.argmax())
        if left_N[best] == -np.inf:
            break
        kept.append(best)
        scores.append(left_N[best])
        overlap_N = _overlap(segments_N2[best], segments_N2, MARGIN)
        left_N *= np.exp(-np.square(overlap_N) / np.float32(nms.sigma))
        left_N[left_N < nms.min_score] = -np.inf
        left_N[best] = -np.inf
    return np.array(kept, np.int64), np.array(scores, np.float32)


def _hard(
    segments_N2: np.ndarray, scores_N: np.ndarray, nms: SegmentNms
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and scores of segments that no better one overlaps, best first."""
    order = np.argsort(-scores_N, kind="stable")
    order = order[scores_N[order] > nms.min_score]
    kept: list[int] = []
    while len(order):
        kept.append(int(order[0]))
        overlap = _overlap(segments_N2[order[0]], segments_N2[order[1:]], MARGIN)
        order = order[1:][overlap < nms.iou_threshold]
    index = np.array(kept[: nms.num_kept], np.int64)
    return index, scores_N[index]


def _vote(
    kept_K2: np.ndarray, segments_N2: np.ndarray, scores_N: np.ndarray, threshold: float
) -> np.ndarray:
    """Move both ends to the mean of all candidates near by, weighed by score and overlap."""
    overlap_KN = _overlap(kept_K2[:, None], segments_N2[None], np.float32(0))
    weights_KN = np.where(overlap_KN >= threshold, overlap_KN * scores_N, np.float32(0))
    return weights_KN @ segments_N2 / weights_KN.sum(axis=1, keepdims=True)


def _overlap(one: np.ndarray, other: np.ndarray, margin: np.float32) -> np.ndarray:
    """Return IoU of segments `(..., 2)`; 0 for two of zero length."""
    inter = np.minimum(one[..., 1], other[..., 1]) - np.maximum(one[..., 0], other[..., 0])
    inter = np.maximum(inter, np.float32(0))
    lengths = (one[..., 1] - one[..., 0] + margin) + (other[..., 1] - other[..., 0] + margin)
    union = lengths - inter
    return inter / np.where(union > 0, union, np.float32(1))

"""The evaluators as their scripts go about it: one prediction, one segment, one frame at a time.

Written from the definitions, as slow as they read: what `features.metrics` is compared with, for
speed by `evaluators.py` and for equality by the tests. Where a script sorts, this sorts alike.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[tuple[Any, ...]]
Segments = Sequence[tuple[float, float, int]]


def iou_with(segment: Sequence[float], others_N2: np.ndarray) -> np.ndarray:
    """Return tIoU of one segment with each of `others_N2`, NaN for 0 / 0."""
    starts_N = np.maximum(segment[0], others_N2[:, 0])
    inside_N = (np.minimum(segment[1], others_N2[:, 1]) - starts_N).clip(0)
    together_N = (others_N2[:, 1] - others_N2[:, 0]) + (segment[1] - segment[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return inside_N / (together_N - inside_N)


def by_class(by_video: Mapping[str, Rows]) -> dict[Hashable, list[tuple[Any, ...]]]:
    """Return label -> list of (video id, start, end, ...)."""
    found: dict[Hashable, list[tuple[Any, ...]]] = defaultdict(list)
    for video_id, rows in by_video.items():
        for start, end, label, *score in rows:
            found[label].append((video_id, start, end, *score))
    return found


def detection_ap(truth: Rows, predictions: Rows, tious: Sequence[float]) -> np.ndarray:
    """Return AP `(T,)` of one class by the ActivityNet rule."""
    lists = defaultdict(list)
    for video_id, start, end in truth:
        lists[video_id].append((start, end))
    segments = {video_id: np.array(rows, float) for video_id, rows in lists.items()}
    shapes = {video_id: (len(tious), len(rows)) for video_id, rows in lists.items()}
    locked = {video_id: np.zeros(shape, bool) for video_id, shape in shapes.items()}
    order = np.array([row[3] for row in predictions], float).argsort()[::-1]
    hits = np.zeros((len(tious), len(predictions)), bool)
    for rank, at in enumerate(order):
        video_id, start, end, _ = predictions[at]
        if video_id not in segments:
            continue
        tiou = iou_with((start, end), segments[video_id])
        nearest = tiou.argsort()[::-1]
        for row, threshold in enumerate(tious):
            for found in nearest:
                if tiou[found] < threshold:
                    break
                if not locked[video_id][row, found]:
                    locked[video_id][row, found] = hits[row, rank] = True
                    break
    ap = np.zeros(len(tious))
    for row in range(len(tious)):
        true, false = np.cumsum(hits[row]), np.cumsum(~hits[row])
        precision = np.r_[0, true / np.maximum(true + false, 1), 0]
        recall = np.r_[0, true / len(truth), 1]
        for at in range(len(precision) - 2, -1, -1):
            precision[at] = max(precision[at], precision[at + 1])
        steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        ap[row] = np.sum((recall[steps] - recall[steps - 1]) * precision[steps])
    return ap


def detection_map(
    truth: Mapping[str, Rows], predictions: Mapping[str, Rows], tious: Sequence[float]
) -> np.ndarray:
    """Return AP `(T, C)` by the ActivityNet rule, classes in order of appearance."""
    truth_of, predicted_of = by_class(truth), by_class(predictions)
    columns = [
        detection_ap(rows, predicted_of[label], tious)
        if predicted_of[label]
        else np.zeros(len(tious))
        for label, rows in truth_of.items()
    ]
    return np.stack(columns, axis=1)


def average_recall(
    truth: Mapping[str, Rows],
    proposals: Mapping[str, Rows],
    tious: Sequence[float],
    max_proposals: float = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Return AR and AN, both `(100,)`, by the ActivityNet rule."""
    known = [video_id for video_id, rows in truth.items() if rows]
    ratio = max_proposals * float(len(known)) / sum(len(rows) for rows in proposals.values())
    scores, total = [], 0
    for video_id in known:
        segments = np.array([row[:2] for row in truth[video_id]], float)
        rows = proposals.get(video_id, ())
        if not rows:
            scores.append(np.zeros((len(segments), 1)))
            continue
        order = np.array([row[-1] for row in rows], float).argsort()[::-1]
        kept = np.array([row[:2] for row in rows], float)[order]
        kept = kept[: min(int(len(rows) * ratio), len(rows))]
        total += len(kept)
        tiou = np.zeros((len(segments), len(kept)))
        for at, segment in enumerate(kept):
            tiou[:, at] = iou_with(segment, segments)
        scores.append(tiou)
    share = np.arange(1, 101) / 100.0 * (max_proposals * float(len(known)) / total)
    recall = np.zeros((len(tious), 100))
    for row, threshold in enumerate(tious):
        found, wanted = np.zeros((len(known), 100)), 0
        for video, tiou in enumerate(scores):
            wanted += len(tiou)
            near = tiou >= threshold
            limits = np.minimum((tiou.shape[1] * share).astype(int), tiou.shape[1])
            for step, limit in enumerate(limits):
                found[video, step] = np.count_nonzero(near[:, :limit].sum(axis=1))
        recall[row] = found.sum(axis=0) / wanted
    return recall.mean(axis=0), share * (float(total) / len(known))


def kit_overlap(one: Iterable[float], other: Iterable[float]) -> float:
    """Return intersection over span of two intervals, 0 where they only touch."""
    (start, end), (begin, stop) = sorted(one), sorted(other)
    shared = min(end, stop) - max(start, begin)
    return shared / (max(end, stop) - min(start, begin)) if shared > 0 else 0.0


def thumos_ap(truth: Rows, vague: Rows, predictions: Rows, threshold: float) -> float:
    """Return AP of one class by the rule of the THUMOS'14 kit."""
    per_video: dict[str, tuple[list, list, list]] = defaultdict(lambda: ([], [], []))
    for kind, rows in enumerate((truth, vague, predictions)):
        for video_id, *row in rows:
            per_video[video_id][kind].append(row)
    scores, flags = [], []
    for video_id in sorted(per_video):
        segments, unclear, found = per_video[video_id]
        found = sorted(found, key=lambda row: -row[2])
        free = [True] * len(found)
        for segment in segments:
            best, best_share = -1, threshold
            for at, row in enumerate(found):
                if free[at] and (share := kit_overlap(segment, row[:2])) > best_share:
                    best, best_share = at, share
            if best >= 0:
                free[best] = False
        for at, row in enumerate(found):
            if not free[at] or not any(kit_overlap(other, row[:2]) > 0 for other in unclear):
                scores.append(row[2])
                flags.append(not free[at])
    hits, total = 0, 0.0
    for rank, at in enumerate(sorted(range(len(scores)), key=lambda at: -scores[at]), start=1):
        if flags[at]:
            hits += 1
            total += hits / rank
    return total / len(truth)


def thumos_map(
    truth: Mapping[str, Rows], predictions: Mapping[str, Rows], tious: Sequence[float]
) -> np.ndarray:
    """Return AP `(T, C)` by the rule of the THUMOS'14 kit, classes in order of appearance."""
    truth_of, predicted_of = by_class(truth), by_class(predictions)
    vague = truth_of.pop("Ambiguous", [])
    return np.array(
        [
            [thumos_ap(rows, vague, predicted_of[label], tiou) for label, rows in truth_of.items()]
            for tiou in tious
        ]
    )


def frame_ap(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return AP of one class over all frames, 0 without positives."""
    order = sorted(range(len(scores)), key=lambda at: -scores[at])
    hits, total = 0, 0.0
    for rank, at in enumerate(order, start=1):
        if positive[at]:
            hits += 1
            total += hits / rank
    return total / max(hits, 1)


def charades_labels(length: float, segments: Segments, num_classes: int) -> np.ndarray:
    """Return bool `(25, C)` of one video."""
    labels = np.zeros((25, num_classes), bool)
    for step in range(25):
        for start, end, index in segments:
            if start <= step / 25 * length <= end:
                labels[step, index] = True
    return labels


def dense_labels(
    num_rows: int, duration: float, segments: Segments, num_classes: int
) -> np.ndarray:
    """Return bool `(T, C)` of one video."""
    labels = np.zeros((num_rows, num_classes), bool)
    rate = num_rows / duration
    for start, end, index in segments:
        for row in range(num_rows):
            if start < row / rate < end:
                labels[row, index] = True
    return labels


def boundary_rows(labels: np.ndarray, radius: int) -> np.ndarray:
    """Return bool `(T,)`: a row of labels changes within `radius` rows."""
    near = [False] * len(labels)
    for row in range(1, len(labels)):
        if list(labels[row]) != list(labels[row - 1]):
            for other in range(max(row - radius, 0), min(row + radius, len(labels))):
                near[other] = True
    return np.array(near)


def grounding(
    truth: Sequence[Sequence[float]],
    predictions: Sequence[Sequence[Sequence[float]]],
    ns: Sequence[int],
    ious: Sequence[float],
) -> tuple[dict[tuple[int, float], float], float]:
    """Return (n, m) -> R@n,IoU=m and mIoU by the rule of LGI, sentence by sentence."""
    recall, total = dict.fromkeys([(n, iou) for n in ns for iou in ious], 0), 0.0
    for segment, found in zip(truth, predictions, strict=True):
        shares = [kit_overlap(segment, row) for row in found]
        for n, iou in recall:
            recall[n, iou] += max(shares[:n]) >= iou
        total += max(shares[:5])
    return {key: count / len(truth) for key, count in recall.items()}, total / len(truth)


def assign_steps(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return the second of each step: of all seconds before, step by step, the best sum."""
    num_seconds, num_steps = len(scores), len(scores[0])
    best = [[0.0] * (num_seconds + 1)] + [[-np.inf] * (num_seconds + 1) for _ in range(num_steps)]
    takes = [[False] * (num_seconds + 1) for _ in range(num_steps + 1)]
    for step in range(1, num_steps + 1):
        for second in range(step, num_seconds + 1):
            here = best[step - 1][second - 1] + scores[second - 1][step - 1]
            takes[step][second] = here > best[step][second - 1]
            best[step][second] = max(here, best[step][second - 1])
    seconds, second = [], num_seconds
    for step in range(num_steps, 0, -1):
        while not takes[step][second]:
            second -= 1
        second -= 1
        seconds.append(second)
    return seconds[::-1]

"""From files to the rules of `features/metrics`, and from their scores to names and numbers.

What a rule does not score (predictions of videos that the annotation lacks, frames that are
missing, segments that end before they start) is counted.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests import UsageError

from ..metrics import (
    ACTIVITYNET_TIOUS,
    AMBIGUOUS,
    DetectionScore,
    Predictions,
    Truth,
    average_recall,
    charades_labels,
    charades_score,
    dense_labels,
    detection_map,
    frame_breakdown,
    grounding_score,
    mean_average_precision,
    sampled_25,
    step_rows,
    step_score,
    without_duplicates,
)
from .prediction_files import (
    read_charades_submission,
    read_predicted_rows,
    read_predicted_segments,
    read_predicted_sentences,
)
from .truth_files import TruthFile, read_lengths, read_sentences, read_steps, read_truth

# Scores, counts, and AP (or recall) per class, each by name.
Found = tuple[dict[str, float], dict[str, int], dict[str, float]]


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What may be chosen; most rules look at few of them.

    Attributes:
        subset: Score the videos of this subset of the annotation; all if None.
        tious: Thresholds of detections; those of the rule if None.
        max_proposals: Largest average number of proposals per video.
        drop_unknown: Leave out detections whose label the annotation lacks; refused otherwise.
        lengths: File that states the lengths of videos where the annotation does not: a sources
            table, or another annotation (`Charades_v1_test.csv`, for 2D-TAN).
    """

    subset: str | None = None
    tious: tuple[float, ...] | None = None
    max_proposals: float = 100
    drop_unknown: bool = False
    lengths: Path | None = None

    def __post_init__(self) -> None:
        for tiou in self.tious or ():
            if not 0 <= tiou <= 1:
                raise UsageError(f"a threshold of tIoU must be from 0 to 1, got {tiou}")
        if not 0 < self.max_proposals < math.inf:
            raise UsageError(
                f"the largest average number of proposals must be above 0, got {self.max_proposals}"
            )


Evaluator = Callable[[Path, Path, EvaluationOptions], Found]


def detections(
    rule: Callable[..., DetectionScore], tious: tuple[float, ...], keeps_vague: bool = False
) -> Evaluator:
    """Return an evaluator of detections by a rule with these thresholds."""

    def evaluate(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
        truth = read_truth(truth_path, options.subset)
        found = read_predicted_segments(predictions_path)
        segments = truth.segments if keeps_vague else _without_ambiguous(truth.segments)
        score = rule(segments, found, options.tious or tious, drop_unknown=options.drop_unknown)
        at = {f"mAP@{tiou:.2f}": float(m) for tiou, m in zip(score.tious, score.map_T, strict=True)}
        counts = {
            "videos": len(segments),
            "segments": score.num_segments,
            "predictions": score.num_predictions,
            "in other videos": score.num_foreign,
            "with unknown labels": score.num_unknown,
            "segments that end before they start": truth.num_backward(),
        }
        ap_C = score.ap_TC.mean(axis=0)
        per_class = dict(zip(map(str, score.classes), ap_C.tolist(), strict=True))
        return {"mAP": score.map, **at}, counts, per_class

    return evaluate


def _without_ambiguous(segments: Truth) -> dict[str, list[tuple[float, float, Hashable]]]:
    return {
        video_id: [row for row in rows if row[2] != AMBIGUOUS]
        for video_id, rows in segments.items()
    }


def opentad_map(
    truth: Truth, predictions: Predictions, tious: Iterable[float], *, drop_unknown: bool = True
) -> DetectionScore:
    """Score as ActionFormer and OpenTAD do, who always leave unknown labels out."""
    del drop_unknown
    return detection_map(without_duplicates(truth), predictions, tious, drop_unknown=True)


def proposals(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
    """Score proposals."""
    truth = read_truth(truth_path, options.subset)
    found = read_predicted_segments(predictions_path, needs_labels=False)
    segments = _without_ambiguous(truth.segments)
    score = average_recall(
        segments, found, options.tious or ACTIVITYNET_TIOUS, options.max_proposals
    )
    numbers = (1, 5, 10, 50, 100, options.max_proposals)
    at = {f"AR@{n:g}": score.at(n) for n in numbers if n <= options.max_proposals}
    counts = {
        "videos": sum(map(bool, segments.values())),
        "videos without proposals": score.num_videos_without,
        "segments": score.num_segments,
        "proposals": score.num_proposals,
        "in other videos": score.num_foreign,
    }
    return {"AUC": score.auc, **at}, counts, {}


def frames(
    score: Callable[[list[np.ndarray], list[np.ndarray]], tuple[dict, np.ndarray]],
    first_class: int,
    num_classes: int,
) -> Evaluator:
    """Return an evaluator of scores per frame, for official class numbers in this range."""

    def evaluate(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
        truth = read_truth(truth_path, options.subset, first_class)
        if options.lengths:
            truth.lengths.update(read_lengths(options.lengths))
        classes = truth.classes or tuple(str(number) for number in range(num_classes))
        found = read_predicted_rows(predictions_path)
        scored = [video_id for video_id in truth.segments if video_id in found]
        _need_videos(scored, found, truth_path)
        labels = [_labels_of(truth, v, classes, found[v].shape, truth_path) for v in scored]
        scores, ap_C = score([found[video_id] for video_id in scored], labels)
        counts = {
            "videos": len(scored),
            "videos without predictions, left out": len(truth.segments) - len(scored),
            "videos of predictions that the annotation lacks": len(found) - len(scored),
            "frames": sum(map(len, labels)),
            "segments that end before they start": truth.num_backward(),
        }
        return scores, counts, dict(zip(classes, ap_C.tolist(), strict=True))

    return evaluate


def _labels_of(
    truth: TruthFile, video_id: str, classes: tuple[str, ...], shape: tuple[int, ...], path: Path
) -> np.ndarray:
    """Return the label rows of a video for predictions of this shape."""
    if shape[1] != len(classes):
        raise UsageError(
            f"predictions must have a column for each of the {len(classes)} classes of "
            f"{str(path)!r}, got {shape[1]} for video {video_id!r}"
        )
    if truth.lengths.get(video_id, 0) <= 0:
        raise UsageError(
            f"the length of video {video_id!r} must be known to label its frames: {str(path)!r} "
            f"does not state it; name a sources table that does (--lengths)"
        )
    return dense_labels(
        shape[0], truth.lengths[video_id], _indexed(truth, video_id, classes), shape[1]
    )


def _indexed(
    truth: TruthFile, video_id: str, classes: tuple[str, ...]
) -> list[tuple[float, float, int]]:
    """Return the segments of a video with class indices."""
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = {row[2] for row in truth.segments[video_id]} - set(index_of)
    if unknown:
        raise UsageError(
            f"video {video_id!r} must have classes among {classes[0]!r} to {classes[-1]!r} "
            f"({len(classes)}), got {min(unknown)!r}"
        )
    return [(start, end, index_of[label]) for start, end, label in truth.segments[video_id]]


def _need_videos(scored: Iterable[str], found: Mapping[str, Any], truth_path: Path) -> None:
    if not list(scored):
        raise UsageError(
            f"no video of the predictions ({', '.join(map(repr, list(found)[:3]))}, ...) is in the "
            f"annotation {str(truth_path)!r}"
        )


def dense_score(
    scores: list[np.ndarray], labels: list[np.ndarray]
) -> tuple[dict[str, float], np.ndarray]:
    """Return the means over all frames, those of each kind of frame, and AP per class."""
    scores_NC, labels_NC = np.concatenate(scores), np.concatenate(labels)
    meter = mean_average_precision(scores_NC, labels_NC)
    grouped = mean_average_precision(scores_NC, labels_NC, ties="grouped")
    kinds = frame_breakdown(scores, labels).scores
    return {
        "mAP (APMeter, all classes)": meter.mean_of_all,
        "mAP (APMeter, classes that occur)": meter.mean,
        "mAP (APMeter, AP not 0, as PDAN logs)": meter.mean_of_nonzero,
        "mAP (scikit-learn's ties, classes that occur)": grouped.mean,
        **{f"mAP on {name.replace('_', '-')} frames": kind.mean for name, kind in kinds.items()},
    }, meter.per_class_C


def sampled_score(
    scores: list[np.ndarray], labels: list[np.ndarray]
) -> tuple[dict[str, float], np.ndarray]:
    """Return the same on 25 rows per video."""
    rows = [sampled_25(len(labels_TC)) for labels_TC in labels]
    return dense_score(
        [scores_TC[at] for scores_TC, at in zip(scores, rows, strict=True)],
        [labels_TC[at] for labels_TC, at in zip(labels, rows, strict=True)],
    )


def charades_25(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
    """Score a submission of 25 frames a video."""
    truth = read_truth(truth_path, options.subset)
    if options.lengths:
        truth.lengths.update(read_lengths(options.lengths))
    found = read_charades_submission(predictions_path)
    _need_videos([video_id for video_id in truth.segments if video_id in found], found, truth_path)
    num_classes = next(iter(found.values())).shape[1]
    classes = truth.classes or tuple(str(number) for number in range(num_classes))
    missing_JC = np.full((25, num_classes), -np.inf)
    scores_NC = np.concatenate([found.get(video_id, missing_JC) for video_id in truth.segments])
    unknown = sorted(set(truth.segments) - set(truth.lengths))
    if unknown or num_classes != len(classes):
        raise UsageError(
            f"{str(truth_path)!r} must state the length of every video and {num_classes} classes, "
            f"as the submission has, got {len(classes)} and no length of {len(unknown)} videos"
        )
    labels = [
        charades_labels(truth.lengths[video_id], _indexed(truth, video_id, classes), num_classes)
        for video_id in truth.segments
    ]
    score = charades_score(scores_NC, np.concatenate(labels))
    counts = {
        "videos": len(truth.segments),
        "frames": len(scores_NC),
        "missing frames": int(np.isneginf(scores_NC).all(axis=1).sum()),
        "videos of predictions that the annotation lacks": len(set(found) - set(truth.segments)),
        "classes without a frame": int(np.isnan(score.ap_C).sum()),
    }
    per_class = dict(zip(classes, score.ap_C.tolist(), strict=True))
    return {"mAP": score.map, "wAP": score.wap}, counts, per_class


def grounding(rule: str) -> Evaluator:
    """Return an evaluator of sentences by "lgi" or "2d-tan"."""

    def evaluate(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
        sentences = read_sentences(truth_path, options.subset)
        found_QK2 = read_predicted_sentences(predictions_path)
        lengths_Q = None
        if rule == "2d-tan":
            if options.lengths is None and truth_path.suffix != ".parquet":
                raise UsageError(
                    "2D-TAN clips to the video's length: name a file that states it (--lengths)"
                )
            stated = (
                read_lengths(options.lengths) if options.lengths else read_truth(truth_path).lengths
            )
            absent = sorted({video_id for video_id, _, _ in sentences} - set(stated))
            if absent:
                raise UsageError(
                    f"2D-TAN clips to the video's length, which must be stated, but is not for "
                    f"{len(absent)} videos, such as {absent[0]!r}"
                )
            lengths_Q = np.array([stated[video_id] for video_id, _, _ in sentences])
        truth_Q2 = np.array([times for _, *times in sentences])
        score = grounding_score(truth_Q2, found_QK2, rule=rule, durations_Q=lengths_Q)
        scores = {f"R@{n},IoU={iou:g}": share for (n, iou), share in score.recall.items()}
        counts = {
            "videos": len({video_id for video_id, _, _ in sentences}),
            "sentences": score.num_queries,
            "sentences without a prediction": int(np.isnan(found_QK2[:, 0, 0]).sum()),
        }
        return {**scores, "mIoU": score.miou}, counts, {}

    return evaluate


def crosstask(predictions_path: Path, truth_path: Path, options: EvaluationOptions) -> Found:
    """Score steps per second."""
    if truth_path.suffix == ".parquet":
        segments = read_truth(truth_path, options.subset).segments
    else:
        segments = read_steps(truth_path)
    found = read_predicted_rows(predictions_path)
    scored = [video_id for video_id in segments if video_id in found]
    _need_videos(scored, found, truth_path)
    tasks: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for video_id in scored:
        scores_TK = found[video_id]
        steps = tuple(str(step) for step in range(scores_TK.shape[1]))
        rows = _indexed(TruthFile({video_id: segments[video_id]}), video_id, steps)
        rows_TK = step_rows(len(scores_TK), rows, len(steps))
        tasks.setdefault(video_id.partition("_")[0], []).append((scores_TK, rows_TK))
    score = step_score(tasks)
    counts = {
        "tasks": len(tasks),
        "videos": score.num_videos,
        "videos without predictions, left out": len(segments) - len(scored),
        "videos of predictions that the annotation lacks": len(found) - len(scored),
    }
    scores = {"step recall": score.recall, "mAP per second": score.map}
    return scores, counts, dict(score.recall_of)

"""Score a prediction file against an annotation file by the rule of a named evaluator.

The rules are those of `features/metrics`, one file each, with the sources; the files are those of
`truth_files.py` and `prediction_files.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests import UsageError

from ..metrics import ACTIVITYNET_TIOUS, THUMOS_TIOUS, detection_map, thumos_map
from .evaluators import (
    EvaluationOptions,
    Evaluator,
    charades_25,
    crosstask,
    dense_score,
    detections,
    frames,
    grounding,
    opentad_map,
    proposals,
    sampled_score,
)

METRICS: dict[str, tuple[str, Evaluator]] = {
    "activitynet": (
        "mAP of detections by the ActivityNet script",
        detections(detection_map, ACTIVITYNET_TIOUS),
    ),
    "opentad": (
        "mAP of detections by ActionFormer and OpenTAD: no repeated segments, no unknown labels",
        detections(opentad_map, ACTIVITYNET_TIOUS),
    ),
    "proposals": ("AR@AN and AUC by the ActivityNet script", proposals),
    "thumos": (
        "mAP of detections by the kit of THUMOS'14",
        detections(thumos_map, THUMOS_TIOUS, keeps_vague=True),
    ),
    "thumos-activitynet": (
        "mAP of detections by the ActivityNet script at the thresholds of THUMOS'14",
        detections(detection_map, THUMOS_TIOUS),
    ),
    "multithumos": (
        "mAP per frame of MultiTHUMOS, and by kind of frame (SSDet, Table 2e)",
        frames(dense_score, 1, 65),
    ),
    "charades-dense": (
        "mAP per frame of Charades, and by kind of frame (SSDet, Table 2e)",
        frames(dense_score, 0, 157),
    ),
    "charades-sampled": (
        "mAP on 25 rows per video of Charades, as MS-TCT takes them",
        frames(sampled_score, 0, 157),
    ),
    "charades": ("mAP and wAP on 25 frames by Charades_v1_localize.m", charades_25),
    "grounding-lgi": ("R@n,IoU>=m and mIoU of sentences by LGI", grounding("lgi")),
    "grounding-2d-tan": ("R@n,IoU>m and mIoU of sentences by 2D-TAN", grounding("2d-tan")),
    "crosstask": ("step recall by CrossTask, and mAP per second", crosstask),
}


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What an evaluator says.

    Attributes:
        metric: Key of `METRICS`.
        rule: Whose definition it is, in one clause.
        scores: Name -> number; shares of 1, but AUC in percent, as the scripts print them.
        counts: What was scored and what was not.
        per_class: Class -> AP; averaged over thresholds for detections.
    """

    metric: str
    rule: str
    scores: Mapping[str, float]
    counts: Mapping[str, int]
    per_class: Mapping[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the report as a few lines of text: rule, scores, counts."""
        width = max(map(len, self.scores))
        counts = " · ".join(f"{name} {number:,}" for name, number in self.counts.items())
        rows = [f"  {name:<{width}}  {number:.6f}" for name, number in self.scores.items()]
        return [f"{self.metric}: {self.rule}", *rows, f"  {counts}"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, NaN as None."""
        return {
            "metric": self.metric,
            "rule": self.rule,
            "scores": {name: _or_none(number) for name, number in self.scores.items()},
            "counts": dict(self.counts),
            "per_class": {name: _or_none(ap) for name, ap in self.per_class.items()},
        }


def evaluate_files(
    metric: str,
    predictions_path: Path | str,
    truth_path: Path | str,
    options: EvaluationOptions | None = None,
) -> EvaluationReport:
    """Score predictions by the rule of one evaluator.

    Args:
        metric: Key of `METRICS`.
        predictions_path: The file that the official evaluator reads, or ours (`prediction_files`).
        truth_path: Official annotations, or `segments.parquet` (`truth_files`).
        options: Defaults if None.

    Raises:
        UsageError: An unknown metric, files that cannot be read or are not of a known layout,
            labels that the annotation lacks, numbers that are not finite, or nothing to score.
    """
    if metric not in METRICS:
        raise UsageError(f"the metric must be one of {', '.join(METRICS)}, got {metric!r}")
    rule, evaluator = METRICS[metric]
    try:
        scores, counts, per_class = evaluator(
            Path(predictions_path), Path(truth_path), options or EvaluationOptions()
        )
    except ValueError as err:  # of the rules: what was read cannot be scored
        raise UsageError(f"{err} ({str(predictions_path)!r}, {str(truth_path)!r})") from err
    counts = {name: count for name, count in counts.items() if count or "videos" in name}
    return EvaluationReport(metric, rule, scores, counts, per_class)


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number

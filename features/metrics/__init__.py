"""Evaluators in NumPy alone: each says whose definition it follows, ties included."""

from .average_precision import (
    AveragePrecision,
    average_precision,
    chance_average_precision,
    mean_average_precision,
)
from .breakdown import FrameBreakdown, boundary_rows, frame_breakdown
from .charades import CHARADES_FRAMES, CharadesScore, charades_labels, charades_score
from .dense import dense_labels, sampled_25
from .detection import (
    ACTIVITYNET_TIOUS,
    THUMOS_TIOUS,
    DetectionMatches,
    DetectionScore,
    Predictions,
    Truth,
    detection_map,
    match_detections,
    without_duplicates,
)
from .grounding import DEFAULT_IOUS, GroundingScore, grounding_score
from .proposals import NUM_STEPS, RecallScore, average_recall, best_proposals, first_hits
from .steps import StepScore, assign_steps, step_rows, step_score
from .thumos import AMBIGUOUS, thumos_map

__all__ = [
    "ACTIVITYNET_TIOUS",
    "AMBIGUOUS",
    "CHARADES_FRAMES",
    "DEFAULT_IOUS",
    "NUM_STEPS",
    "THUMOS_TIOUS",
    "AveragePrecision",
    "CharadesScore",
    "DetectionMatches",
    "DetectionScore",
    "FrameBreakdown",
    "GroundingScore",
    "Predictions",
    "RecallScore",
    "StepScore",
    "Truth",
    "assign_steps",
    "average_precision",
    "average_recall",
    "best_proposals",
    "boundary_rows",
    "chance_average_precision",
    "charades_labels",
    "charades_score",
    "dense_labels",
    "detection_map",
    "first_hits",
    "frame_breakdown",
    "grounding_score",
    "match_detections",
    "mean_average_precision",
    "sampled_25",
    "step_rows",
    "step_score",
    "thumos_map",
    "without_duplicates",
]

"""Evaluators in NumPy alone: each says whose definition it follows, ties included."""

from .average_precision import (
    AveragePrecision,
    average_precision,
    chance_average_precision,
    mean_average_precision,
)
from .detection import (
    ACTIVITYNET_TIOUS,
    THUMOS_TIOUS,
    DetectionScore,
    detection_map,
    without_duplicates,
)
from .proposals import RecallScore, average_recall

__all__ = [
    "ACTIVITYNET_TIOUS",
    "THUMOS_TIOUS",
    "AveragePrecision",
    "DetectionScore",
    "RecallScore",
    "average_precision",
    "average_recall",
    "chance_average_precision",
    "detection_map",
    "mean_average_precision",
    "without_duplicates",
]

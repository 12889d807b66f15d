"""Evaluators in NumPy alone: each says whose definition it follows, ties included."""

from .average_precision import (
    AveragePrecision,
    average_precision,
    chance_average_precision,
    mean_average_precision,
)

__all__ = [
    "AveragePrecision",
    "average_precision",
    "chance_average_precision",
    "mean_average_precision",
]

"""Objectives, one per file; a recipe names one by its key here."""

from .classification import Classification
from .detection import Detection
from .objective import Objective
from .scores import average_precision, mean_average_precision

OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "detection": Detection,
}

__all__ = [
    "OBJECTIVES",
    "Classification",
    "Detection",
    "Objective",
    "average_precision",
    "mean_average_precision",
]

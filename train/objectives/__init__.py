"""Objectives, one per file; a recipe names one by its key here."""

from .boundary import Boundary
from .boundary_regression import BoundaryRegression
from .classification import Classification
from .detection import Detection
from .distillation import Distillation
from .frames import Frames
from .moco import Moco
from .objective import Objective
from .pal import Pal
from .scores import average_precision, mean_average_precision
from .two_head import TwoHead

OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "detection": Detection,
    "frames": Frames,
    "boundary": Boundary,
    "boundary_regression": BoundaryRegression,
    "two_head": TwoHead,
    "distillation": Distillation,
    "pal": Pal,
    "moco": Moco,
}

__all__ = [
    "OBJECTIVES",
    "Boundary",
    "BoundaryRegression",
    "Classification",
    "Detection",
    "Distillation",
    "Frames",
    "Moco",
    "Objective",
    "Pal",
    "TwoHead",
    "average_precision",
    "mean_average_precision",
]

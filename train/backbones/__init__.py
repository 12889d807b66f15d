"""Backbones, one per file; a recipe names one by its key here."""

from .backbone import Backbone
from .x3d import X3D, X3DArguments

BACKBONES: dict[str, type[Backbone]] = {"x3d": X3D}

__all__ = ["BACKBONES", "X3D", "Backbone", "X3DArguments"]

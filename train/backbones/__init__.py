"""Backbones, one per file; a recipe names one by its key here."""

from .backbone import Backbone
from .resnet3d import ResNet3D, ResNet3DArguments
from .x3d import X3D, X3DArguments

BACKBONES: dict[str, type[Backbone]] = {"x3d": X3D, "resnet3d": ResNet3D}

__all__ = ["BACKBONES", "X3D", "Backbone", "ResNet3D", "ResNet3DArguments", "X3DArguments"]

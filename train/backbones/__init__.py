"""Backbones, one per file; a recipe names one by its key here."""

from .backbone import Backbone, channels_last
from .i3d import I3D, I3DArguments
from .resnet3d import ResNet3D, ResNet3DArguments
from .tsm import TSM, TSMArguments
from .x3d import X3D, X3DArguments

BACKBONES: dict[str, type[Backbone]] = {
    "x3d": X3D,
    "i3d": I3D,
    "tsm": TSM,
    "resnet3d": ResNet3D,
}

__all__ = [
    "BACKBONES",
    "I3D",
    "TSM",
    "X3D",
    "Backbone",
    "I3DArguments",
    "ResNet3D",
    "ResNet3DArguments",
    "TSMArguments",
    "X3DArguments",
    "channels_last",
]

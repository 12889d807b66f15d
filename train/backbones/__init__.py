"""Backbones, one per file; a recipe names one by its key here."""

from .backbone import Backbone, channels_last
from .i3d import I3D, I3DArguments
from .x3d import X3D, X3DArguments

BACKBONES: dict[str, type[Backbone]] = {"x3d": X3D, "i3d": I3D}

__all__ = ["BACKBONES", "I3D", "X3D", "Backbone", "I3DArguments", "X3DArguments", "channels_last"]

"""Heads that are trained on stored features."""

from .frame_head import AnnotatedVideo, FrameHead, HeadRecipe
from .linear import LinearHead, train_linear
from .ms_tct import MSTCT, MSTCTArguments
from .pdan import PDAN, PDANArguments
from .super_events import SuperEvents, SuperEventsArguments
from .tgm import TGM, TGMArguments
from .trained import FRAME_HEADS, TrainedHead, build_head, read_public_head
from .training import train_head

__all__ = [
    "FRAME_HEADS",
    "MSTCT",
    "PDAN",
    "TGM",
    "AnnotatedVideo",
    "FrameHead",
    "HeadRecipe",
    "LinearHead",
    "MSTCTArguments",
    "PDANArguments",
    "SuperEvents",
    "SuperEventsArguments",
    "TGMArguments",
    "TrainedHead",
    "build_head",
    "read_public_head",
    "train_head",
    "train_linear",
]

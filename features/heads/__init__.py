"""Heads that are trained on stored features."""

from .bmn import BMN, BMNArguments
from .boundary_targets import duration_cells, end_cells
from .detector import (
    BMN_RECIPE,
    GTAD_ANET_RECIPE,
    GTAD_THUMOS_RECIPE,
    DetectorRecipe,
    detect,
    make_example,
    train_detector,
)
from .frame_head import AnnotatedVideo, FrameHead, HeadRecipe
from .gtad import GTAD, GTAD_ANET, GTAD_THUMOS, GTADArguments
from .linear import LinearHead, train_linear
from .ms_tct import MSTCT, MSTCTArguments
from .pdan import PDAN, PDANArguments
from .super_events import SuperEvents, SuperEventsArguments
from .tgm import TGM, TGMArguments
from .trained import FRAME_HEADS, TrainedHead, build_head, read_public_head
from .training import train_head

__all__ = [
    "BMN",
    "BMN_RECIPE",
    "FRAME_HEADS",
    "GTAD",
    "GTAD_ANET",
    "GTAD_ANET_RECIPE",
    "GTAD_THUMOS",
    "GTAD_THUMOS_RECIPE",
    "MSTCT",
    "PDAN",
    "TGM",
    "AnnotatedVideo",
    "BMNArguments",
    "DetectorRecipe",
    "FrameHead",
    "GTADArguments",
    "HeadRecipe",
    "LinearHead",
    "MSTCTArguments",
    "PDANArguments",
    "SuperEvents",
    "SuperEventsArguments",
    "TGMArguments",
    "TrainedHead",
    "build_head",
    "detect",
    "duration_cells",
    "end_cells",
    "make_example",
    "read_public_head",
    "train_detector",
    "train_head",
    "train_linear",
]

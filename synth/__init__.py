"""What is made: plans, the three papers' syntheses, decoding, and WebDataset shards."""

from .boundary import BOUNDARY_CLASSES
from .cutmix import column_mask, round_half_up, view_slides, window_masks
from .dataset import ShardDataset, ShardIndex, read_dataset
from .frames import frame_batches, read_frames
from .freeze import draw_freeze, frozen_index
from .job import RenderReport, render_plan
from .labels import LabelTrack, add_tracks, constant_track
from .mixup import Overlap, aligned_index, draw_overlap, mixing_weights
from .plan_files import PlanReport, write_plan
from .preview import PreviewReport, write_preview
from .shards import ShardSample, read_sample
from .status import StatusReport, read_status
from .verify import verify_output
from .views import View, apply_view, resize, resized_size

__all__ = [
    "BOUNDARY_CLASSES",
    "LabelTrack",
    "Overlap",
    "PlanReport",
    "PreviewReport",
    "RenderReport",
    "ShardDataset",
    "ShardIndex",
    "ShardSample",
    "StatusReport",
    "View",
    "add_tracks",
    "aligned_index",
    "apply_view",
    "column_mask",
    "constant_track",
    "draw_freeze",
    "draw_overlap",
    "frame_batches",
    "frozen_index",
    "mixing_weights",
    "read_dataset",
    "read_frames",
    "read_sample",
    "read_status",
    "render_plan",
    "resize",
    "resized_size",
    "round_half_up",
    "verify_output",
    "view_slides",
    "window_masks",
    "write_plan",
    "write_preview",
]

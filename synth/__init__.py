"""What is made: plans, the three papers' syntheses, decoding, and WebDataset shards."""

from .boundary import BOUNDARY_CLASSES
from .frames import frame_batches, read_frames
from .job import RenderReport, render_plan
from .labels import LabelTrack, add_tracks, constant_track
from .plan_files import PlanReport, write_plan
from .preview import PreviewReport, write_preview
from .shards import (
    ShardDataset,
    ShardIndex,
    ShardSample,
    read_dataset,
    read_sample,
)
from .verify import StatusReport, read_status, verify_output
from .views import View, apply_view, resize, resized_size

__all__ = [
    "BOUNDARY_CLASSES",
    "LabelTrack",
    "PlanReport",
    "PreviewReport",
    "RenderReport",
    "ShardDataset",
    "ShardIndex",
    "ShardSample",
    "StatusReport",
    "View",
    "add_tracks",
    "apply_view",
    "constant_track",
    "frame_batches",
    "read_dataset",
    "read_frames",
    "read_sample",
    "read_status",
    "render_plan",
    "resize",
    "resized_size",
    "verify_output",
    "write_plan",
    "write_preview",
]

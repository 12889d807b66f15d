"""What is made: plans, the three papers' syntheses, decoding, and WebDataset shards."""

from .frames import frame_batches, read_frames
from .labels import LabelTrack, add_tracks, constant_track
from .shards import (
    ShardDataset,
    ShardIndex,
    ShardSample,
    read_dataset,
    read_sample,
)
from .views import View, apply_view, resize, resized_size

__all__ = [
    "LabelTrack",
    "ShardDataset",
    "ShardIndex",
    "ShardSample",
    "View",
    "add_tracks",
    "apply_view",
    "constant_track",
    "frame_batches",
    "read_dataset",
    "read_frames",
    "read_sample",
    "resize",
    "resized_size",
]

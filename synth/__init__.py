"""What is made: plans, the three papers' syntheses, decoding, and WebDataset shards."""

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
    "read_dataset",
    "read_sample",
    "resize",
    "resized_size",
]

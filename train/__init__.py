"""Who learns: the shard loader, backbones, objectives, one readable loop, checkpoints."""

import os

# Read when torch loads. By default OpenMP's threads spin while they wait: where decoding threads
# and other processes wanted the same two cores, training fell from 50 clips/s to 8.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read by oneDNN at its first use: with its small default, going to and fro between input sizes or
# models compiles the CPU's kernels again every time, for seconds.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

from .backbones import BACKBONES, X3D, Backbone, X3DArguments, channels_last
from .checkpoint import TrainedModel, load_run, normalise, read_model_record
from .initial_weights import load_initial_weights
from .loader import Batch, SampleTable, load_batches, sample_table
from .loop import train_model
from .objectives import OBJECTIVES, Objective, average_precision, mean_average_precision
from .recipe import TrainRecipe, read_train_recipe
from .records import TrainReport
from .shard_cache import ShardCache

__all__ = [
    "BACKBONES",
    "OBJECTIVES",
    "X3D",
    "Backbone",
    "Batch",
    "Objective",
    "SampleTable",
    "ShardCache",
    "TrainRecipe",
    "TrainReport",
    "TrainedModel",
    "X3DArguments",
    "average_precision",
    "channels_last",
    "load_batches",
    "load_initial_weights",
    "load_run",
    "mean_average_precision",
    "normalise",
    "read_model_record",
    "read_train_recipe",
    "sample_table",
    "train_model",
]

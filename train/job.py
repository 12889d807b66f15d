"""What a training depends on, checked before its first side effect."""

from dataclasses import dataclass
from pathlib import Path

import torch

from manifests import CheckpointError, UsageError
from synth import ShardDataset, read_dataset

from .checkpoint import read_resume
from .loader import SampleTable, sample_table, split_by_video
from .recipe import TrainRecipe, read_train_recipe


@dataclass(frozen=True)
class TrainJob:
    """A recipe, a dataset and a run's folder that fit each other; sent to every worker.

    Attributes:
        recipe: What to train, and how.
        run: Folder of the run.
        dataset: The finished shards.
        samples: Training samples.
        held_out: Samples of the held-out videos.
        num_left_out: Samples with sources on both sides.
        clip_shape: `(T, H, W, 3)` of every clip.
        resume: Go on from the run's last checkpoint.
        init: Initial weights.
    """

    recipe: TrainRecipe
    run: Path
    dataset: ShardDataset
    samples: SampleTable
    held_out: SampleTable
    num_left_out: int
    clip_shape: tuple[int, ...]
    resume: bool
    init: Path | None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the training samples."""
        return len(self.samples) // self.recipe.batch_size

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.recipe.steps or (self.recipe.epochs or 0) * self.steps_per_epoch


def prepare_job(
    recipe_path: Path | str,
    shards: Path | str,
    run: Path | str,
    resume: bool = False,
    init: Path | str | None = None,
) -> TrainJob:
    """Read and check everything; writes nothing.

    Raises:
        UsageError: A wrong recipe, unfinished shards, too few samples, an existing run.
        ShardError: A shard that is missing, truncated or of another plan.
        CheckpointError: A run to resume that had another recipe, other shards or other classes.
    """
    recipe, run = read_train_recipe(recipe_path), Path(run)
    if resume and not run.is_dir():
        raise UsageError(f"there is no run to resume: {str(run)!r}")
    if not resume and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(
            f"the run's folder must be new, but {str(run)!r} exists: go on with --resume, or "
            f"choose another --out"
        )
    dataset = read_dataset(shards)
    table = sample_table(dataset, recipe.kinds)
    samples, held_out = split_by_video(table, recipe.validation_fraction, recipe.seed)
    if len(samples) < recipe.batch_size:
        raise UsageError(
            f"batch_size must be at most the number of training samples, got {recipe.batch_size} "
            f"for {len(samples)}, with {len(held_out)} held out (recipe {str(recipe_path)!r})"
        )
    if resume:
        _check_same_run(run, recipe, dataset)
    num_left_out = len(table) - len(samples) - len(held_out)
    shape = samples.read(0).frames().shape
    initial = None if init is None else Path(init)
    return TrainJob(recipe, run, dataset, samples, held_out, num_left_out, shape, resume, initial)


def choose_device(recipe: TrainRecipe, device: str | None, workers: int) -> torch.device:
    """Return the device to train on: the one named, else CUDA where there is one, else the CPU.

    Raises:
        UsageError: No such device, or workers, batch and precision that do not fit it.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"device must be cpu or cuda, got {name!r}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} was asked for, but torch sees no CUDA device")
    if recipe.precision == "bf16" and name == "cpu":
        raise UsageError("precision 'bf16' needs a CUDA device: use 'auto' or 'fp32' on the CPU")
    if workers < 1 or recipe.batch_size % workers:
        raise UsageError(
            f"workers must be >= 1 and divide batch_size, got {workers} for {recipe.batch_size}"
        )
    if name.startswith("cuda") and workers > torch.cuda.device_count():
        raise UsageError(
            f"there must be a GPU for each worker, got {workers} workers for "
            f"{torch.cuda.device_count()} GPUs"
        )
    return torch.device(name)


def _check_same_run(run: Path, recipe: TrainRecipe, dataset: ShardDataset) -> None:
    state = read_resume(run)
    if state is None:
        return
    if state["classes"] != list(dataset.classes):
        raise CheckpointError(
            f"run {str(run)!r} was trained on {len(state['classes'])} other classes than the "
            f"{len(dataset.classes)} of {str(dataset.path)!r}"
        )
    if state["dataset_digest"] != dataset.digest:
        raise CheckpointError(
            f"run {str(run)!r} was trained on other shards than those in {str(dataset.path)!r}"
        )
    now = recipe.to_dict()
    for key, value in state["recipe"].items():
        if now.get(key) != value:
            raise CheckpointError(
                f"run {str(run)!r} was trained with {key} = {value!r}, the recipe says "
                f"{now.get(key)!r}: a run is resumed with its own recipe"
            )

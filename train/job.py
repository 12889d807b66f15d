"""What a training depends on, checked before its first side effect."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from manifests import CheckpointError, UsageError, build_record, to_path
from synth import ShardDataset, read_dataset

from .backbones import BACKBONES
from .checkpoint import TrainedModel, load_run, read_resume
from .loader import SampleTable, sample_table, split_by_video
from .objectives import OBJECTIVES
from .recipe import TrainRecipe, objective_arguments, read_train_recipe
from .shard_cache import CACHE_GB, ShardCache

RGB = 3
NOTHING_HELD_OUT = (
    "nothing is held out: no sample has all its videos among the held-out ones; a larger "
    "validation_fraction may help"
)


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
        notes: What the user should know of it, in sentences.
        clip_shape: `(T, H, W, 3)` of every clip, or `(2, T, H, W, 3)` of every pair.
        init: Initial weights.
        teachers: Runs that the objective learns from.
        teacher_digests: The sha256 of their weights.
    """

    recipe: TrainRecipe
    run: Path
    dataset: ShardDataset
    samples: SampleTable
    held_out: SampleTable
    num_left_out: int
    notes: tuple[str, ...]
    clip_shape: tuple[int, ...]
    init: Path | None
    teachers: tuple[Path, ...] = ()
    teacher_digests: tuple[str, ...] = ()

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
    teachers: Sequence[Path | str] = (),
    cache: Path | str | None = None,
    cache_gb: float = CACHE_GB,
) -> TrainJob:
    """Read and check everything; writes nothing.

    Raises:
        UsageError: A wrong recipe, unfinished shards, samples that the objective cannot learn from,
            too few samples, an existing run, too small a cache.
        ShardError: A shard that is missing, truncated, damaged or of another plan.
        CheckpointError: A run to resume that had another recipe, other shards, other classes or
            other teachers; a teacher that does not fit the recipe.
    """
    recipe, run = read_train_recipe(recipe_path), Path(run)
    if resume and not run.is_dir():
        raise UsageError(f"there is no run to resume: {str(run)!r}")
    if not resume and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(
            f"the run's folder must be new, but {str(run)!r} exists: go on with --resume, or "
            f"choose another --out"
        )
    dataset = read_dataset(to_path(shards).absolute())  # workers may live in other folders
    kept = ShardCache(cache and Path(cache).absolute(), round(cache_gb * 1e9))
    kept.check_room(dataset.shards, recipe.shuffle_shards)
    table = sample_table(dataset, recipe.kinds, kept)
    check_samples(recipe, table)
    samples, held_out = split_by_video(table, recipe.validation_fraction, recipe.seed)
    if len(samples) < recipe.batch_size:
        raise UsageError(
            f"batch_size must be at most the number of training samples, got {recipe.batch_size} "
            f"for {len(samples)}, with {len(held_out)} held out (recipe {str(recipe_path)!r})"
        )
    shape = samples.read(0).frames().shape
    check_clips(recipe, shape, recipe_path)
    check_targets(recipe, table, recipe_path)
    digests = tuple(model.digest for model in load_teachers(recipe, teachers))
    if resume:
        _check_same_run(run, recipe, dataset, digests)
    job = TrainJob(
        recipe=recipe,
        run=run.absolute(),
        dataset=dataset,
        samples=samples,
        held_out=held_out,
        num_left_out=len(table) - len(samples) - len(held_out),
        notes=() if held_out or not recipe.validation_fraction else (NOTHING_HELD_OUT,),
        clip_shape=shape,
        init=None if init is None else Path(init).absolute(),
        teachers=tuple(Path(teacher).absolute() for teacher in teachers),
        teacher_digests=digests,
    )
    check_kept_steps(job, recipe_path)
    return job


def check_samples(recipe: TrainRecipe, samples: SampleTable) -> None:
    """Raise UsageError unless the objective can learn from every kind of sample."""
    objective, path = OBJECTIVES[recipe.objective], str(samples.dataset.path)
    if objective.reads_classes and not samples.dataset.classes:
        raise UsageError(
            f"objective {recipe.objective!r} needs labels, but the shards in {path!r} have no "
            f"classes"
        )
    kinds = samples.kinds()
    found = {kind: samples.read(kinds.index(kind)) for kind in sorted(set(kinds))}
    wrong = [kind for kind, sample in found.items() if not objective.accepts(sample)]
    if wrong or not objective.suffices(list(found.values())):
        raise UsageError(
            f"objective {recipe.objective!r} needs {objective.wants}, but the shards in {path!r} "
            f"have samples of kind {' and '.join(map(repr, wrong or found))}: choose others with "
            f"`kinds`, or render such shards"
        )


def check_kept_steps(job: TrainJob, path: Path | str) -> None:
    """Raise UsageError unless the run comes to every step at which its model shall be kept."""
    for step in job.recipe.keep_at:
        if not 1 <= step <= job.num_steps:
            raise UsageError(
                f"keep_at must be steps from 1 to {job.num_steps}, the run's last, got {step} "
                f"(recipe {str(path)!r}, [train])"
            )


def check_targets(recipe: TrainRecipe, samples: SampleTable, path: Path | str) -> None:
    """Make the target of one sample of each kind; ShardError if it does not fit the settings."""
    num_classes = len(samples.dataset.classes)
    objective = OBJECTIVES[recipe.objective](
        num_classes, recipe.loss, objective_arguments(recipe, path)
    )
    kinds = samples.kinds()
    for kind in sorted(set(kinds)):
        objective.target(samples.read(kinds.index(kind)))


def check_clips(recipe: TrainRecipe, shape: Sequence[int], path: Path | str) -> None:
    """Raise UsageError unless a sample can be cut into clips that objective and backbone take."""
    arguments = objective_arguments(recipe, path)
    num_clips, min_frames = (getattr(arguments, key, 1) for key in ("num_clips", "min_frames"))
    if shape[-4] % num_clips:
        raise UsageError(
            f"num_clips must divide the frames of a sample, got {num_clips} for {shape[-4]} "
            f"(recipe {str(path)!r}, [train.objective_arguments])"
        )
    if shape[-4] < min_frames:
        raise UsageError(
            f"the objective's settings need samples of at least {min_frames} frames, got "
            f"{shape[-4]} (recipe {str(path)!r}, [train.objective_arguments])"
        )
    if recipe.backbone_arguments.get("in_channels", RGB) != RGB:
        raise UsageError(
            f"the frames of shards have {RGB} channels, but in_channels is "
            f"{recipe.backbone_arguments['in_channels']} (recipe {str(path)!r})"
        )
    least = BACKBONES[recipe.backbone].smallest_clip
    clip = (shape[-4] // num_clips, *shape[-3:-1])
    if any(size < smallest for size, smallest in zip(clip, least, strict=True)):
        raise UsageError(
            f"backbone {recipe.backbone!r} takes clips of at least {_clip(least)}, got "
            f"{_clip(clip)} (recipe {str(path)!r})"
        )


def _clip(size: Sequence[int]) -> str:
    num_frames, height, width = size
    return f"{num_frames} frames of {width}x{height}"


def load_teachers(
    recipe: TrainRecipe,
    teachers: Sequence[Path | str],
    device: str | torch.device = "cpu",
) -> list[TrainedModel]:
    """Load the runs that the objective learns from, in its order.

    Raises:
        UsageError: More or fewer runs than the objective has teachers.
        CheckpointError: A run with another objective, backbone or normalisation than it takes.
    """
    roles = OBJECTIVES[recipe.objective].teachers
    if len(teachers) != len(roles):
        raise UsageError(
            f"objective {recipe.objective!r} takes {len(roles)} --teacher runs"
            f"{' (' + ', then '.join(roles) + ')' if roles else ''}, got {len(teachers)}"
        )
    models = [load_run(run, device) for run in teachers]
    ours = _what_features_depend_on(
        {
            "backbone": recipe.backbone,
            "arguments": recipe.backbone_arguments,
            "mean": list(recipe.mean),
            "std": list(recipe.std),
        }
    )
    for model, run, (role, objectives) in zip(models, teachers, roles.items(), strict=True):
        if model.record.get("objective") not in objectives:
            raise CheckpointError(
                f"the {role} teacher must be a run of objective "
                f"{' or '.join(map(repr, objectives))}, but {str(run)!r} is one of "
                f"{model.record.get('objective')!r}"
            )
        theirs = _what_features_depend_on(model.record)
        for name, value in ours.items():
            if theirs[name] != value:
                raise CheckpointError(
                    f"a teacher must have the {name} of the recipe, {value!r}, but {str(run)!r} "
                    f"has {theirs[name]!r}"
                )
    return models


def _what_features_depend_on(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return backbone, its arguments with the defaults filled in, and normalisation; no dropout."""
    arguments = BACKBONES[record["backbone"]].Arguments
    resolved = build_record(arguments, record["arguments"], "train.backbone_arguments", "recipe")
    shape = {k: v for k, v in dataclasses.asdict(resolved).items() if k != "dropout"}
    return {name: record[name] for name in ("backbone", "mean", "std")} | {"arguments": shape}


def choose_device(
    recipe: TrainRecipe, device: str | None, workers: int, num_gpus: int
) -> torch.device:
    """Return the device to train on: the one named, else CUDA where there is one, else the CPU.

    Raises:
        UsageError: No such device, or workers, batch and precision that do not fit it.
    """
    name = device or ("cuda" if num_gpus else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"device must be cpu or cuda, got {name!r}")
    if name.startswith("cuda") and not num_gpus:
        raise UsageError(f"device {name!r} was asked for, but there is no CUDA device")
    if recipe.precision == "bf16" and name == "cpu":
        raise UsageError("precision 'bf16' needs a CUDA device: use 'auto' or 'fp32' on the CPU")
    if workers < 1 or recipe.batch_size % workers:
        raise UsageError(
            f"workers must be >= 1 and divide batch_size, got {workers} for {recipe.batch_size}"
        )
    try:
        arguments = objective_arguments(recipe, "recipe")
        OBJECTIVES[recipe.objective].check(arguments, recipe.batch_size // workers)
    except ValueError as err:
        raise UsageError(f"{err} in each of {workers} workers") from err
    if name.startswith("cuda") and workers > num_gpus:
        raise UsageError(
            f"there must be a GPU for each worker, got {workers} workers for {num_gpus} GPUs"
        )
    return torch.device(name)


def _check_same_run(
    run: Path, recipe: TrainRecipe, dataset: ShardDataset, teacher_digests: tuple[str, ...]
) -> None:
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
    if tuple(state["teacher_digests"]) != teacher_digests:
        raise CheckpointError(f"run {str(run)!r} was trained with other teachers than those given")
    now = recipe.to_dict()
    for key, value in ({"keep_at": []} | state["recipe"]).items():  # once, runs kept nothing
        if now.get(key) != value:
            raise CheckpointError(
                f"run {str(run)!r} was trained with {key} = {value!r}, the recipe says "
                f"{now.get(key)!r}: a run is resumed with its own recipe"
            )

"""The recipe of a training run: the `[train]` table of a TOML file."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from manifests import UsageError, build_record, read_recipe_table

from .backbones import BACKBONES
from .objectives import OBJECTIVES


@dataclass(frozen=True)
class TrainRecipe:
    """What to train on shards, and how.

    Attributes:
        objective: What is learnt; `docs/training.md` lists the objectives.
        objective_arguments: Table of the objective's settings.
        loss: Loss of the objective; its own default if absent.
        kinds: Kinds of samples to use (all if empty).
        backbone: Network: "x3d", "i3d", "tsm" or "resnet3d".
        backbone_arguments: Table of the network's arguments.
        steps: Number of optimiser steps; either this or `epochs`.
        epochs: Number of passes over the training samples; either this or `steps`.
        batch_size: Clips per step, over all workers together.
        optimiser: "sgd", "adam" (decay enters the gradient) or "adamw" (decay apart from it).
        learning_rate: Peak learning rate.
        momentum: Momentum of "sgd".
        weight_decay: Weight decay; norms and biases have none.
        warmup_steps: Steps over which the learning rate grows linearly to its peak.
        schedule: After the warm-up: "constant", "cosine" (to zero), "step" or "plateau".
        milestones: Where schedule "step" multiplies the rate by `gamma`: counted in steps, or in
            epochs where `epochs` says how long the run is.
        gamma: Factor of schedules "step" and "plateau".
        patience: Epochs without a lower mean training loss after which "plateau" multiplies the
            rate by `gamma`.
        max_grad_norm: Gradients longer than this are scaled down to it (never if 0).
        precision: "fp32", "bf16" (CUDA only) or "auto": bf16 where CUDA has it.
        compile: Compile the network on CUDA; on the CPU it stays as it is.
        mean, std: Normalisation per colour, of pixels in [0, 1].
        validation_fraction: Share of the source videos that is held out.
        validate_every: Steps between two validations, the last step included (0: only there).
        validate_at_start: Also score the held-out samples before the first step.
        checkpoint_every: Steps between two checkpoints.
        keep_at: Steps at which the model as it is then is kept, in a folder of its own.
        log_every: Steps between two lines of the metrics.
        shuffle_shards: Consecutive shards whose samples are shuffled together.
        loader_threads: Threads that read and decode samples, per worker.
        seed: Seed of the weights, the order, the held-out videos and dropout.
    """

    batch_size: int
    learning_rate: float
    objective: str = "detection"
    objective_arguments: dict[str, Any] = field(default_factory=dict)
    loss: str | None = None
    kinds: tuple[str, ...] = ()
    backbone: str = "x3d"
    backbone_arguments: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    epochs: int | None = None
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine", "step", "plateau"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    patience: int = 5
    max_grad_norm: float = 0.0
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    compile: bool = False
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    validation_fraction: float = 0.05
    validate_every: int = 0
    validate_at_start: bool = False
    checkpoint_every: int = 500
    keep_at: tuple[int, ...] = ()
    log_every: int = 20
    shuffle_shards: int = 8
    loader_threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("objective", self.objective, OBJECTIVES)
        _one_of("loss", self.loss or OBJECTIVES[self.objective].losses[0], self._losses())
        _one_of("backbone", self.backbone, BACKBONES)
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("a recipe needs either steps or epochs, and not both")
        for name in ("batch_size", "checkpoint_every", "log_every", "shuffle_shards"):
            _at_least(name, getattr(self, name), 1)
        for name in ("steps", "epochs", "loader_threads", "patience"):
            _at_least(name, getattr(self, name), 1)
        for name in ("weight_decay", "warmup_steps", "max_grad_norm", "validate_every", "seed"):
            _at_least(name, getattr(self, name), 0)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if min(self.learning_rate, self.gamma, *self.std) <= 0:
            raise ValueError("learning_rate, gamma and std must be > 0")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be in [0, 1), got {self.validation_fraction}"
            )
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("milestones belong to schedule 'step', which needs at least one")

    def _losses(self) -> tuple[str, ...]:
        return OBJECTIVES[self.objective].losses

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON has it, every default filled in."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """The sha256 of the resolved recipe."""
        resolved = self.to_dict()
        if not self.keep_at:  # the digest is that of before there was the key
            del resolved["keep_at"]
        return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()


def read_train_recipe(path: Path | str) -> TrainRecipe:
    """Read the `[train]` table of a recipe; its `[synth]` table is left to `synth`.

    Raises:
        UsageError: No such file or table, an unknown key, a value of a wrong type or out of range.
    """
    recipe = build_record(TrainRecipe, read_recipe_table(path, "train"), "train", path)
    backbone = BACKBONES[recipe.backbone]
    build_record(backbone.Arguments, recipe.backbone_arguments, "train.backbone_arguments", path)
    objective = OBJECTIVES[recipe.objective]
    arguments = objective_arguments(recipe, path)
    try:
        objective.check(arguments, recipe.batch_size)
        objective.check_backbone(arguments, backbone, recipe.compile)
    except ValueError as err:
        raise UsageError(f"{err} (recipe {str(path)!r}, [train])") from err
    return recipe


def objective_arguments(recipe: TrainRecipe, path: Path | str) -> Any:
    """Return the settings of a recipe's objective as its own record; UsageError as above."""
    cls = OBJECTIVES[recipe.objective].Arguments
    return build_record(cls, recipe.objective_arguments, "train.objective_arguments", path)


def _one_of(name: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def _at_least(name: str, value: float | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")

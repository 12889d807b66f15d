"""What a run says of itself: its report, its settings, and the record beside its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .backbones import Backbone
from .job import TrainJob
from .objectives import Objective
from .recipe import TrainRecipe


@dataclass(frozen=True)
class TrainReport:
    """How a training ended.

    Attributes:
        run: The run's folder.
        finished: False if it was interrupted; `--resume` goes on.
        step: Optimiser steps done, of `num_steps`.
        num_steps: Steps of the whole run.
        num_samples: Training samples.
        num_held_out: Samples of held-out videos.
        loss: Training loss, the mean since the last but one line of the metrics.
        scores: The last validation's scores and loss.
        clips_per_second: Training samples per second of this call, without validation.
        notes: What was not taken over from initial weights.
        rank: Of the process that returns it: 0 except under torchrun.
    """

    run: str
    finished: bool
    step: int
    num_steps: int
    num_samples: int
    num_held_out: int
    loss: float
    scores: Mapping[str, float]
    clips_per_second: float
    notes: tuple[str, ...]
    rank: int = 0


def model_record(
    job: TrainJob,
    backbone: Backbone,
    objective: Objective,
    step: int,
    scores: Mapping[str, float],
) -> dict[str, Any]:
    """Return what `model.json` says of the weights beside it."""
    recipe = job.recipe
    num_frames, height, width, _ = job.clip_shape[-4:]
    return {
        "backbone": recipe.backbone,
        "arguments": recipe.backbone_arguments,
        "num_outputs": objective.num_outputs,
        "feature_dim": backbone.feature_dim,
        "objective": recipe.objective,
        "objective_arguments": recipe.objective_arguments,
        "loss": objective.loss,
        "classes": objective.output_names(job.dataset.classes),
        "frames": num_frames // objective.num_clips,
        "height": height,
        "width": width,
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "step": step,
        "num_steps": job.num_steps,
        "scores": dict(scores),
        "dataset_digest": job.dataset.digest,
        "recipe_digest": recipe.digest,
        "torch": torch.__version__,
    }


def settings_record(
    job: TrainJob,
    num_parameters: int,
    device: torch.device,
    workers: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the first line of the metrics."""
    return {
        "event": "settings",
        "recipe": job.recipe.to_dict(),
        "recipe_digest": job.recipe.digest,
        "dataset_digest": job.dataset.digest,
        "teacher_digests": list(job.teacher_digests),
        "num_samples": len(job.samples),
        "num_held_out": len(job.held_out),
        "num_left_out": job.num_left_out,
        "num_steps": job.num_steps,
        "num_parameters": num_parameters,
        "device": str(device),
        "bf16": uses_bf16(job.recipe, device),
        "workers": workers,
        "torch": torch.__version__,
        "notes": list(notes),
    }


def uses_bf16(recipe: TrainRecipe, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16; CPUs without such units are 20x slower with it."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"

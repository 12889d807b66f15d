"""The learning rate as a function of the step and of the losses so far, and the optimisers."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .recipe import TrainRecipe


def learning_rate(
    recipe: TrainRecipe,
    step: int,
    num_steps: int,
    steps_per_epoch: int = 1,
    epoch_losses: Sequence[float] = (),
) -> float:
    """Return the learning rate of one step.

    # warmup_steps=4: steps 0 1 2 3 have 1/4 2/4 3/4 4/4 of the peak

    Args:
        recipe: Peak rate, warm-up and schedule.
        step: Counted from 0.
        num_steps: Length of the run.
        steps_per_epoch: The unit of the milestones where the run's length is in epochs.
        epoch_losses: Mean training loss of every epoch that has ended, for schedule "plateau".
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "cosine":
        passed = (step - recipe.warmup_steps) / max(num_steps - recipe.warmup_steps, 1)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))
    if recipe.schedule == "step":
        unit = steps_per_epoch if recipe.epochs is not None else 1
        num_passed = sum(step >= milestone * unit for milestone in recipe.milestones)
        return recipe.learning_rate * recipe.gamma**num_passed
    if recipe.schedule == "plateau":
        return recipe.learning_rate * recipe.gamma ** num_plateaus(epoch_losses, recipe.patience)
    return recipe.learning_rate


def num_plateaus(epoch_losses: Sequence[float], patience: int) -> int:
    """Return how often `patience` epochs in a row brought no new lowest loss.

    # patience=2: 5 4 4 4 3 3 3 -> after the second 4 that is no lower, and after the third 3: 2
    """
    plateaus = waited = 0
    lowest = math.inf
    for loss in epoch_losses:
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        if waited == patience:
            plateaus, waited = plateaus + 1, 0
    return plateaus


def build_optimiser(
    recipe: TrainRecipe, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the optimiser; norms and biases, the vectors among the weights, have no decay.

    All weights are updated in one call: one by one, that takes a CPU longer than the arithmetic.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
        )
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)

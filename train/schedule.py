"""The learning rate as a function of the step, and the optimisers."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from .recipe import TrainRecipe


def learning_rate(recipe: TrainRecipe, step: int, num_steps: int) -> float:
    """Return the learning rate of one step.

    # warmup_steps=4: steps 0 1 2 3 have 1/4 2/4 3/4 4/4 of the peak

    Args:
        recipe: Peak rate, warm-up and schedule.
        step: Counted from 0.
        num_steps: Length of the run.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "cosine":
        passed = (step - recipe.warmup_steps) / max(num_steps - recipe.warmup_steps, 1)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))
    if recipe.schedule == "step":
        num_passed = sum(step >= milestone for milestone in recipe.milestones)
        return recipe.learning_rate * recipe.gamma**num_passed
    return recipe.learning_rate


def build_optimiser(
    recipe: TrainRecipe, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Build the optimiser; norms and biases, the vectors among the weights, have no decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)

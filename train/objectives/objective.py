"""What the loop may ask of an objective: what a sample's target is, the loss, and a score."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from synth import ShardSample

from ..backbones import Backbone


class Objective(nn.Module, ABC):
    """One thing to learn from shards; weights of its own are trained with the backbone's.

    Args:
        num_classes: Classes `K` of the dataset.
        loss: One of `losses`; None takes the first.

    Attributes:
        losses: Names a recipe may give for `loss`, the default first.
        num_outputs: Class scores that the backbone must have.
    """

    losses: ClassVar[tuple[str, ...]]
    num_outputs: int

    def __init__(self, num_classes: int, loss: str | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss = loss or self.losses[0]
        if self.loss not in self.losses:
            raise ValueError(f"loss must be one of {', '.join(self.losses)}, got {loss!r}")

    @abstractmethod
    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the float32 target of one sample; called by the loader's threads."""

    @abstractmethod
    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch, a scalar averaged over what it can be averaged over."""

    @abstractmethod
    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return what `score` compares with the targets, one row per clip."""

    @abstractmethod
    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Score the predictions of a whole validation set against its targets."""

    def after_step(self, backbone: Backbone) -> None:
        """Update what follows the weights without a gradient; nothing, unless overridden."""

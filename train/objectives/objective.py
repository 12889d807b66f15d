"""What the loop may ask of an objective: what it needs, a sample's target, the loss, a score."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from synth import ShardSample

from ..backbones import Backbone

PAIR_KINDS = ("pal", "clip_pair")
Gather = Callable[[torch.Tensor], torch.Tensor]
Average = Callable[[torch.Tensor], torch.Tensor]


def alone(number: torch.Tensor) -> torch.Tensor:
    """Return the mean over one worker."""
    return number


@dataclass(frozen=True, slots=True)
class NoArguments:
    """An objective without settings of its own."""


class Objective(nn.Module, ABC):
    """One thing to learn from shards; weights of its own are trained with the backbone's.

    Args:
        num_classes: Classes `K` of the dataset.
        loss: One of `losses`; None takes the first.
        arguments: An instance of `Arguments`; None takes the defaults.

    Attributes:
        losses: Names a recipe may give for `loss`, the default first.
        wants: The samples it learns from, in words, for an error message.
        reads_classes: Whether it needs a dataset with classes.
        teachers: The frozen runs it learns from, in order: the role of each, and the objectives
            that such a run may have been trained with.
        Arguments: Frozen dataclass of the settings; a recipe's table `[train.objective_arguments]`
            is checked against it.
        num_outputs: Class scores that the backbone must have; 0 builds it without a class layer.
        num_clips: Clips of equal length that a sample is cut into before the backbone.
        average: Gives the mean of a number over the workers of a training; the number itself where
            one works alone.
    """

    losses: ClassVar[tuple[str, ...]]
    wants: ClassVar[str] = "single clips with class labels (any kind but 'pal' and 'clip_pair')"
    reads_classes: ClassVar[bool] = True
    teachers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    Arguments: ClassVar[type[Any]] = NoArguments
    num_outputs: int
    num_clips: int = 1

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss = loss or self.losses[0]
        if self.loss not in self.losses:
            raise ValueError(f"loss must be one of {', '.join(self.losses)}, got {loss!r}")
        self.arguments = self.Arguments() if arguments is None else arguments
        self.average: Average = alone

    @classmethod
    def accepts(cls, sample: ShardSample) -> bool:
        """Return whether a sample has what this objective learns from."""
        return sample.meta.get("kind") not in PAIR_KINDS

    @classmethod
    def suffices(cls, samples: Sequence[ShardSample]) -> bool:
        """Return whether one accepted sample of each kind holds all that there is to learn."""
        return True

    @classmethod
    def check(cls, arguments: Any, batch_size: int) -> None:
        """Raise ValueError if the settings and the batch of a recipe do not fit each other."""

    @classmethod
    def check_backbone(
        cls, arguments: Any, backbone: type[Backbone], compiled: bool = False
    ) -> None:
        """Raise ValueError if the settings ask for what a network cannot give.

        Args:
            arguments: The objective's settings.
            backbone: The class of the network.
            compiled: Whether it will be compiled.
        """

    def output_names(self, classes: Sequence[str]) -> list[str]:
        """Return what the class scores of the network stand for; background is left out."""
        return list(classes)

    def bind(self, backbone: Backbone, teachers: Sequence[Backbone] = ()) -> None:
        """Build what depends on the network: called once, after it got its initial weights.

        Args:
            backbone: The network to be trained.
            teachers: Frozen networks, in the order of the class's `teachers`.
        """

    @abstractmethod
    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the float32 target of one sample; called by the loader's threads."""

    @abstractmethod
    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch, a scalar averaged over what it can be averaged over.

        Workers average their losses. So where only some samples count, the sum is divided by the
        workers' mean count, in training: validation is one worker's.

        Args:
            backbone: The network.
            clips_NCTHW: Normalised clips; of pairs, rows `2n` and `2n + 1` are the query and the
                key of sample `n`.
            targets: `(N, ...)`, one row per sample.
        """

    @abstractmethod
    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return what `score` compares with the targets, one row per sample."""

    @abstractmethod
    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Score the predictions of a whole validation set against its targets."""

    def after_step(self, backbone: Backbone, gather: Gather) -> None:
        """Update what follows the weights without a gradient; nothing, unless overridden.

        Args:
            backbone: The network after the optimiser's step.
            gather: Joins a tensor of each worker along its first axis, in the workers' order.
        """

"""What the loop, the objectives and feature extraction may ask of a backbone."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn


class Backbone(nn.Module, ABC):
    """A network from clips to features and class scores, per clip or per frame.

    Attributes:
        feature_dim: Length `D` of a feature vector.
        classifier: Name of the class layer: its weights alone depend on the number of classes.
        Arguments: Frozen dataclass of the constructor's arguments, each with a default; a recipe's
            table `[train.backbone_arguments]` is checked against it.
    """

    feature_dim: int
    classifier: ClassVar[str]
    Arguments: ClassVar[type[Any]]

    @abstractmethod
    def __init__(self, num_outputs: int, arguments: Any) -> None:
        """Build the network with `num_outputs` class scores and random weights."""
        super().__init__()

    @abstractmethod
    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return what enters the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        Args:
            clips_NCTHW: Normalised float clips `(N, 3, T, H, W)`.
            per_frame: Keep time instead of averaging over it.
        """

    @abstractmethod
    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""

"""What the training loop and the probe ask of a network that scores every snippet of a video."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How a paper trains its head: Adam, and a rate that falls when the loss stalls.

    Attributes:
        batch_size: Videos in a step.
        epochs: Passes over the training videos.
        lr: Adam's rate.
        lr_per_share: Multiply `lr` by the share of the training videos that a batch holds.
        plateau_factor: The rate is multiplied by this ...
        plateau_patience: ... after more than so many epochs without a lower loss.
        window: Rows of a random crop of a longer video; None takes whole videos.
    """

    batch_size: int
    epochs: int
    lr: float
    lr_per_share: bool = False
    plateau_factor: float = 0.1
    plateau_patience: int = 10
    window: int | None = None

    def rate(self, num_videos: int) -> float:
        """Return Adam's rate for a training set of so many videos."""
        share = min(self.batch_size / num_videos, 1.0) if self.lr_per_share else 1.0
        return self.lr * share


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedVideo:
    """Features of a video with their truth.

    Attributes:
        video_id: As in the store.
        feats_SD: Its rows.
        times_S3: Start, centre and end of each row in seconds.
        labels_SC: bool, the class is on at the row's centre.
        segments: `(start_seconds, end_seconds, class_index)` each.
    """

    video_id: str
    feats_SD: np.ndarray
    times_S3: np.ndarray
    labels_SC: np.ndarray
    segments: Sequence[tuple[float, float, int]]


class FrameHead(nn.Module, ABC):
    """A network from the snippet features of whole videos to a score per class and snippet.

    Attributes:
        recipe: The paper's.
        Arguments: Frozen dataclass of the constructor's arguments, each with a default.
        feature_dim: Channels `D` of a row that it takes.
    """

    recipe: ClassVar[HeadRecipe]
    Arguments: ClassVar[type[Any]]
    feature_dim: int

    @abstractmethod
    def __init__(self, feature_dim: int, num_classes: int, arguments: Any) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.feature_dim, self.num_classes, self.arguments = feature_dim, num_classes, arguments

    @abstractmethod
    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return class scores before the sigmoid, `(N, K, T)`.

        Args:
            feats_NDT: Features, zero past a video's length.
            lengths_N: Rows of each video.
        """

    def targets(self, video: AnnotatedVideo) -> np.ndarray:
        """Return what the loss compares a video with, float32 `(S, J, K)`; here `J = 1`, labels."""
        return video.labels_SC[:, None].astype(np.float32)

    def loss(
        self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor, targets_NJKT: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch; past a video's length the targets are zero."""
        return frame_entropy(self(feats_NDT, lengths_N), targets_NJKT[:, 0], lengths_N)

    @classmethod
    @abstractmethod
    def of_public(cls, weights: Mapping[str, torch.Tensor]) -> "FrameHead":
        """Build the network that a public state dict belongs to, and load it.

        Sizes are read from the shapes.

        Raises:
            KeyError, RuntimeError, ValueError: These are not weights of this network.
        """


def frame_entropy(
    logits_NKT: torch.Tensor, labels_NKT: torch.Tensor, lengths_N: torch.Tensor
) -> torch.Tensor:
    """Return binary cross-entropy summed over classes and positions, per row of the videos.

    Padded positions add their terms too (only the divisor leaves them out), as in the training
    scripts of super-events, TGM, PDAN and MS-TCT.
    """
    total = binary_cross_entropy_with_logits(logits_NKT, labels_NKT, reduction="sum")
    return total / lengths_N.sum()


def valid_rows(lengths_N: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return bool `(N, T)`: the row is one of the video's, not padding."""
    return torch.arange(num_rows, device=lengths_N.device) < lengths_N[:, None]


def without_prefix(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights without the `module.` that torch's data parallelism puts before names."""
    return {name.removeprefix("module."): weight for name, weight in weights.items()}

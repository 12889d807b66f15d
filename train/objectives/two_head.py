"""Two heads: one backbone learns the action and the boundary classes together.

Source: BSP (Xu et al., ICCV 2021), integration with an action-classification encoder, "two-head":
a shared backbone with two classifiers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from synth import BOUNDARY_CLASSES, ShardSample

from ..backbones import Backbone
from .boundary import boundary_class, boundary_scores, boundary_target
from .classification import clip_distribution, soft_cross_entropy
from .objective import Average, Objective, alone
from .scores import accuracy_scores


@dataclass(frozen=True, slots=True)
class TwoHeadArguments:
    """How the two losses add up.

    Attributes:
        boundary_weight: Weight of the boundary head's cross-entropy; that of the classes has 1.
    """

    boundary_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.boundary_weight < float("inf"):
            raise ValueError(f"boundary_weight must be >= 0, got {self.boundary_weight}")


def two_head_loss(
    scores_NC: torch.Tensor,
    targets_NC: torch.Tensor,
    boundary_weight: float,
    average: Average = alone,
) -> torch.Tensor:
    """Return the cross-entropy of the classes plus the weighted one of the boundary classes.

    Each is averaged over the samples that have a target of its own.

    Args:
        scores_NC: `(N, K + 4)` scores before softmax, the boundary head's last.
        targets_NC: `(N, K + 4)`, each head's share all zero where it has no target.
        boundary_weight: Weight of the second head.
        average: Gives the mean over the workers of how many samples count.
    """
    heads = (scores_NC.shape[1] - len(BOUNDARY_CLASSES), len(BOUNDARY_CLASSES))
    pairs = zip(scores_NC.split(heads, 1), targets_NC.split(heads, 1), strict=True)
    classes, boundaries = (soft_cross_entropy(*pair, average) for pair in pairs)
    return classes + boundary_weight * boundaries


class TwoHead(Objective):
    """Action classes and boundary classes; a sample may lack either.

    Two linear classifiers on one feature vector are one linear layer: the backbone's class layer
    has `K + 4` outputs, the boundary classes last. So a run's weights hold both heads, and a step
    takes one pass.
    """

    losses = ("cross_entropy",)
    wants = "single clips, some with a boundary class (kind 'boundary')"
    Arguments = TwoHeadArguments

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = num_classes + len(BOUNDARY_CLASSES)

    def output_names(self, classes: Sequence[str]) -> list[str]:
        """Return the classes, then the four boundary classes."""
        return [*classes, *BOUNDARY_CLASSES]

    @classmethod
    def suffices(cls, samples: Sequence[ShardSample]) -> bool:
        """Return whether any kind of sample has a boundary class."""
        return any(boundary_class(sample) is not None for sample in samples)

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the class distribution and the boundary class, `(K + 4,)`."""
        classes = clip_distribution(sample.track(), self.num_classes)
        return np.concatenate([classes, boundary_target(sample)])

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of both heads' cross-entropies."""
        average = self.average if self.training else alone
        weight = self.arguments.boundary_weight
        return two_head_loss(backbone(clips_NCTHW), targets, weight, average)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return each head's probabilities, `(N, K + 4)`."""
        heads = (self.num_classes, len(BOUNDARY_CLASSES))
        scores = backbone(clips_NCTHW).float().split(heads, 1)
        return torch.cat([head.softmax(1) for head in scores], 1)

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the accuracy of the classes, and under `boundary_...` what the other head gets."""
        (classes, boundaries), (wanted, wanted_boundaries) = (
            np.split(array, [self.num_classes], axis=1) for array in (predictions, targets)
        )
        scores = boundary_scores(boundaries, wanted_boundaries)
        named = {f"boundary_{name}": score for name, score in scores.items()}
        return {**accuracy_scores(classes, wanted), **named}

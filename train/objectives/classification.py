"""Clip-level classification: one class distribution for the whole clip, the usual pretraining.

Source: SSDet (Kahatapitiya et al., AAAI 2023), the classification baseline.
"""

from typing import Any

import numpy as np
import torch

from synth import LabelTrack, ShardSample

from ..backbones import Backbone
from .objective import Average, Objective, alone
from .scores import accuracy_scores


def clip_distribution(track: LabelTrack, num_classes: int) -> np.ndarray:
    """Return the float32 class distribution `(K,)` of a clip: mean weight over time, renormalised.

    Background takes no part, so a clip with frozen frames keeps its video's class, and a mixture
    gets each class by its share of the action. All zero where every frame is background.
    """
    means = track.weights_CT.mean(axis=1)
    distribution = np.zeros(num_classes, np.float32)
    if means.sum() > 0:
        distribution[track.class_ids] = means / means.sum()
    return distribution


def soft_cross_entropy(
    logits_NK: torch.Tensor, targets_NK: torch.Tensor, average: Average = alone
) -> torch.Tensor:
    """Return `-sum_c q[c] log softmax(logits)[c]`, averaged over clips that have a class at all.

    `average` gives the mean of their number over the workers.
    """
    losses = -(targets_NK * logits_NK.float().log_softmax(1)).sum(1)
    count = average((targets_NK.sum(1) > 0).sum().float())
    return losses.sum() / count.where(count > 0, 1)


class Classification(Objective):
    """Cross-entropy of the clip's score vector against its soft class distribution."""

    losses = ("cross_entropy",)

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = num_classes

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the class distribution `(K,)` of the clip."""
        return clip_distribution(sample.track(), self.num_classes)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the soft cross-entropy of the clips' scores."""
        average = self.average if self.training else alone
        return soft_cross_entropy(backbone(clips_NCTHW), targets, average)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return class probabilities `(N, K)`."""
        return backbone(clips_NCTHW).float().softmax(1)

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the share of clips whose likeliest class is (one of) their heaviest."""
        return accuracy_scores(predictions, targets)

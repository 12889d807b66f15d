"""Frame-level multi-label detection: fine-tuning on videos whose actions overlap.

Source: SSDet (Kahatapitiya et al., AAAI 2023), fine-tuning on Charades: the binary cross-entropy of
every frame and that of the clip pooled by its maximum over time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from synth import ShardSample

from ..backbones import Backbone
from .detection import binary_cross_entropy, dense_weights
from .objective import Objective
from .scores import frame_scores


@dataclass(frozen=True, slots=True)
class FramesArguments:
    """How the two losses add up.

    Attributes:
        frame_weight: Weight of the loss per frame.
        clip_weight: Weight of the loss on the temporal maximum.
    """

    frame_weight: float = 1.0
    clip_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (
            min(self.frame_weight, self.clip_weight) >= 0 < self.frame_weight + self.clip_weight
        ):
            raise ValueError(
                f"frame_weight and clip_weight must be >= 0 and not both 0, got "
                f"{self.frame_weight} and {self.clip_weight}"
            )


def frames_loss(
    logits_NCT: torch.Tensor,
    labels_NCT: torch.Tensor,
    frame_weight: float = 1.0,
    clip_weight: float = 1.0,
) -> torch.Tensor:
    """Return `BCE(logits, labels) + BCE(max_t logits, max_t labels)`, each with its weight.

    Args:
        logits_NCT: Scores before the sigmoid.
        labels_NCT: In [0, 1]; several classes may be 1 on one frame.
        frame_weight: Weight of the first.
        clip_weight: Weight of the second.
    """
    per_frame = binary_cross_entropy(logits_NCT, labels_NCT)
    per_clip = binary_cross_entropy(logits_NCT.amax(2), labels_NCT.amax(2))
    return frame_weight * per_frame + clip_weight * per_clip


class Frames(Objective):
    """Binary cross-entropy per frame and on the maximum over time; classes may overlap."""

    losses = ("bce",)
    Arguments = FramesArguments

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = num_classes

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the labels of all frames, `(K, T)`."""
        return dense_weights(sample.track(), self.num_classes, with_background=False)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of the two cross-entropies."""
        logits_NCT = backbone(clips_NCTHW, per_frame=True)
        weights = self.arguments.frame_weight, self.arguments.clip_weight
        return frames_loss(logits_NCT, targets, *weights)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return per-frame probabilities `(N, K, T)`."""
        return backbone(clips_NCTHW, per_frame=True).float().sigmoid()

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the per-frame mAP."""
        return frame_scores(predictions, targets)

"""Frame-level multi-label detection: fine-tuning on videos whose actions overlap.

Source: SSDet (Kahatapitiya et al., AAAI 2023), fine-tuning on Charades: the binary cross-entropy of
every frame and that of the clip pooled by its maximum over time, half of each as in the authors'
code, to which their learning rate belongs.
"""

from typing import Any

import numpy as np
import torch

from synth import ShardSample

from ..backbones import Backbone
from .detection import binary_cross_entropy, dense_weights
from .objective import Objective
from .scores import frame_scores


def frames_loss(logits_NCT: torch.Tensor, labels_NCT: torch.Tensor) -> torch.Tensor:
    """Return `(BCE(logits, labels) + BCE(max_t logits, max_t labels)) / 2`.

    Args:
        logits_NCT: Scores before the sigmoid.
        labels_NCT: In [0, 1]; several classes may be 1 on one frame.
    """
    per_frame = binary_cross_entropy(logits_NCT, labels_NCT)
    per_clip = binary_cross_entropy(logits_NCT.amax(2), labels_NCT.amax(2))
    return (per_frame + per_clip) / 2


class Frames(Objective):
    """Binary cross-entropy per frame and on the maximum over time; classes may overlap."""

    losses = ("bce",)

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = num_classes

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the labels of all frames, `(K, T)`."""
        return dense_weights(sample.track(), self.num_classes, with_background=False)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean of the two cross-entropies."""
        return frames_loss(backbone(clips_NCTHW, per_frame=True), targets)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return per-frame probabilities `(N, K, T)`."""
        return backbone(clips_NCTHW, per_frame=True).float().sigmoid()

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the per-frame mAP."""
        return frame_scores(predictions, targets)

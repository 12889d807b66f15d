"""Per-frame detection: every frame of a clip is scored against its own soft label.

Source: SSDet (Kahatapitiya et al., AAAI 2023), training objective: the cross-entropy of a frame is
the mixture `sum_c w[c, t] CE(logits[t], c)`, averaged over frames; frozen frames are background.
"""

from typing import Any

import numpy as np
import torch

from synth import LabelTrack, ShardSample

from ..backbones import Backbone
from .objective import Objective
from .scores import mean_average_precision

POSITIVE_WEIGHT = 0.5


def dense_weights(track: LabelTrack, num_classes: int, with_background: bool) -> np.ndarray:
    """Return the track as float32 `(K, T)`, or `(K + 1, T)` with background in the last row."""
    dense_CT = np.zeros((num_classes + with_background, track.num_frames), np.float32)
    dense_CT[track.class_ids] = track.weights_CT
    if with_background:
        dense_CT[-1] = track.background_T
    return dense_CT


def mixture_cross_entropy(logits_NCT: torch.Tensor, weights_NCT: torch.Tensor) -> torch.Tensor:
    """Return `sum_c w[c, t] CE(logits[t], c)` averaged over the frames of all clips."""
    return -(weights_NCT * logits_NCT.float().log_softmax(1)).sum(1).mean()


def binary_cross_entropy(logits_NCT: torch.Tensor, weights_NCT: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each class by itself, averaged over classes and frames."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits_NCT.float(), weights_NCT)


LOSSES = {"cross_entropy": mixture_cross_entropy, "bce": binary_cross_entropy}


class Detection(Objective):
    """Frame-level loss: `cross_entropy` with a background output, or `bce` without one."""

    losses = tuple(LOSSES)

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.with_background = self.loss == "cross_entropy"
        self.num_outputs = num_classes + self.with_background

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the soft labels of all frames, `(num_outputs, T)`."""
        return dense_weights(sample.track(), self.num_classes, self.with_background)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss averaged over frames."""
        return LOSSES[self.loss](backbone(clips_NCTHW, per_frame=True), targets)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return per-frame probabilities `(N, num_outputs, T)`."""
        logits_NCT = backbone(clips_NCTHW, per_frame=True).float()
        return logits_NCT.softmax(1) if self.with_background else logits_NCT.sigmoid()

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the per-frame mAP; a frame counts for a class whose weight is at least one half.

        Background is no class. Beside the mAP stands what scores without knowledge would get.
        """
        scores_SC, weights_SC = (
            array_NCT[:, : self.num_classes].swapaxes(1, 2).reshape(-1, self.num_classes)
            for array_NCT in (predictions, targets)
        )
        positive_SC = weights_SC >= POSITIVE_WEIGHT
        present = positive_SC.any(0)
        if not present.any():
            return {}
        return {
            "frame_map": mean_average_precision(scores_SC, positive_SC),
            "frame_map_chance": float(positive_SC[:, present].mean()),
        }

"""Boundary regression: a Gaussian heat map over the frames whose peak is the change point.

Source: BSP (Xu et al., ICCV 2021), the ablation that regresses where the boundary is instead of
classifying what it is: `y[t] = exp(-(t - mu)^2 / (2 tau))`, smooth-L1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from manifests import ShardError
from synth import ShardSample

from ..backbones import Backbone
from .objective import Objective
from .scores import average_precision


def heat_map(change_point: float | None, num_frames: int) -> np.ndarray:
    """Return `y[t] = exp(-(t - mu)^2 / (2 tau))` for `t = 1..2 tau`; zero without change point.

    # mu = 2.5, 2 tau = 4:  exp(-2.25 / 4), exp(-0.25 / 4), exp(-0.25 / 4), exp(-2.25 / 4)

    Args:
        change_point: `mu`, in frames counted from 1.
        num_frames: Frames of the clip, `2 tau`.

    Returns:
        float32 `(T,)` in [0, 1].

    Source: BSP, the regression target of the ablation.
    """
    if change_point is None:
        return np.zeros(num_frames, np.float32)
    frames_T = np.arange(1, num_frames + 1)
    return np.exp(-((frames_T - change_point) ** 2) / num_frames).astype(np.float32)


def smooth_l1(outputs_NT: torch.Tensor, heat_NT: torch.Tensor) -> torch.Tensor:
    """Return the mean of `d^2 / 2` where `|d| < 1` and `|d| - 1/2` elsewhere, over all frames."""
    return torch.nn.functional.smooth_l1_loss(outputs_NT.float(), heat_NT)


def change_points(heat_NT: np.ndarray) -> np.ndarray:
    """Return `(N,)` where each heat map says the change is, in frames counted from 1.

    A change lies between two frames: the two neighbours that are highest together.
    """
    return (heat_NT[:, :-1] + heat_NT[:, 1:]).argmax(1) + 1.5


class BoundaryRegression(Objective):
    """Smooth-L1 between one output per frame, taken as it is, and the heat map."""

    losses = ("smooth_l1",)
    reads_classes = False
    wants = "samples with a change point, null where there is no change (kind 'boundary')"

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = 1

    def output_names(self, classes: Sequence[str]) -> list[str]:
        """Return the name of the only output."""
        return ["change"]

    @classmethod
    def accepts(cls, sample: ShardSample) -> bool:
        """Return whether a sample says where its change point is, or that there is none."""
        return super().accepts(sample) and "change_point" in sample.meta

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the heat map of the sample's change point, `(T,)`.

        Raises:
            ShardError: The change point is no number, or outside the clip.
        """
        place, num_frames = sample.meta.get("change_point"), sample.num_frames
        if place is not None and (
            type(place) not in (int, float)
            or not math.isfinite(place)
            or not 1 <= place <= num_frames
        ):
            raise ShardError(
                f"change_point must be in [1, {num_frames}], or null for none, got {place!r} in "
                f"sample {sample.key}"
            )
        return heat_map(place, num_frames)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the smooth-L1 loss averaged over frames."""
        return smooth_l1(backbone(clips_NCTHW, per_frame=True)[:, 0], targets)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all frames, `(N, T)`."""
        return backbone(clips_NCTHW, per_frame=True)[:, 0].float()

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return how far off the change points are, and how well peaks tell who has one.

        `change_point_error` is the mean distance in frames, beside that of the best constant
        answer; `change_ap` the average precision of the highest output, beside the share of samples
        with a change point.
        """
        changed_N: np.ndarray = targets.max(1) > 0
        if not changed_N.any():
            return {}
        places = change_points(targets[changed_N])
        errors = np.abs(change_points(predictions[changed_N]) - places)
        return {
            "change_point_error": float(errors.mean()),
            "change_point_error_chance": float(np.abs(places - np.median(places)).mean()),
            "change_ap": average_precision(predictions.max(1), changed_N),
            "change_ap_chance": float(changed_N.mean()),
        }

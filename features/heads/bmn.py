"""BMN: confidence of every pair of a start and an end, in one map.

Source: Lin, Liu, Li, Ding and Wen, "BMN: Boundary-Matching Network for Temporal Action Proposal
Generation", ICCV 2019, Section 3 and Table 1. Names and shapes of the parameters are those of the
public checkpoints, in which the map is `[start, end]`.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .alignment import SampledConv, boundary_matching
from .boundary_targets import end_cells

GROUPS = 4  # of the convolutions over time


@dataclass(frozen=True, slots=True)
class BMNArguments:
    """Sizes of the network; the defaults are those for ActivityNet."""

    feature_dim: int = 400
    temporal_scale: int = 100
    """Bins that a video is rescaled to."""
    num_bins: int = 32
    """Samples of a proposal; each is the mean of `samples_per_bin`."""
    samples_per_bin: int = 3
    hidden_dim: int = 256
    map_hidden_dim: int = 512
    map_dim: int = 128

    def __post_init__(self) -> None:
        for name in ("feature_dim", "hidden_dim"):
            if getattr(self, name) < GROUPS or getattr(self, name) % GROUPS:
                raise ValueError(
                    f"{name} must be a multiple of {GROUPS} (groups of the convolutions), got "
                    f"{getattr(self, name)}"
                )
        if self.temporal_scale < 2:
            raise ValueError(f"temporal_scale must be >= 2, got {self.temporal_scale}")


class BMN(nn.Module):
    """Map features `(N, D, T)` to a boundary-matching map and start and end probabilities.

    Args:
        arguments: Sizes.
    """

    def __init__(self, arguments: BMNArguments = BMNArguments()) -> None:
        super().__init__()
        self.arguments = arguments
        hidden, map_hidden, map_dim = (
            arguments.hidden_dim,
            arguments.map_hidden_dim,
            arguments.map_dim,
        )
        self.x_1d_b = nn.Sequential(
            nn.Conv1d(arguments.feature_dim, hidden, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
        )
        self.x_1d_s, self.x_1d_e = (
            nn.Sequential(
                nn.Conv1d(hidden, hidden, 3, padding=1, groups=GROUPS),
                nn.ReLU(),
                nn.Conv1d(hidden, 1, 1),
                nn.Sigmoid(),
            )
            for _ in range(2)
        )
        self.x_1d_p = nn.Sequential(nn.Conv1d(hidden, hidden, 3, padding=1), nn.ReLU())
        self.x_3d_p = nn.Sequential(_matching_conv(arguments), nn.ReLU())
        self.x_2d_p = nn.Sequential(
            nn.Conv2d(map_hidden, map_dim, 1),
            nn.ReLU(),
            nn.Conv2d(map_dim, map_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(map_dim, map_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(map_dim, 2, 1),
            nn.Sigmoid(),
        )
        self.register_load_state_dict_pre_hook(_without_mask)

    def forward(self, feats_NDT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the map and the start and end probabilities of every bin, `(N, T)`.

        The map is `(N, 2, T, T)`: regression and classification confidence of the segment from
        the start of bin `s` to the end of bin `e`; cells with `e < s` mean nothing.
        """
        base = self.x_1d_b(feats_NDT)
        confidence = self.x_2d_p(self.x_3d_p((self.x_1d_p(base),)))
        return confidence, self.x_1d_s(base).squeeze(1), self.x_1d_e(base).squeeze(1)


def _matching_conv(arguments: BMNArguments) -> SampledConv:
    """Return the convolution over the samples of all proposals (the BM layer, Section 3.2)."""
    num_bins, scale = arguments.num_bins, arguments.temporal_scale
    start_A, end_A = end_cells(scale).reshape(2, -1)
    sampling = boundary_matching(start_A, end_A, num_bins, arguments.samples_per_bin, scale)
    weight_shape = (arguments.map_hidden_dim, arguments.hidden_dim, num_bins, 1, 1)
    return SampledConv(weight_shape, [sampling], (scale, scale))


def _without_mask(
    _module: nn.Module, weights: MutableMapping[str, Any], prefix: str, *_: Any
) -> None:
    """Leave out the mask that public checkpoints hold: it follows from the sizes."""
    weights.pop(f"{prefix}sample_mask", None)

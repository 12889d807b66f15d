"""TGM: temporal Gaussian mixture layers, alone (stack) or with super-events (hierarchy).

The "Gaussians" are the Cauchy distributions of super-events, over the five rows of a kernel.

Source: Piergiovanni and Ryoo, "Temporal Gaussian Mixture Layer for Videos", ICML 2019, Section 3;
names, sizes and recipe as in `piergiaj/tgm-icml19` (`thumos/tgm-thumos`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import conv2d

from .frame_head import FrameHead, HeadRecipe
from .super_events import (
    CauchyFilters,
    StructureFilters,
    initial_sup_mat,
    super_event_scores,
    without_aliases,
)

LENGTH, NUM_MIXED = 5, 16  # rows of a kernel; distributions that it is a mixture of
CHANNELS = (1, 8, 8, 8)  # of the input and after each layer
NUM_FILTERS = 3  # of each group of super-event filters


@dataclass(frozen=True, slots=True)
class TGMArguments:
    """Which of the paper's networks."""

    variant: Literal["stack", "hierarchy"] = "stack"
    """Three TGM layers, or these and super-events."""
    width: int = 512
    """Channels of the hidden layer."""
    dropout: float = 0.5
    """Share of the features that is dropped in training (the hierarchy of the public code: 0)."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be >= 1, got {self.width}")


class TemporalMixture(CauchyFilters):
    """One TGM layer: convolutions over time whose kernels are mixtures of few distributions.

    Output channel `i` is `relu(b_i + sum_j w_ij (K_ij * x_j))` with `K_ij = sum_m softmax_m(a_ij)
    f_m`, the same for all `D` feature channels; from one channel it is `K_i * x` alone. Mixing the
    kernels before they are applied (`w_ij K_ij`) makes this one convolution.

    The mixing weights `a`, which the public code leaves uninitialised, start from N(0, 1).

    Source: TGM, Section 3, the layer from one channel and from several.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(NUM_MIXED)
        self.soft_attn = nn.Parameter(torch.randn(channels * channels_in, NUM_MIXED))
        if channels_in > 1:
            self.convs = nn.ModuleList(nn.Conv2d(channels_in, 1, 1) for _ in range(channels))
        self.shape = (channels, channels_in, 1, LENGTH)

    def kernels(self) -> torch.Tensor:
        """Return the kernels of every pair of channels, `(C_out, C_in, 1, L)`."""
        length_1 = torch.tensor([LENGTH], device=self.center.device)
        bumps_ML = self.densities(length_1, LENGTH)[0]
        return (self.soft_attn.softmax(1) @ bumps_ML).view(self.shape)

    def forward(self, maps_NCDT: torch.Tensor) -> torch.Tensor:
        """Return `(N, C_out, D, T)`; zeros stand before and after the video."""
        kernels, around = self.kernels(), (0, LENGTH // 2)
        if self.shape[1] == 1:
            return conv2d(maps_NCDT, kernels, padding=around)
        convs = [conv for conv in self.convs if isinstance(conv, nn.Conv2d)]
        weights = torch.cat([conv.weight for conv in convs])
        bias = torch.cat([conv.get_parameter("bias") for conv in convs])
        return torch.relu(conv2d(maps_NCDT, weights * kernels, bias, padding=around))


class TGM(FrameHead):
    """Three TGM layers beside the features, and a hidden layer: 1.13 million parameters.

    The hierarchy has the super-event scores of the video as `K` further channels.
    """

    recipe = HeadRecipe(batch_size=8, epochs=120, lr=0.02, lr_per_share=True, plateau_patience=5)
    Arguments = TGMArguments

    def __init__(
        self, feature_dim: int, num_classes: int, arguments: TGMArguments = TGMArguments()
    ) -> None:
        super().__init__(feature_dim, num_classes, arguments)
        num_hidden = 2 * feature_dim
        if arguments.variant == "hierarchy":
            self.super_event = StructureFilters(NUM_FILTERS)
            self.super_event2 = StructureFilters(NUM_FILTERS)
            self.cls_wts = nn.Parameter(torch.zeros(num_classes))
            self.sup_mat = nn.Parameter(initial_sup_mat(num_classes, feature_dim))
            num_hidden += num_classes
        self.dropout = nn.Dropout(arguments.dropout)
        self.sub_event1, self.sub_event2, self.sub_event3 = (
            TemporalMixture(before, after) for before, after in pairwise(CHANNELS)
        )
        self.h = nn.Conv1d(num_hidden, arguments.width, 1)
        self.classify = nn.Conv1d(arguments.width, num_classes, 1)

    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return class scores before the sigmoid, `(N, K, T)`."""
        maps_NCDT = self.sub_event3(self.sub_event2(self.sub_event1(feats_NDT[:, None])))
        parts = [self.dropout(feats_NDT), self.dropout(maps_NCDT.amax(1))]
        if self.arguments.variant == "hierarchy":
            parts.append(self._super_events(feats_NDT, lengths_N))
        return self.classify(torch.relu(self.h(torch.relu(torch.cat(parts, 1)))))

    def _super_events(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return the scores of the video at every row, `(N, K, T)`."""
        scores_NK = super_event_scores(
            self.super_event(feats_NDT, lengths_N),
            self.super_event2(feats_NDT, lengths_N),
            self.sup_mat,
            self.cls_wts,
        )
        return scores_NK[..., None].expand(-1, -1, feats_NDT.shape[2])

    @classmethod
    def of_public(cls, weights: Mapping[str, torch.Tensor]) -> "TGM":
        """Build the network of a public state dict; second names of tensors are dropped."""
        found = without_aliases(weights)
        is_hierarchy = "sup_mat" in found
        num_classes, width, _ = found["classify.weight"].shape
        beside = num_classes if is_hierarchy else 0
        head = cls(
            (found["h.weight"].shape[1] - beside) // 2,
            num_classes,
            TGMArguments("hierarchy" if is_hierarchy else "stack", width),
        )
        head.load_state_dict(found)
        return head

"""Super-events: what happens elsewhere in the video, gathered by temporal structure filters.

Source: Piergiovanni and Ryoo, "Learning Latent Super-Events to Detect Multiple Activities in
Videos", CVPR 2018, "Temporal structure filters" and "Super-events"; names and recipe as in
`piergiaj/super-events-cvpr18`, and the layout of its released weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .frame_head import FrameHead, HeadRecipe, without_prefix


@dataclass(frozen=True, slots=True)
class SuperEventsArguments:
    """How a video is summed up."""

    num_filters: int = 3
    """Temporal structure filters in each of the two groups (the MultiTHUMOS weights have 1)."""
    pooling: Literal["max", "concat"] = "max"
    """Of the filters' responses: the maximum (as the released weights), or all of them in a row."""
    dropout: float = 0.7
    """Share of the input that is dropped in training."""

    def __post_init__(self) -> None:
        if self.num_filters < 1:
            raise ValueError(f"num_filters must be >= 1, got {self.num_filters}")


class CauchyFilters(nn.Module):
    """`F` Cauchy distributions over the rows of a video, with learned centres and widths.

    `f(t) = 1 / (pi w (1 + ((t - c) / w)^2))`, divided by its sum over all rows (+ 1e-6), with
    `c = (L - 1) (tanh x + 1) / 2` in a video of `L` rows and `w = exp(1.5 - 2 |tanh g|)`. `delta`
    has no effect.

    Centres start from `x ~ N(0, 0.5)`, so that filters differ; widths are the widest.

    Source: super-events, "Temporal structure filters"; the centre and width as in the public code.
    """

    def __init__(self, num_filters: int) -> None:
        super().__init__()
        self.center = nn.Parameter(0.5 * torch.randn(num_filters))
        self.delta = nn.Parameter(torch.zeros(num_filters))
        self.gamma = nn.Parameter(0.0001 * torch.randn(num_filters))

    def densities(self, lengths_N: torch.Tensor, num_rows: int) -> torch.Tensor:
        """Return the filters of videos of so many rows, padded to `num_rows`: `(N, F, T)`."""
        rows_T = torch.arange(num_rows, device=self.center.device, dtype=self.center.dtype)
        centres_NF = (lengths_N[:, None] - 1) * (torch.tanh(self.center) + 1) / 2
        widths_F1 = torch.exp(1.5 - 2 * torch.tanh(self.gamma).abs())[:, None]
        distances_NFT = (rows_T - centres_NF[..., None]) / widths_F1
        densities_NFT = 1 / (math.pi * widths_F1 * (1 + distances_NFT.square()))
        return densities_NFT / (densities_NFT.sum(2, keepdim=True) + 1e-6)


class StructureFilters(CauchyFilters):
    """Sums up a video: its features weighted by every filter, then pooled over the filters."""

    def __init__(self, num_filters: int, pooling: Literal["max", "concat"] = "max") -> None:
        super().__init__(num_filters)
        self.pooling = pooling

    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return a vector per video: `(N, D)`, or `(N, D * F)`, a channel's filters together."""
        gathered_NDF = feats_NDT @ self.densities(lengths_N, feats_NDT.shape[2]).mT
        return gathered_NDF.amax(2) if self.pooling == "max" else gathered_NDF.flatten(1)


def super_event_scores(
    first_ND: torch.Tensor, second_ND: torch.Tensor, sup_mat: torch.Tensor, cls_wts: torch.Tensor
) -> torch.Tensor:
    """Return the score of every class in a video, `(N, K)`.

    `score_c = sum_d M[c, d] (s_c A_d + (1 - s_c) B_d)` with `s = sigmoid(cls_wts)`.

    Args:
        first_ND: `A`, of the first group of filters.
        second_ND: `B`, of the second.
        sup_mat: `M`, `(1, K, D)`.
        cls_wts: `(K,)`; any size, the released ones reach 1e36.

    Source: super-events, "Super-events": soft attention of every class over the filters.
    """
    shares_K = torch.sigmoid(cls_wts)
    return shares_K * (first_ND @ sup_mat[0].T) + (1 - shares_K) * (second_ND @ sup_mat[0].T)


def initial_sup_mat(num_classes: int, length: int) -> torch.Tensor:
    """Draw `M` as a linear layer from `length` channels would be: uniform within 1 / sqrt."""
    return (torch.rand(1, num_classes, length) * 2 - 1) / math.sqrt(length)


def without_aliases(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop the second names that some tensors have in public state dicts."""
    found = without_prefix(weights)
    return {name: found[name] for name in found if not name.startswith(("sup.", "sup2.", "pf."))}


class SuperEvents(FrameHead):
    """A linear score per snippet plus the super-event score of its video.

    `cls_wts`, which the public code leaves uninitialised, starts at 0: both groups count alike.
    """

    recipe = HeadRecipe(batch_size=16, epochs=40, lr=0.1, lr_per_share=True, plateau_patience=3)
    Arguments = SuperEventsArguments

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        arguments: SuperEventsArguments = SuperEventsArguments(),
    ) -> None:
        super().__init__(feature_dim, num_classes, arguments)
        in_row = arguments.num_filters if arguments.pooling == "concat" else 1
        self.dropout = nn.Dropout(arguments.dropout)
        self.super_event = StructureFilters(arguments.num_filters, arguments.pooling)
        self.super_event2 = StructureFilters(arguments.num_filters, arguments.pooling)
        self.cls_wts = nn.Parameter(torch.zeros(num_classes))
        self.sup_mat = nn.Parameter(initial_sup_mat(num_classes, feature_dim * in_row))
        self.per_frame = nn.Conv3d(feature_dim, num_classes, 1)

    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return class scores before the sigmoid, `(N, K, T)`."""
        feats_NDT = self.dropout(feats_NDT)
        scores_NK = super_event_scores(
            self.super_event(feats_NDT, lengths_N),
            self.super_event2(feats_NDT, lengths_N),
            self.sup_mat,
            self.cls_wts,
        )
        return self.per_frame(feats_NDT[..., None, None])[..., 0, 0] + scores_NK[..., None]

    @classmethod
    def of_public(cls, weights: Mapping[str, torch.Tensor]) -> "SuperEvents":
        """Build the network of a public state dict; second names of tensors are dropped."""
        found = without_aliases(weights)
        num_classes, feature_dim = found["per_frame.weight"].shape[:2]
        num_filters, in_row = len(found["super_event.center"]), found["sup_mat"].shape[2]
        pooling: Literal["max", "concat"] = "max" if in_row == feature_dim else "concat"
        head = cls(feature_dim, num_classes, SuperEventsArguments(num_filters, pooling))
        head.load_state_dict(found)
        return head

"""G-TAD: sub-graph localization on a graph of snippets.

Source: Xu, Zhao, Rojas, Thabet and Ghanem, "G-TAD: Sub-Graph Localization for Temporal Action
Detection", CVPR 2020, Section 3 and Table 1. Names and shapes of the parameters are those of the
public checkpoints, for THUMOS and for ActivityNet.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .alignment import SampledConv, roi_align
from .boundary_targets import duration_cells

NUM_NEIGHBOURS = 3  # k of the nearest-neighbour graph, the snippet itself among them
INPUT_GROUPS = 4  # of the first convolution


@dataclass(frozen=True, slots=True)
class GTADArguments:
    """Sizes of the network; the defaults are those for THUMOS."""

    feature_dim: int = 2048
    temporal_scale: int = 256
    """Snippets (or bins) of a window."""
    max_duration: int = 64
    """Bins of the longest segment."""
    inner_bins: int = 16
    context_bins: int = 16
    kernel_size: int = 3
    """Of the two convolutions over the map of segments."""
    hidden_dim: int = 256
    map_hidden_dim: int = 512
    map_dim: int = 128

    def __post_init__(self) -> None:
        if self.feature_dim < INPUT_GROUPS or self.feature_dim % INPUT_GROUPS:
            raise ValueError(
                f"feature_dim must be a multiple of {INPUT_GROUPS} (groups of the first "
                f"convolution), got {self.feature_dim}"
            )
        if self.hidden_dim < 8 or self.hidden_dim % 8:
            raise ValueError(f"hidden_dim must be a multiple of 8, got {self.hidden_dim}")
        if self.temporal_scale < NUM_NEIGHBOURS:
            raise ValueError(
                f"temporal_scale must be >= {NUM_NEIGHBOURS} (neighbours in the graph), got "
                f"{self.temporal_scale}"
            )
        if not 1 <= self.max_duration <= self.temporal_scale:
            raise ValueError(
                f"max_duration must be from 1 to temporal_scale ({self.temporal_scale}), got "
                f"{self.max_duration}"
            )


GTAD_THUMOS = GTADArguments()
GTAD_ANET = GTADArguments(400, 100, 100, inner_bins=32, context_bins=4, kernel_size=1)


class GTAD(nn.Module):
    """Map features `(N, D, T)` to a confidence map and to start and end probabilities.

    Args:
        arguments: Sizes.
    """

    def __init__(self, arguments: GTADArguments = GTAD_THUMOS) -> None:
        super().__init__()
        self.arguments = arguments
        hidden, map_hidden, map_dim = (
            arguments.hidden_dim,
            arguments.map_hidden_dim,
            arguments.map_dim,
        )
        self.backbone1 = nn.Sequential(
            nn.Conv1d(arguments.feature_dim, hidden, 3, padding=1, groups=INPUT_GROUPS),
            nn.ReLU(),
            GCNeXt(hidden),
        )
        self.regu_s, self.regu_e = (
            nn.Sequential(GCNeXt(hidden), nn.Conv1d(hidden, 1, 1), nn.Sigmoid()) for _ in range(2)
        )
        self.backbone2 = nn.Sequential(GCNeXt(hidden))
        size, padding = arguments.kernel_size, arguments.kernel_size // 2
        self.localization = nn.Sequential(
            _sub_graph_conv(arguments),
            nn.ReLU(),
            nn.Conv2d(map_hidden, map_dim, 1),
            nn.ReLU(),
            nn.Conv2d(map_dim, map_dim, size, padding=padding),
            nn.ReLU(),
            nn.Conv2d(map_dim, map_dim, size, padding=padding),
            nn.ReLU(),
            nn.Conv2d(map_dim, 2, 1),
            nn.Sigmoid(),
        )

    def forward(self, feats_NDT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the map and the start and end probabilities of every bin.

        The map is `(N, 2, durations, T)`: regression and classification confidence of the segment
        of `d + 1` bins from the start of bin `t`. Start and end, `(N, T)`, come from the first
        block of the backbone.
        """
        base = self.backbone1(feats_NDT)
        graph = self.backbone2(base)
        # the context of a segment: what its snippets' neighbours in the graph are like (eq. 6)
        context = neighbours(graph, NUM_NEIGHBOURS).mean(dim=3)
        return (
            self.localization((graph, context)),
            self.regu_s(base).squeeze(1),
            self.regu_e(base).squeeze(1),
        )


class GCNeXt(nn.Module):
    """One block of graph convolution: temporal neighbours, semantic neighbours, identity.

    Source: G-TAD, Section 3.2, eq. 4 and 5; split in paths as in Fig. 3.

    Args:
        num_channels: In and out, a multiple of 8: half of them in groups of 4.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        width, groups = num_channels // 2, num_channels // 8
        self.tconvs = nn.Sequential(
            nn.Conv1d(num_channels, width, 1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv1d(width, num_channels, 1),
        )
        self.sconvs = nn.Sequential(
            nn.Conv2d(2 * num_channels, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, num_channels, 1),
        )

    def forward(self, feats_NCT: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        near_NCTK = neighbours(feats_NCT, NUM_NEIGHBOURS)
        edges = torch.cat([near_NCTK, feats_NCT[..., None].expand_as(near_NCTK)], dim=1)
        semantic = self.sconvs(edges).amax(dim=3)
        return torch.relu(self.tconvs(feats_NCT) + feats_NCT + semantic)


def neighbours(feats_NCT: torch.Tensor, num_nearest: int) -> torch.Tensor:
    """Return the features of each position's nearest positions, `(N, C, T, K)`, itself among them.

    Nearest is by squared Euclidean distance.
    """
    square_NT = feats_NCT.square().sum(dim=1)
    closeness_NTT = 2 * feats_NCT.mT @ feats_NCT - square_NT[:, None, :] - square_NT[:, :, None]
    nearest_NTK = closeness_NTT.topk(num_nearest, dim=2).indices
    flat = nearest_NTK.flatten(1)[:, None].expand(-1, feats_NCT.shape[1], -1)
    return feats_NCT.gather(2, flat).unflatten(2, nearest_NTK.shape[1:])


def _sub_graph_conv(arguments: GTADArguments) -> SampledConv:
    """Return the first convolution over sub-graphs: inner bins, then bins of the context.

    A segment is sampled with half of its length around it; one that reaches beyond the window has
    its place in the map, sampled at position 0.
    """
    shape = (arguments.max_duration, arguments.temporal_scale)
    first, after = duration_cells(*shape).reshape(2, -1)
    length = (after - first).astype(np.float64)
    fits = after <= arguments.temporal_scale
    start_A = np.where(fits, first - 0.5 * length, 0.0)
    end_A = np.where(fits, after - 1 + 0.5 * length, 0.0)
    bins = (arguments.inner_bins, arguments.context_bins)
    samplings = [roi_align(start_A, end_A, n, arguments.temporal_scale) for n in bins]
    weight_shape = (arguments.map_hidden_dim, arguments.hidden_dim * sum(bins), 1, 1)
    return SampledConv(weight_shape, samplings, shape)

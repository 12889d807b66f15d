"""Sampling features along segments, as a sparse matrix, and the convolution that reads the samples.

Sampling is linear: bin `p` of a segment is `sum_t weights[segment, p, t] * feats[t]` with a few
weights above zero. Both heads then convolve the bins of a segment to one vector. Building the
samples first takes gigabytes (8192 channels for each of 16,384 segments); `SampledConv` projects
the features of every position first and samples the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """How the bins of segments `A` are read from positions `T`.

    Attributes:
        weights: Sparse COO float32 `(A, num_bins * T)`, coalesced.
        num_bins: Bins `P` of each segment.
    """

    weights: torch.Tensor
    num_bins: int


def roi_align(
    start_A: np.ndarray, end_A: np.ndarray, num_bins: int, num_positions: int
) -> Sampling:
    """Sample bins of equal width as G-TAD's aligned pooling of one dimension does.

    A bin is the mean of `ceil(length / num_bins)` samples at the middles of equal parts, linear
    between positions. Samples before -1 or after `T` are 0, but count in the mean; those in
    between the ends and these limits take the value at the end. A segment is at least 1 long.

    Source: Xu et al., "G-TAD", CVPR 2020, Section 3.3 (SGAlign); samples as in the public kernel.

    Args:
        start_A: First coordinate of each segment, in positions.
        end_A: Last coordinate.
        num_bins: Bins of a segment.
        num_positions: Positions `T`.
    """
    length_A = np.maximum(end_A - start_A, 1.0)
    num_A = np.ceil(length_A / num_bins).astype(np.int64)
    part_X = np.arange(num_A.max())
    bin_P1 = np.arange(num_bins)[:, None]
    fraction_APX = bin_P1 + (part_X + 0.5) / num_A[:, None, None]
    places_APX = start_A[:, None, None] + fraction_APX * (length_A / num_bins)[:, None, None]
    counted_APX = (part_X < num_A[:, None, None]) & (places_APX >= -1)
    segment, position, part = np.nonzero(counted_APX & (places_APX <= num_positions))
    places = places_APX[segment, position, part].clip(0, num_positions - 1)
    before = np.floor(places).astype(np.int64)
    after = np.minimum(before + 1, num_positions - 1)
    share = places - before
    mean = 1.0 / num_A[segment]
    return _sampling(
        (len(start_A), num_bins, num_positions),
        np.tile(segment, 2),
        np.tile(position, 2),
        np.concatenate([before, after]),
        np.concatenate([(1 - share) * mean, share * mean]),
    )


def boundary_matching(
    start_A: np.ndarray,
    end_A: np.ndarray,
    num_bins: int,
    samples_per_bin: int,
    num_positions: int,
    margin: float = 0.5,
) -> Sampling:
    """Sample uniformly from before to after a segment, ends included, as BMN's mask does.

    With `length = end - start + 1` the samples span `margin * length` beyond both ends. What falls
    outside `0 .. T - 1` is dropped. As the public code truncates towards zero, a sample between
    -1 and 0 counts fully at 0, while one after `T - 1` keeps only its share of the last position.

    Source: Lin et al., "BMN", ICCV 2019, Section 3.2 and eq. 2.

    Args:
        start_A: Edge where each segment starts, in positions.
        end_A: Edge where it ends; a segment that ends before it starts has no samples.
        num_bins: Bins of a segment.
        samples_per_bin: Samples that a bin is the mean of.
        num_positions: Positions `T`.
        margin: Context on either side, as a share of the length.
    """
    num_samples = num_bins * samples_per_bin
    length_A = (end_A - start_A + 1).astype(np.float64)
    first_A, last_A = start_A - margin * length_A, end_A + margin * length_A
    step_A = (last_A - first_A) / (num_samples - 1.0)
    places_AX = first_A[:, None] + step_A[:, None] * np.arange(num_samples)
    places_AX[end_A <= start_A] = np.nan
    segment, sample = np.nonzero(np.isfinite(places_AX))
    places = places_AX[segment, sample]
    share, before = np.modf(places)  # truncates towards zero: see above
    entries = [(before, 1 - share), (np.ceil(places), share)]
    return _sampling(
        (len(start_A), num_bins, num_positions),
        np.tile(segment, 2),
        np.tile(sample // samples_per_bin, 2),
        np.concatenate([place.astype(np.int64) for place, _ in entries]),
        np.concatenate([weight / samples_per_bin for _, weight in entries]),
    )


def _sampling(
    shape_APT: tuple[int, int, int],
    segment: np.ndarray,
    position: np.ndarray,
    place: np.ndarray,
    weight: np.ndarray,
) -> Sampling:
    """Add up the entries of a sparse matrix, in float64, leaving out places outside."""
    num_segments, num_bins, num_positions = shape_APT
    inside = (place >= 0) & (place < num_positions) & (weight != 0)
    column = position * num_positions + place
    weights = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([segment[inside], column[inside]])),
        torch.from_numpy(weight[inside]),
        (num_segments, num_bins * num_positions),
        check_invariants=True,
    )
    return Sampling(weights.coalesce().float(), num_bins)


class SampledConv(nn.Module):
    """Convolve all bins of every segment to one vector: `sum_cp weight[o, c, p] * bins[c, p]`.

    The weight has the shape that it has in the public networks; its axis after the channels runs
    over the bins of all samplings, one after the other.

    Args:
        weight_shape: `(O, C, bins, 1, 1)`, or `(O, C * bins, 1, 1)` with the bin varying fastest.
        samplings: One per source of features.
        map_shape: How the segments are laid out, two axes.
    """

    def __init__(
        self,
        weight_shape: Sequence[int],
        samplings: Sequence[Sampling],
        map_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*weight_shape))
        self.bias = nn.Parameter(torch.empty(weight_shape[0]))
        bound = self.weight[0].numel() ** -0.5  # as torch's convolutions are drawn
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        self.map_shape, self.num_bins = map_shape, [sampling.num_bins for sampling in samplings]
        for i, sampling in enumerate(samplings):
            self.register_buffer(f"sampling{i}", sampling.weights, persistent=False)

    def forward(self, sources_NCT: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return `(N, O, *map_shape)` of features that are sampled, each by its sampling."""
        num_videos, num_channels, _ = sources_NCT[0].shape
        num_outputs = len(self.bias)
        weight_OCP = self.weight.view(num_outputs, num_channels, -1)
        total = self.bias.new_zeros(())
        for i, weights_OCP in enumerate(weight_OCP.split(self.num_bins, dim=2)):
            projected = torch.einsum("ocp,nct->ptno", weights_OCP, sources_NCT[i])
            columns = projected.reshape(-1, num_videos * num_outputs)
            total = total + torch.sparse.mm(self.get_buffer(f"sampling{i}"), columns)
        maps = total.view(*self.map_shape, num_videos, num_outputs) + self.bias
        return maps.permute(2, 3, 0, 1)

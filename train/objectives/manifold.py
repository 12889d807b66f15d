"""Freeze, MixUp and CutMix of feature maps inside a network: the manifold variant.

Source: SSDet (Kahatapitiya et al., AAAI 2023), "Combining Augmentations", ablation. The maps have
all `T` frames of the clips, so the operations of Eq. 1-5 apply as they stand: frames are taken
along `T`, and the plane of CutMix moves over the map's own width. The labels follow what the map
shows. Partners are the other samples of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from synth import (
    Overlap,
    aligned_index,
    column_mask,
    draw_freeze,
    draw_overlap,
    frozen_index,
    mixing_weights,
    round_half_up,
    view_slides,
    window_masks,
)

ManifoldOperation = Literal["freeze", "mixup", "cutmix_window", "cutmix_view"]
FEWEST_FRAMES = {"freeze": 2, "mixup": 4, "cutmix_window": 4, "cutmix_view": 1}


@dataclass(frozen=True, slots=True, eq=False)
class MapMixture:
    """What is shown on every frame of a batch of maps, in the numbers that were drawn.

    Attributes:
        partner_N: int64, the sample that each one is mixed with.
        own_NT: int64, from 0: the frame of the sample itself that shows on each frame.
        other_NT: int64, that of its partner.
        shares_NTW: float64 in [0, 1], share of the sample itself in each column; the last axis has
            length 1 where all columns have one share.
        slide_T: int64, columns by which the sample is shifted to the left, its partner to the
            right; None where nothing slides.
        frozen_NT: bool, frames that are background whatever they show.
    """

    partner_N: np.ndarray
    own_NT: np.ndarray
    other_NT: np.ndarray
    shares_NTW: np.ndarray
    slide_T: np.ndarray | None
    frozen_NT: np.ndarray


def draw_partners(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Draw a permutation of the batch without fixed points, all of them equally likely.

    A sample that is alone in its batch is mixed with itself.
    """
    order = rng.permutation(num_samples)
    while num_samples > 1 and (order == np.arange(num_samples)).any():
        order = rng.permutation(num_samples)
    return order


def draw_mixture(
    rng: np.random.Generator,
    operation: ManifoldOperation,
    shape: tuple[int, int, int],
    min_overlap: float = 0.25,
    delta: float = 1 / 16,
) -> MapMixture:
    """Draw partners, then the numbers of each sample as the rendered operation draws them.

    Args:
        rng: Random numbers of this step.
        operation: What is applied.
        shape: Samples `N`, frames `T` and width `W` of the maps.
        min_overlap: Shortest overlap of two clips, as a share of the frames.
        delta: Half-width of the spatial ramp, as a share of the width.
    """
    num_samples, num_frames, width = shape
    partner_N = draw_partners(rng, num_samples)
    if operation == "freeze":
        return _freeze(rng, partner_N, num_frames)
    if operation == "cutmix_view":
        return _view(partner_N, num_frames, width, delta * width)
    overlaps = [draw_overlap(rng, num_frames, min_overlap) for _ in range(num_samples)]
    if operation == "mixup":
        return _overlapping(partner_N, overlaps, lambda one: mixing_weights(one)[:, None])
    return _overlapping(partner_N, overlaps, lambda one: window_masks(width, one, delta * width))


def _freeze(rng: np.random.Generator, partner_N: np.ndarray, num_frames: int) -> MapMixture:
    """Source: SSDet Eq. 1."""
    pairs = [frozen_index(num_frames, draw_freeze(rng, num_frames)) for _ in partner_N]
    own_NT, frozen_NT = (np.stack(column) for column in zip(*pairs, strict=True))
    return MapMixture(partner_N, own_NT, own_NT, np.ones((*own_NT.shape, 1)), None, frozen_NT)


def _overlapping(
    partner_N: np.ndarray, overlaps: list[Overlap], shares: Callable[[Overlap], np.ndarray]
) -> MapMixture:
    """Source: SSDet Eq. 2-5, MixUp and the transient window."""
    own_NT, other_NT = (
        np.stack(column) for column in zip(*map(aligned_index, overlaps), strict=True)
    )
    shares_NTW = np.stack([shares(overlap) for overlap in overlaps])
    return MapMixture(partner_N, own_NT, other_NT, shares_NTW, None, np.zeros(own_NT.shape, bool))


def _view(partner_N: np.ndarray, num_frames: int, width: int, delta: float) -> MapMixture:
    """Source: SSDet Appendix, the transient view."""
    frames_NT = np.tile(np.arange(num_frames), (len(partner_N), 1))
    mask_W = column_mask(width, int(round_half_up(width / 2)), delta)
    shares_NTW = np.broadcast_to(mask_W, (*frames_NT.shape, width))
    slide_T = view_slides(num_frames, width, delta)
    nothing_NT = np.zeros(frames_NT.shape, bool)
    return MapMixture(partner_N, frames_NT, frames_NT, shares_NTW, slide_T, nothing_NT)


def mix_maps(maps_NCTHW: torch.Tensor, mixture: MapMixture) -> torch.Tensor:
    """Return the mixed maps: share times the sample's frame, the rest of its partner's.

    Args:
        maps_NCTHW: Float maps; gradients flow to both samples by their shares.
        mixture: Drawn for the same `N`, `T` and `W`.

    Returns:
        The same shape and type, channels last in memory.
    """
    num_samples, _, num_frames, _, width = maps_NCTHW.shape
    device = maps_NCTHW.device
    # Rows of one frame each: with channels last in memory, taking some is one plain copy.
    rows_RHWC = maps_NCTHW.permute(0, 2, 3, 4, 1).flatten(0, 1)

    def show(sample_N: np.ndarray, frame_NT: np.ndarray, slide: int) -> torch.Tensor:
        row_R = (sample_N[:, None] * num_frames + frame_NT).ravel()
        shown = rows_RHWC[torch.from_numpy(row_R).to(device)]
        if mixture.slide_T is None:
            return shown
        columns_TW = mixture.slide_T[:, None] * slide + np.arange(width)
        columns_RW = np.tile(np.clip(columns_TW, 0, width - 1), (num_samples, 1))
        index = torch.from_numpy(columns_RW).to(device)[:, None, :, None]
        return torch.take_along_dim(shown, index, 2)

    own = show(np.arange(num_samples), mixture.own_NT, 1)
    other = show(mixture.partner_N, mixture.other_NT, -1)
    shares = torch.from_numpy(mixture.shares_NTW.astype(np.float32)).to(device, maps_NCTHW.dtype)
    mixed = torch.lerp(other, own, shares.flatten(0, 1)[:, None, :, None])  # exact at 0 and 1
    return mixed.unflatten(0, (num_samples, num_frames)).permute(0, 4, 1, 2, 3)


def mix_labels(
    weights_NCT: torch.Tensor, mixture: MapMixture, with_background: bool
) -> torch.Tensor:
    """Mix soft labels as the maps are mixed: the mean share `|M[t]|`; frozen is background.

    Args:
        weights_NCT: Float soft labels per frame.
        mixture: As for the maps.
        with_background: Whether the last row is background.
    """
    own_NT, other_NT, partner_N, share_NT, frozen_NT = (
        torch.from_numpy(array).to(weights_NCT.device)
        for array in (
            mixture.own_NT,
            mixture.other_NT,
            mixture.partner_N,
            mixture.shares_NTW.mean(axis=2).astype(np.float32),
            mixture.frozen_NT,
        )
    )
    own = weights_NCT.take_along_dim(own_NT[:, None], 2)
    other = weights_NCT[partner_N].take_along_dim(other_NT[:, None], 2)
    mixed_NCT = torch.lerp(other, own, share_NT[:, None].to(weights_NCT.dtype))
    mixed_NCT = mixed_NCT.masked_fill(frozen_NT[:, None], 0.0)
    if with_background:
        mixed_NCT[:, -1].masked_fill_(frozen_NT, 1.0)
    return mixed_NCT

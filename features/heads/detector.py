"""Train a network that maps features to a map of segments, and to starts and ends.

Source of the recipes: Lin et al., "BMN", ICCV 2019, Section 4.1; Xu et al., "G-TAD", CVPR 2020,
Section 4.2, and the settings of their public programs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import nn

from .boundary_targets import boundary_targets, overlap_map, valid_cells
from .map_losses import boundary_loss, classification_loss, regression_loss
from .training import require_finite_loss, require_numbers


@dataclass(frozen=True, slots=True)
class DetectorRecipe:
    """How a paper trains its head: Adam with a rate that falls in steps."""

    lr: float
    batch_size: int
    epochs: int
    step_epochs: int
    """The rate is multiplied by 0.1 after so many epochs, again and again."""
    regression_weight: float
    """Of the squared error of channel 0 of the map."""
    classification_weight: float
    """Of the cross-entropy of channel 1."""
    smoothing: float = 0.0
    """Added to the counts of positive and negative segments in the cross-entropy."""
    anchor_margin: float = 0.0
    """Bin `i` is positive by the share of `[i - margin, i + 1 + margin]` in a boundary's region."""
    clip_norm: float | None = None
    weight_decay: float = 1e-4
    steps_ahead: int = 0
    """Epochs by which the steps come early: 1 where the program steps before its first epoch."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "step_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must be above 0, got {self.lr}")

    def over(self, epochs: int | None = None, lr: float | None = None) -> Self:
        """Return the recipe for another number of epochs, the steps at the same shares of it."""
        epochs = self.epochs if epochs is None else epochs
        step_epochs = max(round(self.step_epochs * epochs / self.epochs), 1)
        lr = self.lr if lr is None else lr
        return replace(self, epochs=epochs, step_epochs=step_epochs, lr=lr)

    def rate(self, epoch: int) -> float:
        """Return Adam's rate in an epoch, counted from 0."""
        return self.lr * 0.1 ** ((epoch + self.steps_ahead) // self.step_epochs)


# On THUMOS the public program gives the weight of 10 to the cross-entropy, as two names are
# swapped in its loss; the published results were trained so.
GTAD_THUMOS_RECIPE = DetectorRecipe(4e-5, 8, 10, 5, 1.0, 10.0, smoothing=10.0, clip_norm=1.0)
GTAD_ANET_RECIPE = DetectorRecipe(4e-3, 16, 10, 5, 10.0, 1.0, anchor_margin=0.5)
BMN_RECIPE = DetectorRecipe(1e-3, 16, 9, 7, 10.0, 1.0, steps_ahead=1)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Features of one window with what the head shall say of them.

    Attributes:
        feats_DT: float32.
        overlap: float32, of the map's shape: highest IoU of each segment with an action.
        start_T: float32, share of each bin's anchor where an action starts.
        end_T: float32, where one ends.
    """

    feats_DT: np.ndarray
    overlap: np.ndarray
    start_T: np.ndarray
    end_T: np.ndarray


def make_example(
    feats_DT: np.ndarray, segments_G2: np.ndarray, cells: np.ndarray, anchor_margin: float
) -> Example:
    """Assign labels to a window.

    Args:
        feats_DT: float32.
        segments_G2: Actions in bins; those beyond the window too.
        cells: Start and end of the map's segments (`duration_cells`, `end_cells`).
        anchor_margin: Of the recipe.
    """
    num_bins = feats_DT.shape[1]
    return Example(
        feats_DT,
        overlap_map(cells, segments_G2, num_bins),
        *(boundary_targets(segments_G2[:, i], num_bins, anchor_margin) for i in range(2)),
    )


def train_detector(
    model: nn.Module,
    examples: Sequence[Example],
    cells: np.ndarray,
    recipe: DetectorRecipe,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Train `model` in place and return the mean loss of every epoch.

    On a CPU the same seed gives the same weights.

    Args:
        model: From features `(N, D, T)` to the map, starts and ends.
        examples: All of one size; at least one.
        cells: Start and end of the map's segments.
        recipe: Of the paper, or `over` other epochs.
        seed: Of the order of the examples and of the draws of the loss.
        device: Where to train.

    Raises:
        UsageError: The loss is not finite.
    """
    num_bins = examples[0].feats_DT.shape[1]
    valid = torch.from_numpy(valid_cells(cells, num_bins)).to(device)
    generator = torch.Generator().manual_seed(seed)
    model.to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    losses = []
    for epoch in range(recipe.epochs):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(epoch)
        order = torch.randperm(len(examples), generator=generator).tolist()
        total = 0.0
        for batch in _batches([examples[i] for i in order], recipe.batch_size):
            loss = detector_loss(model, batch, valid, recipe, generator, device)
            optimiser.zero_grad()
            loss.backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimiser.step()
            total += float(loss.detach()) * len(batch)
        losses.append(total / len(examples))
        require_finite_loss(losses[-1], epoch, recipe.rate(epoch))
    model.eval()
    return losses


def detector_loss(
    model: nn.Module,
    batch: Sequence[Example],
    valid: torch.Tensor,
    recipe: DetectorRecipe,
    generator: torch.Generator,
    device: torch.device | str,
) -> torch.Tensor:
    """Return the boundary loss plus the weighted losses of both channels of the map."""
    feats, overlap, start, end = (
        torch.from_numpy(np.stack([getattr(example, name) for example in batch])).to(device)
        for name in ("feats_DT", "overlap", "start_T", "end_T")
    )
    confidence, start_probability, end_probability = model(feats)
    regression = regression_loss(confidence[:, 0], overlap, generator)
    classification = classification_loss(confidence[:, 1], overlap, valid, recipe.smoothing)
    return (
        boundary_loss(start_probability, end_probability, start, end)
        + recipe.regression_weight * regression
        + recipe.classification_weight * classification
    )


@torch.inference_mode()
def detect(
    model: nn.Module,
    feats_DT: Sequence[np.ndarray],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield map, starts and ends of one window after the other, float32.

    Raises:
        UsageError: A score is NaN.
    """
    model.to(device).eval()
    for first in range(0, len(feats_DT), batch_size):
        batch = np.stack(feats_DT[first : first + batch_size])
        outputs = model(torch.from_numpy(batch).to(device))
        for part in outputs:
            require_numbers(part)
        yield from zip(*(part.cpu().numpy() for part in outputs), strict=True)


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    for first in range(0, len(examples), size):
        yield examples[first : first + size]

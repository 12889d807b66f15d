"""The training loop that the heads of whole videos share: padded batches, Adam, a falling rate."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from manifests import UsageError

from .frame_head import FrameHead, HeadRecipe

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside, and leave the generators of torch as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train_head(
    head: FrameHead,
    feats: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    recipe: HeadRecipe,
    seed: int,
) -> list[float]:
    """Train a head in place, on the device where it is; the same seed gives the same weights.

    The rate falls when the epoch's own loss stalls: the public scripts watch the loss of the test
    videos instead, which must not be seen here.

    Args:
        head: With its initial weights.
        feats: Rows of every video, `(S, D)`.
        targets: Of every video, `(S, J, K)`, as `head.targets` gives them.
        recipe: How.
        seed: For the order of the videos, for crops and dropout.

    Returns:
        The mean loss of every epoch.

    Raises:
        UsageError: The loss is not finite.
    """
    device = next(head.parameters()).device
    rate = recipe.rate(len(feats))
    optimiser = torch.optim.Adam(head.parameters(), lr=rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_patience
    )
    losses: list[float] = []
    head.train()
    with seeded(seed, device), torch.enable_grad():
        for epoch in range(recipe.epochs):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
            batches = _batches(feats, targets, recipe, rng, device)
            losses.append(float(np.mean([_step(head, optimiser, batch) for batch in batches])))
            require_finite_loss(losses[-1], epoch, rate)
            plateau.step(losses[-1])
    head.eval()
    return losses


def require_finite_loss(loss: float, epoch: int, rate: float) -> None:
    """Raise UsageError if the mean loss of an epoch, counted from 0, is not finite."""
    if not math.isfinite(loss):
        raise UsageError(
            f"the loss must stay finite, but is {loss} in epoch {epoch + 1} at learning rate "
            f"{rate:g}; choose a smaller one"
        )


def require_numbers(scores: torch.Tensor) -> None:
    """Raise UsageError if one of the scores of a head is NaN."""
    if scores.isnan().any():
        raise UsageError(
            "the scores of a head must be numbers, but some are NaN: its weights have grown beyond "
            "measure; train it at a smaller learning rate"
        )


@torch.inference_mode()
def score_rows(head: FrameHead, feats_SD: np.ndarray) -> np.ndarray:
    """Return the probability of every class on every row of one video, float64 `(S, K)`.

    Raises:
        UsageError: A score is NaN.
    """
    device = next(head.parameters()).device
    if len(feats_SD) == 0:
        return np.zeros((0, head.num_classes))
    head.eval()
    logits_1KT = head(*pad_videos([feats_SD], device))
    require_numbers(logits_1KT)
    return torch.sigmoid(logits_1KT[0].T.double()).cpu().numpy()


def pad_videos(
    feats: Sequence[np.ndarray], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 `(N, D, T)` with zeros past the end of each video, and the lengths `(N,)`."""
    rows = [torch.from_numpy(np.asarray(feats_SD, np.float32)) for feats_SD in feats]
    lengths_N = torch.tensor([len(rows_SD) for rows_SD in rows])
    return pad_sequence(rows, batch_first=True).mT.to(device), lengths_N.to(device)


def _batches(
    feats: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    recipe: HeadRecipe,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield features, lengths and targets of all videos, in an order of their own each epoch."""
    order = rng.permutation(len(feats))
    for first in range(0, len(order), recipe.batch_size):
        chosen = order[first : first + recipe.batch_size]
        windows = [_crop(len(feats[v]), recipe.window, rng) for v in chosen]
        picked = list(zip(chosen, windows, strict=True))
        wanted = [torch.from_numpy(targets[v][window]) for v, window in picked]
        targets_NJKT = pad_sequence(wanted, batch_first=True).permute(0, 2, 3, 1)
        yield (
            *pad_videos([feats[v][window] for v, window in picked], device),
            targets_NJKT.to(device),
        )


def _crop(num_rows: int, window: int | None, rng: np.random.Generator) -> slice:
    if window is None or num_rows <= window:
        return slice(0, num_rows)
    start = int(rng.integers(num_rows - window + 1))
    return slice(start, start + window)


def _step(head: FrameHead, optimiser: torch.optim.Optimizer, batch: Batch) -> float:
    loss = head.loss(*batch)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()

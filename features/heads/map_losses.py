"""Losses of the heads that score every segment of a map: BMN and G-TAD.

Source: Lin et al., "BMN", ICCV 2019, Section 3.4 (TEM loss, PEM loss); Xu et al., "G-TAD", CVPR
2020, Section 3.4. What the two programs add or leave out is stated beside it.
"""

import torch

EPSILON = 1e-6  # added to every probability before its logarithm
BOUNDARY_SHARE = 0.5  # of a bin in a boundary's region, from which on the bin is positive
POSITIVE_OVERLAP = 0.9  # of a segment that is one with an action
HIGH_OVERLAP, LOW_OVERLAP = 0.7, 0.3  # the groups that the regression balances


def balanced_cross_entropy(
    probability: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return half the mean over the positives plus half the mean over the negatives of `-log p`.

    That is what the weights of BMN's eq. 8 come to: `0.5 * ratio` and `0.5 * ratio / (ratio - 1)`
    with `ratio = entries / positives`. A group without members counts nothing (there the weights
    would be infinite).

    Args:
        probability: Of being positive.
        positive: bool, same shape.
        negative: bool; entries in neither group are not counted.
        smoothing: Added to both counts: 10 in G-TAD for THUMOS.
    """
    hits = torch.log(probability + EPSILON) * positive
    misses = torch.log(1 - probability + EPSILON) * negative
    num_positives = (positive.sum() + smoothing).clamp(min=1)
    num_negatives = (negative.sum() + smoothing).clamp(min=1)
    return -0.5 * (hits.sum() / num_positives + misses.sum() / num_negatives)


def boundary_loss(
    start_NT: torch.Tensor,
    end_NT: torch.Tensor,
    start_target_NT: torch.Tensor,
    end_target_NT: torch.Tensor,
) -> torch.Tensor:
    """Return the loss of the start and end probabilities (TEM loss, node loss)."""
    total = start_NT.new_zeros(())
    for probability, target in ((start_NT, start_target_NT), (end_NT, end_target_NT)):
        positive = target > BOUNDARY_SHARE
        total = total + balanced_cross_entropy(probability, positive, ~positive)
    return total


def regression_loss(
    predicted: torch.Tensor, overlap: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return half the mean squared error of the predicted overlap, over balanced groups.

    Every segment of high overlap counts; of those in the middle and of the low ones so many are
    drawn, on average, as there are high ones (all, if there are fewer). The public programs then
    count every cell of the map, since their comparison of masked noise holds everywhere; here it
    stays with the group.

    Args:
        predicted: Regression confidence of every segment.
        overlap: Its highest IoU with an action; 0 where the segment is not valid.
        generator: Draws, on the CPU.
    """
    is_high = overlap > HIGH_OVERLAP
    is_middle = (overlap > LOW_OVERLAP) & ~is_high
    is_low = (overlap > 0) & (overlap <= LOW_OVERLAP)
    counted = is_high
    for group in (is_middle, is_low):
        share = is_high.sum() / group.sum().clamp(min=1)
        drawn = torch.rand(overlap.shape, generator=generator).to(overlap.device)
        counted = counted | (group & (drawn < share))
    error = (predicted - overlap).square() * counted
    return 0.5 * error.sum() / counted.sum().clamp(min=1)


def classification_loss(
    predicted: torch.Tensor, overlap: torch.Tensor, valid: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Return the loss of telling segments that are one with an action from the other valid ones."""
    positive = overlap > POSITIVE_OVERLAP
    return balanced_cross_entropy(predicted, positive, ~positive & valid, smoothing)

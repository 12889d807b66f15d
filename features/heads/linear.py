"""A linear head: one logistic regression per class on standardised features.

The plainest question one can ask of features: can a plane through them tell the class? Convex and
trained to convergence on all rows at once, so the answer has no seed and no schedule.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Weights of a trained head; rows are standardised with the training rows' statistics.

    Attributes:
        mean_D: float64, of the training rows.
        scale_D: float64, their standard deviation, 1 where a channel is constant.
        weights_DC: float64.
        bias_C: float64.
    """

    mean_D: np.ndarray
    scale_D: np.ndarray
    weights_DC: np.ndarray
    bias_C: np.ndarray

    def predict(self, feats_SD: np.ndarray) -> np.ndarray:
        """Return the probability of every class on every row, float64 `(S, C)` in [0, 1]."""
        rows_SD = (np.asarray(feats_SD, np.float64) - self.mean_D) / self.scale_D
        logits_SC = rows_SD @ self.weights_DC + self.bias_C
        return np.exp(-np.logaddexp(0.0, -logits_SC))


def train_linear(
    feats_ND: np.ndarray, positive_NC: np.ndarray, penalty: float = 1e-2, max_steps: int = 200
) -> LinearHead:
    """Fit the head by L-BFGS on all rows: mean binary cross-entropy plus `penalty / 2 * |W|^2`.

    Deterministic: float64, full batch, zero start. The bias is not penalised.

    Args:
        feats_ND: Rows of all training videos.
        positive_NC: bool, several classes may be positive on one row.
        penalty: Weight decay per class, on standardised channels.
        max_steps: Iterations at most; it stops earlier when the gradient vanishes.

    Raises:
        ValueError: No rows, or features that are not finite.
    """
    rows_ND = np.asarray(feats_ND, np.float64)
    if len(rows_ND) == 0 or not np.isfinite(rows_ND).all():
        raise ValueError("a linear head needs at least one row, and finite features")
    mean_D, scale_D = rows_ND.mean(axis=0), rows_ND.std(axis=0)
    scale_D = np.where(scale_D > 1e-6, scale_D, 1.0)
    inputs = torch.from_numpy((rows_ND - mean_D) / scale_D)
    targets = torch.from_numpy(np.asarray(positive_NC, np.float64))
    weights = torch.zeros(
        inputs.shape[1], targets.shape[1], dtype=torch.float64, requires_grad=True
    )
    bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, bias],
        max_iter=max_steps,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ weights + bias
        entropy = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=0)
        total = entropy.sum() + penalty / 2 * weights.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)
    return LinearHead(mean_D, scale_D, weights.detach().numpy(), bias.detach().numpy())

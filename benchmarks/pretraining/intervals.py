"""How far a mean over seeds and test videos may be trusted: bootstrap over both together.

What an encoder scores depends on the seed it was trained with and on the videos it is tested on.
Resample `b` draws seeds with replacement, and averages what they score on resample `b` of the test
videos, the same videos for all of them; 95 % of the resampled means span the interval.

Drawing from few seeds alone is too narrow: nothing worse than the worst of them is ever drawn, and
with seeds that differ more than videos, 95 % would hold the truth 82 times of 100 (five seeds) or
75 (three). So what the drawn seeds add to the mean of all is widened as Student's t widens a mean
of so few; the intervals then hold the truth 92 to 96 times of 100, wherever the spread is from.

Two methods are compared by their differences, seed by seed and resample by resample: what makes a
video hard for both of them cancels.
Source: Owen, The pigeonhole bootstrap (2007), for drawing both factors at once.
"""

import math
from dataclasses import dataclass

import numpy as np

PERCENTILES = (2.5, 97.5)
NORMAL_975 = 1.960
# 97.5th percentile of Student's t of 2, 3, ... 10 values; of more, that of 10.
STUDENT_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and the 95 % interval around it; NaN where it is not known.

    Attributes:
        mean: Of what the seeds score on all test videos.
        low: 2.5th percentile of the resampled means.
        high: 97.5th percentile.
        num_seeds: How many were averaged; the interval of a single one is of the videos alone.
    """

    mean: float
    low: float
    high: float
    num_seeds: int

    @property
    def sign(self) -> str:
        """Return "+" or "-" where the whole interval lies on one side of zero, else "0"."""
        if self.low > 0:
            return "+"
        return "-" if self.high < 0 else "0"


def interval(values_S: np.ndarray, resampled_SB: np.ndarray, seed: int = 0) -> Interval:
    """Return the mean of a method and its 95 % interval over seeds and videos.

    Args:
        values_S: float `(S,)`, what each seed scores on all test videos.
        resampled_SB: float `(S, B)`, what it scores on resample `b` of them. A resample on which a
            seed has no score (NaN: none of its videos shows what is asked for) is left out.
        seed: Of the draw of seeds.

    Raises:
        ValueError: No seed, or shapes that do not fit.
    """
    num_seeds, num_resamples = resampled_SB.shape
    if not num_seeds or values_S.shape != (num_seeds,):
        raise ValueError(
            "values (S,) and resampled values (S, B) must be of the same seeds, at least one, got "
            f"{values_S.shape} and {resampled_SB.shape}"
        )
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    drawn_BS = rng.integers(num_seeds, size=(num_resamples, num_seeds))
    wide_SB = resampled_SB.astype(np.float64)
    means_B = wide_SB[drawn_BS, np.arange(num_resamples)[:, None]].mean(axis=1)
    all_B = wide_SB.mean(axis=0)
    spread_B = all_B + widening(num_seeds) * (means_B - all_B)
    is_known_B = np.isfinite(spread_B)
    if not is_known_B.any():
        return Interval(float(np.mean(values_S)), math.nan, math.nan, num_seeds)
    # Repeated videos raise a mean average precision a little: that is no news of the encoder.
    shift = np.mean(values_S) - all_B[is_known_B].mean()
    low, high = np.percentile(spread_B[is_known_B] + shift, PERCENTILES)
    return Interval(float(np.mean(values_S)), float(low), float(high), num_seeds)


def paired(
    values_S: np.ndarray,
    resampled_SB: np.ndarray,
    baseline_values_S: np.ndarray,
    baseline_resampled_SB: np.ndarray,
    seed: int = 0,
) -> Interval:
    """Return the mean difference to a baseline of the same seeds, and its 95 % interval.

    Args:
        values_S: As of `interval`.
        resampled_SB: As of `interval`.
        baseline_values_S: Of the baseline, seed by seed.
        baseline_resampled_SB: Of the baseline, on the same resamples of the test videos.
        seed: Of the draw of seeds.

    Returns:
        The interval of method minus baseline; its `sign` says which one is better.

    Raises:
        ValueError: Method and baseline differ in their numbers of seeds or resamples.
    """
    if resampled_SB.shape != baseline_resampled_SB.shape:
        raise ValueError(
            "a method is compared with a baseline of the same seeds and resamples, got "
            f"{resampled_SB.shape} and {baseline_resampled_SB.shape}"
        )
    wide_SB = resampled_SB.astype(np.float64)  # differences of float32 would lose digits
    return interval(values_S - baseline_values_S, wide_SB - baseline_resampled_SB, seed)


def widening(num_seeds: int) -> float:
    """Return by how much the spread of means of seeds drawn with replacement falls short.

    The spread of such means is that of the population divided by `num_seeds`, not by
    `num_seeds - 1`; and a spread estimated of few values calls for Student's t, not the normal.
    """
    if num_seeds < 2:
        return 1.0  # a single seed always draws itself
    student = STUDENT_975[min(num_seeds - 2, len(STUDENT_975) - 1)]
    return math.sqrt(num_seeds / (num_seeds - 1)) * student / NORMAL_975

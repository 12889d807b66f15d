"""Temporal equivariance: whether the features of a re-timed video are the re-timed features.

A re-timing `g` shows the frames of a video at another speed or in another order. Features are
equivariant to it when it does not matter whether the video is re-timed and then encoded, or encoded
and then re-timed:

    a_i = f(g x)_i          what the encoder makes of snippet i of the re-timed copy
    b_i = (g f(x))_i        the video's own features at the moment that snippet i shows (`rows_at`)
    d(a, b) = 1 - cos(a, b) = |a/|a| - b/|b||^2 / 2

    matched = mean_i d(a_i, b_i)        chance = mean_{i, j} d(a_i, b_j)
    temporal equivariance = 1 - matched / chance

`chance` compares with a random moment of the same video, so the number says how much of the way
from there to perfect the features go: 1 when every snippet has the features of its own moment, 0
when those are no nearer than any other's, below 0 when they are farther. Features that are the same
all over the video are near to their own moment, but not nearer than to any other: they know nothing
of time and get 0, which 0 / 0 stands for here.

Positions below are on the axis of sampled frames: frame `k` stands for `[k, k + 1)`.
Source: our own definition. It equals Lin's concordance correlation coefficient (Biometrics 1989) of
the unit vectors a and b, `2 cov(a, b) / (var(a) + var(b) + |mean(a) - mean(b)|^2)`, and so lies in
[-1, 1]; over all orders of the b, its mean is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

LEAST_COMPARED = 3  # snippets; with fewer, "any other moment" means little
NEGLIGIBLE = 1e-18  # distances below differ by rounding only (float16 rows: from about 1e-13)


@dataclass(frozen=True, slots=True)
class Retiming:
    """A copy of a video at another speed, or beginning at another frame and wrapping around.

    Frame `k` of the copy is frame `(floor(k * speed) + offset) mod n` of the video's `n`, with
    `offset = floor(shift * n)`.

    Attributes:
        name: What it does, for people.
        speed: Frames of the video per frame of the copy.
        shift: Where in the video the copy begins, as a part of it.
    """

    name: str
    speed: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def offset(self, num_frames: int) -> int:
        """Return the frame of the video that the copy begins with."""
        return int(self.shift * num_frames)

    def frames(self, num_frames: int) -> np.ndarray:
        """Return the video's frames in the order of the copy, int64 `(K,)`.

        # 5 frames at speed 2: 0 2 4; at speed 1/2: 0 0 1 1 2 2 3 3 4 4; shifted by 1/2: 2 3 4 0 1
        """
        k_K = np.arange(-(-num_frames // self.speed), dtype=np.int64)
        shown_K = k_K * self.speed.numerator // self.speed.denominator
        return (shown_K + self.offset(num_frames)) % num_frames

    def source_positions(self, positions_R: np.ndarray, num_frames: int) -> np.ndarray:
        """Return the positions in the video of positions in the copy, float64 `(R,)`."""
        unwrapped_R = np.asarray(positions_R, np.float64) * float(self.speed)
        return (unwrapped_R + self.offset(num_frames)) % num_frames

    def copy_segments(
        self, segments: Sequence[tuple[float, float, int]], num_frames: int
    ) -> list[tuple[float, float, int]]:
        """Return where segments of the video, in positions, lie in the copy; the seam cuts them."""
        offset, speed = self.offset(num_frames), float(self.speed)
        placed = []
        for first, end, moved in ((offset, num_frames, 0), (0, offset, num_frames)):
            for start, stop, class_index in segments:
                a, b = max(start, first), min(stop, end)
                if a < b:
                    shift = moved - offset
                    placed.append(((a + shift) / speed, (b + shift) / speed, class_index))
        return placed

    def comparable(self, positions_R3: np.ndarray, num_frames: int) -> np.ndarray:
        """Return which snippets of the copy show one run of the video's frames, bool `(R,)`.

        The others show the seam where the video's end meets its beginning, a moment it lacks.
        """
        seam = (num_frames - self.offset(num_frames)) / float(self.speed)
        across_R = (positions_R3[:, 0] < seam) & (seam < positions_R3[:, 2])
        return ~across_R if self.shift else np.ones(len(positions_R3), bool)


RETIMINGS = (
    Retiming("twice as fast", speed=Fraction(2)),
    Retiming("half as fast", speed=Fraction(1, 2)),
    Retiming("halves swapped", shift=Fraction(1, 2)),
)


def unit_rows(feats_SD: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float64 `(S, D)`; rows of zeros stay zeros."""
    feats_SD = np.asarray(feats_SD, np.float64)
    norms_S1 = np.linalg.norm(feats_SD, axis=1, keepdims=True)
    return feats_SD / np.where(norms_S1 > 0, norms_S1, 1)


def rows_at(feats_SD: np.ndarray, centres_S: np.ndarray, wanted_R: np.ndarray) -> np.ndarray:
    """Return features between snippets, linear in time, float64 `(R, D)`.

    Args:
        feats_SD: Rows of a video, at least 2.
        centres_S: Their positions, strictly ascending.
        wanted_R: Positions from the first centre to the last.
    """
    feats_SD = np.asarray(feats_SD, np.float64)
    before_R = np.searchsorted(centres_S, wanted_R, side="right") - 1
    before_R = np.clip(before_R, 0, len(centres_S) - 2)
    gaps_R = centres_S[before_R + 1] - centres_S[before_R]
    weights_R1 = ((wanted_R - centres_S[before_R]) / gaps_R)[:, None]
    return feats_SD[before_R] + weights_R1 * (feats_SD[before_R + 1] - feats_SD[before_R])


def temporal_equivariance(retimed_RD: np.ndarray, expected_RD: np.ndarray) -> float:
    """Return how much nearer `retimed` is to `expected`, row by row, than to its rows at random.

    Args:
        retimed_RD: Features of the re-timed copy, `f(g x)`.
        expected_RD: The video's own features at the same moments, `g f(x)`.

    Returns:
        The temporal equivariance of the head of this module, in [-1, 1]; 0 where nothing changes.
    """
    a_RD, b_RD = unit_rows(retimed_RD), unit_rows(expected_RD)
    mean_a_D, mean_b_D = a_RD.mean(axis=0), b_RD.mean(axis=0)
    # mean_{i,j} |a_i - b_j|^2, without the R x R pairs
    spread = np.sum((a_RD - mean_a_D) ** 2) + np.sum((b_RD - mean_b_D) ** 2)
    chance = (spread / len(a_RD) + np.sum((mean_a_D - mean_b_D) ** 2)) / 2
    matched = np.mean(np.sum((a_RD - b_RD) ** 2, axis=1)) / 2
    return 0.0 if chance < NEGLIGIBLE else float(1 - matched / chance)


def retimed_equivariance(
    retiming: Retiming,
    num_frames: int,
    feats_SD: np.ndarray,
    positions_S3: np.ndarray,
    retimed_RD: np.ndarray,
    positions_R3: np.ndarray,
) -> float:
    """Compare the snippets of a copy with the video's own features at the moments they show.

    Left out are snippets across the seam, and those centred before the first or after the last
    snippet of the video: it has no features there to compare with.

    Args:
        retiming: How the copy was made.
        num_frames: Sampled frames of the video.
        feats_SD: Features of the video.
        positions_S3: Start, centre and end of its snippets.
        retimed_RD: Features of the copy.
        positions_R3: Start, centre and end of its snippets, in the copy.

    Returns:
        The temporal equivariance; NaN where fewer than 3 snippets can be compared.
    """
    wanted_R = retiming.source_positions(positions_R3[:, 1], num_frames)
    centres_S = positions_S3[:, 1]
    kept_R = retiming.comparable(positions_R3, num_frames)
    kept_R &= (wanted_R >= centres_S[0]) & (wanted_R <= centres_S[-1])
    if kept_R.sum() < LEAST_COMPARED or len(centres_S) < LEAST_COMPARED:
        return float("nan")
    expected_RD = rows_at(feats_SD, centres_S, wanted_R[kept_R])
    return temporal_equivariance(retimed_RD[kept_R], expected_RD)

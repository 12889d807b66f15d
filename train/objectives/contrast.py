"""Contrast a query with its key and a queue of other keys: what PAL and MoCo share.

Source: MoCo (He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR
2020), Eq. 1 and 2.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

RETRIEVAL_BLOCK = 64


@dataclass(frozen=True)
class ContrastArguments:
    """What momentum contrast needs to know."""

    projection_dim: int = 128
    """Length of a query or key."""
    queue: int = 16_384
    """Keys of earlier steps that a query is told apart from; a multiple of the batch size."""
    temperature: float = 0.07
    """Divides the cosines."""
    momentum: float = 0.999
    """Share that the momentum encoder keeps of itself at every step."""
    batch_negatives: bool = False
    """Also tell a query apart from the other keys of its batch, which are as new as its own: short
    runs, whose encoder changes fast, otherwise learn to tell keys by their age."""

    def __post_init__(self) -> None:
        for name in ("projection_dim", "queue"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")


def info_nce(
    queries_ND: torch.Tensor,
    positives_ND: torch.Tensor,
    negatives_QD: torch.Tensor,
    temperature: float,
    usable_NQ: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `-log(exp(q.k+ / t) / (exp(q.k+ / t) + sum_k- exp(q.k- / t)))`, averaged over queries.

    Args:
        queries_ND: float32 unit vectors `q`.
        positives_ND: The key `k+` of each query.
        negatives_QD: The keys `k-` that all queries are compared with.
        temperature: `t`.
        usable_NQ: bool, which negatives count for which query; all of them if None.

    Source: MoCo (CVPR 2020), Eq. 1.
    """
    with torch.autocast(queries_ND.device.type, enabled=False):  # bfloat16 has 2 digits for q.k / t
        positive_N1 = (queries_ND * positives_ND).sum(1, keepdim=True)
        negative_NQ = queries_ND @ negatives_QD.T
        if usable_NQ is not None:
            negative_NQ = negative_NQ.masked_fill(~usable_NQ, -torch.inf)
        logits_NK = torch.cat([positive_N1, negative_NQ], 1) / temperature
        return -logits_NK.log_softmax(1)[:, 0].mean()


class KeyQueue(nn.Module):
    """The newest keys; the oldest make room. All of it is in the state dict.

    # size 4, after [a b], [c d], [e f]: e f c d

    Args:
        size: Keys `Q` that it holds.
        dim: Length `D` of a key.

    Attributes:
        keys_QD: float32 keys; zeros where none has been.
        videos_Q: int64 number of the video that each key shows.
        num_enqueued: int64 scalar, keys so far, those that have left included.
    """

    keys_QD: torch.Tensor
    videos_Q: torch.Tensor
    num_enqueued: torch.Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys_QD", torch.zeros(size, dim))
        self.register_buffer("videos_Q", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("num_enqueued", torch.zeros((), dtype=torch.int64))

    @property
    def filled_Q(self) -> torch.Tensor:
        """Which places hold a key."""
        return torch.arange(len(self.keys_QD), device=self.keys_QD.device) < self.num_enqueued

    @torch.no_grad()
    def enqueue(self, keys_ND: torch.Tensor, videos_N: torch.Tensor) -> None:
        """Put at most `Q` keys in the places after the last ones, without waiting for a GPU."""
        places_N = torch.arange(len(keys_ND), device=keys_ND.device) + self.num_enqueued
        self.keys_QD.index_copy_(0, places_N % len(self.keys_QD), keys_ND)
        self.videos_Q.index_copy_(0, places_N % len(self.keys_QD), videos_N)
        self.num_enqueued += len(keys_ND)


@torch.no_grad()
def momentum_update(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Move the weights of `follower` to `momentum * follower + (1 - momentum) * leader`.

    Buffers stay: running statistics belong to the weights that they were taken with.

    Args:
        follower, leader: Modules of the same structure.
        momentum: Share that the follower keeps of itself.

    Source: MoCo (CVPR 2020), Eq. 2.
    """
    ours, theirs = tuple(follower.parameters()), tuple(leader.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - momentum)  # twice as fast as a loop over the weights


def region_features(
    vectors_NJD: torch.Tensor, first_N: torch.Tensor, last_N: torch.Tensor
) -> torch.Tensor:
    """Return the mean over clips `s..e` of each video, scaled to length 1: `(N, D)`.

    Args:
        vectors_NJD: Unit vectors of the `J` clips of each video.
        first_N, last_N: `s` and `e`, counted from 1, with `1 <= s <= e <= J`.

    Source: PAL (CVPR 2022), section 3.2.
    """
    clips_J = torch.arange(1, vectors_NJD.shape[1] + 1, device=vectors_NJD.device)
    inside_NJ = (clips_J >= first_N[:, None]) & (clips_J <= last_N[:, None])
    sums_ND = (vectors_NJD * inside_NJ[:, :, None]).sum(1)
    means_ND = sums_ND / inside_NJ.sum(1, keepdim=True)
    return nn.functional.normalize(means_ND, dim=1)


def retrieval_scores(
    queries_ND: np.ndarray, keys_ND: np.ndarray, videos_N: np.ndarray
) -> dict[str, float]:
    """Return how often a query's nearest key among those of 64 samples is its own, beside chance.

    The samples are cut into blocks of 64 with as many different videos as there are; other samples
    of a query's own video are no wrong answers and do not count. What is left over behind the last
    whole block counts only where there is none.

    Args:
        queries_ND, keys_ND: Unit vectors; row `n` of one belongs to row `n` of the other.
        videos_N: A number for the video that each sample shows.
    """
    order = np.argsort(occurrences(videos_N), kind="stable")
    block = min(RETRIEVAL_BLOCK, len(order))
    hits, chances = [], []
    for first in range(0, len(order) - block + 1, block):
        rows = order[first : first + block]
        rivals = (videos_N[rows, None] != videos_N[rows]) | np.eye(block, dtype=bool)
        cosines = np.where(rivals, queries_ND[rows] @ keys_ND[rows].T, -np.inf)
        hits.append(cosines.argmax(1) == np.arange(block))
        chances.append(1 / rivals.sum(1))
    return {
        "retrieval_accuracy": float(np.mean(hits)),
        "retrieval_accuracy_chance": float(np.mean(chances)),
    }


def occurrences(videos_N: np.ndarray) -> np.ndarray:
    """Return how many earlier samples show the video of each.  # a b a a b: 0 0 1 2 1"""
    order = np.argsort(videos_N, kind="stable")
    ranked = videos_N[order]
    earlier_N = np.empty(len(order), np.int64)
    earlier_N[order] = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return earlier_N

"""Pairs of segments of one video, and who takes whom: what the detection evaluators share.

The public evaluators walk through one side in a fixed order (predictions by score, or annotated
segments by line) and let each take the best of what is still free. Every one on the other side
therefore prefers whoever comes first in that order, and such a walk ends where deferred acceptance
does (Gale and Shapley, 1962): all ask for their best at once, each asked keeps the first in the
order, those refused ask for their next best. That needs as many rounds as the longest chain of
refusals, not as many steps as there are predictions.
"""

from collections.abc import Iterator

import numpy as np

PAIRS_AT_ONCE = 4_000_000  # a block of pairs in memory: some hundred megabytes


def temporal_iou(one_N2: np.ndarray, other_N2: np.ndarray) -> np.ndarray:
    """Return intersection over union, row by row; NaN where both have no length (0 / 0).

    Args:
        one_N2: float64 `(N, 2)`, start and end in seconds.
        other_N2: Likewise.

    Returns:
        float64 `(N,)`.

    Source: `tIoU = intersection / (length + length - intersection)` of the ActivityNet evaluators.
    """
    latest_start_N = np.maximum(one_N2[:, 0], other_N2[:, 0])
    intersection_N = (np.minimum(one_N2[:, 1], other_N2[:, 1]) - latest_start_N).clip(0)
    lengths_N = (one_N2[:, 1] - one_N2[:, 0]) + (other_N2[:, 1] - other_N2[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection_N / (lengths_N - intersection_N)


def pairs_of_groups(
    left_group_N: np.ndarray, right_group_M: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pair everything on the left with everything on the right of the same group.

    Args:
        left_group_N: int64.
        right_group_M: int64, ascending.

    Yields:
        Blocks of at most about `PAIRS_AT_ONCE` pairs: indices on the left, ascending, and on the
        right, ascending for each left one.
    """
    first_N = np.searchsorted(right_group_M, left_group_N, "left")
    count_N = np.searchsorted(right_group_M, left_group_N, "right") - first_N
    before_N = np.cumsum(count_N)
    at = 0
    while at < len(left_group_N):
        limit = (before_N[at - 1] if at else 0) + PAIRS_AT_ONCE
        end = max(int(np.searchsorted(before_N, limit, "right")), at + 1)
        counts = count_N[at:end]
        left = np.repeat(np.arange(at, end), counts)
        within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield left, first_N[left] + within
        at = end


def match_in_turn(
    asking: np.ndarray, asked: np.ndarray, num_asking: int, num_asked: int
) -> np.ndarray:
    """Let the asking side, in order of its index, take the first free one of its wishes.

    Args:
        asking: int64 `(P,)`, ascending: who asks.
        asked: int64 `(P,)`, for whom; the wishes of one asker stand in order of preference.
        num_asking: Size of the asking side.
        num_asked: Size of the other.

    Returns:
        int64 `(num_asking,)`: whom each takes, -1 for none.
    """
    first = np.flatnonzero(np.diff(asking, prepend=-1))
    at, end = first.copy(), np.append(first[1:], len(asking))
    nobody = len(first)  # comes after everyone
    holder = np.full(num_asked, nobody)
    restless = np.arange(nobody)
    while len(restless):
        wish = asked[at[restless]]
        is_moved = np.zeros(nobody + 1, bool)  # those who ask, and those who are held where they do
        is_moved[restless] = is_moved[holder[wish]] = True
        np.minimum.at(holder, wish, restless)
        moved = np.flatnonzero(is_moved[:nobody])
        refused = moved[holder[asked[at[moved]]] != moved]
        at[refused] += 1
        restless = refused[at[refused] < end[refused]]
    held = np.flatnonzero(holder < nobody)
    taken = np.full(num_asking, -1)
    taken[asking[first[holder[held]]]] = held
    return taken

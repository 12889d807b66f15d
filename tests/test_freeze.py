"""Volume Freeze against Eq. 1 written out, for every allowed pair of numbers."""

import numpy as np
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import LabelTrack, constant_track
from synth.freeze import draw_freeze, freeze_frames, freeze_labels, frozen_index

# n, r, m, source frames from 1, frozen
TABLE = [
    (6, 2, 3, [1, 2, 2, 2, 3, 4], [0, 1, 1, 1, 0, 0]),
    (6, 1, 2, [1, 1, 2, 3, 4, 5], [1, 1, 0, 0, 0, 0]),
    (6, 1, 6, [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
    (6, 5, 2, [1, 2, 3, 4, 5, 5], [0, 0, 0, 0, 1, 1]),
    (8, 4, 3, [1, 2, 3, 4, 4, 4, 5, 6], [0, 0, 0, 1, 1, 1, 0, 0]),
    (2, 1, 2, [1, 1], [1, 1]),
]


@pytest.mark.parametrize(("n", "r", "m", "order", "frozen"), TABLE)
def test_hand_worked_rows(n: int, r: int, m: int, order: list[int], frozen: list[int]) -> None:
    index_T, frozen_T = frozen_index(n, [(r, m)])
    assert (index_T + 1).tolist() == order
    assert frozen_T.tolist() == [bool(flag) for flag in frozen]
    labels = freeze_labels(constant_track(5, n), [(r, m)])
    assert labels.class_ids.tolist() == [5]
    assert labels.weights_CT.tolist() == [[1.0 - flag for flag in frozen]]
    assert labels.background_T.tolist() == [float(flag) for flag in frozen]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 16])
def test_every_allowed_pair_matches_equation_1(n: int) -> None:
    clip = oracle.random_clip(n, n)
    for r in range(1, n):
        for m in range(2, n - r + 2):
            order = oracle.freeze_order(n, r, m)
            assert len(order) == n
            frozen = freeze_frames(clip, [(r, m)])
            expected = np.stack([oracle.frame(clip, t) for t in order])
            np.testing.assert_array_equal(frozen, expected)
            assert not np.shares_memory(frozen, clip)


def test_labels_follow_the_frames_that_are_shown() -> None:
    # Frames before and after the freeze keep their own label, also where it varies over time.
    track = LabelTrack(np.array([4]), np.array([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]]))
    labels = freeze_labels(track, [(2, 3)])
    np.testing.assert_allclose(labels.weights_CT, [[0.0, 0.0, 0.0, 0.0, 0.4, 0.6]], atol=1e-12)
    assert track.weights_CT.tolist() == [[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]]


def test_two_segments_by_hand() -> None:
    # First (2, 2): 1 2 2 3 4 5 6 7; then frame 5 of that repeated 3 times: 1 2 2 3 4 4 4 5.
    index_T, frozen_T = frozen_index(8, [(2, 2), (5, 3)])
    assert (index_T + 1).tolist() == [1, 2, 2, 3, 4, 4, 4, 5]
    assert frozen_T.tolist() == [False, True, True, False, True, True, True, False]
    labels = freeze_labels(constant_track(1, 8), [(2, 2), (5, 3)])
    assert labels.weights_CT.tolist() == [[1, 0, 0, 1, 0, 0, 0, 1]]


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_drawn_segments_are_disjoint_ordered_and_compose(n: int, segments: int, seed: int) -> None:
    n = max(n, 2 * segments)
    intervals = draw_freeze(np.random.default_rng(seed), n, segments)
    assert len(intervals) == segments
    free = 1
    clip = list(range(1, n + 1))
    background = set()
    for r, m in intervals:
        assert type(r) is int
        assert type(m) is int
        assert free <= r <= n - 1
        assert 2 <= m <= n - r + 1
        free = r + m
        clip = [clip[t - 1] for t in oracle.freeze_order(n, r, m)]
        background |= set(range(r, r + m))
    index_T, frozen_T = frozen_index(n, intervals)
    assert (index_T + 1).tolist() == clip
    assert (np.flatnonzero(frozen_T) + 1).tolist() == sorted(background)
    labels = freeze_labels(constant_track(0, n), intervals)
    assert labels.num_frames == n
    np.testing.assert_array_equal(labels.background_T, frozen_T.astype(float))


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_draws_reach_every_allowed_pair_and_no_other(n: int) -> None:
    rng = np.random.default_rng(1)
    drawn = {pair for _ in range(3000) for pair in draw_freeze(rng, n)}
    assert drawn == {(r, m) for r in range(1, n) for m in range(2, n - r + 2)}


def test_r_is_uniform_and_m_is_uniform_given_r() -> None:
    rng, n, draws = np.random.default_rng(2), 5, 8000
    pairs = np.array([draw_freeze(rng, n)[0] for _ in range(draws)])
    for r in range(1, n):
        chosen = pairs[pairs[:, 0] == r, 1]
        share = 1 / (n - 1)
        assert abs(len(chosen) - draws * share) < 5 * np.sqrt(draws * share)
        for m in range(2, n - r + 2):
            share = 1 / (n - r)
            assert abs(np.sum(chosen == m) - len(chosen) * share) < 5 * np.sqrt(len(chosen))


@pytest.mark.parametrize(
    "intervals",
    [
        [(0, 2)],
        [(1, 1)],
        [(6, 2)],
        [(1, 7)],
        [(1, 2), (2, 2)],
        [(4, 2), (1, 2)],
        [(1, -3)],
        [(-(10**12), 2)],
        [(1, 10**12)],
    ],
)
def test_numbers_outside_the_clip_are_refused(intervals: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="intervals"):
        freeze_frames(oracle.random_clip(0, 6), intervals)
    with pytest.raises(ValueError, match="intervals"):
        freeze_labels(constant_track(0, 6), intervals)

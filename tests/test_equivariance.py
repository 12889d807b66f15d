"""Temporal equivariance: features built to have it, to lack it, and to know nothing of time."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.pictures.equivariance import (
    RETIMINGS,
    Retiming,
    retimed_equivariance,
    rows_at,
    temporal_equivariance,
    unit_rows,
)
from manifests import SampledFrames, SnippetGrid

NUM_FRAMES, GRID = 97, SnippetGrid(8, 4)
FEATS = arrays(np.float64, st.tuples(st.integers(3, 7), st.just(4)), elements=st.floats(-10, 10))
SEAMLESS = Retiming("as it is")


def positions(num_frames: int) -> np.ndarray:
    """Return start, centre and end of snippets on the axis of frames."""
    k = np.arange(num_frames)
    return GRID.times(SampledFrames(k, k.astype(float), k + 1.0))


def features_of(latent_ND: np.ndarray) -> np.ndarray:
    """Encode every snippet as the mean of what its frames show: perfect but for its sharpness."""
    return latent_ND[GRID.frame_positions(len(latent_ND))].mean(axis=1)


def slow_equivariance(a_RD: np.ndarray, b_RD: np.ndarray) -> float:
    """Follow the definition pair by pair."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))

    matched = [distance(a, b) for a, b in zip(a_RD, b_RD, strict=True)]
    chance = [distance(a, b) for a in a_RD for b in b_RD]
    return 1 - float(np.mean(matched)) / float(np.mean(chance))


def wandering(seed: int, num_frames: int = NUM_FRAMES, dim: int = 6) -> np.ndarray:
    """Return a latent that wanders smoothly, so that every moment has features of its own."""
    rng = np.random.default_rng(seed)
    phase_D, speed_D = rng.uniform(0, 6, dim), rng.uniform(0.02, 0.08, dim)
    return np.sin(np.arange(num_frames)[:, None] * speed_D + phase_D)


# ---------------------------------------------------------------- the number itself


def test_hand_worked() -> None:
    """Two orthogonal moments: matched 1, crossed -1; one of three right: 1 - (2/3) / (2/3) = 0."""
    e = np.eye(3)
    assert temporal_equivariance(e[:2], e[:2]) == 1
    assert temporal_equivariance(e[:2], e[[1, 0]]) == -1
    assert temporal_equivariance(e, e[[0, 2, 1]]) == pytest.approx(0)
    assert temporal_equivariance(e, e[[1, 2, 0]]) == pytest.approx(-0.5)


@given(FEATS, st.integers(0, 2**32 - 1))
def test_equals_the_definition_pair_by_pair(a_RD: np.ndarray, seed: int) -> None:
    """The closed form without R x R pairs is the definition."""
    rng = np.random.default_rng(seed)
    a_RD = a_RD + rng.normal(0, 1, a_RD.shape)
    b_RD = 0.5 * a_RD + rng.normal(0, 1, a_RD.shape)
    assert temporal_equivariance(a_RD, b_RD) == pytest.approx(slow_equivariance(a_RD, b_RD))


@given(FEATS, FEATS)
def test_lies_between_minus_one_and_one(a_RD: np.ndarray, b_RD: np.ndarray) -> None:
    """Whatever the features; also symmetric."""
    num = min(len(a_RD), len(b_RD))
    value = temporal_equivariance(a_RD[:num], b_RD[:num])
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(temporal_equivariance(b_RD[:num], a_RD[:num]))


@given(FEATS, FEATS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_does_not_depend_on_scale(a: np.ndarray, b: np.ndarray, p: float, q: float) -> None:
    """Features times a number, and each side its own, give the same value."""
    num = min(len(a), len(b))
    # below 1e-6 the squares of a norm may leave the range of numbers
    a, b = a[:num].round(6), b[:num].round(6)
    plain, scaled = temporal_equivariance(a, b), temporal_equivariance(p * a, q * b)
    assert scaled == pytest.approx(plain, abs=1e-6)


@given(arrays(np.float64, (4, 3), elements=st.floats(-5, 5)))
def test_over_all_orders_of_the_moments_the_mean_is_chance(feats_RD: np.ndarray) -> None:
    """A permutation destroys it: 0 on average, exactly."""
    rng = np.random.default_rng(0)
    feats_RD = feats_RD + rng.normal(0, 1, feats_RD.shape)
    values = [temporal_equivariance(feats_RD, feats_RD[list(p)]) for p in permutations(range(4))]
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert max(values) == values[0] == 1


@pytest.mark.parametrize("row", [[0.1, 0.7, -0.3], [0, 0, 0], [1e-8, 3e-8, 0]])
def test_features_that_never_change_know_nothing_of_time(row: list[float]) -> None:
    """0 / 0 is 0: being invariant is not being equivariant."""
    constant_RD = np.tile(row, (9, 1))
    assert temporal_equivariance(constant_RD, constant_RD) == 0
    assert temporal_equivariance(constant_RD, 3 * constant_RD) == 0


def test_noise_is_chance() -> None:
    """So the value of a constant is also the limit: constant plus ever smaller noise stays at 0."""
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3, 1e-5):
        a_RD, b_RD = (1 + size * rng.normal(0, 1, (2000, 8)) for _ in range(2))
        assert abs(temporal_equivariance(a_RD, b_RD)) < 0.03


# ---------------------------------------------------------------- re-timings


@pytest.mark.parametrize(
    ("retiming", "shown"),
    [
        (SEAMLESS, [0, 1, 2, 3, 4]),
        (RETIMINGS[0], [0, 2, 4]),
        (RETIMINGS[1], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (RETIMINGS[2], [2, 3, 4, 0, 1]),
        (Retiming("3/2", Fraction(3, 2)), [0, 1, 3, 4]),
    ],
)
def test_frames_of_a_copy(retiming: Retiming, shown: list[int]) -> None:
    """Five frames, re-timed."""
    assert retiming.frames(5).tolist() == shown
    assert retiming.frames(5).dtype == np.int64


@given(
    st.integers(1, 200),
    st.fractions(Fraction(1, 4), 4, max_denominator=8),
    st.fractions(0, Fraction(7, 8), max_denominator=8),
)
def test_frames_and_positions_agree(num: int, speed: Fraction, shift: Fraction) -> None:
    """The start of frame `k` of the copy lies in the frame of the video that it shows."""
    retiming = Retiming("any", speed, shift)
    shown_K = retiming.frames(num)
    where_K = retiming.source_positions(np.arange(len(shown_K)) + 1e-9, num)
    np.testing.assert_array_equal(np.floor(where_K + 1e-7) % num, shown_K)
    assert shown_K.min() >= 0
    assert shown_K.max() < num


def test_segments_move_with_their_frames() -> None:
    """10 frames: [3, 7) of class 4; at speed 2, and cut by the seam of swapped halves."""
    segments = [(3.0, 7.0, 4)]
    fast, slow, swapped = RETIMINGS
    assert fast.copy_segments(segments, 10) == [(1.5, 3.5, 4)]
    assert slow.copy_segments(segments, 10) == [(6, 14, 4)]
    assert swapped.copy_segments(segments, 10) == [(0, 2, 4), (8, 10, 4)]
    assert SEAMLESS.copy_segments([(-1, 2, 0), (8, 12, 1)], 10) == [(0, 2, 0), (8, 10, 1)]


def test_snippets_across_the_seam_are_left_out() -> None:
    """Halves of 10 frames swapped: 5..9 0..4; a snippet of frames 3 to 6 shows a jump."""
    places = np.array([[0, 2.5, 5], [3, 5, 7], [5, 7.5, 10]])
    assert RETIMINGS[2].comparable(places, 10).tolist() == [True, False, True]
    assert RETIMINGS[0].comparable(places, 10).all()


def test_rows_between_snippets_are_linear() -> None:
    """Half way: the mean; at a snippet: its row, also the last."""
    rows_SD = np.array([[0.0, 4], [2, 0], [2, 2]])
    found = rows_at(rows_SD, np.array([1.0, 2, 4]), np.array([1, 1.5, 2, 3, 4]))
    np.testing.assert_array_equal(found, [[0, 4], [1, 2], [2, 0], [2, 1], [2, 2]])
    np.testing.assert_allclose(unit_rows(rows_SD)[0], [0, 1])


# ---------------------------------------------------------------- built features


def measured(retiming: Retiming, encode, latent_ND: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    """Return the equivariance of an encoder of frames, measured end to end."""
    num = len(latent_ND)
    copy_KD = latent_ND[retiming.frames(num)]
    return retimed_equivariance(
        retiming,
        num,
        encode(latent_ND),
        positions(num),
        encode(copy_KD),
        positions(len(copy_KD)),
    )


@pytest.mark.parametrize("retiming", RETIMINGS, ids=lambda r: r.name)
@pytest.mark.parametrize("seed", range(3))
def test_features_of_what_is_shown_are_equivariant(retiming: Retiming, seed: int) -> None:
    """An encoder that reports what its frames show follows every re-timing."""
    assert measured(retiming, features_of, wandering(seed)) > 0.97


@pytest.mark.parametrize("retiming", RETIMINGS, ids=lambda r: r.name)
def test_a_perfectly_equivariant_encoder_gets_one(retiming: Retiming) -> None:
    """Features on a line through time, so that linear interpolation loses nothing, either."""
    num, direction_D = NUM_FRAMES, np.array([1.0, -2, 3])

    def exact(positions_R3: np.ndarray, played: Retiming) -> np.ndarray:
        where_R = played.source_positions(positions_R3[:, 1], num)
        return np.ones(3) + where_R[:, None] / num * direction_D

    here, there = positions(num), positions(len(retiming.frames(num)))
    feats_SD, copy_RD = exact(here, SEAMLESS), exact(there, retiming)
    assert retimed_equivariance(retiming, num, feats_SD, here, copy_RD, there) == pytest.approx(1)
    shuffled_RD = np.random.default_rng(1).permutation(copy_RD)
    assert abs(retimed_equivariance(retiming, num, feats_SD, here, shuffled_RD, there)) < 0.5


@pytest.mark.parametrize("retiming", RETIMINGS, ids=lambda r: r.name)
def test_a_perfectly_invariant_encoder_gets_nothing(retiming: Retiming) -> None:
    """One vector for a whole video, whatever its speed and order."""

    def whole(latent_ND: np.ndarray) -> np.ndarray:
        return np.tile(wandering(0).mean(axis=0), (GRID.num_snippets(len(latent_ND)), 1))

    assert measured(retiming, whole, wandering(0)) == 0


def test_a_clock_fools_some_retimings_but_not_all() -> None:
    """Features of the place in the video follow speed; of the seconds played, nothing."""

    def place(latent_ND: np.ndarray) -> np.ndarray:
        where_S = positions(len(latent_ND))[:, 1] / len(latent_ND)
        return np.stack([np.cos(where_S * 3), np.sin(where_S * 3)], axis=1)

    def seconds(latent_ND: np.ndarray) -> np.ndarray:
        where_S = positions(len(latent_ND))[:, 1] / NUM_FRAMES
        return np.stack([np.cos(where_S * 3), np.sin(where_S * 3)], axis=1)

    fast, slow, swapped = RETIMINGS
    assert measured(fast, place, wandering(0)) > 0.97
    assert measured(swapped, place, wandering(0)) < 0
    assert measured(fast, seconds, wandering(0)) < 0.6
    assert measured(slow, seconds, wandering(0)) < 0.6
    assert measured(swapped, seconds, wandering(0)) < 0


def test_too_few_snippets_give_no_number() -> None:
    """Of 12 frames at twice the speed one snippet is left."""
    assert np.isnan(measured(RETIMINGS[0], features_of, wandering(0, 12)))

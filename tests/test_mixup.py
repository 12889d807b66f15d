"""Volume MixUp against Eq. 2-3 in exact fractions, for every allowed overlap."""

from fractions import Fraction

import numpy as np
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import LabelTrack, constant_track
from synth.mixup import (
    Overlap,
    blend,
    draw_overlap,
    mixing_weights,
    mixup_frames,
    mixup_labels,
)

# n1, n2, r, boundary, a[1..T]
TABLE = [
    (4, 4, 2, "smooth", [1, 1, "1/2", 0, 0, 0]),
    (6, 5, 2, "smooth", [1, 1, "3/4", "1/2", "1/4", 0, 0]),
    (7, 6, 1, "smooth", [1, "5/6", "4/6", "3/6", "2/6", "1/6", 0]),
    (8, 4, 2, "smooth", [1, 1, "1/2", 0, "1/2", 1, 1, 1]),
    (8, 3, 2, "smooth", [1, 1, "1/3", "1/3", 1, 1, 1, 1]),
    (4, 2, 1, "smooth", [1, 0, 1, 1]),
    (4, 4, 2, "hard", [1, 1, "1/2", "1/2", 0, 0]),
    (8, 4, 2, "hard", [1, 1, "1/2", "1/2", "1/2", "1/2", 1, 1]),
    (4, 1, 2, "hard", [1, 1, "1/2", 1]),
]
ALL = [(T, *overlap) for T in (4, 5, 8, 11, 16) for overlap in oracle.all_overlaps(T)]


def labels_of(track: LabelTrack) -> list[dict[int, Fraction]]:
    """Return the track as per-frame dicts of exact weights."""
    return [
        dict(zip(track.class_ids.tolist(), map(Fraction, column), strict=True))
        for column in track.weights_CT.T.tolist()
    ]


def assert_labels(track: LabelTrack, expected: list[dict[int, Fraction]]) -> None:
    """Compare a track with per-frame dicts to 1e-9, and check that it is a label track."""
    assert track.num_frames == len(expected)
    ids = track.class_ids.tolist()
    assert ids == sorted(set(ids))
    for t, row in enumerate(expected):
        assert set(row) <= set(ids)
        for column, class_id in enumerate(ids):
            weight = float(row.get(class_id, 0))
            assert abs(track.weights_CT[column, t] - weight) <= 1e-9, (t + 1, class_id)
        assert abs(track.background_T[t] - float(1 - sum(row.values()))) <= 1e-9
    assert np.all((track.weights_CT >= 0) & (track.weights_CT <= 1 + 1e-6))
    assert np.all((track.background_T >= 0) & (track.background_T <= 1))


@pytest.mark.parametrize(("n1", "n2", "r", "boundary", "weights"), TABLE)
def test_hand_worked_weights(n1: int, n2: int, r: int, boundary: str, weights: list) -> None:
    exact = [Fraction(weight) for weight in weights]
    places = range(1, len(exact) + 1)
    assert [oracle.mixing_weight(t, n1, n2, r, boundary) for t in places] == exact
    np.testing.assert_allclose(
        mixing_weights(Overlap(n1, n2, r), boundary), [float(w) for w in exact], atol=1e-12
    )


@pytest.mark.parametrize("boundary", ["smooth", "hard"])
def test_every_allowed_overlap_matches_the_formula(boundary: str) -> None:
    for num_frames, n1, n2, r in ALL:
        v1, v2 = oracle.random_clip(n1, n1), oracle.random_clip(n2 + 99, n2)
        overlap = Overlap(n1, n2, r)
        mixed = mixup_frames(v1, v2, overlap, boundary)
        assert mixed.dtype == np.uint8
        assert len(mixed) == overlap.num_frames == num_frames
        np.testing.assert_array_equal(mixed, oracle.mixup(v1, v2, n1, n2, r, boundary))

        weights = [oracle.mixing_weight(t, n1, n2, r, boundary) for t in range(1, num_frames + 1)]
        track1, track2 = constant_track(3, n1), constant_track(1, n2)
        mixed_labels = mixup_labels(track1, track2, overlap, boundary)
        expected = oracle.mix_labels(labels_of(track1), labels_of(track2), weights, r)
        assert_labels(mixed_labels, expected)
        np.testing.assert_allclose(mixed_labels.background_T, 0.0, atol=1e-9)


def test_frames_outside_the_overlap_are_untouched_copies() -> None:
    v1, v2 = oracle.random_clip(1, 16), oracle.random_clip(2, 16)
    first = mixup_frames(v1, v2, Overlap(10, 11, 5))
    np.testing.assert_array_equal(first[:5], v1[:5])
    np.testing.assert_array_equal(first[10:], v2[5:11])
    second = mixup_frames(v1, v2, Overlap(16, 6, 4))
    np.testing.assert_array_equal(second[:4], v1[:4])
    np.testing.assert_array_equal(second[10:], v1[10:])
    for mixed in (first, second):
        assert not np.shares_memory(mixed, v1)
        assert not np.shares_memory(mixed, v2)


def test_same_class_stays_one_row_of_weight_one() -> None:
    for num_frames, n1, n2, r in ALL:
        track = mixup_labels(constant_track(2, n1), constant_track(2, n2), Overlap(n1, n2, r))
        assert track.class_ids.tolist() == [2]
        np.testing.assert_allclose(track.weights_CT, np.ones((1, num_frames)), atol=1e-9)


def test_unlabelled_partner_leaves_background() -> None:
    track = mixup_labels(constant_track(2, 4), constant_track(None, 4), Overlap(4, 4, 2))
    assert track.class_ids.tolist() == [2]
    np.testing.assert_allclose(track.background_T, [0, 0, 0.5, 1, 1, 1], atol=1e-12)


def test_blended_pixels_are_exact_for_every_pair_and_weight() -> None:
    first = np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256)
    second = first.T.copy()
    out = np.empty_like(first)
    for q in (*range(1, 25), 31, 32, 48, 63, 64):
        for p in range(q + 1):
            blend(first, second, p / q, out)
            expected = oracle.mixed_pixels(first, second, Fraction(p, q))
            np.testing.assert_array_equal(out, expected, err_msg=f"weight {p}/{q}")


@pytest.mark.parametrize("q", [499, 1000, 4000])
def test_blended_pixels_of_very_long_overlaps_stay_within_one_grey_level(q: int) -> None:
    first = np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256)
    second, out = first.T.copy(), np.empty_like(first)
    for p in range(0, q + 1, q // 7):
        blend(first, second, p / q, out)
        expected = oracle.mixed_pixels(first, second, Fraction(p, q))
        assert np.abs(out.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("num_frames", [4, 5, 6, 8, 16])
def test_draws_reach_every_allowed_overlap_and_no_other(num_frames: int) -> None:
    rng = np.random.default_rng(num_frames)
    drawn = {draw_overlap(rng, num_frames) for _ in range(12_000)}
    assert {(o.n1, o.n2, o.r) for o in drawn} == set(oracle.all_overlaps(num_frames))


@pytest.mark.parametrize("num_frames", [4, 5, 16])
def test_scenarios_are_equally_probable(num_frames: int) -> None:
    rng, draws = np.random.default_rng(3), 4000
    overlaps = [draw_overlap(rng, num_frames) for _ in range(draws)]
    first = sum(o.n2 + o.r >= o.n1 for o in overlaps)
    assert abs(first - draws / 2) < 5 * np.sqrt(draws) / 2
    # What makes a scenario what it is, by section 2.
    assert all(o.n2 == num_frames - o.r for o in overlaps if o.n2 + o.r >= o.n1)
    assert all(o.n1 == num_frames for o in overlaps if o.n2 + o.r < o.n1)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(4, 200),
    st.sampled_from(["both", "first", "second"]),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
    st.integers(0, 2**32 - 1),
)
def test_every_draw_satisfies_the_constraints(
    num_frames: int, scenarios: str, min_overlap: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    overlap = draw_overlap(rng, num_frames, min_overlap, scenarios)
    n1, n2, r = overlap.n1, overlap.n2, overlap.r
    assert all(type(number) is int for number in (n1, n2, r))
    assert overlap.num_frames == num_frames
    assert 1 <= r < n1 <= num_frames
    both = min(n1, n2 + r) - r
    assert both >= np.ceil(min_overlap * num_frames)
    first = n2 + r >= n1
    assert overlap.is_first_scenario == first
    assert scenarios == "both" or first == (scenarios == "first")
    if first:
        assert n2 == num_frames - r >= 1
    else:
        assert n1 == num_frames
        assert n2 >= 2
        assert r + n2 < num_frames


@pytest.mark.parametrize(("length1", "length2"), [(3, 4), (4, 3)])
def test_clips_that_are_too_short_are_refused(length1: int, length2: int) -> None:
    overlap = Overlap(4, 4, 2)
    with pytest.raises(ValueError, match="4 and 4 frames"):
        mixup_frames(oracle.random_clip(0, length1), oracle.random_clip(1, length2), overlap)
    with pytest.raises(ValueError, match="4 and 4 frames"):
        mixup_labels(constant_track(0, length1), constant_track(1, length2), overlap)


def test_clips_of_different_sizes_are_refused() -> None:
    wide = oracle.random_clip(1, 4, width=16)
    with pytest.raises(ValueError, match="size"):
        mixup_frames(oracle.random_clip(0, 4), wide, Overlap(4, 4, 2))


@pytest.mark.parametrize("numbers", [(1, 4, 1), (4, 0, 1), (4, 4, 0), (4, 4, 4), (4, 4, -1)])
def test_impossible_overlaps_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="r < n1"):
        Overlap(*numbers)


def test_huge_overlap_is_refused_before_anything_is_allocated() -> None:
    overlap = Overlap(10**13, 10**13, 1)
    with pytest.raises(ValueError, match="frames"):
        mixup_labels(constant_track(0, 4), constant_track(1, 4), overlap)
    with pytest.raises(ValueError, match="frames"):
        mixup_frames(oracle.random_clip(0, 4), oracle.random_clip(1, 4), overlap)

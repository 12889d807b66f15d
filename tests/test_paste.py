"""Pseudo action localization against section 6: regions, spreads, strides, pixels and labels."""

from fractions import Fraction

import numpy as np
import oracle_paste as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_synthesis import random_clip

from synth import LabelTrack, add_tracks, constant_track
from synth.paste import (
    background_starts,
    check_paste,
    concat_frames,
    concat_labels,
    draw_region,
    paste_frames,
    paste_labels,
    region_stride,
)

BETAS = [
    Fraction(0),
    Fraction(1, 2),
    Fraction(3, 5),
    Fraction(67, 100),
    Fraction(4, 5),
    Fraction(1),
]


def rows(track: LabelTrack) -> list[dict[int, float]]:
    """Return the track as per-frame dicts."""
    ids = track.class_ids.tolist()
    return [dict(zip(ids, column, strict=True)) for column in track.weights_CT.T.tolist()]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("num_clips", "clip_len"), [(3, 1), (3, 4), (5, 2), (8, 8)])
def test_every_region_matches_the_formula(num_clips: int, clip_len: int, beta: Fraction) -> None:
    background = random_clip(1, num_clips * clip_len)
    for s, e in oracle.regions(num_clips, num_clips):
        action = random_clip(2, (e - s + 1) * clip_len)
        composed = paste_frames(background, action, s, e, float(beta))
        assert composed.dtype == np.uint8
        expected = oracle.paste(background, action, s, e, beta, clip_len)
        np.testing.assert_array_equal(composed, expected)
        assert not np.shares_memory(composed, background)


def test_hand_worked_paste() -> None:
    # Three clips of two frames; clip 2 becomes 3/4 of 200 and 1/4 of 101: 175.25.
    background = np.full((6, 2, 2, 3), 101, np.uint8)
    action = np.full((2, 2, 2, 3), 200, np.uint8)
    composed = paste_frames(background, action, 2, 2, 0.75)
    assert composed[:, 0, 0, 0].tolist() == [101, 101, 175, 175, 101, 101]
    labels = paste_labels(constant_track(4, 6), constant_track(1, 2), 2, 2, 0.75)
    assert labels.class_ids.tolist() == [1, 4]
    np.testing.assert_allclose(
        labels.weights_CT, [[0, 0, 0.75, 0.75, 0, 0], [1, 1, 0.25, 0.25, 1, 1]]
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(3, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_any_weight_is_within_one_level(
    beta: float, num_clips: int, clip_len: int, seed: int
) -> None:
    s, e = draw_region(np.random.default_rng(seed), num_clips, num_clips)
    background = random_clip(seed, num_clips * clip_len)
    action = random_clip(seed + 1, (e - s + 1) * clip_len)
    composed = paste_frames(background, action, s, e, beta).astype(int)
    weight = Fraction(beta).limit_denominator(10**6)  # the oracle counts in int64
    expected = oracle.paste(background, action, s, e, weight, clip_len)
    assert np.abs(composed - expected).max() <= 1


@pytest.mark.parametrize(
    ("background_id", "action_id"), [(0, 3), (3, 0), (2, 2), (None, 1), (1, None), (None, None)]
)
def test_labels_mix_with_beta(background_id: int | None, action_id: int | None) -> None:
    clip_len, num_clips = 2, 6
    background = constant_track(background_id, num_clips * clip_len)
    for s, e in oracle.regions(num_clips, num_clips):
        action = constant_track(action_id, (e - s + 1) * clip_len)
        mixed = paste_labels(background, action, s, e, 0.75)
        expected = oracle.paste_labels(
            rows(background), rows(action), s, e, Fraction(3, 4), clip_len
        )
        assert mixed.num_frames == num_clips * clip_len
        for row, wanted in zip(rows(mixed), expected, strict=True):
            for class_id, weight in row.items():
                assert weight == pytest.approx(float(wanted.get(class_id, 0)), abs=1e-12)
            assert set(wanted) <= set(row)


def test_labels_that_change_over_the_action_stay_aligned_with_it() -> None:
    ramp = constant_track(5, 4).scale(np.array([0.2, 0.4, 0.6, 0.8]))
    mixed = paste_labels(constant_track(None, 8), ramp, 2, 3, 0.5)
    np.testing.assert_allclose(mixed.weights_CT, [[0, 0, 0.1, 0.2, 0.3, 0.4, 0, 0]])


@pytest.mark.parametrize(("num_clips", "most"), [(3, 1), (3, 9), (5, 2), (8, 3), (8, 6), (8, 99)])
def test_draws_reach_every_region_as_often_as_they_should(num_clips: int, most: int) -> None:
    rng, draws = np.random.default_rng(num_clips), 8000
    drawn = [draw_region(rng, num_clips, most) for _ in range(draws)]
    assert all(type(number) is int for region in drawn for number in region)
    expected = oracle.regions(num_clips, most)
    assert set(drawn) == set(expected)
    for region, probability in expected.items():
        p = float(probability)
        assert abs(drawn.count(region) - draws * p) <= 5 * np.sqrt(draws * p * (1 - p)) + 1e-9


@pytest.mark.parametrize(("num_clips", "most"), [(2, 5), (0, 5), (8, 0), (8, -1)])
def test_no_room_for_a_region_is_refused(num_clips: int, most: int) -> None:
    with pytest.raises(ValueError, match="num_clips >= 3"):
        draw_region(np.random.default_rng(0), num_clips, most)


@pytest.mark.parametrize(
    ("first", "end", "num_clips", "clip_len", "expected"),
    [
        (0, 20, 3, 8, [0, 6, 12]),
        (0, 64, 8, 8, [0, 8, 16, 24, 32, 40, 48, 56]),
        (10, 18, 3, 8, [10, 10, 10]),  # as short as one clip: the same one each time
        (0, 9, 3, 8, [0, 1, 1]),  # 0.5 rounds up
        (100, 400, 4, 8, [100, 197, 295, 392]),  # 97.33, 194.67
    ],
)
def test_background_starts_by_hand(
    first: int, end: int, num_clips: int, clip_len: int, expected: list[int]
) -> None:
    assert background_starts(first, end, num_clips, clip_len) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(2, 40), st.integers(1, 64))
def test_background_starts_spread_uniformly(
    first: int, spare: int, num_clips: int, clip_len: int
) -> None:
    end = first + clip_len + spare
    starts = background_starts(first, end, num_clips, clip_len)
    assert starts == oracle.background_starts(first, end, num_clips, clip_len)
    assert starts[0] == first
    assert starts[-1] + clip_len == end
    gaps = np.diff(starts)
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((0, 7, 8, 8), "got 7 frames"),
        ((5, 5, 8, 1), "got 0 frames"),
        ((0, 64, 1, 8), "two clips"),
        ((0, 64, 8, 0), "of 0"),
    ],
)
def test_impossible_backgrounds_are_refused(numbers: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        background_starts(*numbers)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 300), st.integers(1, 64), st.integers(1, 8))
def test_strides_are_the_largest_that_fit(num_frames: int, region_frames: int, stride: int) -> None:
    expected = oracle.region_stride(num_frames, region_frames, stride)
    if expected is None or num_frames == 0:
        with pytest.raises(ValueError, match="length of its video"):
            region_stride(num_frames, region_frames, stride)
    else:
        assert region_stride(num_frames, region_frames, stride) == expected


@pytest.mark.parametrize(
    ("num_frames", "region_frames", "stride", "expected"),
    [(20, 8, 4, 2), (29, 8, 4, 4), (28, 8, 4, 3), (8, 8, 4, 1), (8, 8, 1, 1), (1, 1, 4, 4)],
)
def test_strides_by_hand(num_frames: int, region_frames: int, stride: int, expected: int) -> None:
    assert region_stride(num_frames, region_frames, stride) == expected


def test_stride_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        region_stride(20, 8, 0)


@pytest.mark.parametrize(
    ("num_background", "num_action", "s", "e", "beta", "match"),
    [
        (64, 8, 4, 3, 0.8, "s <= e"),
        (64, 8, 1, 1, 0.8, "s >= 2"),
        (64, 8, 0, 0, 0.8, "s >= 2"),
        (64, 8, 8, 8, 0.8, "e <= 7"),
        (64, 16, 7, 8, 0.8, "e <= 7"),
        (64, 15, 2, 3, 0.8, "2 whole clips"),
        (64, 0, 2, 3, 0.8, "2 whole clips"),
        (63, 16, 2, 3, 0.8, "whole clips of 8"),
        (0, 16, 2, 3, 0.8, "e <= -1"),
        (64, 8, 2, 2, -0.1, "beta"),
        (64, 8, 2, 2, 1.1, "beta"),
        (64, 8, 2, 2, float("nan"), "beta"),
    ],
)
def test_impossible_pastes_are_refused(
    num_background: int, num_action: int, s: int, e: int, beta: float, match: str
) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        check_paste(num_background, num_action, s, e, beta)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=match):
        paste_frames(random_clip(0, num_background), random_clip(1, num_action), s, e, beta)
    with pytest.raises(ValueError, match=match):
        paste_labels(constant_track(0, num_background), constant_track(1, num_action), s, e, beta)


def test_huge_region_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ValueError, match="whole clips"):
        paste_labels(constant_track(0, 64), constant_track(1, 8), 2, 10**13, 0.8)


def test_frames_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        paste_frames(random_clip(0, 24), random_clip(1, 8, width=16), 2, 2, 0.8)
    with pytest.raises(ValueError, match="size"):
        concat_frames([random_clip(0, 8), random_clip(1, 8, height=4)])


def test_clips_join_in_order() -> None:
    clips = [random_clip(seed, num_frames) for seed, num_frames in enumerate((2, 1, 3))]
    joined = concat_frames(clips)
    assert joined.dtype == np.uint8
    expected = [frame for clip in clips for frame in clip]
    np.testing.assert_array_equal(joined, np.stack(expected))
    assert not any(np.shares_memory(joined, clip) for clip in clips)


def test_labels_join_in_order() -> None:
    both = add_tracks(
        constant_track(7, 2).scale(np.array([0.25, 0.5])),
        constant_track(1, 2).scale(np.array([0.5, 0.5])),
    )
    joined = concat_labels([constant_track(7, 1), both, constant_track(None, 2)])
    assert joined.class_ids.tolist() == [1, 7]
    np.testing.assert_array_equal(joined.weights_CT, [[0, 0.5, 0.5, 0, 0], [1, 0.25, 0.5, 0, 0]])
    alone = concat_labels([constant_track(None, 3)])
    assert alone.weights_CT.shape == (0, 3)


def test_nothing_to_join_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        concat_frames([])
    with pytest.raises(ValueError, match="at least one"):
        concat_labels([])

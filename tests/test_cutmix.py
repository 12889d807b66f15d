"""Volume CutMix against Eq. 4-5 in exact fractions: masks, planes, slides, pixels, labels."""

from fractions import Fraction

import numpy as np
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import LabelTrack, constant_track
from synth.cutmix import (
    column_mask,
    cutmix_view_frames,
    cutmix_view_labels,
    cutmix_window_frames,
    cutmix_window_labels,
    paste_columns,
    round_half_up,
    window_masks,
)
from synth.mixup import Overlap

# width, plane, delta, M(0..W-1)
TABLE = [
    (8, 4, 1.0, [1, 1, 1, "3/4", "1/4", 0, 0, 0]),
    (8, 4, 2.0, [1, 1, "7/8", "5/8", "3/8", "1/8", 0, 0]),
    (8, 4, 0.5, [1, 1, 1, 1, 0, 0, 0, 0]),
    (8, 1, 2.0, ["5/8", "3/8", "1/8", 0, 0, 0, 0, 0]),  # the ramp is cut by the left edge
    (8, 7, 2.0, [1, 1, 1, 1, 1, "7/8", "5/8", "3/8"]),  # and by the right one
    (7, 4, 0.25, [1, 1, 1, 1, 0, 0, 0]),
    (8, 8, 2.0, [1] * 8),  # a frame outside the overlap is one clip, untouched
    (8, 0, 2.0, [0] * 8),
]
SMALL = [(T, *overlap) for T in (4, 5, 8) for overlap in oracle.all_overlaps(T)]


@pytest.mark.parametrize(("width", "plane", "delta", "columns"), TABLE)
def test_hand_worked_masks(width: int, plane: int, delta: float, columns: list) -> None:
    exact = [Fraction(column) for column in columns]
    assert oracle.mask(width, plane, Fraction(delta)) == exact
    np.testing.assert_allclose(
        column_mask(width, plane, delta), [float(column) for column in exact], atol=1e-12
    )


@pytest.mark.parametrize("width", [5, 16, 112, 224])
def test_masks_of_every_plane(width: int) -> None:
    delta = width / 16
    for plane in range(0, width + 1, 1 if width < 100 else 5):
        exact = oracle.mask(width, plane, Fraction(delta))
        computed = column_mask(width, plane, delta)
        np.testing.assert_allclose(computed, [float(column) for column in exact], atol=1e-12)
        assert np.all(np.diff(computed) <= 0)
    assert column_mask(width, 0, delta).tolist() == [0.0] * width
    assert column_mask(width, width, delta).tolist() == [1.0] * width


@pytest.mark.parametrize("width", [8, 9])
def test_without_a_ramp_the_plane_is_a_step(width: int) -> None:
    # The limit of the formula: column x belongs to clip 1 where its centre is left of the plane.
    for plane in range(width + 1):
        expected = [1.0 if x + 0.5 < plane else 0.0 for x in range(width)]
        assert column_mask(width, plane, 0.0).tolist() == expected


@pytest.mark.parametrize("delta", [-1.0, float("nan"), float("inf"), float("-inf")])
def test_delta_must_be_a_finite_width(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        column_mask(8, 4, delta)
    clip = oracle.random_clip(0, 4)
    with pytest.raises(ValueError, match="delta"):
        cutmix_window_frames(clip, clip, Overlap(4, 2, 2), delta)
    with pytest.raises(ValueError, match="delta"):
        cutmix_window_labels(constant_track(0, 4), constant_track(1, 4), Overlap(4, 2, 2), delta, 8)
    with pytest.raises(ValueError, match="delta"):
        cutmix_view_frames(clip, clip, delta)


def test_delta_wider_than_half_the_frame_is_refused_by_the_view() -> None:
    # (W/2 - delta) would be negative: the window would slide the other way.
    clip = oracle.random_clip(0, 4)
    for delta in (4.5, 1e300):
        with pytest.raises(ValueError, match="delta"):
            cutmix_view_frames(clip, clip, delta)


def test_rounding_is_half_up() -> None:
    values = np.array([-0.5, -0.25, 0.0, 0.49, 0.5, 1.5, 2.5, 3.5, 111.5])
    assert round_half_up(values).tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 112]


@pytest.mark.parametrize(("num_frames", "n1", "n2", "r"), SMALL)
def test_window_matches_the_formula_on_every_small_overlap(
    num_frames: int, n1: int, n2: int, r: int
) -> None:
    for width, delta in ((8, 1.25), (9, 2.0), (16, 1.0), (13, 6.5)):
        v1 = oracle.random_clip(n1, n1, height=2, width=width)
        v2 = oracle.random_clip(n2 + 50, n2, height=2, width=width)
        overlap = Overlap(n1, n2, r)
        frames = cutmix_window_frames(v1, v2, overlap, delta)
        expected, shares = oracle.cutmix_window(v1, v2, n1, n2, r, Fraction(delta))
        assert frames.dtype == np.uint8
        assert len(frames) == num_frames
        np.testing.assert_array_equal(frames, expected)

        track = cutmix_window_labels(
            constant_track(6, n1), constant_track(2, n2), overlap, delta, width
        )
        assert track.class_ids.tolist() == [2, 6]
        np.testing.assert_allclose(track.weights_CT[1], [float(s) for s in shares], atol=1e-9)
        np.testing.assert_allclose(track.weights_CT[0], [float(1 - s) for s in shares], atol=1e-9)
        np.testing.assert_allclose(track.background_T, 0.0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(T, *o) for T in (6, 10, 13, 16) for o in oracle.all_overlaps(T)]),
    st.integers(4, 40),
    st.integers(1, 64),
)
def test_window_matches_the_formula_on_any_width(
    overlap: tuple[int, int, int, int], width: int, quarters: int
) -> None:
    _, n1, n2, r = overlap
    delta = quarters / 4
    v1 = oracle.random_clip(1, n1, height=2, width=width)
    v2 = oracle.random_clip(2, n2, height=2, width=width)
    expected, shares = oracle.cutmix_window(v1, v2, n1, n2, r, Fraction(delta))
    np.testing.assert_array_equal(cutmix_window_frames(v1, v2, Overlap(n1, n2, r), delta), expected)
    masks_TW = window_masks(width, Overlap(n1, n2, r), delta)
    np.testing.assert_allclose(masks_TW.mean(axis=1), [float(s) for s in shares], atol=1e-9)


def test_frames_outside_the_overlap_are_untouched_copies() -> None:
    v1, v2 = oracle.random_clip(1, 16, width=32), oracle.random_clip(2, 16, width=32)
    first = cutmix_window_frames(v1[:10], v2[:11], Overlap(10, 11, 5), 2.0)
    np.testing.assert_array_equal(first[:5], v1[:5])
    np.testing.assert_array_equal(first[10:], v2[5:11])
    second = cutmix_window_frames(v1, v2[:6], Overlap(16, 6, 4), 2.0)
    np.testing.assert_array_equal(second[:4], v1[:4])
    np.testing.assert_array_equal(second[10:], v1[10:])
    labels = cutmix_window_labels(
        constant_track(0, 16), constant_track(1, 6), Overlap(16, 6, 4), 2.0, 32
    )
    assert labels.weights_CT[0, :4].tolist() == [1.0] * 4
    assert labels.weights_CT[1, 10:].tolist() == [0.0] * 6
    for frames in (first, second):
        assert not np.shares_memory(frames, v1)
        assert not np.shares_memory(frames, v2)


@pytest.mark.parametrize("width", [96, 100, 112, 160, 224, 240, 256, 320])
def test_ramp_pixels_are_exact_for_every_pair_of_grey_levels(width: int) -> None:
    delta, plane = width / 16, width // 2
    mask_W = column_mask(width, plane, delta)
    ramp = np.flatnonzero((mask_W > 0) & (mask_W < 1))
    exact = oracle.mask(width, plane, Fraction(delta))
    levels = np.arange(256, dtype=np.uint8)
    left = np.repeat(np.repeat(levels, 256)[:, None, None], len(ramp), axis=1)
    right = np.repeat(np.tile(levels, 256)[:, None, None], len(ramp), axis=1)
    out = np.empty_like(left)
    paste_columns(left, right, mask_W[ramp], out)
    differing = 0
    for column, x in enumerate(ramp.tolist()):
        expected = oracle.mixed_pixels(left[:, column], right[:, column], exact[x])
        distance = np.abs(out[:, column] - expected)
        assert distance.max() <= 1
        differing += int(np.count_nonzero(distance))
    assert differing == 0, f"{differing} of {left.size} pixels differ by one grey level"


@pytest.mark.parametrize("width", [11, 13, 50, 112, 176, 200, 224])
def test_planes_are_rounded_exactly(width: int) -> None:
    # An exact tie such as 11 * 15/22 = 7.5 must round up also when 15/22 is not a float.
    for num_frames in (16, 24, 32):
        for n1, n2, r in oracle.all_overlaps(num_frames):
            masks_TW = window_masks(width, Overlap(n1, n2, r), 0.0)
            planes = oracle.window_planes(width, n1, n2, r)
            assert masks_TW.sum(axis=1).astype(int).tolist() == planes, (n1, n2, r)


@pytest.mark.parametrize("num_frames", [4, 8, 15, 16, 29, 36])
@pytest.mark.parametrize(
    ("width", "delta"),
    [(8, 0.5), (8, 0.25), (8, 4.0), (9, 1.0), (7, 0.4375), (16, 1.0), (32, 2.0), (224, 14.0)],
)
def test_view_matches_the_formula(num_frames: int, width: int, delta: float) -> None:
    v1 = oracle.random_clip(1, num_frames, height=2, width=width)
    v2 = oracle.random_clip(2, num_frames, height=2, width=width)
    np.testing.assert_array_equal(
        cutmix_view_frames(v1, v2, delta), oracle.cutmix_view(v1, v2, Fraction(delta))
    )


@pytest.mark.parametrize("width", [100, 176, 200, 224, 256])
def test_view_slides_are_rounded_exactly(width: int) -> None:
    # Read the slide off the leftmost column, which shows clip 1 at column p_t.
    delta = width / 16
    columns = np.arange(width, dtype=np.uint8)[None, None, :, None]
    for num_frames in (*range(4, 25), 29, 36, 45):
        clip = np.broadcast_to(columns, (num_frames, 1, width, 3)).copy()
        slides = cutmix_view_frames(clip, clip, delta)[:, 0, 0, 0].tolist()
        expected = [
            oracle.view_slide(t, num_frames, width, Fraction(delta))
            for t in range(1, num_frames + 1)
        ]
        assert slides == expected, num_frames


def test_view_by_hand() -> None:
    # W=8, delta=1, T=4: p = round(3 (t-1)/3) = 0 1 2 3; M = 1 1 1 3/4 1/4 0 0 0.
    left = np.tile(np.arange(8, dtype=np.uint8)[None, :, None], (1, 1, 3))
    v1, v2 = np.stack([left] * 4), np.stack([left + 100] * 4)
    shown = cutmix_view_frames(v1, v2, 1.0)[:, 0, :, 0].tolist()
    assert shown[0] == [0, 1, 2, 28, 79, 105, 106, 107]
    # t=4, p=3: clip 1 at 3 4 5 then 3/4*6 + 1/4*100 = 29.5 -> 30, 1/4*7 + 3/4*101 = 77.5 -> 78,
    # then clip 2 at columns 2 3 4: the window has reached clip 1's last column (7) and clip 2's
    # first (0).
    assert shown[3] == [3, 4, 5, 30, 78, 102, 103, 104]


@pytest.mark.parametrize(("width", "delta"), [(7, 0.0), (9, 0.0), (8, 0.0), (5, 0.25)])
def test_view_of_odd_widths_and_without_a_ramp_stays_inside_the_clips(
    width: int, delta: float
) -> None:
    columns = np.arange(width, dtype=np.uint8)[None, None, :, None]
    clip = np.broadcast_to(columns, (5, 2, width, 3)).copy()
    frames = cutmix_view_frames(clip, clip + 100, delta)
    half = (width + 1) // 2
    for t in range(1, 6):
        slide = oracle.view_slide(t, 5, width, Fraction(delta))
        for x in range(width):
            expected = min(x + slide, width - 1) if x < half else 100 + max(x - slide, 0)
            assert np.all(frames[t - 1, :, x] == expected), (t, x)


def test_view_labels_are_halves() -> None:
    track = cutmix_view_labels(constant_track(5, 4), constant_track(1, 4))
    assert track.class_ids.tolist() == [1, 5]
    assert track.weights_CT.tolist() == [[0.5] * 4] * 2
    same = cutmix_view_labels(constant_track(5, 4), constant_track(5, 4))
    assert same.class_ids.tolist() == [5]
    assert same.weights_CT.tolist() == [[1.0] * 4]
    assert same.background_T.tolist() == [0.0] * 4


def test_soft_labels_are_mixed_with_the_share_of_the_frame() -> None:
    track1 = LabelTrack(np.array([0]), np.array([[1.0, 0.0, 0.5, 1.0]]))
    track2 = LabelTrack(np.array([1]), np.array([[0.25, 1.0]]))
    # n1=4, n2=2, r=1 is scenario 2: a = 1 0 1 1, planes 8 0 8 8: clip 2 shows only on frame 2.
    track = cutmix_window_labels(track1, track2, Overlap(4, 2, 1), 0.5, 8)
    np.testing.assert_allclose(track.weights_CT, [[1, 0, 0.5, 1], [0, 0.25, 0, 0]], atol=1e-12)


def test_clips_of_different_lengths_or_sizes_are_refused() -> None:
    clip = oracle.random_clip(0, 4)
    with pytest.raises(ValueError, match="equally long"):
        cutmix_view_frames(clip, clip[:3], 1.0)
    with pytest.raises(ValueError, match="equally long"):
        cutmix_view_labels(constant_track(0, 4), constant_track(0, 3))
    with pytest.raises(ValueError, match="frames"):
        cutmix_window_frames(clip[:3], clip, Overlap(4, 2, 2), 1.0)
    for other in (oracle.random_clip(0, 4, width=9), oracle.random_clip(0, 4, height=4)):
        with pytest.raises(ValueError, match="size"):
            cutmix_window_frames(clip, other, Overlap(4, 2, 2), 1.0)
        with pytest.raises(ValueError, match="size"):
            cutmix_view_frames(clip, other, 1.0)


def test_huge_overlap_is_refused_before_anything_is_allocated() -> None:
    overlap = Overlap(10**13, 10**13, 1)
    with pytest.raises(ValueError, match="frames"):
        cutmix_window_labels(constant_track(0, 4), constant_track(1, 4), overlap, 1.0, 8)

"""Views: sizes in whole numbers, crop then flip, and crops that do not fit."""

from fractions import Fraction

import numpy as np
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import View, apply_view, resize, resized_size


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (240, 320, 256, (256, 341)),
        (320, 240, 256, (341, 256)),
        (240, 240, 256, (256, 256)),
        (256, 340, 256, (256, 340)),
        (2, 5, 1, (1, 3)),  # 2.5 rounds up
        (1080, 1920, 224, (224, 398)),
        (3, 1, 2, (6, 2)),
    ],
)
def test_resized_sizes_by_hand(
    height: int, width: int, short_side: int, expected: tuple[int, int]
) -> None:
    assert resized_size(height, width, short_side) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1000))
def test_shorter_side_is_exact_and_the_longer_is_nearest(
    height: int, width: int, short_side: int
) -> None:
    scale = Fraction(short_side, min(height, width))
    expected = (oracle.nearest(height * scale), oracle.nearest(width * scale))
    assert resized_size(height, width, short_side) == expected
    assert min(expected) == short_side


def test_crop_is_taken_at_x_y_and_then_flipped() -> None:
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    frame.flags.writeable = False
    crop = apply_view(frame, View(short_side=6, x=1, y=2, width=4, height=3))
    np.testing.assert_array_equal(crop, frame[2:5, 1:5])
    mirrored = apply_view(frame, View(short_side=6, x=1, y=2, width=4, height=3, flip=True))
    # The same columns, mirrored: the crop comes first.
    np.testing.assert_array_equal(mirrored, frame[2:5, [4, 3, 2, 1]])
    for out in (crop, mirrored):
        assert out.flags.c_contiguous
        assert out.flags.writeable or not np.shares_memory(out, frame)


@pytest.mark.parametrize(("height", "width", "short_side"), [(6, 8, 12), (24, 32, 12), (12, 9, 7)])
def test_whole_view_is_the_resize(height: int, width: int, short_side: int) -> None:
    frame = oracle.random_clip(5, 1, height, width)[0]
    new_height, new_width = resized_size(height, width, short_side)
    view = View(short_side, 0, 0, new_width, new_height)
    np.testing.assert_array_equal(apply_view(frame, view), resize(frame, new_height, new_width))
    assert apply_view(frame, view).shape == (new_height, new_width, 3)


def test_halving_averages_two_by_two_pixels() -> None:
    frame = oracle.random_clip(3, 1, 8, 12)[0]
    halved = resize(frame, 4, 6).astype(int)
    for y in range(4):
        for x in range(6):
            block = frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 3).astype(float)
            assert np.abs(halved[y, x] - block.mean(axis=0)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("height", "width"), [(5, 7), (16, 9), (31, 64)])
def test_constant_frames_stay_constant(height: int, width: int) -> None:
    frame = np.full((12, 16, 3), (7, 130, 255), np.uint8)
    resized = resize(frame, height, width)
    assert resized.shape == (height, width, 3)
    assert np.unique(resized.reshape(-1, 3), axis=0).tolist() == [[7, 130, 255]]


def test_views_inputs_are_not_modified() -> None:
    frame = oracle.random_clip(3, 1, 8, 12)[0].copy()
    before = frame.copy()
    out = apply_view(frame, View(8, 0, 0, 12, 8))
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize(
    "numbers",
    [(0, 0, 0, 1, 1), (4, -1, 0, 1, 1), (4, 0, -1, 1, 1), (4, 0, 0, 0, 1), (4, 0, 0, 1, 0)],
)
def test_impossible_views_are_refused(numbers: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="view"):
        View(*numbers)


@pytest.mark.parametrize("place", [(1, 0, 8, 6), (0, 1, 8, 6), (0, 0, 9, 6), (0, 0, 8, 7)])
def test_crop_must_lie_inside_the_resized_frame(place: tuple[int, int, int, int]) -> None:
    x, y, width, height = place
    with pytest.raises(ValueError, match=r"inside the resized frame of 8x6"):
        apply_view(np.zeros((6, 8, 3), np.uint8), View(6, x, y, width, height))


def test_huge_short_side_is_refused_before_anything_is_resized() -> None:
    with pytest.raises(ValueError, match="short_side"):
        apply_view(np.zeros((6, 8, 3), np.uint8), View(2**31 - 1, 0, 0, 8, 6))

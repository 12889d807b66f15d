"""Crops: places by hand, and pictures equal to views applied one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.extraction.crops import Framing, cut_pictures
from synth import apply_view

sizes = st.integers(1, 90)


def places(framing: Framing, height: int, width: int) -> list[tuple[int, int]]:
    return [(view.y, view.x) for view in framing.views(height, width)]


@pytest.mark.parametrize(
    ("crop", "height", "width", "expected"),
    [
        ("centre", 240, 320, [(0, 18)]),
        ("three", 240, 320, [(0, 0), (0, 18), (0, 37)]),
        ("three", 320, 240, [(0, 0), (18, 0), (37, 0)]),
        ("three", 112, 112, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_crops_at_the_short_side_by_hand(crop, height, width, expected):
    # 240 x 320 becomes 112 x 149
    assert places(Framing(112, 112, 112, crop), height, width) == expected


def test_ten_crops_lie_in_the_corners_by_hand():
    # 240 x 320 becomes 128 x 171
    assert places(Framing(112, 112, 128, "ten"), 240, 320) == [
        *[(0, 0), (0, 59), (16, 0), (16, 59)],
        (8, 29),
    ]


def test_a_frame_grows_until_the_crop_fits():
    (view,) = Framing(96, 160, 96).views(100, 100)
    assert (view.short_side, view.y, view.x) == (160, 32, 0)


@given(sizes, sizes, sizes, sizes, st.sampled_from(["centre", "three", "ten"]))
def test_pictures_are_views_of_one_resize(height, width, rows, columns, crop):
    framing = Framing(rows, columns, min(rows, columns), crop)
    frame_HWC = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    before = frame_HWC.copy()
    views = framing.views(height, width)
    assert len(views) == framing.num_pictures
    for picture_HWC, view in zip(cut_pictures(frame_HWC, views), views, strict=True):
        np.testing.assert_array_equal(picture_HWC, apply_view(before, view))
    np.testing.assert_array_equal(frame_HWC, before)

"""Label tracks: sparse, in [0, 1], background derived, one row per class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import LabelTrack, add_tracks, constant_track

NUM_FRAMES = 5


@st.composite
def soft_labels(draw: st.DrawFn) -> dict[int, list[float]]:
    """Draw weights by class id whose columns add up to at most 1."""
    ids = draw(st.lists(st.integers(0, 400), unique=True, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(ids) + 1), NUM_FRAMES)
    return {class_id: shares[:, row].tolist() for row, class_id in enumerate(ids)}


def track_of(labels: dict[int, list[float]]) -> LabelTrack:
    ids = sorted(labels)
    weights = np.array([labels[class_id] for class_id in ids]).reshape(len(ids), NUM_FRAMES)
    return LabelTrack(np.array(ids, np.int64), weights)


def test_untouched_clip_has_its_class_with_weight_one_and_no_background() -> None:
    track = constant_track(7, 4)
    assert track.class_ids.tolist() == [7]
    assert track.weights_CT.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert track.background_T.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert track.num_frames == 4


def test_clip_without_label_is_all_background() -> None:
    track = constant_track(None, 3)
    assert track.class_ids.shape == (0,)
    assert track.weights_CT.shape == (0, 3)
    assert track.background_T.tolist() == [1.0, 1.0, 1.0]


def test_same_class_adds_up_in_one_row() -> None:
    quarter = constant_track(3, 2).scale(np.array([0.25, 0.5]))
    rest = constant_track(3, 2).scale(np.array([0.75, 0.25]))
    track = add_tracks(quarter, rest)
    assert track.class_ids.tolist() == [3]
    assert track.weights_CT.tolist() == [[1.0, 0.75]]
    assert track.background_T.tolist() == [0.0, 0.25]


def test_added_classes_are_ascending_whatever_the_order() -> None:
    half = np.full(2, 0.5)
    track = add_tracks(constant_track(9, 2).scale(half), constant_track(1, 2).scale(half))
    assert track.class_ids.tolist() == [1, 9]
    assert track.weights_CT.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@settings(max_examples=60, deadline=None)
@given(soft_labels(), soft_labels(), st.floats(0, 1))
def test_mixing_matches_a_loop_over_classes_and_frames(
    labels1: dict[int, list[float]], labels2: dict[int, list[float]], weight: float
) -> None:
    track1, track2 = track_of(labels1), track_of(labels2)
    before = track1.weights_CT.copy(), track2.weights_CT.copy()
    scales = np.full(NUM_FRAMES, weight), np.full(NUM_FRAMES, 1 - weight)
    track = add_tracks(track1.scale(scales[0]), track2.scale(scales[1]))

    assert track.class_ids.tolist() == sorted({*labels1, *labels2})
    for row, class_id in enumerate(track.class_ids.tolist()):
        for t in range(NUM_FRAMES):
            expected = weight * labels1.get(class_id, [0.0] * NUM_FRAMES)[t]
            expected += (1 - weight) * labels2.get(class_id, [0.0] * NUM_FRAMES)[t]
            assert track.weights_CT[row, t] == pytest.approx(expected, abs=1e-9)
    assert np.all((track.background_T >= 0) & (track.background_T <= 1))
    total = track.background_T + track.weights_CT.sum(axis=0)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    np.testing.assert_array_equal(track1.weights_CT, before[0])
    np.testing.assert_array_equal(track2.weights_CT, before[1])


def test_take_picks_frames() -> None:
    track = LabelTrack(np.array([2]), np.array([[0.0, 0.25, 0.5, 1.0]]))
    assert track.take(np.array([3, 1, 1])).weights_CT.tolist() == [[1.0, 0.25, 0.25]]


@pytest.mark.parametrize(
    ("class_ids", "weights"),
    [
        ([1, 1], [[0.5, 0.5], [0.5, 0.5]]),  # one row per class
        ([2, 1], [[0.5, 0.5], [0.5, 0.5]]),  # ascending
        ([1], [[0.5, 1.5]]),
        ([1], [[-0.5, 0.5]]),
        ([1, 2], [[0.75, 0.75], [0.75, 0.0]]),  # adds up to 1.5 on the first frame
        ([1], [[float("nan"), 0.5]]),
        ([1, 2], [[float("nan"), 0.5], [0.5, 0.5]]),
        ([1], [[float("inf"), 0.5]]),
        ([1, 2], [[0.5, 0.5]]),
    ],
)
def test_what_is_no_label_track_is_refused(class_ids: list[int], weights: list) -> None:
    with pytest.raises(ValueError, match=r"label|ids"):
        LabelTrack(np.array(class_ids, np.int64), np.array(weights, np.float64))

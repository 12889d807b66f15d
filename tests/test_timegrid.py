"""The time grid: hand-worked rows, a slow loop as oracle, and index -> seconds -> index."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import (
    SnippetGrid,
    num_sampled_frames,
    sample_frames,
    snippet_at,
    snippets_between,
)

lengths = st.integers(1, 20)
counts = st.integers(0, 200)
tails = st.sampled_from(["pad", "drop"])
# Frame durations of a video of variable rate, in milliseconds.
gaps = st.lists(st.integers(1, 400), min_size=1, max_size=60)


def slow_grid(num_frames: int, length: int, stride: int, tail: str) -> list[list[int]]:
    """Cut snippets one by one, without any formula."""
    snippets: list[list[int]] = []
    start, covered = 0, 0
    while start < num_frames and (tail == "drop" or not snippets or covered < num_frames):
        snippet = [frame for frame in range(start, start + length) if frame < num_frames]
        if len(snippet) < length and tail == "drop":
            break
        covered = start + max(length, stride)  # frames in a gap are out of reach of any snippet
        snippets.append(snippet + [num_frames - 1] * (length - len(snippet)))
        start += stride
    return snippets


def pts_of(gaps_ms: list[int], offset: float = 0.0) -> tuple[np.ndarray, float]:
    """Return presentation times and the end of presentation."""
    edges = np.concatenate([[0], np.cumsum(gaps_ms)]) / 1000 + offset
    return edges[:-1], float(edges[-1])


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "tail", "expected"),
    [
        (0, 8, 8, "pad", 0),
        (1, 8, 8, "pad", 1),
        (8, 8, 8, "pad", 1),
        (9, 8, 8, "pad", 2),
        (20, 8, 8, "pad", 3),
        (20, 8, 4, "pad", 4),
        (21, 8, 4, "pad", 5),
        (3, 1, 5, "pad", 1),
        (6, 1, 5, "pad", 2),
        (0, 8, 8, "drop", 0),
        (7, 8, 8, "drop", 0),
        (8, 8, 8, "drop", 1),
        (20, 8, 8, "drop", 2),
        (20, 8, 4, "drop", 4),
    ],
)
def test_num_snippets_table(num_frames, length, stride, tail, expected):
    assert SnippetGrid(length, stride, tail).num_snippets(num_frames) == expected


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "tail", "expected"),
    [
        (0, 8, 8, "pad", 0),
        (1, 8, 8, "pad", 1),
        (8, 8, 8, "pad", 1),
        (9, 8, 8, "pad", 2),
        (20, 8, 8, "pad", 3),
        (3, 8, 8, "drop", 0),
        (4, 8, 8, "drop", 1),
        (19, 8, 8, "drop", 2),
        (20, 8, 8, "drop", 3),
        (5, 1, 2, "pad", 3),
        (5, 1, 2, "drop", 3),
    ],
)
def test_centred_snippets_table(num_frames, length, stride, tail, expected):
    assert SnippetGrid(length, stride, tail, "centre").num_snippets(num_frames) == expected


def test_centred_snippets_by_hand():
    even = SnippetGrid(4, 3, alignment="centre").frame_positions(7)
    assert even.tolist() == [[0, 0, 0, 1], [1, 2, 3, 4], [4, 5, 6, 6]]
    odd = SnippetGrid(3, 3, "drop", "centre").frame_positions(7)
    assert odd.tolist() == [[0, 0, 1], [2, 3, 4]]
    pts = np.array([5.0, 5.1, 5.5, 5.6])
    times_S3 = SnippetGrid(2, 2, alignment="centre").times(sample_frames(pts, 6.0))
    np.testing.assert_allclose(times_S3, [[5.0, 5.0, 5.1], [5.1, 5.5, 5.6]])
    times_S3 = SnippetGrid(3, 2, alignment="centre").times(sample_frames(pts, 6.0))
    np.testing.assert_allclose(times_S3, [[5.0, 5.05, 5.5], [5.1, 5.55, 6.0]])


@given(counts, lengths, lengths, tails)
def test_centred_snippets_lie_around_their_frame(num_frames, length, stride, tail):
    grid = SnippetGrid(length, stride, tail, "centre")
    positions_SL = grid.frame_positions(num_frames)
    for index, row in enumerate(positions_SL.tolist()):
        first = index * stride - length // 2
        assert row == [min(max(first + k, 0), num_frames - 1) for k in range(length)]
        assert row[length // 2] == index * stride
        assert tail == "pad" or first + length <= num_frames
    end = len(positions_SL) * stride  # the centre of the next one
    assert end >= num_frames or (tail == "drop" and end - length // 2 + length > num_frames)


@given(gaps, lengths, lengths, tails)
def test_centred_times_ascend_within_their_snippets(gaps_ms, length, stride, tail):
    pts, end = pts_of(gaps_ms)
    times_S3 = SnippetGrid(length, stride, tail, "centre").times(sample_frames(pts, end))
    assert (np.diff(times_S3[:, 1]) > 0).all()
    assert (times_S3[:, 0] <= times_S3[:, 1]).all()
    assert (times_S3[:, 1] <= times_S3[:, 2]).all()


def test_tail_repeats_the_last_frame():
    assert SnippetGrid(8, 8).frame_positions(20)[-1].tolist() == [16, 17, 18, 19, 19, 19, 19, 19]


@given(counts, lengths, lengths, tails)
def test_grid_equals_the_slow_loop(num_frames, length, stride, tail):
    grid = SnippetGrid(length, stride, tail)
    expected = slow_grid(num_frames, length, stride, tail)
    assert grid.frame_positions(num_frames).tolist() == expected
    assert grid.num_snippets(num_frames) == len(expected)


@given(st.integers(1, 200), lengths, lengths)
def test_pad_covers_every_frame_and_every_snippet_adds_one(num_frames, length, stride):
    grid = SnippetGrid(length, min(stride, length))
    positions_SL = grid.frame_positions(num_frames)
    assert set(positions_SL.ravel().tolist()) == set(range(num_frames))
    if len(positions_SL) > 1:
        assert set(positions_SL[:-1].ravel().tolist()) != set(range(num_frames))


@given(gaps, lengths, lengths, tails, st.floats(0, 100))
def test_index_to_seconds_to_index(gaps_ms, length, stride, tail, offset):
    pts, end = pts_of(gaps_ms, offset)
    times_S3 = SnippetGrid(length, stride, tail).times(sample_frames(pts, end))
    for index, (start, centre, stop) in enumerate(times_S3):
        assert start <= centre <= stop <= end + 1e-9
        assert snippet_at(times_S3, centre) == index
        assert list(snippets_between(times_S3, centre, np.nextafter(centre, np.inf))) == [index]


@given(gaps, lengths, lengths, st.floats(-1, 30), st.floats(-1, 30), st.floats(-1, 30))
def test_neighbouring_intervals_partition_the_snippets(gaps_ms, length, stride, a, b, c):
    pts, end = pts_of(gaps_ms)
    times_S3 = SnippetGrid(length, stride).times(sample_frames(pts, end))
    a, b, c = sorted((a, b, c))
    first, second = snippets_between(times_S3, a, b), snippets_between(times_S3, b, c)
    assert list(first) + list(second) == list(snippets_between(times_S3, a, c))
    inside = [i for i, centre in enumerate(times_S3[:, 1]) if a <= centre < b]
    assert list(first) == inside


def test_times_of_constant_rate_by_hand():
    pts = np.arange(20) / 10
    times_S3 = SnippetGrid(8, 8).times(sample_frames(pts, 2.0))
    np.testing.assert_allclose(times_S3, [[0, 0.4, 0.8], [0.8, 1.2, 1.6], [1.6, 1.8, 2.0]])


def test_times_of_variable_rate_and_offset_by_hand():
    pts = np.array([5.0, 5.1, 5.5, 5.6])
    times_S3 = SnippetGrid(2, 2).times(sample_frames(pts, 6.0))
    np.testing.assert_allclose(times_S3, [[5.0, 5.25, 5.5], [5.5, 5.75, 6.0]])


def test_resampling_takes_the_frame_on_screen():
    pts = np.array([0.0, 0.3, 0.35, 0.9])  # on screen at 0, .25, .5, .75: frames 0 0 2 2
    frames = sample_frames(pts, 1.0, Fraction(4))
    assert frames.frame_index_N.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(frames.start_seconds_N, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(frames.end_seconds_N, [0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(("native", "fps"), [(30, 15), (30, 10), (24, 24), (60, 15), (25, 5)])
def test_resampling_by_a_divisor_strides_even_when_times_are_rounded_to_ms(native, fps):
    pts = np.round(np.arange(10 * native) / native, 3)  # as Matroska stores them
    frames = sample_frames(pts, 10.0, Fraction(fps))
    assert frames.frame_index_N.tolist() == list(range(0, 10 * native, native // fps))


@given(gaps, st.fractions(Fraction(1, 2), 60, max_denominator=1001), st.floats(0, 10))
def test_resampling_equals_the_slow_loop(gaps_ms, fps, offset):
    pts, end = pts_of(gaps_ms, offset)
    frames = sample_frames(pts, end, fps, first_frame=7)
    assert len(frames) == num_sampled_frames(end - pts[0], fps)
    for k, index in enumerate(frames.frame_index_N):
        shown = [i for i, t in enumerate(pts) if t <= pts[0] + k / float(fps) + 1e-3 + 1e-12]
        # Within rounding of the tolerance itself either neighbour is right.
        on_edge = min(abs(pts - (pts[0] + k / float(fps) + 1e-3))) < 1e-9
        assert index == shown[-1] + 7 or on_edge
        assert pts[index - 7] <= frames.start_seconds_N[k] + 1.001e-3
    assert np.all(np.diff(frames.start_seconds_N) > 0)


def test_sampling_may_start_before_the_first_frame():
    frames = sample_frames(np.array([0.5, 1.0]), 1.5, Fraction(4), start_seconds=0.0)
    assert frames.frame_index_N.tolist() == [0, 0, 0, 0, 1, 1]
    np.testing.assert_allclose(frames.start_seconds_N, [0, 0.25, 0.5, 0.75, 1.0, 1.25])


def test_first_frame_shifts_indices_only():
    pts = np.arange(4) / 4 + 2
    frames = sample_frames(pts, 3.0, first_frame=8)
    assert frames.frame_index_N.tolist() == [8, 9, 10, 11]
    assert frames.start_seconds_N.tolist() == pts.tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 1), "must be >= 1, got 0 and 1"),
        ((1, 0), "must be >= 1, got 1 and 0"),
        ((1, 1, "cut"), "'pad' or 'drop', got 'cut'"),
    ],
)
def test_wrong_grids_say_so(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        SnippetGrid(*arguments)


def test_wrong_rates_and_times_say_so():
    with pytest.raises(ValueError, match="fps must be above 0 and at most 500, got 501"):
        sample_frames(np.zeros(1), 1.0, Fraction(501))
    with pytest.raises(ValueError, match="ascending"):
        sample_frames(np.array([1.0, 0.0]), 2.0)
    with pytest.raises(ValueError, match="has none"):
        snippet_at(np.zeros((0, 3)), 1.0)

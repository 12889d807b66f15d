"""Sampling, labels, losses and windows of the detection heads: by hand and against slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from features.heads import (
    BMN,
    BMN_RECIPE,
    GTAD,
    GTAD_ANET_RECIPE,
    GTAD_THUMOS_RECIPE,
    BMNArguments,
    DetectorRecipe,
    GTADArguments,
    detect,
    duration_cells,
    end_cells,
    make_example,
    train_detector,
)
from features.heads.alignment import SampledConv, boundary_matching, roi_align
from features.heads.boundary_targets import boundary_targets, overlap_map, valid_cells
from features.heads.detector import detector_loss
from features.heads.gtad import neighbours
from features.heads.map_losses import (
    EPSILON,
    balanced_cross_entropy,
    boundary_loss,
    classification_loss,
    regression_loss,
)
from features.probing.detection_windows import bsn_window, linear_window, sliding_windows

SMALL_GTAD = GTADArguments(4, 8, 4, inner_bins=3, context_bins=2, hidden_dim=8, map_dim=4)
SMALL_BMN = BMNArguments(4, 8, 4, 3, hidden_dim=8, map_hidden_dim=8, map_dim=4)


def dense(sampling, num_positions: int) -> np.ndarray:
    """Return weights `(A, P, T)`."""
    return sampling.weights.to_dense().unflatten(1, (sampling.num_bins, num_positions)).numpy()


def slow_roi_align(start: float, end: float, num_bins: int, feats_T: list[float]) -> list[float]:
    """Walk over bins and samples as the public kernel is described."""
    last = len(feats_T) - 1
    length = max(end - start, 1.0)
    num_samples = math.ceil(length / num_bins)
    bins = []
    for p in range(num_bins):
        total = 0.0
        for i in range(num_samples):
            place = start + length / num_bins * (p + (i + 0.5) / num_samples)
            if -1 <= place <= len(feats_T):
                place = min(max(place, 0.0), last)
                low = min(int(place), last)
                high = min(low + 1, last)
                total += feats_T[low] + (place - low) * (feats_T[high] - feats_T[low])
        bins.append(total / num_samples)
    return bins


@settings(deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=9),
    st.lists(st.tuples(st.floats(-8, 12), st.floats(0, 20)), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_roi_align_is_the_slow_loop(feats, rois, num_bins: int) -> None:
    start_A = np.array([start for start, _ in rois])
    end_A = start_A + [length for _, length in rois]
    got = dense(roi_align(start_A, end_A, num_bins, len(feats)), len(feats)) @ np.array(feats)
    expected = [slow_roi_align(s, e, num_bins, feats) for s, e in zip(start_A, end_A, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_roi_align_by_hand() -> None:
    """Positions 0 to 3; the roi [1, 3] in 2 bins samples 1.5 and 2.5; samples outside count."""
    weights = dense(roi_align(np.array([1.0, 2.0]), np.array([3.0, 8.0]), 2, 4), 4)
    np.testing.assert_allclose(weights[0], [[0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]])
    # [2, 8] in 2 bins of 3 samples: 2.5 3.5 4.5 (the last is outside), then none
    np.testing.assert_allclose(weights[1], [[0, 0, 0.5 / 3, 1.5 / 3], [0, 0, 0, 0]], atol=1e-7)


def test_boundary_matching_by_hand() -> None:
    """Segment [1, 2] of length 2, from 0 to 3 in 2 bins of 2 samples: 0 1, 2 3."""
    weights = dense(boundary_matching(np.array([1, 2]), np.array([2, 2]), 2, 2, 4), 4)
    np.testing.assert_allclose(weights[0], [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert not weights[1].any()  # it ends where it starts
    # [0, 1] from -1 to 2 in samples -1 0 1 2: -1 is dropped, its share is lost
    weights = dense(boundary_matching(np.array([0]), np.array([1]), 2, 2, 4), 4)
    np.testing.assert_allclose(weights[0], [[0.5, 0, 0, 0], [0, 0.5, 0.5, 0]])


@pytest.mark.parametrize("shape", [(6, 8, 5, 1, 1), (6, 40, 1, 1)])
def test_sampled_conv_is_a_convolution_of_samples(shape: tuple[int, ...]) -> None:
    """The same outputs and gradients as from the samples themselves, bins varying fastest."""
    torch.manual_seed(0)
    rois = np.array([[0.0, 3], [1, 2], [-1, 6], [4, 9], [2, 2.5], [0, 5]]).T
    samplings = [roi_align(*rois, 3, 7), roi_align(*rois, 2, 7)]
    conv = SampledConv(shape, samplings, (2, 3))
    sources = [torch.randn(2, 8, 7, requires_grad=True) for _ in samplings]
    got = conv(sources)
    bins = [
        torch.einsum("apt,nct->ncpa", torch.from_numpy(dense(sampling, 7)), source)
        for sampling, source in zip(samplings, sources, strict=True)
    ]
    sampled = torch.cat(bins, dim=2).flatten(1, 2).unflatten(2, (2, 3))
    expected = conv2d(sampled, conv.weight.view(6, 40, 1, 1), conv.bias)
    torch.testing.assert_close(got, expected)
    weights = torch.randn_like(got)
    parameters = [*sources, conv.weight, conv.bias]
    for one, other in zip(
        torch.autograd.grad((got * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_neighbours_are_the_nearest() -> None:
    feats = torch.tensor([[[0.0, 1.0, 5.0, 6.5]]])
    near = neighbours(feats, 2)[0, 0].sort(dim=1).values
    assert near.tolist() == [[0, 1], [0, 1], [5, 6.5], [5, 6.5]]


def test_cells_by_hand() -> None:
    first, after = duration_cells(2, 3)
    assert first.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert after.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert valid_cells(np.stack([first, after]), 3).tolist() == [[True] * 3, [True, True, False]]
    first, after = end_cells(2)
    assert (first.tolist(), after.tolist()) == ([[0, 0], [1, 1]], [[1, 2], [1, 2]])
    assert valid_cells(np.stack([first, after]), 2).tolist() == [[True, True], [False, True]]


@given(st.lists(st.tuples(st.floats(-3, 9), st.floats(0, 8)), max_size=3))
def test_overlaps_are_the_slow_loop(actions) -> None:
    segments_G2 = np.array([(start, start + length) for start, length in actions]).reshape(-1, 2)
    for cells in (duration_cells(4, 6), end_cells(6)):
        got = overlap_map(cells, segments_G2, 6)
        for place in np.ndindex(*got.shape):
            start, end = cells[0][place], cells[1][place]
            best = 0.0
            for low, high in np.clip(segments_G2, 0, 6).tolist():
                inter = min(end, high) - max(start, low)
                if inter > 0 and start < end <= 6:
                    best = max(best, inter / (end - start + high - low - inter))
            assert got[place] == pytest.approx(best, abs=1e-6)


def test_boundary_targets_by_hand() -> None:
    """A start at 3: the region is [1.5, 4.5]; bins as anchors, then anchors twice as wide."""
    assert boundary_targets(np.array([3.0]), 6).tolist() == [0, 0.5, 1, 1, 0.5, 0]
    assert boundary_targets(np.array([3.0]), 6, 0.5).tolist() == [0, 0.5, 1, 1, 0.5, 0]
    assert boundary_targets(np.array([2.5]), 6).tolist() == [0, 1, 1, 1, 0, 0]
    assert boundary_targets(np.array([2.5]), 6, 0.5).tolist() == [0.25, 0.75, 1, 0.75, 0.25, 0]
    assert boundary_targets(np.array([0.5, 5.0]), 6).tolist() == [1, 1, 0, 0.5, 1, 1]
    assert boundary_targets(np.zeros(0), 3).tolist() == [0, 0, 0]


def published_cross_entropy(probability, positive, negative, smoothing: float) -> float:
    """Weigh with the ratio of entries to positives, as BMN's eq. 8 and the programs do."""
    num_positives = smoothing + positive.sum()
    num_entries = smoothing + num_positives + negative.sum()
    ratio = num_entries / num_positives
    coefficient_0, coefficient_1 = 0.5 * ratio / (ratio - 1), 0.5 * ratio
    terms = coefficient_1 * np.log(probability + EPSILON) * positive
    terms = terms + coefficient_0 * np.log(1 - probability + EPSILON) * negative
    return float(-terms.sum() / num_entries)


@pytest.mark.parametrize("smoothing", [0.0, 10.0])
def test_balanced_cross_entropy_is_the_weighted_one(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.uniform(size=50), rng.uniform(size=50)
    positive, negative = label > 0.8, (label <= 0.8) & (label > 0.1)
    got = balanced_cross_entropy(
        *(torch.from_numpy(part) for part in (probability, positive, negative)), smoothing
    )
    expected = published_cross_entropy(probability, positive, negative, smoothing)
    assert float(got) == pytest.approx(expected)


def test_losses_without_positives_are_finite() -> None:
    half, none = torch.full((1, 4), 0.5), torch.zeros(1, 4)
    expected = -math.log(0.5 + EPSILON)  # half of it for starts, half for ends
    assert float(boundary_loss(half, half, none, none)) == pytest.approx(expected)
    valid = torch.tensor([True, True, False, False])
    assert float(classification_loss(half, none, valid, 0.0)) == pytest.approx(expected / 2)
    assert float(regression_loss(half, none, torch.Generator())) == 0


def test_regression_balances_its_groups() -> None:
    """10 high cells, 40 in the middle, 5 low, 9 without overlap: 10, about 10, 5 and 0 count."""
    overlap = torch.tensor([0.8] * 10 + [0.5] * 40 + [0.1] * 5 + [0.0] * 9)
    generator = torch.Generator().manual_seed(0)
    right = float(regression_loss(overlap.clone(), overlap, generator))
    assert right == 0
    wrong_none = overlap + (overlap == 0)
    assert float(regression_loss(wrong_none, overlap, generator)) == 0
    wrong_low = overlap + (overlap == overlap[50])  # 0.5 * 5 / (10 + about 10 + 5)
    wrong_middle = overlap + (overlap == 0.5)  # 0.5 * about 10 / (10 + about 10 + 5)
    means = [
        np.mean([float(regression_loss(wrong, overlap, generator)) for _ in range(200)])
        for wrong in (wrong_low, wrong_middle)
    ]
    assert means == pytest.approx([0.1, 0.2], rel=0.1)


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [(GTAD_THUMOS_RECIPE, (1, 10)), (GTAD_ANET_RECIPE, (10, 1)), (BMN_RECIPE, (10, 1))],
)
def test_weights_of_the_losses(recipe: DetectorRecipe, weights: tuple[int, int]) -> None:
    torch.manual_seed(0)
    cells = duration_cells(4, 8)
    example = make_example(np.ones((4, 8), np.float32), np.array([[2.0, 5.0]]), cells, 0.0)
    outputs = [torch.rand(1, 2, 4, 8), torch.rand(1, 8), torch.rand(1, 8)]
    valid = torch.from_numpy(valid_cells(cells, 8))
    loss = detector_loss(
        lambda feats: outputs, [example], valid, recipe, torch.Generator().manual_seed(3), "cpu"
    )
    overlap, start, end = (
        torch.from_numpy(part)[None] for part in (example.overlap, example.start_T, example.end_T)
    )
    expected = (
        boundary_loss(outputs[1], outputs[2], start, end)
        + weights[0] * regression_loss(outputs[0][:, 0], overlap, torch.Generator().manual_seed(3))
        + weights[1] * classification_loss(outputs[0][:, 1], overlap, valid, recipe.smoothing)
    )
    torch.testing.assert_close(loss, expected)


def test_rates_fall_in_steps() -> None:
    assert [GTAD_THUMOS_RECIPE.rate(epoch) for epoch in (0, 4, 5, 9)] == pytest.approx(
        [4e-5, 4e-5, 4e-6, 4e-6]
    )
    assert [BMN_RECIPE.rate(epoch) for epoch in (0, 5, 6, 8)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4]
    )
    longer = GTAD_ANET_RECIPE.over(epochs=40, lr=1e-2)
    assert (longer.epochs, longer.step_epochs, longer.lr) == (40, 20, 1e-2)
    assert GTAD_ANET_RECIPE.over() == GTAD_ANET_RECIPE
    for wrong in ({"epochs": 0}, {"lr": 0.0}, {"lr": math.nan}):
        with pytest.raises(ValueError, match="must be"):
            BMN_RECIPE.over(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "cells", "recipe"),
    [
        (lambda: GTAD(SMALL_GTAD), duration_cells(4, 8), GTAD_THUMOS_RECIPE.over(20, 1e-2)),
        (lambda: BMN(SMALL_BMN), end_cells(8), BMN_RECIPE.over(30, 2e-2)),
    ],
)
def test_training_learns_and_repeats(make, cells: np.ndarray, recipe: DetectorRecipe) -> None:
    examples = []
    for start in range(5):
        feats_DT = np.zeros((4, 8), np.float32)
        feats_DT[:, start : start + 3] = 1
        examples.append(make_example(feats_DT, np.array([[start, start + 3.0]]), cells, 0.0))
    losses, outputs = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = make()
        losses.append(train_detector(model, examples, cells, recipe, seed=1))
        outputs.append(list(detect(model, [example.feats_DT for example in examples], 2)))
    assert losses[0] == losses[1]
    assert len(outputs[0]) == 5
    for one, other in zip(*outputs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert one[0].shape == (2, *cells.shape[1:])
        assert one[1].shape == one[2].shape == (8,)
    assert losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.parametrize(
    ("arguments", "wrong", "message"),
    [
        (GTADArguments, {"feature_dim": 6}, "feature_dim must be a multiple of 4"),
        (GTADArguments, {"hidden_dim": 12}, "hidden_dim must be a multiple of 8"),
        (GTADArguments, {"temporal_scale": 2}, "temporal_scale must be >= 3"),
        (GTADArguments, {"max_duration": 300}, "max_duration must be from 1 to temporal_scale"),
        (BMNArguments, {"feature_dim": 0}, "feature_dim must be a multiple of 4"),
        (BMNArguments, {"hidden_dim": 6}, "hidden_dim must be a multiple of 4"),
        (BMNArguments, {"temporal_scale": 1}, "temporal_scale must be >= 2"),
    ],
)
def test_sizes_out_of_range(arguments, wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments(**wrong)


def rows_of(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of their own number, and times: half a second apart, a second long."""
    start_S = np.arange(num_rows) * 0.5
    times_S3 = np.stack([start_S, start_S + 0.5, start_S + 1], axis=1)
    return np.arange(num_rows, dtype=np.float16)[:, None].repeat(2, axis=1), times_S3


@pytest.mark.parametrize(
    ("num_rows", "starts"),
    [(1, [0]), (3, [0]), (4, [0]), (5, [0, 1]), (6, [0, 2]), (7, [0, 2, 3]), (8, [0, 2, 4])],
)
def test_sliding_windows_hold_every_row(num_rows: int, starts: list[int]) -> None:
    windows = sliding_windows("a", *rows_of(num_rows), window=4, stride=2)
    assert [window.first_bin for window in windows] == starts
    for window in windows:
        rows = [min(window.first_bin + i, num_rows) for i in range(4)]
        expected = [row if row < num_rows else 0 for row in rows]
        assert window.feats_DT.tolist() == [expected, expected]
        # row r has its centre at (r + 1) / 2 seconds: half-way edges are a quarter before
        edges = (window.first_bin + np.arange(5)) / 2 + 0.25
        if num_rows > 1:
            np.testing.assert_allclose(window.edges_seconds, edges)
    if num_rows == 1:
        np.testing.assert_allclose(windows[0].edges_seconds, np.arange(5))


def test_whole_videos_are_cut_at_their_ends() -> None:
    linear = linear_window("a", *rows_of(8), 4)
    assert linear.feats_DT.tolist() == [[0.5, 2.5, 4.5, 6.5]] * 2
    np.testing.assert_allclose(linear.edges_seconds, [0.25, 1.25, 2.25, 3.25, 4.25])
    np.testing.assert_allclose(linear.bins_of(np.array([0.0, 1.75, 9.0])), [0, 1.5, 4])
    bsn = bsn_window("a", *rows_of(8), 3)  # 4.5 seconds in bins of 1.5
    np.testing.assert_allclose(bsn.edges_seconds, [0, 1.5, 3, 4.5])
    np.testing.assert_allclose(bsn.feats_DT[0][1], 3.5, atol=1e-6)  # centres 1.5 to 3 seconds
    np.testing.assert_allclose(bsn.bins_of(np.array([-1.0, 0.75, 9.0])), [0, 0.5, 3])


def test_a_window_places_what_lies_beyond_it() -> None:
    window = sliding_windows("a", *rows_of(20), window=4, stride=2)[2]  # from 2.25 to 4.25
    np.testing.assert_allclose(window.bins_of(np.array([1.25, 2.25, 3.0, 5.25])), [-2, 0, 1.5, 6])


@given(
    st.lists(st.floats(0.01, 2), min_size=1, max_size=12),
    st.integers(2, 9),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_seconds_to_bins_and_back(gaps: list[float], num_bins: int, shares: list[float]) -> None:
    """On any ascending times, also of a variable rate."""
    centre_S = np.cumsum(gaps)
    times_S3 = np.stack([centre_S - 0.005, centre_S, centre_S + 0.005], axis=1)
    feats_SD = np.zeros((len(gaps), 2), np.float16)
    for window in (
        linear_window("a", feats_SD, times_S3, num_bins),
        bsn_window("a", feats_SD, times_S3, num_bins),
        *sliding_windows("a", feats_SD, times_S3, num_bins, 2),
    ):
        assert window.feats_DT.shape == (2, num_bins)
        edges = window.edges_seconds
        assert np.all(np.diff(edges) > 0)
        seconds = edges[0] + np.array(shares) * (edges[-1] - edges[0])
        np.testing.assert_allclose(window.seconds_of(window.bins_of(seconds)), seconds, rtol=1e-6)

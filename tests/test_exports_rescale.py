"""The rules that rescale a video to a fixed number of rows, by hand and against slow loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.exports import bsn_bins, mmaction2_bins, resize_linear


def test_bsn_bins_by_hand():
    # Four snippets of 16 frames at 16 fps: middles 0.5, 1.5, 2.5, 3.5 of 4 covered seconds.
    rows_S1 = np.array([[0.0], [10], [20], [30]])
    bins_B = bsn_bins(rows_S1, np.array([0.5, 1.5, 2.5, 3.5]), 4.0, num_bins=4)[:, 0]
    # [0, 1] is cut to [0.5001, 1]: 0.5001, 0.75005, 1 -> 0.001, 2.5005, 5; [1, 2]: 5, 10, 15.
    np.testing.assert_allclose(bins_B, [7.5015 / 3, 10, 20, 30 - 7.5015 / 3])


def test_bsn_bins_before_and_after_all_centres_are_zero():
    bins_B = bsn_bins(np.ones((2, 1)), np.array([0.9, 1.1]), 2.0, num_bins=10)[:, 0]
    # Bins of 0.2 s: the fifth is [0.8, 1.0], the sixth [1.0, 1.2].
    assert bins_B.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("num_rows", [2, 5, 10, 25, 50])
def test_an_edge_on_a_centre_does_not_depend_on_rounding(num_rows):
    # The first centre is 50 / S bins in: the bin that ends there holds row 0, at every rate.
    rows_SD = np.random.default_rng(1).normal(size=(num_rows, 2))
    for fps in (24, 25, 30000 / 1001, 30, 7.5, 23.976, 50):
        for extra in (0, 3):  # seconds by frames / duration * duration round otherwise
            frames = 16 * num_rows + extra
            centres_S = (np.arange(num_rows) + 0.5) * 16 / (frames / (frames / fps))
            covered = 16 * num_rows / frames * (frames / fps)
            bins_BD = bsn_bins(rows_SD, centres_S, covered)
            empty = 50 // num_rows - 1
            assert np.flatnonzero((bins_BD == 0).all(axis=1)).tolist() == [
                *range(empty),
                *range(100 - empty, 100),
            ]
            np.testing.assert_allclose(bins_BD[empty], rows_SD[0], atol=1e-3)
            np.testing.assert_allclose(bins_BD[99 - empty], rows_SD[-1], atol=1e-3)


def test_mmaction2_bins_by_hand():
    # Three rows, two bins: h = (2 - 0.0002) / 2 = 0.9999.
    bins_B = mmaction2_bins(np.array([[0.0], [3], [6]]), num_bins=2)[:, 0]
    at_B = [1e-4 + 0.9999 / 3, 1e-4 + 0.9999 * 4 / 3]  # the mean of a line is its middle sample
    np.testing.assert_allclose(bins_B, 3 * np.array(at_B))


def test_one_row_fills_every_bin():
    row = np.array([[1.5, -2]])
    for bins_BD in (bsn_bins(row, np.array([0.3]), 0.6), mmaction2_bins(row)):
        assert bins_BD.shape == (100, 2)
        assert (bins_BD == row).all()
    assert (resize_linear(row, 7) == row).all()


@given(st.integers(1, 60), st.sampled_from([1, 2, 100, 128, 192]))
def test_resize_is_the_interpolation_of_torch(num_rows, size):
    rows_SD = np.random.default_rng(num_rows).normal(size=(num_rows, 3))
    expected = torch.nn.functional.interpolate(
        torch.tensor(rows_SD.T[None]), size=size, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(resize_linear(rows_SD, size), expected[0].numpy().T, atol=1e-9)


def bsn_loop(rows_SD: np.ndarray, x: list[float], covered: float) -> np.ndarray:
    """Rescale bin by bin, as section "Rescaling to 100 exactly" words it."""
    bins = []
    for i in range(100):
        low, high = max(x[0] + 1e-4, i * covered / 100), min(x[-1] - 1e-4, (i + 1) * covered / 100)
        if high < x[0] or low > x[-1]:
            bins.append(np.zeros(rows_SD.shape[1]))
            continue
        samples = [low, (low + high) / 2, high]
        columns = [np.interp(samples, x, rows_SD[:, d]).mean() for d in range(rows_SD.shape[1])]
        bins.append(np.array(columns))
    return np.array(bins)


@pytest.mark.parametrize("num_rows", [2, 3, 7, 99, 100, 101, 350])
def test_rules_against_loops(num_rows):
    rows_SD = np.random.default_rng(num_rows).normal(size=(num_rows, 2))
    x = [(j + 0.5) * 16 / 25 for j in range(num_rows)]
    covered = 16 * num_rows / 25
    found = bsn_bins(rows_SD, np.array(x), covered)
    np.testing.assert_allclose(found, bsn_loop(rows_SD, x, covered), atol=1e-9)

    step = (num_rows - 1 - 2e-4) / 100
    loop = [
        np.mean(
            [
                [np.interp(1e-4 + (i + k / 3) * step, range(num_rows), column) for k in range(3)]
                for column in rows_SD.T
            ],
            axis=1,
        )
        for i in range(100)
    ]
    np.testing.assert_allclose(mmaction2_bins(rows_SD), loop, atol=1e-9)


def test_rows_stay_as_they_are():
    rows_SD = np.arange(12, dtype=np.float16).reshape(6, 2)
    kept = rows_SD.copy()
    bsn_bins(rows_SD, np.arange(6) + 0.5, 6.0)
    mmaction2_bins(rows_SD)
    assert resize_linear(rows_SD, 6).tolist() == kept.tolist()
    assert (rows_SD == kept).all()

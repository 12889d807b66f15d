"""Rescale the rows of a video to a fixed number: the rules of the tools, by their names."""

import numpy as np

EDGE = 1e-4  # both 100-bin rules keep this far inside the first and the last row
TIE = 1e-9  # an edge on a centre, as with 25 or 50 rows, may fall on either side of it by rounding
SAMPLES_PER_BIN = 3


def bsn_bins(
    rows_SD: np.ndarray, centre_seconds_S: np.ndarray, covered_seconds: float, num_bins: int = 100
) -> np.ndarray:
    """Average rows into equal bins of the covered time, as the BSN and BMN code does ("jjboy").

    Bin `i` covers `[i, i+1] * covered / num_bins` seconds, clipped to 1e-4 inside the first and
    the last snippet centre; its value is the mean of linear interpolation at both ends and the
    middle. A bin that ends before the first or begins after the last centre is zero; one row is
    repeated.

    Args:
        rows_SD: `(S, D)`, S >= 1.
        centre_seconds_S: Ascending; `(j + 1/2) * 16 / fps` for 16 frames laid end to end.
        covered_seconds: The time that all snippets cover, from 0.
        num_bins: Bins.

    Returns:
        float64 `(num_bins, D)`.

    Source: JJBOY/BMN-Boundary-Matching-Network `data_process.py`.
    """
    if len(rows_SD) == 1:
        return np.repeat(rows_SD.astype(np.float64), num_bins, axis=0)
    edges = np.arange(num_bins + 1) / num_bins * covered_seconds
    first, last = centre_seconds_S[0], centre_seconds_S[-1]
    starts_B = np.maximum(edges[:-1], first + EDGE)
    ends_B = np.minimum(edges[1:], last - EDGE)
    at_BK = starts_B[:, None] + (ends_B - starts_B)[:, None] * np.array([0, 0.5, 1])
    bins_BD = _interpolate(rows_SD, centre_seconds_S, at_BK).mean(axis=1)
    bins_BD[(ends_B < first - TIE) | (starts_B > last + TIE)] = 0
    return bins_BD


def mmaction2_bins(rows_SD: np.ndarray, num_bins: int = 100) -> np.ndarray:
    """Average rows into equal bins of the row number, as mmaction2 does ("mmaction2").

    With `h = (S - 1 - 2e-4) / num_bins`, bin `i` is the mean of linear interpolation at rows
    `1e-4 + i * h + {0, 1/3, 2/3} * h`: its right end is left out. One row is repeated.

    Returns:
        float64 `(num_bins, D)`.

    Source: open-mmlab/mmaction2 `activitynet_feature_postprocessing.py`.
    """
    if len(rows_SD) == 1:
        return np.repeat(rows_SD.astype(np.float64), num_bins, axis=0)
    step = (len(rows_SD) - 1 - 2 * EDGE) / num_bins
    thirds_K = np.arange(SAMPLES_PER_BIN) / SAMPLES_PER_BIN
    at_BK = EDGE + (np.arange(num_bins)[:, None] + thirds_K) * step
    return _interpolate(rows_SD, np.arange(len(rows_SD), dtype=np.float64), at_BK).mean(axis=1)


def resize_linear(rows_SD: np.ndarray, num_rows: int) -> np.ndarray:
    """Resize to `num_rows` by linear interpolation between the middles of rows.

    Output `i` is taken at row `(i + 1/2) * S / num_rows - 1/2`, clamped to the first and last row:
    what PyTorch's `interpolate(mode="linear", align_corners=False)` does over time.

    Returns:
        float64 `(num_rows, D)`.
    """
    if len(rows_SD) == 1:
        return np.repeat(rows_SD.astype(np.float64), num_rows, axis=0)
    at_B = (np.arange(num_rows) + 0.5) * len(rows_SD) / num_rows - 0.5
    at_B = np.clip(at_B, 0, len(rows_SD) - 1)
    return _interpolate(rows_SD, np.arange(len(rows_SD), dtype=np.float64), at_B[:, None])[:, 0]


def _interpolate(rows_SD: np.ndarray, x_S: np.ndarray, at_BK: np.ndarray) -> np.ndarray:
    """Return rows at the places `at_BK`, float64 `(B, K, D)`; needs at least two rows."""
    left_BK = np.clip(np.searchsorted(x_S, at_BK, side="right") - 1, 0, len(x_S) - 2)
    gap_BK = x_S[left_BK + 1] - x_S[left_BK]
    share_BK = np.divide(at_BK - x_S[left_BK], gap_BK, out=np.zeros_like(at_BK), where=gap_BK > 0)[
        ..., None
    ]
    rows_SD = rows_SD.astype(np.float64)
    return rows_SD[left_BK] * (1 - share_BK) + rows_SD[left_BK + 1] * share_BK

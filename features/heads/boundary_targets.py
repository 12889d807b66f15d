"""What detection heads learn: overlap of every segment of a map, and where actions start and end.

Positions are in bins: bin `i` is `[i, i + 1)`. Source: Lin et al., "BMN", ICCV 2019, Section 3.4
(label assignment); Xu et al., "G-TAD", CVPR 2020, Section 3.4.
"""

import numpy as np

REGION_BINS = 3.0  # an action starts, and ends, in a region of so many bins


def duration_cells(num_durations: int, num_bins: int) -> np.ndarray:
    """Return start and end of the segments of G-TAD's map, int64 `(2, durations, T)`."""
    duration, first = np.indices((num_durations, num_bins))
    return np.stack([first, first + duration + 1])


def end_cells(num_bins: int) -> np.ndarray:
    """Return start and end of the segments of BMN's map `[start, end]`, int64 `(2, T, T)`."""
    first, last = np.indices((num_bins, num_bins))
    return np.stack([first, last + 1])


def valid_cells(cells: np.ndarray, num_bins: int) -> np.ndarray:
    """Return which segments of a map start before they end, and end inside, bool."""
    return (cells[0] < cells[1]) & (cells[1] <= num_bins)


def overlap_map(cells: np.ndarray, segments_G2: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the highest IoU of every segment of a map with an action, float32; 0 if invalid.

    Args:
        cells: Start and end of the map's segments, `(2, ...)`.
        segments_G2: Actions, in bins; cut to the `num_bins` that are there.
        num_bins: Bins `T`.
    """
    best = np.zeros(cells.shape[1:])
    for start, end in np.clip(segments_G2, 0, num_bins):
        inter = np.maximum(np.minimum(cells[1], end) - np.maximum(cells[0], start), 0.0)
        union = (cells[1] - cells[0]) + (end - start) - inter
        np.maximum(best, inter / np.where(union > 0, union, 1.0), out=best)
    return np.where(valid_cells(cells, num_bins), best, 0.0).astype(np.float32)


def boundary_targets(boundary_G: np.ndarray, num_bins: int, margin: float = 0.0) -> np.ndarray:
    """Return for every bin the share of its anchor that lies in the region of a boundary.

    Args:
        boundary_G: Starts (or ends) of the actions, in bins.
        num_bins: Bins `T`.
        margin: The anchor of bin `i` is `[i - margin, i + 1 + margin]`: 0 in BMN and in G-TAD for
            THUMOS, 0.5 in G-TAD for ActivityNet.

    Returns:
        float32 `(T,)`; above 0.5 the bin is positive.
    """
    low_T = np.arange(num_bins)[:, None] - margin
    high_T = low_T + 1 + 2 * margin
    region_G = np.asarray(boundary_G, np.float64)[None]
    inter_TG = np.minimum(high_T, region_G + REGION_BINS / 2)
    inter_TG = inter_TG - np.maximum(low_T, region_G - REGION_BINS / 2)
    shares_TG = np.maximum(inter_TG, 0.0) / (1 + 2 * margin)
    return shares_TG.max(axis=1, initial=0.0).astype(np.float32)

"""What a detection head sees of a video: windows of its rows, or all of it in a number of bins.

Bins have edges in seconds, from the times of the store; annotations go to bins, and what a head
finds goes back to seconds, by the same edges. The public programs use frame numbers and a nominal
rate instead, with offsets that differ between training and test (half a snippet in G-TAD).
"""

from dataclasses import dataclass

import numpy as np

from ..exports.rescale import bsn_bins, resize_linear


@dataclass(frozen=True, slots=True, eq=False)
class DetectionWindow:
    """`T` bins of one video.

    Attributes:
        video_id: As in the store.
        feats_DT: float32.
        edges_seconds: float64 `(T + 1,)`, ascending: bin `i` is from edge `i` to edge `i + 1`.
        first_bin: Of the window, among the bins of the video.
        is_whole: It is the whole video, so that actions beyond its ends are cut to it.
    """

    video_id: str
    feats_DT: np.ndarray
    edges_seconds: np.ndarray
    first_bin: int = 0
    is_whole: bool = False

    def bins_of(self, seconds: np.ndarray) -> np.ndarray:
        """Return where moments lie, in bins; outside the window on the line through its ends."""
        edges, num_bins = self.edges_seconds, len(self.edges_seconds) - 1
        bins = np.interp(seconds, edges, np.arange(num_bins + 1.0))
        if self.is_whole:
            return bins
        before = (np.minimum(seconds, edges[0]) - edges[0]) / (edges[1] - edges[0])
        after = (np.maximum(seconds, edges[-1]) - edges[-1]) / (edges[-1] - edges[-2])
        return bins + before + after

    def seconds_of(self, bins: np.ndarray) -> np.ndarray:
        """Return the moments of places in the window, in seconds."""
        return np.interp(bins, np.arange(len(self.edges_seconds)), self.edges_seconds)


def sliding_windows(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, window: int, stride: int
) -> list[DetectionWindow]:
    """Cut a video into windows of rows; a shorter one is padded with zeros.

    A row is the bin around its centre: edges are half-way between neighbours. The last window ends
    with the last row. G-TAD's program leaves up to a fifth of a window out at the end.

    # window 4, stride 2:  7 rows: from 0 2 3;  3 rows: from 0, a bin of zeros

    Source: G-TAD, CVPR 2020, Section 4.2 (THUMOS: windows of 256 snippets, half overlapping).

    Args:
        video_id: As in the store.
        feats_SD: Rows, at least one.
        times_S3: Start, centre and end of each in seconds.
        window: Rows of a window.
        stride: Rows from one window to the next.
    """
    num_rows = len(feats_SD)
    starts = list(range(0, max(num_rows - window, 0) + 1, stride))
    if starts[-1] + window < num_rows:
        starts.append(num_rows - window)
    windows = []
    for first in starts:
        feats_TD = feats_SD[first : first + window].astype(np.float32)
        padding = ((0, window - len(feats_TD)), (0, 0))
        edges = _edges(times_S3, first + np.arange(window + 1.0))
        feats_DT = np.ascontiguousarray(np.pad(feats_TD, padding).T)
        windows.append(DetectionWindow(video_id, feats_DT, edges, first))
    return windows


def linear_window(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, num_bins: int
) -> DetectionWindow:
    """Bring the rows of a whole video to `num_bins`, linear between them (G-TAD on ActivityNet)."""
    bins_TD = resize_linear(feats_SD, num_bins)
    edges = _edges(times_S3, np.arange(num_bins + 1) * (len(feats_SD) / num_bins))
    return _whole(video_id, bins_TD, edges)


def bsn_window(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, num_bins: int
) -> DetectionWindow:
    """Bring the rows of a whole video to bins of equal time, by the rule of BSN and BMN."""
    first, last = times_S3[0, 0], times_S3[-1, 2]
    bins_TD = bsn_bins(feats_SD, times_S3[:, 1] - first, last - first, num_bins)
    return _whole(video_id, bins_TD, np.linspace(first, last, num_bins + 1))


def _whole(video_id: str, bins_TD: np.ndarray, edges: np.ndarray) -> DetectionWindow:
    feats_DT = np.ascontiguousarray(bins_TD.T, np.float32)
    return DetectionWindow(video_id, feats_DT, edges, is_whole=True)


def _edges(times_S3: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the seconds of places in rows; the centre of row `r` is at `r + 1/2`."""
    centres = times_S3[:, 1]
    if len(centres) == 1:
        start, _, end = times_S3[0]
        return start + (end - start) * places
    rows = np.arange(len(centres)) + 0.5
    before = np.minimum(places - rows[0], 0) * (centres[1] - centres[0])
    after = np.maximum(places - rows[-1], 0) * (centres[-1] - centres[-2])
    return np.interp(places, rows, centres) + before + after

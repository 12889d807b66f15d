"""Labels of evenly spaced rows of a video, as MultiTHUMOS and Charades are scored per frame.

Row `i` of `T` rows of a video of `D` seconds stands at `i * D / T` seconds, its left edge, and has
a class if that time lies strictly inside one of the class's segments. All rows of all videos, laid
end to end, are then scored by `mean_average_precision`.

Sources: `multithumos_i3d_per_video.py` and `charades_i3d_per_video.py` (piergiaj/tgm-icml19), which
PDAN and MS-TCT repeat; `sampled_25_inference` of MS-TCT.
"""

from collections.abc import Sequence

import numpy as np


def dense_labels(
    num_rows: int,
    duration_seconds: float,
    segments: Sequence[tuple[float, float, int]],
    num_classes: int,
) -> np.ndarray:
    """Return bool `(T, C)`; a segment that ends before it starts labels nothing.

    Args:
        num_rows: `T`.
        duration_seconds: `D`, as in the annotation.
        segments: (start_seconds, end_seconds, class index).
        num_classes: `C`.
    """
    seconds_T = np.arange(num_rows) / (num_rows / duration_seconds)  # as there, to the last bit
    labels_TC = np.zeros((num_rows, num_classes), bool)
    for start, end, class_index in segments:
        first = np.searchsorted(seconds_T, start, "right")
        labels_TC[first : np.searchsorted(seconds_T, end, "left"), class_index] = True
    return labels_TC


def sampled_25(num_rows: int) -> np.ndarray:
    """Return the rows that stand for the 25 frames of Charades: int64 `(25,)`, none if `T <= 25`.

    An approximation: the submission to the script of `charades.py` holds other frames.
    """
    if num_rows <= 25:
        return np.zeros(0, np.int64)
    return np.arange(1, num_rows, num_rows // 25)[:25]

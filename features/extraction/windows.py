"""From scores of overlapping windows to one score vector per frame."""

import numpy as np


def average_windows(scores_STK: np.ndarray, window_stride: int, num_frames: int) -> np.ndarray:
    """Return the mean, for every frame, of what the windows that show it say of it.

    Where a window ends after the video, its last frames are repetitions: they say nothing.

    # 5 frames, windows of 4 at 0 and 2: frames 0 1 by the first, 2 3 by both, 4 by the second

    Args:
        scores_STK: Scores of the frames `s * window_stride + t` in window `s`.
        window_stride: Frames from the start of a window to that of the next.
        num_frames: Frames of the video, each of them in a window.

    Returns:
        float32 `(num_frames, K)`.
    """
    sums_NK = np.zeros((num_frames, scores_STK.shape[2]), np.float32)
    counts_N = np.zeros((num_frames, 1), np.float32)
    for s, scores_TK in enumerate(scores_STK):
        first = s * window_stride
        shown = scores_TK[: max(num_frames - first, 0)]
        sums_NK[first : first + len(shown)] += shown
        counts_N[first : first + len(shown)] += 1
    assert counts_N.all()
    return sums_NK / counts_N

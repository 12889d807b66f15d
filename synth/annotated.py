"""Windows of annotated, untrimmed videos: several classes may be present on one frame.

The labels are read when the plan is drawn: a frame belongs to a segment when its presentation time
lies in it, `start <= time < end`. The plan row carries them as runs of sampled frames.
"""

from collections.abc import Sequence

import numpy as np

from .labels import LabelTrack, no_weights

Runs = Sequence[tuple[int, int, int]]


def frames_of_segments(
    times_N: np.ndarray, class_ids: np.ndarray, start_seconds: np.ndarray, end_seconds: np.ndarray
) -> np.ndarray:
    """Return the frames of each segment, int64 `(n, 3)`: class, first and end, half-open.

    Args:
        times_N: Presentation time of every frame in seconds, ascending.
        class_ids, start_seconds, end_seconds: `(n,)` each; segments without a frame are left out.

    # times 0 .1 .2 .3, segment [.1, .3): frames 1 2
    """
    first = np.searchsorted(times_N, start_seconds, side="left")
    end = np.searchsorted(times_N, end_seconds, side="left")
    found = np.stack([class_ids, first, end], axis=1).astype(np.int64)
    return found[first < end]


def runs_of_window(segments: np.ndarray, start_frame: int, stride: int, num_frames: int) -> Runs:
    """Return what a window of sampled frames shows of each segment: `[class, first, last]`.

    Frames of the window are counted from 1; segments that it does not show are left out.

    # frames 10 12 14 16, segment [11, 15): sampled frames 2 and 3
    """
    first = np.maximum(-(-(segments[:, 1] - start_frame) // stride), 0)
    end = np.minimum(-(-(segments[:, 2] - start_frame) // stride), num_frames)
    shown = np.flatnonzero(first < end)
    runs = {(int(segments[i, 0]), int(first[i]) + 1, int(end[i])) for i in shown}
    return sorted(runs)


def annotate_labels(runs: Runs, num_frames: int) -> LabelTrack:
    """Label every frame of each run with its class, weight 1; classes may share frames.

    Raises:
        ValueError: A run outside of the clip, a negative class, or too many classes.
    """
    for class_id, first, last in runs:
        if class_id < 0 or not 1 <= first <= last <= num_frames:
            raise ValueError(
                f"runs must be [class_id >= 0, first, last] within 1..{num_frames}, got "
                f"{[class_id, first, last]}"
            )
    ids = np.unique(np.array([run[0] for run in runs], np.int64))
    weights_CT = no_weights(len(ids), num_frames)
    for class_id, first, last in runs:
        weights_CT[np.searchsorted(ids, class_id), first - 1 : last] = 1.0
    return LabelTrack(ids, weights_CT, exclusive=False)

"""Sparse soft labels per frame.

Source: SSDet (Kahatapitiya et al., AAAI 2023), "Frame-level Pseudo Labels".
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-6
MOST_WEIGHTS = 2**20  # of a clip, classes x frames: as JSON they are less than any reader's bound


@dataclass(frozen=True, eq=False)
class LabelTrack:
    """Soft labels of a clip; what the weights leave over is background.

    Attributes:
        class_ids: `(m,)` int64, unique and ascending.
        weights_CT: `(m, T)` float64 in [0, 1]; columns of exclusive labels add up to at most 1.
        exclusive: Whether the classes share each frame; if not, any number may be present on it.
    """

    class_ids: np.ndarray
    weights_CT: np.ndarray
    exclusive: bool = True

    def __post_init__(self) -> None:
        ids, weights_CT = self.class_ids, self.weights_CT
        if ids.ndim != 1 or weights_CT.ndim != 2 or len(ids) != len(weights_CT):
            raise ValueError(
                f"a label track needs ids (m,) and weights (m, T), got {ids.shape} and "
                f"{weights_CT.shape}"
            )
        if np.any(np.diff(ids) <= 0):
            raise ValueError(f"class ids must be unique and ascending, got {ids.tolist()}")
        if not weights_CT.size:
            return
        largest = weights_CT.sum(axis=0).max() if self.exclusive else weights_CT.max()
        if not (weights_CT.min() >= -TOLERANCE and largest <= 1 + TOLERANCE):  # NaN fails too
            rule = " and add up to at most 1 per frame" if self.exclusive else ""
            raise ValueError(f"label weights must lie in [0, 1]{rule}")

    @property
    def num_frames(self) -> int:
        """Number of frames `T`."""
        return self.weights_CT.shape[1]

    @property
    def background_T(self) -> np.ndarray:
        """What is left over on each frame, `(T,)` in [0, 1]."""
        return np.clip(1.0 - self.weights_CT.sum(axis=0), 0.0, 1.0)

    def take(self, index_T: np.ndarray) -> "LabelTrack":
        """Return the track whose frame `t` is this track's frame `index_T[t]`."""
        return LabelTrack(self.class_ids, self.weights_CT[:, index_T], self.exclusive)

    def scale(self, factor_T: np.ndarray) -> "LabelTrack":
        """Return the track with the weights of frame `t` multiplied by `factor_T[t]`."""
        return LabelTrack(self.class_ids, self.weights_CT * factor_T, self.exclusive)


def constant_track(label_id: int | None, num_frames: int) -> LabelTrack:
    """Label every frame of an untouched clip with its video's class, weight 1.

    Source: SSDet, "Frame-level Pseudo Labels". A clip without a label (None) is all background.
    """
    ids = np.array([] if label_id is None else [label_id], np.int64)
    return LabelTrack(ids, no_weights(len(ids), num_frames) + 1.0)


def no_weights(num_classes: int, num_frames: int) -> np.ndarray:
    """Return zeros `(num_classes, num_frames)` float64, to be filled.

    Raises:
        ValueError: More than `MOST_WEIGHTS`.
    """
    if num_classes * num_frames > MOST_WEIGHTS:
        raise ValueError(
            f"the labels of a clip must be at most {MOST_WEIGHTS} weights, got {num_classes} "
            f"classes x {num_frames} frames"
        )
    return np.zeros((num_classes, num_frames))


def add_tracks(*tracks: LabelTrack) -> LabelTrack:
    """Add tracks of equal length; weights of one class add up in one row."""
    ids = np.unique(np.concatenate([track.class_ids for track in tracks]))
    weights_CT = no_weights(len(ids), tracks[0].num_frames)
    for track in tracks:
        weights_CT[np.searchsorted(ids, track.class_ids)] += track.weights_CT
    return LabelTrack(ids, weights_CT, all(track.exclusive for track in tracks))

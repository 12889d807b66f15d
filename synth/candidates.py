"""The videos that a plan may use, and how a row draws other videos and places in them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

Partners = Literal["other", "other_class", "same_class"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The videos that a plan may use, as columns of equal length.

    Attributes:
        video_ids: str.
        label_ids: Class ids; -1 for a video without a label.
        first_frames, end_frames: Half-open range of presentation frames that may be shown.
        heights, widths: Pixels, after rotation.
        segments: Of annotated videos, by position: int64 `(n, 3)` of class id, first and end
            presentation frame, half-open.
    """

    video_ids: np.ndarray
    label_ids: np.ndarray
    first_frames: np.ndarray
    end_frames: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    segments: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video_ids)

    @cached_property
    def by_class(self) -> np.ndarray:
        """Positions of the videos, ordered by class."""
        return np.argsort(self.label_ids, kind="stable")

    @cached_property
    def _sorted_labels(self) -> np.ndarray:
        return self.label_ids[self.by_class]

    def class_range(self, video: int) -> tuple[int, int]:
        """Return where the class of a video lies in `by_class`, half-open."""
        label_id = self.label_ids[video]
        first, end = (
            np.searchsorted(self._sorted_labels, label_id, side) for side in ("left", "right")
        )
        return int(first), int(end)

    @cached_property
    def class_sizes(self) -> np.ndarray:
        """How many videos have the class of each video, itself included."""
        _, inverse, counts = np.unique(self.label_ids, return_inverse=True, return_counts=True)
        return counts[inverse]

    @cached_property
    def with_classmates(self) -> np.ndarray:
        """Positions of the videos that are not alone in their class."""
        return np.flatnonzero(self.class_sizes > 1)

    def num_frames(self, video: int) -> int:
        """Frames of a video that may be shown."""
        return int(self.end_frames[video] - self.first_frames[video])

    def fits(self, video: int, other: int, partners: Partners) -> bool:
        """Return whether `other` may stand beside `video`."""
        if partners == "other":
            return other != video
        same = self.label_ids[video] == self.label_ids[other]
        return bool(same) == (partners == "same_class") and other != video

    def draw_start(self, rng: np.random.Generator, video: int, span: int) -> int:
        """Draw where a run of `span` frames starts."""
        return int(rng.integers(self.first_frames[video], self.end_frames[video] - span + 1))

    def draw_other(
        self, rng: np.random.Generator, shown: Collection[int], partners: Partners
    ) -> int:
        """Draw one of all videos beside those `shown`; the class rule refers to the first of them.

        The caller has made sure that there is one.
        """
        first_shown = next(iter(shown))
        if partners == "other":
            video = int(rng.integers(len(self) - len(shown)))
            for taken in sorted(shown):
                video += video >= taken
            return video
        first, end = self.class_range(first_shown)
        if partners == "other_class":
            place = int(rng.integers(len(self) - (end - first)))
            return int(self.by_class[place + (end - first) * (place >= first)])
        place = first + int(rng.integers(end - first - 1))
        own = first + int(np.flatnonzero(self.by_class[first:end] == first_shown)[0])
        return int(self.by_class[place + (place >= own)])

"""Cut what a network sees out of a frame: resize once, then one crop, three, or five."""

from dataclasses import dataclass

import numpy as np

from synth import View, resize, resized_size

from ..store.spec import CROPS


@dataclass(frozen=True, slots=True)
class Framing:
    """How frames become pictures that enter a network.

    Mirror images are not cut here: whoever encodes crops "ten" mirrors the five that are.

    Attributes:
        height: Rows of pixels of a crop.
        width: Columns of pixels of a crop.
        short_side: Shorter side of a frame after resizing; more only where a crop would not fit.
        crop: "centre", "three" or "ten" (`FeatureSpec`).
    """

    height: int
    width: int
    short_side: int
    crop: str = "centre"

    @property
    def num_pictures(self) -> int:
        """Return how many crops are cut from a frame."""
        return len(CROPS[self.crop])

    def views(self, height: int, width: int) -> tuple[View, ...]:
        """Return the crops of frames of `height` x `width`, in the order of `CROPS`.

        # 240 x 320 to 112 x 112 at short_side 112: resized to 112 x 149; "centre" x = 18, "three"
        # x = 0 18 37, along the longer side
        """
        short_side = self.short_side
        resized = resized_size(height, width, short_side)
        while resized[0] < self.height or resized[1] < self.width:
            short_side += 1
            resized = resized_size(height, width, short_side)
        below, beside = resized[0] - self.height, resized[1] - self.width
        centre = (below // 2, beside // 2)
        if self.crop == "centre":
            places = [centre]
        elif self.crop == "three":
            is_wide = resized[1] >= resized[0]
            ends = (
                [(centre[0], 0), (centre[0], beside)]
                if is_wide
                else [(0, centre[1]), (below, centre[1])]
            )
            places = [ends[0], centre, ends[1]]
        else:
            places = [(0, 0), (0, beside), (below, 0), (below, beside), centre]
        return tuple(
            View(short_side=short_side, x=x, y=y, width=self.width, height=self.height)
            for y, x in places
        )


def cut_pictures(frame_HWC: np.ndarray, views: tuple[View, ...]) -> list[np.ndarray]:
    """Return what `views` of one resize show of a uint8 frame, as parts of the resized frame."""
    size = resized_size(frame_HWC.shape[0], frame_HWC.shape[1], views[0].short_side)
    resized = resize(frame_HWC, *size)
    return [resized[v.y : v.y + v.height, v.x : v.x + v.width] for v in views]

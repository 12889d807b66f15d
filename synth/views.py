"""The spatial view of a source: resize the shorter side, crop, then flip - constant over a clip."""

from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(1)  # one thread per decoder and worker; parallelism is over clips
cv2.ipp.setUseIPP(False)  # the same bytes on every x86 processor


LARGEST_SIDE = 4096  # pixels; a typo must not fill the memory


@dataclass(frozen=True, slots=True)
class View:
    """Resize so that the shorter side is `short_side`, crop `width` x `height` at `x`, `y`, flip.

    All numbers are pixels of the resized frame; `flip` mirrors left and right after the crop.
    """

    short_side: int
    x: int
    y: int
    width: int
    height: int
    flip: bool = False

    def __post_init__(self) -> None:
        if self.short_side > LARGEST_SIDE:
            raise ValueError(f"short_side must be at most {LARGEST_SIDE}, got {self.short_side}")
        if min(self.short_side, self.width, self.height) < 1 or min(self.x, self.y) < 0:
            raise ValueError(f"a view needs positive sizes and an origin >= 0, got {self}")


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after the shorter side became `short_side`; the longer is rounded.

    # 240 x 320 to 256: 256 x 341 (320 * 256 / 240 = 341.3)
    """
    shorter = min(height, width)
    return (
        (2 * height * short_side + shorter) // (2 * shorter),
        (2 * width * short_side + shorter) // (2 * shorter),
    )


def check_crop(view: View, height: int, width: int) -> None:
    """Raise ValueError unless the crop lies inside the resized frame of `height` x `width`."""
    if view.x + view.width > width or view.y + view.height > height:
        raise ValueError(
            f"the crop must lie inside the resized frame of {width}x{height}, got {view}"
        )


class Scratch:
    """Memory that successive resizes share: fresh pages would cost more than the arithmetic."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def frame(self, height: int, width: int) -> np.ndarray:
        """Return a uint8 frame `(height, width, 3)` whose content the next call may overwrite."""
        size = height * width * 3
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size].reshape(height, width, 3)


def resize(
    frame_HWC: np.ndarray, height: int, width: int, scratch: Scratch | None = None
) -> np.ndarray:
    """Resize one uint8 frame: bilinear, or area averaging when it shrinks to less than a half.

    Down to a half, bilinear sees every source pixel and costs far less. The result lies in
    `scratch` if that is given and the size changes.
    """
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    shrinks = 2 * height < frame_HWC.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = None if scratch is None else scratch.frame(height, width)
    return cv2.resize(frame_HWC, (width, height), dst=out, interpolation=method)


def apply_view(
    frame_HWC: np.ndarray,
    view: View,
    out: np.ndarray | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Return the `view` of one uint8 frame `(H, W, 3)` as `(view.height, view.width, 3)`.

    Args:
        frame_HWC: The frame; it is not modified.
        view: What to show of it.
        out: Array to write into; a new one if None.
        scratch: Memory for the resized frame; new memory if None.

    Raises:
        ValueError: The crop does not lie inside the resized frame.
    """
    height, width = resized_size(frame_HWC.shape[0], frame_HWC.shape[1], view.short_side)
    check_crop(view, height, width)
    if out is None:
        out = np.empty((view.height, view.width, 3), np.uint8)
    resized = resize(frame_HWC, height, width, scratch)
    crop = resized[view.y : view.y + view.height, view.x : view.x + view.width]
    if view.flip:
        cv2.flip(crop, 1, dst=out)
    else:
        np.copyto(out, crop)
    return out

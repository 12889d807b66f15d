"""Turn decoded frames into upright RGB pictures, bit for bit as decord does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: swap rows and columns, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which the stored picture is turned for display (0, 90, 180, 270).

        A mirrored picture is described as mirrored left to right after this rotation.
        """
        if self.transpose:
            return 90 if self.mirror_x != self.is_mirrored else 270
        return 180 if self.mirror_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether a mirror is needed besides the rotation."""
        return self.transpose ^ self.mirror_x ^ self.mirror_y

    def apply(self, frame_HWC: np.ndarray) -> np.ndarray:
        """Return a view of `frame_HWC` that is upright."""
        upright = frame_HWC.swapaxes(0, 1) if self.transpose else frame_HWC
        return upright[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read the display matrix that the container or the stream attached to a decoded frame.

    The matrix maps a stored pixel (x, y) to (a x + c y, b x + d y).

    Raises:
        ValueError: It is not one of the eight ways to put a picture on a page.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    large = max(abs(number) for number in (a, b, c, d))
    axes = tuple(round(2 * number / large) if large else 0 for number in (a, b, c, d))
    match axes:
        case ((2 | -2) as along_x, 0, 0, (2 | -2) as along_y):
            return Orientation(False, along_x < 0, along_y < 0)
        case (0, (2 | -2) as along_y, (2 | -2) as along_x, 0):
            return Orientation(True, along_x < 0, along_y < 0)
    raise ValueError(f"its display matrix ({a}, {b}, {c}, {d}) is no multiple of 90 degrees")


class RgbConverter:
    """Convert decoded frames of one stream to upright RGB; remembers the conversion's tables."""

    def __init__(self, orientation: Orientation) -> None:
        self.orientation = orientation
        self._reformatter = VideoReformatter()

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return (height, width) of `frame` after rotation."""
        if self.orientation.transpose:
            return frame.width, frame.height
        return frame.height, frame.width

    def write(self, frame: VideoFrame, out_HWC: np.ndarray) -> None:
        """Write `frame` into `out_HWC`, uint8 (height, width, 3) after rotation."""
        # One thread: starting a pool for each frame takes longer than the conversion.
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        picture_HWC = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        out_HWC[...] = self.orientation.apply(picture_HWC)

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """Return `frame` as a new upright picture, uint8 (height, width, 3)."""
        out_HWC = np.empty((*self.size(frame), 3), np.uint8)
        self.write(frame, out_HWC)
        return out_HWC

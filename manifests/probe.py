"""Probe one video file: what the sources table says about it, and which decoder may read it.

decord is fast at jumping but conceals damage, counts frames that an edit list hides, and takes
positions in the file for positions in time. So it is allowed only where a strict decode of the
whole file found nothing wrong, nothing of that kind is there, and decord showed the same pictures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import decord
import numpy as np
from av import VideoFrame

from .errors import VideoError
from .packets import PacketScan, scan_packets
from .records import SourceVideo
from .strict import open_video
from .upright import Orientation, RgbConverter, orientation_of

decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr what it also raises

# Containers in which decord's jumps were measured to land on the right frame.
DECORD_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")


def probe_video(
    path: str,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    check: Literal["decode", "packets"] = "decode",
) -> SourceVideo:
    """Describe a video file, or refuse it.

    Args:
        path: A local path or an fsspec URL.
        start_seconds, end_seconds: The part that is meant, half-open, from the container's start;
            None stands for the file's own start and end.
        check: "decode" decodes every frame once, strictly, so that damage anywhere is found here
            and decord may be used where it is right. "packets" decodes the first frame only; then
            PyAV reads the file, strictly.

    Returns:
        A row whose `video_id` is the file's stem, with `first_frame <= i < end_frame` the frames
        that present within the part that is meant.

    Raises:
        VideoError: The file is missing, empty, no video, cut short, damaged, or presents no frame
            within the part that is meant.
    """
    scan = scan_packets(path)
    if check == "decode":
        orientation, decoder = _decode_whole(scan)
    else:
        orientation, decoder = _first_orientation(scan), "pyav"
    first_frame, end_frame = frames_between(scan, start_seconds, end_seconds)
    width, height = scan.width, scan.height
    return SourceVideo(
        video_id=Path(path).stem,
        path=path,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        num_frames=len(scan),
        fps_num=scan.rate.numerator,
        fps_den=scan.rate.denominator,
        duration_seconds=scan.duration_seconds,
        width=height if orientation.transpose else width,
        height=width if orientation.transpose else height,
        rotation=orientation.rotation,
        codec=scan.codec,
        is_vfr=scan.is_vfr,
        num_bytes=scan.num_bytes,
        decoder=decoder,
        first_frame=first_frame,
        end_frame=end_frame,
    )


def frames_between(
    scan: PacketScan, start_seconds: float | None, end_seconds: float | None
) -> tuple[int, int]:
    """Return the half-open range of frames with `start_seconds <= t < end_seconds`.

    None stands for the file's own start or end.

    Raises:
        VideoError: No frame presents there.
    """
    bounds = (
        (-np.inf if start_seconds is None else start_seconds),
        (np.inf if end_seconds is None else end_seconds),
    )
    first_frame, end_frame = np.searchsorted(scan.times_N, bounds, side="left").tolist()
    if first_frame >= end_frame:
        raise VideoError(
            scan.path,
            f"presents no frame from {bounds[0]:g} s to {bounds[1]:g} s "
            f"(it has {scan.duration_seconds:.2f} s)",
        )
    return first_frame, end_frame


def _first_orientation(scan: PacketScan) -> Orientation:
    with open_video(scan.path) as (container, stream):
        for frame in container.decode(stream):
            return orientation_in(scan, frame)
    raise VideoError(scan.path, "presents no frame that can be decoded")


def orientation_in(scan: PacketScan, frame: VideoFrame) -> Orientation:
    """Return how the frames of a file become upright; VideoError if they cannot."""
    try:
        return orientation_of(frame)
    except ValueError as err:
        raise VideoError(scan.path, str(err)) from err


def _decode_whole(scan: PacketScan) -> tuple[Orientation, str]:
    """Decode every frame strictly; return how it becomes upright and the decoder to use."""
    may_decord = _decord_may_fit(scan)
    samples = _sample_indices(scan) if may_decord else []
    pictures: dict[int, np.ndarray] = {}
    orientation, converter = Orientation(), RgbConverter(Orientation())
    for index, frame in enumerate(checked_frames(scan)):
        if index == 0:
            orientation = orientation_in(scan, frame)
            converter = RgbConverter(orientation)
        if index in samples:
            pictures[index] = converter.convert(frame)
    same = may_decord and not orientation.is_mirrored and _decord_shows(scan, pictures)
    return orientation, "decord" if same else "pyav"


def checked_frames(scan: PacketScan) -> Iterator[VideoFrame]:
    """Decode a file strictly from its first byte, and compare every frame with its packet.

    Yields:
        The frames in presentation order, as they are stored (not upright).

    Raises:
        VideoError: The file is damaged, or its frames are not those of its packets.
    """
    count = 0
    with open_video(scan.path) as (container, stream):
        for frame in container.decode(stream):
            _check_frame(scan, frame, count)
            yield frame
            count += 1
    if count != len(scan):
        raise VideoError(
            scan.path, f"decodes to {count:,} frames, but its packets promise {len(scan):,}"
        )


def _check_frame(scan: PacketScan, frame: VideoFrame, index: int) -> None:
    if frame.is_corrupt:
        raise VideoError(scan.path, f"frame {index:,} is damaged")
    if (frame.width, frame.height) != (scan.width, scan.height):
        raise VideoError(
            scan.path,
            f"frame {index:,} is {frame.width}x{frame.height} in a video of "
            f"{scan.width}x{scan.height}",
        )
    if scan.has_pts and (index >= len(scan) or frame.pts != scan.pts_N[index]):
        raise VideoError(
            scan.path, f"frame {index:,} presents at another time than its packet says"
        )


def _decord_may_fit(scan: PacketScan) -> bool:
    """Tell whether nothing is there that is known to mislead decord.

    A header that claims more frames than there are makes it spin for ever, so it is not even
    opened on such a file.
    """
    return (
        scan.format_name in DECORD_FORMATS
        and scan.has_pts
        and not scan.has_edit_list
        and scan.starts_plain
        and scan.header_frames in (0, len(scan))
        and "://" not in scan.path
    )


def _sample_indices(scan: PacketScan) -> list[int]:
    """Return frames that show whether decord has the colours, the rotation and the jumps right."""
    last_start = int(np.flatnonzero(scan.starts_N)[-1])
    last = len(scan) - 1
    return sorted({0, last_start, min(last_start + 5, last), min(1, last)})


def _decord_shows(scan: PacketScan, pictures: dict[int, np.ndarray]) -> bool:
    """Tell whether decord opens the file, counts its frames right and shows the same pictures."""
    try:
        reader = decord.VideoReader(scan.path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(scan):
            return False
        order = sorted(pictures, reverse=True)  # backwards: each needs a jump
        return all(np.array_equal(reader[index].asnumpy(), pictures[index]) for index in order)
    except (decord.DECORDError, RuntimeError):
        return False  # PyAV has just read all of it

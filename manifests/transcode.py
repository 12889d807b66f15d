"""Transcode source videos for reading short windows: short side 256, a keyframe every 12 frames.

Frame i of the new file is frame i of the old one (or of the part that is meant) and presents at
the same time, also at a variable rate; the new file is scanned before it gets its name. Times count
from the container's start, as in the old file; of a part, from its first frame. The picture becomes
upright, sound is left out, matrix and range of the colours stay as they are.

A new file says in its own `comment` what it was made from (sha256) and how, so that it is known
again; the same file, part and settings give the same bytes.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, cast

import av
import numpy as np
from av import AudioFrame, VideoFrame
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from .errors import UsageError, VideoError
from .packets import PacketScan, scan_packets
from .probe import checked_frames, frames_between, orientation_in, probe_video
from .readers import Entry
from .records import SourceVideo
from .storage import atomic_writer
from .strict import first_line, open_bytes, open_video
from .upright import Orientation

SHORT_SIDE = 256
KEYFRAME_INTERVAL = 12
# `fastdecode` (no CABAC, no deblocking) doubles the windows per second for 8 % more bytes, and
# B-frames, which readers leave out where nobody asks for them, give another third (NOTES.md).
# libx264's macroblock tree with B-frames gives other bytes now and then, also on one thread.
OPTIONS = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "18",
    "threads": "1",
    "x264-params": f"keyint={KEYFRAME_INTERVAL}:min-keyint={KEYFRAME_INTERVAL}:scenecut=0:"
    "open-gop=0:bframes=3:b-adapt=0:b-pyramid=none:mbtree=0",
}
# The same pixels on every processor.
RESIZE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
MARK = "seamline transcode"
UNSPECIFIED = 2  # of matrix, primaries and transfer
RGB = 0  # as a matrix


@dataclass(frozen=True)
class Transcode:
    """What is to be made of one file.

    Attributes:
        scan: The file.
        target: Path of the new file.
        first_frame, end_frame: Presentation frames of `scan` that it gets, half-open.
        ticks_N: Their new presentation times, int64 ticks of `scan.time_base`.
        comment: What the new file says of itself.
    """

    scan: PacketScan
    target: str
    first_frame: int
    end_frame: int
    ticks_N: np.ndarray
    comment: str


def plan_transcode(
    path: str, target: str, start_seconds: float | None = None, end_seconds: float | None = None
) -> Transcode:
    """Scan a file and say what is to be made of it.

    Args:
        path: A local path or an fsspec URL.
        target: Local path of the new file, an mp4.
        start_seconds, end_seconds: The part that is meant, as for `probe_video`.

    Raises:
        VideoError: The file cannot be read, or presents no frame in that part.
    """
    scan = scan_packets(path)
    first_frame, end_frame = frames_between(scan, start_seconds, end_seconds)
    ticks_N = scan.pts_N[first_frame:end_frame] - scan.pts_N[first_frame]
    if start_seconds is None and end_seconds is None:
        ticks_N = ticks_N + round(Fraction(float(scan.times_N[0])) / scan.time_base)
    made_from = {
        "sha256": _sha256(path),
        "frames": [first_frame, end_frame],
        "first_tick": int(ticks_N[0]),
        "short_side": SHORT_SIDE,
        "x264": OPTIONS,
    }
    comment = f"{MARK} {json.dumps(made_from, sort_keys=True)}"
    return Transcode(scan, target, first_frame, end_frame, ticks_N, comment)


def transcode(planned: Transcode, check: Literal["decode", "packets"] = "decode") -> SourceVideo:
    """Make the new file unless it is there, undamaged, and return its probe.

    Args:
        planned: What is to be made.
        check: How closely the new file is looked at (`probe_video`); of the old one, every frame
            that is needed is decoded strictly.

    Raises:
        VideoError: The old file is damaged, its frames or their times would not be kept, or a file
            that was not made here is in the way.
        OSError: The new file cannot be written: the disk is full, or the like.
    """
    target = planned.target
    if os.path.lexists(target):
        comment = _comment_of(target)
        if not comment.startswith(MARK):
            raise VideoError(planned.scan.path, f"a file that is not ours is in the way, {target}")
        if comment == planned.comment:
            with suppress(VideoError):  # damaged since; it is made again
                return probe_video(target, check=check)
    with atomic_writer(target) as file:
        try:
            _encode(planned, file)
        except av.FFmpegError as err:
            raise VideoError(planned.scan.path, f"cannot be encoded ({first_line(err)})") from err
        file.flush()
        _check_kept(planned, scan_packets(file.name))
    return probe_video(target, check=check)


def new_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of the new pictures: even, rounded down, never enlarged.

    # 720 x 1280: 256 x 454 (256 * 1280 / 720 = 455.1); 240 x 321: 240 x 320
    """
    shorter = min(height, width)
    scaled = min(shorter, SHORT_SIDE)
    return max(2, height * scaled // shorter // 2 * 2), max(2, width * scaled // shorter // 2 * 2)


def choose_targets(entries: Sequence[Entry], root: Path, folder: Path | None) -> list[str]:
    """Return where the transcoded files go: named by `video_id`, in the videos' own folders.

    Raises:
        UsageError: `folder` is a file, or lies where the next listing would find the new files.
    """
    if folder is None:
        return []
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--transcode must name a folder, but {str(folder)!r} is a file")
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root)):
        raise UsageError(
            f"--transcode must name a folder outside of the videos', {str(root)!r}, got "
            f"{str(folder)!r}"
        )
    new_root, old_root = os.path.abspath(folder), os.path.abspath(root)
    targets = []
    for entry in entries:
        beside = os.path.dirname(os.path.relpath(entry.path, old_root))
        name = os.path.basename(entry.video_id)  # an id may be a path where names repeat
        targets.append(os.path.join(new_root, beside, f"{name}.mp4"))
    for target, count in Counter(targets).items():
        if count > 1:
            raise UsageError(f"two videos must not be transcoded to one file, {target!r}")
    return targets


@contextmanager
def swept(folder: Path | None) -> Iterator[None]:
    """Remove what killed children left half written in `folder`, before and after."""
    try:
        _sweep(folder)
        yield
    finally:
        _sweep(folder)


def _sweep(folder: Path | None) -> None:
    for leftover in () if folder is None else folder.rglob(".*.mp4.*.part"):
        leftover.unlink(missing_ok=True)


def _sha256(path: str) -> str:
    try:
        with open_bytes(path) as file:
            return hashlib.file_digest(cast(BufferedIOBase, file), "sha256").hexdigest()
    except OSError as err:
        raise VideoError(path, f"cannot be read ({first_line(err)})") from err


def _comment_of(path: str) -> str:
    """Return what a file says of itself; nothing if it is no video."""
    try:
        with open_video(path) as (container, _):
            return container.metadata.get("comment", "")
    except VideoError:
        return ""


def _encode(planned: Transcode, file: BinaryIO) -> None:
    scan = planned.scan
    # Else the times of edits would be rounded to milliseconds.
    options = {"movie_timescale": str(scan.time_base.denominator)}
    with av.open(file, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = planned.comment
        stream: VideoStream | None = None
        for tick, frame in zip(planned.ticks_N.tolist(), _new_frames(planned), strict=True):
            if stream is None:
                stream = _add_stream(container, scan, frame)
                if tick > 0:
                    _hold_zero(container)
            frame.pts, frame.time_base = tick, scan.time_base
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode())


def _add_stream(container: OutputContainer, scan: PacketScan, frame: VideoFrame) -> VideoStream:
    stream = container.add_stream("libx264", rate=scan.rate, options=dict(OPTIONS))
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
    context: VideoCodecContext = stream.codec_context
    context.time_base = scan.time_base
    context.color_range, context.colorspace = frame.color_range, frame.colorspace
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    return stream


def _hold_zero(container: OutputContainer) -> None:
    """Put a moment of silence at time 0: else a picture that starts later would move there."""
    stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
    silence = AudioFrame.from_ndarray(np.zeros((1, 1), np.int16), format="s16", layout="mono")
    silence.sample_rate, silence.pts, silence.time_base = 8000, 0, Fraction(1, 8000)
    container.mux(stream.encode(silence))
    container.mux(stream.encode())


def _new_frames(planned: Transcode) -> Iterator[VideoFrame]:
    """Decode the wanted frames strictly; yield them resized, upright and 4:2:0."""
    scan, reformatter = planned.scan, VideoReformatter()
    height, width = new_size(scan.height, scan.width)
    orientation: Orientation | None = None
    last = None if planned.end_frame == len(scan) else planned.end_frame  # None: to the very end
    for frame in islice(checked_frames(scan), planned.first_frame, last):
        if orientation is None:
            orientation = orientation_in(scan, frame)
        resized = reformatter.reformat(
            frame,
            width,
            height,
            "yuv420p",
            dst_color_range=frame.color_range,
            interpolation=RESIZE,
            threads=1,
        )
        yield _turned(resized, orientation)


def _turned(frame: VideoFrame, orientation: Orientation) -> VideoFrame:
    """Return a copy of a 4:2:0 frame that is upright."""
    size = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
    upright = VideoFrame(*size, "yuv420p")
    for plane, new_plane in zip(frame.planes, upright.planes, strict=True):
        rows_HW = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        new_HW = np.frombuffer(memoryview(new_plane), np.uint8).reshape(-1, new_plane.line_size)
        picture_HW = rows_HW[: plane.height, : plane.width]
        new_HW[: new_plane.height, : new_plane.width] = orientation.apply(picture_HW)
    upright.color_range = frame.color_range
    upright.colorspace = UNSPECIFIED if frame.colorspace == RGB else frame.colorspace
    upright.color_primaries, upright.color_trc = frame.color_primaries, frame.color_trc
    return upright


def _check_kept(planned: Transcode, made: PacketScan) -> None:
    """Raise VideoError unless the new file presents as many frames, at the times that are meant."""
    path, time_base = planned.scan.path, planned.scan.time_base
    if len(made) != len(planned.ticks_N):
        raise VideoError(
            path, f"transcodes to {len(made):,} frames, not to its {len(planned.ticks_N):,}"
        )
    times_N = planned.ticks_N * time_base.numerator / time_base.denominator
    moved_N = np.abs(made.times_N - times_N)
    if moved_N.max() > 0:
        index = int(moved_N.argmax())
        raise VideoError(
            path,
            f"transcodes to frames at other times, frame {index:,} at {made.times_N[index]:.6f} s "
            f"instead of {times_N[index]:.6f} s",
        )

"""Scan the packets of a video file: which frames present, when, and where decoding may start.

Nothing is decoded. Times count from the container's start: t = 0 is where the earliest stream of
the file begins, so that sound and annotations keep their distance to the picture.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from .containers import declared_bytes
from .errors import VideoError
from .strict import open_bytes, open_video

# Codecs whose leading pictures of an open group are never references: they can be left out.
PLAIN_B_FRAMES = frozenset({"mpeg1video", "mpeg2video", "mpeg4"})
INT32_MAX = 2**31 - 1
SLACK_SECONDS = 1.0  # by which a header's duration may exceed the packets'


@dataclass(frozen=True)
class PacketScan:
    """The frames of one file that really present, in presentation order.

    Attributes:
        path: The file.
        format_name: FFmpeg's name of the container.
        codec: FFmpeg's name of the codec.
        width, height: Coded size in pixels, before rotation.
        num_bytes: Size of the file.
        time_base: Seconds per tick of `pts_N`.
        pts_N: Presentation times, int64 ticks, strictly increasing; without `has_pts` the numbers
            0, 1, 2, ... in the order in which the decoder returns the frames.
        times_N: Presentation times, float64 seconds from the container's start.
        starts_N: Frames at which decoding may start and be exact from there on (bool).
        last_duration_seconds: How long the last frame presents.
        rate: Average frames per second; numerator and denominator fit int32.
        header_frames: The number of frames that the header claims, 0 if it claims none.
        has_pts: Every frame has a presentation time of its own. False for AVI with B-frames, which
            cannot store any: its times are frame number / rate.
        has_edit_list: An edit list hides frames that the file holds.
        is_vfr: The times do not lie on an even grid (to within one tick).
        starts_plain: Every keyframe is in `starts_N` and no frame stored after it presents before
            it, so that positions in the file and positions in time agree at each.
    """

    path: str
    format_name: str
    codec: str
    width: int
    height: int
    num_bytes: int
    time_base: Fraction
    pts_N: np.ndarray
    times_N: np.ndarray
    starts_N: np.ndarray
    last_duration_seconds: float
    rate: Fraction
    header_frames: int
    has_pts: bool
    has_edit_list: bool
    is_vfr: bool
    starts_plain: bool

    def __len__(self) -> int:
        return len(self.pts_N)

    @property
    def duration_seconds(self) -> float:
        """When the last frame stops presenting, from the container's start."""
        return float(self.times_N[-1]) + self.last_duration_seconds


@dataclass
class _Packets:
    """What the scan keeps of the video packets, in stored order."""

    pts: list[int | None]
    durations: list[int]
    keys: list[bool]
    starts: list[bool]
    num_hidden: int
    num_stored: int
    reach_seconds: Fraction


def scan_packets(path: str) -> PacketScan:
    """Read every packet of a video file once, without decoding.

    Args:
        path: A local path or an fsspec URL.

    Raises:
        VideoError: The file is missing, empty, no video, cut short, or presents no frame.
    """
    num_bytes, declared = _sizes(path)
    with open_video(path) as (container, stream):
        packets = _read_packets(container, stream, path)
        _check_complete(container, stream, packets, declared, num_bytes, path)
        if not packets.pts:
            raise VideoError(path, "presents no frame")
        return _arrange(container, stream, packets, num_bytes, path)


def _sizes(path: str) -> tuple[int, int | None]:
    """Return the bytes that a file has and those that it declares (None: it does not say)."""
    if os.path.isdir(path):
        raise VideoError(path, "is a folder, not a video file")
    with open_bytes(path) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        if num_bytes == 0:
            raise VideoError(path, "is empty (0 bytes)")
        return num_bytes, declared_bytes(file)


def _read_packets(container: InputContainer, stream: VideoStream, path: str) -> _Packets:
    found = _Packets([], [], [], [], 0, 0, Fraction(0))
    index, is_h264 = stream.index, stream.codec_context.name == "h264"
    is_vp8 = stream.codec_context.name == "vp8"
    length_size = _nal_length_size(stream)
    ends: dict[Fraction, int] = {}
    for packet in container.demux():
        if not packet.size:
            continue  # the end of a stream, or "show the last frame again"
        at = packet.dts if packet.pts is None else packet.pts
        if at is not None and packet.time_base is not None:
            ends[packet.time_base] = max(ends.get(packet.time_base, 0), at + (packet.duration or 0))
        if packet.stream_index != index or (is_vp8 and not memoryview(packet)[0] >> 4 & 1):
            continue  # VP8 marks pictures that only others refer to and nobody sees
        found.num_stored += 1
        if packet.is_corrupt:
            raise VideoError(path, f"is damaged or cut short at its packet {found.num_stored}")
        if packet.is_discard:
            found.num_hidden += 1
            continue
        is_key = packet.is_keyframe
        found.pts.append(packet.pts)
        found.durations.append(packet.duration or 0)
        found.keys.append(is_key)
        found.starts.append(is_key and (not is_h264 or _has_idr(bytes(packet), length_size)))
    found.reach_seconds = max((end * base for base, end in ends.items()), default=Fraction(0))
    return found


def _check_complete(
    container: InputContainer,
    stream: VideoStream,
    packets: _Packets,
    declared: int | None,
    num_bytes: int,
    path: str,
) -> None:
    """Raise VideoError if the file was cut short."""
    # Writers of AVI get the outer size wrong; there frames have to be missing as well.
    may_lack = container.format.name != "avi" or packets.num_stored < stream.frames
    if may_lack and declared is not None and declared > num_bytes:
        raise VideoError(path, f"is cut short: {num_bytes:,} of {declared:,} bytes")
    if container.format.name in ("matroska,webm", "flv") and container.duration:
        reach, promised = float(packets.reach_seconds), container.duration / av.time_base
        if reach + SLACK_SECONDS < promised:
            raise VideoError(path, f"is cut short: it ends at {reach:.2f} s of {promised:.2f} s")


def _arrange(
    container: InputContainer, stream: VideoStream, packets: _Packets, num_bytes: int, path: str
) -> PacketScan:
    """Bring the packets into presentation order."""
    context, time_base = stream.codec_context, cast(Fraction, stream.time_base)
    format_name = container.format.name
    has_pts = None not in packets.pts and len(set(packets.pts)) == len(packets.pts)
    if format_name == "avi" and context.has_b_frames:
        has_pts = False  # AVI stores no times; FFmpeg's guesses are wrong once frames are reordered
    if has_pts:
        pts_N = np.array(packets.pts, np.int64)
        order_N = np.argsort(pts_N, kind="stable")
        pts_N = pts_N[order_N]
        rate, is_vfr = _rate(pts_N, time_base, stream)
        times_N = _times(pts_N, time_base, _origin(container, pts_N, time_base))
    else:
        order_N = np.arange(len(packets.pts))
        rate, is_vfr = _header_rate(stream, path), False
        pts_N, times_N = order_N.astype(np.int64), order_N * rate.denominator / rate.numerator
    in_place_N = order_N == np.arange(len(order_N))  # nothing stored later presents earlier
    keys_N = np.array(packets.keys)[order_N]
    starts_N = np.array(packets.starts)[order_N]
    if context.name not in PLAIN_B_FRAMES:
        starts_N &= in_place_N
    if not has_pts:
        starts_N = order_N == 0
    last_duration = packets.durations[order_N[-1]] * time_base if has_pts else 1 / rate
    return PacketScan(
        path=path,
        format_name=format_name,
        codec=context.name,
        width=context.width,
        height=context.height,
        num_bytes=num_bytes,
        time_base=time_base if has_pts else 1 / rate,
        pts_N=pts_N,
        times_N=times_N,
        starts_N=starts_N,
        last_duration_seconds=float(last_duration or 1 / rate),
        rate=rate,
        header_frames=stream.frames,
        has_pts=has_pts,
        has_edit_list=packets.num_hidden > 0
        or (format_name.startswith("mov") and 0 < stream.frames != packets.num_stored),
        is_vfr=is_vfr,
        starts_plain=bool(np.all((starts_N & in_place_N)[keys_N])),
    )


def _origin(container: InputContainer, pts_N: np.ndarray, time_base: Fraction) -> Fraction:
    """Return the container's start, exactly.

    FFmpeg rounds it to microseconds, which would put the first frame at -0.3 us; so the start of
    the stream that it came from is used instead.
    """
    first = int(pts_N[0]) * time_base
    if container.start_time is None:
        return first
    rounded = Fraction(container.start_time, av.time_base)
    exact = [first] + [
        stream.start_time * stream.time_base
        for stream in container.streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    nearest = min(exact, key=lambda start: abs(start - rounded))
    return nearest if abs(nearest - rounded) <= Fraction(2, av.time_base) else rounded


def _times(pts_N: np.ndarray, time_base: Fraction, origin: Fraction) -> np.ndarray:
    """Return seconds from `origin`, each rounded once: frame 250 at 25/s is 10.0 exactly."""
    ticks = time_base.numerator * origin.denominator
    shift = origin.numerator * time_base.denominator
    return (pts_N * ticks - shift) / (time_base.denominator * origin.denominator)


def _rate(pts_N: np.ndarray, time_base: Fraction, stream: VideoStream) -> tuple[Fraction, bool]:
    """Return the average rate, and whether the times leave an even grid by more than a tick."""
    steps = np.diff(pts_N)
    if not len(steps):
        return _int32(_header_rate(stream, "", Fraction(1))), False
    if steps.min() == steps.max():
        return _int32(1 / (int(steps[0]) * time_base)), False
    for rate in (stream.base_rate, stream.average_rate, stream.guessed_rate):
        if rate:
            # mkv rounds 1/30 s to milliseconds: 0 33 67 100 133 ...
            grid = np.arange(len(pts_N)) * float(1 / (rate * time_base))
            if np.abs(pts_N - pts_N[0] - grid).max() <= 1:
                return _int32(Fraction(rate)), False
    span = int(pts_N[-1] - pts_N[0]) * time_base
    return _int32(len(steps) / span), True


def _header_rate(stream: VideoStream, path: str, default: Fraction | None = None) -> Fraction:
    rate = stream.average_rate or stream.base_rate or stream.guessed_rate or default
    if not rate:
        raise VideoError(path, "has neither presentation times nor a frame rate")
    return _int32(Fraction(rate))


def _int32(rate: Fraction) -> Fraction:
    limit = INT32_MAX
    while max(rate.numerator, rate.denominator) > INT32_MAX:
        limit //= 2
        rate = rate.limit_denominator(limit)
    return rate


def _nal_length_size(stream: VideoStream) -> int | None:
    """Return the bytes of the length before each H.264 unit; None for start codes (Annex B)."""
    extradata = stream.codec_context.extradata
    return (
        (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else None
    )


def _has_idr(packet: bytes, length_size: int | None) -> bool:
    """Tell whether an H.264 packet holds an IDR picture, behind which nothing reaches back.

    Other keyframes (open groups, intra refresh) do not give exact pictures when decoding starts
    there.
    """
    if length_size is None:
        units = packet.split(b"\x00\x00\x01")[1:]
        return any(unit and unit[0] & 31 == 5 for unit in units)
    at = 0
    while at + length_size < len(packet):
        if packet[at + length_size] & 31 == 5:
            return True
        at += length_size + int.from_bytes(packet[at : at + length_size], "big")
    return False

"""Read presentation frames of a source video: one frame source over two decoders.

`SourceVideo.decoder`, found by the probe, says whether decord may read a file; then both decoders
give the same bytes; gapless runs go to decord, frames with gaps to PyAV. PyAV reads strictly and
checks the presentation time of every frame it returns.
"""

import os
from collections.abc import Iterator

import decord
import numpy as np
from av import Packet, VideoFrame
from av.video.stream import VideoStream

from manifests import (
    HEAD_BYTES,
    PacketScan,
    RgbConverter,
    SourceVideo,
    VideoError,
    cannot_open,
    container_of,
    first_line,
    open_bytes,
    open_video,
    orientation_of,
    scan_packets,
)

from .views import resize, resized_size

decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr what it also raises

BATCH_BYTES = 64 * 2**20
# decord decodes ahead of its caller without a bound (hundreds of MB), PyAV does not. Longer
# stretches than this go to PyAV, which returns the same bytes and is no slower on them.
DECORD_BYTES = 128 * 2**20
# Jump only over more frames than a decoder may hold back, else it starts again for nothing.
MIN_JUMP = 24
# Containers whose seeks land on the keyframe; in others packets are passed over, undecoded.
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
MIN_PTS = -(2**63)
# Codecs in which a picture that no other refers to can be left undecoded without a trace.
SKIPS_UNREFERENCED = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})


def frame_batches(
    video: SourceVideo, indices: np.ndarray, batch: int = 16
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode the presentation frames `indices` in ascending order, a few at a time.

    Args:
        video: A probed file.
        indices: Strictly increasing frame numbers, integers (N,).
        batch: At most so many frames at a time; fewer where they would take more than 64 MiB.

    Yields:
        (indices (n,) int64, frames (n, H, W, 3) uint8 RGB), native size after rotation.

    Raises:
        VideoError: The file is not what was probed, is damaged, or lacks a wanted frame.
    """
    indices = np.asarray(indices, np.int64)
    if len(indices) and (indices[0] < 0 or (np.diff(indices) <= 0).any()):
        raise ValueError("frame numbers must be >= 0 and strictly increasing")
    if batch < 1:
        raise ValueError(f"batch must be >= 1, got {batch}")
    _check_readable(video)
    if not len(indices):
        return
    _check_source(video, int(indices[-1]))
    size = min(batch, max(1, BATCH_BYTES // (3 * video.height * video.width)))
    read = _read_decord if _is_for_decord(video, indices) else _read_pyav
    chunks = [indices[i : i + size] for i in range(0, len(indices), size)]
    for chunk, frames_THWC in zip(chunks, read(video, chunks), strict=True):
        if frames_THWC.shape != (len(chunk), video.height, video.width, 3):
            raise VideoError(
                video.path,
                f"shows frames of {frames_THWC.shape[2]}x{frames_THWC.shape[1]} where "
                f"{video.width}x{video.height} were probed",
            )
        yield chunk, frames_THWC


def read_frames(
    video: SourceVideo, indices: np.ndarray, short_side: int | None = None
) -> np.ndarray:
    """Return presentation frames in any order, resized.

    Args:
        video: A probed file.
        indices: Frame numbers, integers (N,), in any order, also repeated; each is decoded once.
        short_side: Pixels of the shorter side after resizing; None keeps the native size.

    Returns:
        Frames (N, H, W, 3) uint8 RGB after rotation, the k-th being frame `indices[k]`.

    Raises:
        VideoError: As `frame_batches`.
    """
    _check_readable(video)
    wanted, place = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    height, width = video.height, video.width
    if short_side is not None:
        height, width = resized_size(height, width, short_side)
    frames_THWC = np.empty((len(wanted), height, width, 3), np.uint8)
    done = 0
    for _, batch_THWC in frame_batches(video, wanted):
        for frame_HWC in batch_THWC:
            frames_THWC[done] = resize(frame_HWC, height, width)
            done += 1
    in_order = np.array_equal(place, np.arange(len(wanted)))
    return frames_THWC if in_order else frames_THWC[place]


def _check_readable(video: SourceVideo) -> None:
    if video.status != "ok":
        raise VideoError(video.path, f"was rejected by the probe: {video.reason}")


def _is_for_decord(video: SourceVideo, indices: np.ndarray) -> bool:
    """Return whether decord reads these frames: it is known right here, and a gapless short run.

    Frames with gaps go to PyAV, which leaves pictures undecoded that nobody asked for and is faster
    (`benchmarks/choices.py`); the bytes are the same.
    """
    span = int(indices[-1] - indices[0]) + 1
    is_short = span * 3 * video.height * video.width <= DECORD_BYTES
    is_local = "://" not in video.path  # decord would take URLs for FFmpeg's
    return video.decoder == "decord" and is_local and span == len(indices) and is_short


def _check_source(video: SourceVideo, last_index: int) -> None:
    """Raise VideoError if the file is not the one that was probed, or is too short."""
    if last_index >= video.num_frames:
        raise VideoError(
            video.path, f"frame {last_index:,} was asked for, but it has {video.num_frames:,}"
        )
    if "://" in video.path:
        return  # PyAV reads these, and its packet scan knows their size
    try:
        num_bytes = os.stat(video.path).st_size
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise cannot_open(video.path, err) from err
    if num_bytes != video.num_bytes:
        raise VideoError(
            video.path,
            f"changed since it was probed ({num_bytes:,} bytes, then {video.num_bytes:,})",
        )


def _read_decord(video: SourceVideo, chunks: list[np.ndarray]) -> Iterator[np.ndarray]:
    with open_bytes(video.path) as file:
        if container_of(file.read(HEAD_BYTES)) is None:  # decord follows playlists, to any address
            raise VideoError(video.path, "cannot be read by decord: it is no MP4, Matroska or AVI")
    try:
        reader = decord.VideoReader(video.path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != video.num_frames:
            raise VideoError(
                video.path,
                f"changed since it was probed ({len(reader):,} frames, then {video.num_frames:,})",
            )
        for chunk in chunks:
            yield reader.get_batch(chunk).asnumpy()
    except (decord.DECORDError, RuntimeError) as err:
        raise VideoError(video.path, f"cannot be decoded ({first_line(err)})") from err


def _read_pyav(video: SourceVideo, chunks: list[np.ndarray]) -> Iterator[np.ndarray]:
    scan = scan_packets(video.path)
    if (len(scan), scan.num_bytes) != (video.num_frames, video.num_bytes):
        raise VideoError(
            video.path,
            f"changed since it was probed ({len(scan):,} frames, {scan.num_bytes:,} bytes; then "
            f"{video.num_frames:,} frames, {video.num_bytes:,} bytes)",
        )
    frames = _wanted_frames(scan, np.concatenate(chunks))
    converter: RgbConverter | None = None
    for chunk in chunks:
        frames_THWC = np.empty((len(chunk), video.height, video.width, 3), np.uint8)
        for frame_HWC, frame in zip(frames_THWC, frames, strict=False):
            if converter is None:
                converter = _converter_for(video.path, frame)
            if converter.size(frame) != frame_HWC.shape[:2]:
                height, width = converter.size(frame)
                raise VideoError(
                    video.path,
                    f"shows frames of {width}x{height} where {video.width}x{video.height} were "
                    "probed",
                )
            converter.write(frame, frame_HWC)
        yield frames_THWC


def _converter_for(path: str, frame: VideoFrame) -> RgbConverter:
    try:
        return RgbConverter(orientation_of(frame))
    except ValueError as err:
        raise VideoError(path, str(err)) from err


def _wanted_frames(scan: PacketScan, indices: np.ndarray) -> Iterator[VideoFrame]:
    """Decode exactly the presentation frames `indices`, ascending."""
    done = 0
    if scan.has_pts:
        try:
            for frame in _by_jumps(scan, indices):
                yield frame
                done += 1
        except VideoError:
            # Some files cannot be entered in the middle. Only a decode of everything from the
            # first byte on tells that from damage, which it raises as well.
            yield from _from_the_start(scan, indices[done:])
    else:
        yield from _from_the_start(scan, indices)


def _from_the_start(scan: PacketScan, indices: np.ndarray) -> Iterator[VideoFrame]:
    wanted = iter(indices.tolist())
    index = next(wanted)
    with open_video(scan.path) as (container, stream):
        for position, frame in enumerate(container.decode(stream)):
            if position == index:
                yield _checked(scan, index, frame)
                index = next(wanted, -1)
                if index < 0:
                    return
    raise VideoError(scan.path, f"frame {index:,} is missing")


def _by_jumps(scan: PacketScan, indices: np.ndarray) -> Iterator[VideoFrame]:
    with open_video(scan.path) as (container, stream):
        for start, run in _runs(scan.starts_N, indices):
            if start and scan.format_name in INDEXED:
                container.seek(int(scan.pts_N[start]), stream=stream)
            elif start:
                stream.codec_context.flush_buffers()  # and read on up to `start`
            yield from _decode_run(scan, container.demux(stream), stream, start, run)


def _runs(starts_N: np.ndarray, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Split wanted frames where jumping to a later start saves decoding.

    # starts 0 and 250, wanted 3 8 260: (0, [3 8]), (250, [260])
    """
    starts = np.flatnonzero(starts_N)
    last_start = np.searchsorted(starts, indices, side="right") - 1
    start_of = np.append(starts, 0)[last_start]  # 0 for those before the first start (-1)
    before = np.concatenate([[0], indices[:-1]])
    heads = np.flatnonzero(start_of >= before + MIN_JUMP)
    heads = np.unique(np.concatenate([[0], heads]))
    for head, end in zip(heads, np.append(heads[1:], len(indices)), strict=True):
        start = int(start_of[head])
        yield (start if start >= before[head] + MIN_JUMP else 0), indices[head:end]


def _decode_run(
    scan: PacketScan,
    packets: Iterator[Packet],
    stream: VideoStream,
    start: int,
    indices: np.ndarray,
) -> Iterator[VideoFrame]:
    """Decode `indices` from the keyframe that presents as frame `start`; 0: all packets count."""
    wanted = scan.pts_N[indices].tolist()
    context, todo, found = stream.codec_context, frozenset(wanted), 0
    can_skip, skips = scan.codec in SKIPS_UNREFERENCED, False
    context.skip_frame = "DEFAULT"
    entered, earliest = not start, int(scan.pts_N[start]) if start else MIN_PTS
    for packet in packets:
        if packet.size:
            pts = MIN_PTS if packet.pts is None else packet.pts
            entered = entered or pts == earliest
            if not entered or pts < earliest:
                continue  # before the keyframe in the file, or in time: needs what was jumped over
            if can_skip and skips != (pts not in todo):
                skips = not skips
                context.skip_frame = "NONREF" if skips else "DEFAULT"
        for frame in context.decode(packet):
            if frame.pts is not None and frame.pts > wanted[found]:
                raise VideoError(scan.path, f"frame {indices[found]:,} is missing")
            if frame.pts == wanted[found]:
                yield _checked(scan, int(indices[found]), frame)
                found += 1
                if found == len(wanted):
                    return
    raise VideoError(scan.path, f"frame {indices[found]:,} is missing")


def _checked(scan: PacketScan, index: int, frame: VideoFrame) -> VideoFrame:
    if frame.is_corrupt:
        raise VideoError(scan.path, f"frame {index:,} is damaged")
    if scan.has_pts and frame.pts != scan.pts_N[index]:
        raise VideoError(
            scan.path, f"frame {index:,} presents at another time than its packet says"
        )
    return frame

"""Turn the frames of a sample into the bytes of a shard member, and back.

`filmstrip` is one JPEG of the frames stacked top to bottom, `h264` an mp4, `raw` a NumPy file.
Every encoder runs on one thread with fixed settings: the same frames give the same bytes.
"""

import io
import math
import re
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import simplejpeg

from manifests import ShardError

from .mp4 import read_pictures
from .tree import LARGEST_SAMPLE

JPEG_QUALITY = 95
JPEG_MAX_ROWS = 65_500
BLOCK = 16  # rows of one 4:2:0 block: frames of other heights would share blocks
# The macroblock tree gave other bytes once in a thousand encodings of the same frames.
X264 = "bframes=0:mbtree=0"
H264_OPTIONS = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": X264}
H264_RATE = 25
H264_MOST_PIXELS = 2**23  # of a frame (4K has fewer): a stream can make its decoder hold 36 of them
# What np.save writes; others' headers would have to be evaluated as Python.
RAW_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00[\s\S]{2}\{'descr': '\|u1', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}), (\d{1,9}), (\d{1,9}), 3\), \} {0,99}\n"
)


def check_size(codec: str, num_frames: int, height: int, width: int) -> None:
    """Raise ValueError if `codec` cannot hold a clip of this size."""
    if codec == "filmstrip":
        if height % BLOCK:
            raise ValueError(
                f"codec 'filmstrip' needs a height that is a multiple of {BLOCK}, got {height} "
                f"(choose such a crop, or --codec h264 or raw)"
            )
        if num_frames * height > JPEG_MAX_ROWS or width > JPEG_MAX_ROWS:
            raise ValueError(
                f"codec 'filmstrip' holds at most {JPEG_MAX_ROWS} rows, got {num_frames} frames of "
                f"{height} (choose --codec h264 or raw)"
            )
    if codec == "h264" and (height % 2 or width % 2):
        raise ValueError(f"codec 'h264' needs an even width and height, got {width}x{height}")
    if codec == "h264" and height * width > H264_MOST_PIXELS:
        raise ValueError(
            f"codec 'h264' holds at most {H264_MOST_PIXELS} pixels a frame, got {width}x{height}"
        )


def encode_filmstrip(frames_THWC: np.ndarray) -> bytes:
    """Encode uint8 `(T, H, W, 3)` as one `(T*H) x W` JPEG, quality 95, 4:2:0."""
    num_frames, height, width, _ = frames_THWC.shape
    strip = np.ascontiguousarray(frames_THWC).reshape(num_frames * height, width, 3)
    return simplejpeg.encode_jpeg(
        strip, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420", fastdct=False
    )


def decode_filmstrip(member: bytes, num_frames: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decode a filmstrip to uint8 `(T, H, W, 3)`, into `out` if that has the right shape.

    Chroma is upsampled without smoothing, so that no pixel depends on a neighbouring frame.
    """
    rows, width = simplejpeg.decode_jpeg_header(member)[:2]
    if rows * width * 3 > LARGEST_SAMPLE:
        raise ValueError(f"a filmstrip must fit in {LARGEST_SAMPLE} bytes, got {rows}x{width}")
    if num_frames < 1 or rows % num_frames:
        raise ValueError(f"a filmstrip of {rows} rows does not hold {num_frames} frames")
    shape = (num_frames, rows // num_frames, width, 3)
    fits = out is not None and out.shape == shape and out.flags.c_contiguous
    strip = simplejpeg.decode_jpeg(
        member, colorspace="RGB", fastdct=False, fastupsample=True, buffer=out if fits else None
    )
    return strip.reshape(shape)


def encode_h264(frames_THWC: np.ndarray) -> bytes:
    """Encode uint8 `(T, H, W, 3)` as an mp4 with libx264 in this process, one thread."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=H264_RATE, options=dict(H264_OPTIONS))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, H264_RATE)
        for t, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, H264_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def decode_h264(member: bytes, num_frames: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decode an mp4 member to uint8 `(T, H, W, 3)`; damaged streams raise. `out` is not used."""
    configuration, pictures = read_pictures(member, num_frames)
    context = av.CodecContext.create("h264", "r")
    context.extradata = configuration
    context.thread_type = "NONE"
    context.options = {"err_detect": "explode", "max_pixels": str(H264_MOST_PIXELS)}
    frames_THWC: np.ndarray | None = None
    count = 0
    for picture in [*pictures, None]:
        for frame in context.decode(None if picture is None else av.Packet(picture)):
            if frames_THWC is None:
                frames_THWC = _room_for(num_frames, frame.height, frame.width)
            if count == num_frames or frames_THWC.shape[1:3] != (frame.height, frame.width):
                raise ValueError("its pictures are not frames of one size")
            frames_THWC[count] = frame.to_ndarray(format="rgb24")
            count += 1
    if frames_THWC is None or count != num_frames:
        raise ValueError(f"an mp4 of {count} frames does not hold {num_frames}")
    return frames_THWC


def _room_for(num_frames: int, height: int, width: int) -> np.ndarray:
    """Return an empty clip; ValueError if it is larger than any of ours."""
    if num_frames * height * width * 3 > LARGEST_SAMPLE:
        raise ValueError(
            f"a clip must fit in {LARGEST_SAMPLE} bytes, got {num_frames} frames of "
            f"{width}x{height}"
        )
    return np.empty((num_frames, height, width, 3), np.uint8)


def encode_raw(frames_THWC: np.ndarray) -> bytes:
    """Encode uint8 `(T, H, W, 3)` as a NumPy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(frames_THWC), allow_pickle=False)
    return file.getvalue()


def decode_raw(member: bytes, num_frames: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decode a NumPy member of the one form that `encode_raw` writes. `out` is not used."""
    found = RAW_HEADER.match(member)
    if found is None:
        raise ValueError("a raw member must be a NumPy file of uint8 (T, H, W, 3), version 1.0")
    shape = (*(int(number) for number in found.groups()), 3)
    if shape[0] != num_frames:
        raise ValueError(f"a raw member of {shape[0]} frames does not hold {num_frames}")
    if min(shape) < 1 or math.prod(shape) != len(member) - found.end():
        raise ValueError(f"a raw member of {len(member)} bytes does not hold {shape}")
    return np.frombuffer(member, np.uint8, offset=found.end()).reshape(shape).copy()


EXTENSIONS = {"filmstrip": "jpg", "h264": "mp4", "raw": "npy"}
ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "filmstrip": encode_filmstrip,
    "h264": encode_h264,
    "raw": encode_raw,
}
DECODERS: dict[str, Callable[[bytes, int, np.ndarray | None], np.ndarray]] = {
    "jpg": decode_filmstrip,
    "mp4": decode_h264,
    "npy": decode_raw,
}


def decode_member(
    extension: str, member: bytes, num_frames: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Decode the frames of a member by its extension to uint8 `(T, H, W, 3)`.

    Args:
        extension: "jpg", "mp4" or "npy".
        member: The bytes.
        num_frames: `T`.
        out: Memory that the decoder may write into; the result lies elsewhere if it does not.

    Raises:
        ShardError: An unknown extension, or bytes that do not decode to `num_frames` frames.
    """
    if extension not in DECODERS:
        raise ShardError(f"a member must be one of {sorted(DECODERS)}, got {extension!r}")
    try:
        return DECODERS[extension](member, num_frames, out)
    except (ValueError, av.FFmpegError, EOFError, IndexError) as err:
        raise ShardError(f"a .{extension} member does not decode: {err}") from err

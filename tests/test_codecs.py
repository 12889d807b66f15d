"""Codecs: round trips, no leak across frames, the same bytes twice, and bytes that are no clip."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from bounds import GIB, memory_bound

from manifests import ShardError
from synth.codecs import (
    DECODERS,
    ENCODERS,
    EXTENSIONS,
    check_size,
    decode_filmstrip,
    decode_member,
    encode_filmstrip,
    encode_h264,
)
from synth.tree import LARGEST_SAMPLE

T, H, W = 6, 32, 48
CODECS = {"filmstrip": 36.0, "h264": 32.0, "raw": np.inf}  # least PSNR in dB


def smooth_clip(num_frames: int = T, height: int = H, width: int = W) -> np.ndarray:
    """Return a clip of slowly varying colours that move, as natural footage does."""
    t, y, x = np.ogrid[:num_frames, :height, :width]
    planes = [
        128 + 100 * np.sin((x + 2 * t) / 9 + y / 17),
        128 + 100 * np.cos((y - t) / 11 + x / 23),
        128 + 60 * np.sin((x - y + 3 * t) / 31),
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_frames", [1, 2, T])
def test_round_trip(codec: str, num_frames: int) -> None:
    frames = smooth_clip(num_frames)
    before = frames.copy()
    member = ENCODERS[codec](frames)
    decoded = decode_member(EXTENSIONS[codec], member, num_frames)
    assert decoded.dtype == np.uint8
    assert decoded.shape == frames.shape
    assert psnr(frames, decoded) >= CODECS[codec]
    for t in range(num_frames):  # no frame is shifted or swapped with another
        assert psnr(frames[t], decoded[t]) >= CODECS[codec] - 2
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("codec", CODECS)
def test_same_frames_give_the_same_bytes(codec: str) -> None:
    frames = smooth_clip()
    strided = np.asfortranarray(frames)
    assert ENCODERS[codec](frames) == ENCODERS[codec](frames.copy()) == ENCODERS[codec](strided)


def test_every_codec_has_an_extension_an_encoder_and_a_decoder() -> None:
    assert set(CODECS) == set(ENCODERS) == set(EXTENSIONS)
    assert EXTENSIONS == {"filmstrip": "jpg", "h264": "mp4", "raw": "npy"}
    assert set(DECODERS) == set(EXTENSIONS.values())


def test_filmstrip_is_one_420_jpeg_of_stacked_frames() -> None:
    frames = smooth_clip()
    member = encode_filmstrip(frames)
    assert simplejpeg.decode_jpeg_header(member) == (T * H, W, "YCbCr", "420")
    strip = simplejpeg.decode_jpeg(member).reshape(T, H, W, 3)
    assert psnr(strip, frames) > 34


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 40), (48, 17), (112, 112)])
def test_changing_one_frame_of_a_filmstrip_changes_no_pixel_of_another(
    height: int, width: int
) -> None:
    rng = np.random.default_rng(height)
    frames = rng.integers(0, 256, (T, height, width, 3)).astype(np.uint8)
    reference = decode_filmstrip(encode_filmstrip(frames), T)
    for changed in range(T):
        other = frames.copy()
        other[changed] = rng.integers(0, 256, (height, width, 3))
        decoded = decode_filmstrip(encode_filmstrip(other), T)
        differs = [bool((decoded[t] != reference[t]).any()) for t in range(T)]
        assert differs == [t == changed for t in range(T)]


def test_smooth_chroma_upsampling_of_other_readers_touches_only_the_border_rows() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (T, H, W, 3)).astype(np.uint8)
    other = frames.copy()
    other[2] = rng.integers(0, 256, (H, W, 3))
    first, second = (
        simplejpeg.decode_jpeg(encode_filmstrip(clip), fastupsample=False).reshape(T, H, W, 3)
        for clip in (frames, other)
    )
    rows = {(t, y) for t, y in np.argwhere((first != second).any(axis=(2, 3))).tolist() if t != 2}
    assert rows == {(1, H - 1), (3, 0)}


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        ("filmstrip", (16, 224, 224)),
        ("filmstrip", (64, 1008, 33)),
        ("h264", (16, 2, 2)),
        ("raw", (1, 1, 1)),
    ],
)
def test_sizes_that_a_codec_holds(codec: str, size: tuple[int, int, int]) -> None:
    check_size(codec, *size)
    frames = np.zeros((*size, 3), np.uint8)
    if frames.size < 10**7:
        assert decode_member(EXTENSIONS[codec], ENCODERS[codec](frames), size[0]).shape[:3] == size


@pytest.mark.parametrize(
    ("codec", "size", "words"),
    [
        ("filmstrip", (16, 230, 224), "multiple of 16, got 230"),
        ("filmstrip", (300, 224, 224), "65500 rows"),
        ("filmstrip", (1, 16, 70_000), "65500"),
        ("h264", (16, 225, 224), "even width and height"),
        ("h264", (16, 224, 225), "even width and height"),
        ("h264", (1, 4096, 4096), "8388608 pixels a frame"),
    ],
)
def test_sizes_that_a_codec_cannot_hold(codec: str, size: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_size(codec, *size)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_frames", [-T, 0, T - 1, T + 1])
def test_wrong_number_of_frames_is_a_shard_error(codec: str, num_frames: int) -> None:
    member = ENCODERS[codec](smooth_clip())
    with pytest.raises(ShardError, match="does not"):
        decode_member(EXTENSIONS[codec], member, num_frames)


def npy_header(text: str) -> bytes:
    header = text.encode()
    header += b" " * (-(11 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def npz_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, frames=smooth_clip())
    return file.getvalue()


def claimed_shape(shape: str) -> bytes:
    return npy_header(f"{{'descr':'|u1','fortran_order':False,'shape':{shape}}}") + b"\x00" * 64


GARBAGE = {
    "empty": b"",
    "text": b"not a clip at all " * 40,
    "zeros": bytes(4096),
    "zip": b"PK\x03\x04" + bytes(100),
    "npz": npz_archive(),
    "pickle": b"\x80\x04K\x01.",
    "npy huge": claimed_shape("(6,1000000,1000000,3)"),
    "npy overflowing": claimed_shape("(6,99999999999,99999999999,3)"),
    "npy negative": claimed_shape("(6,-1,2,3)"),
    "npy unclosed": npy_header("{'descr':'|u1','fortran_order':False,'shape':(6,2"),
    "npy nested": npy_header("(" * 3000),
    "npy objects": npy_header("{'descr':'|O','fortran_order':False,'shape':(6,1,1,3)}"),
    "npy floats": npy_header("{'descr':'<f8','fortran_order':False,'shape':(6,0,1,3)}"),
    "npy two axes": npy_header("{'descr':'|u1','fortran_order':False,'shape':(6,0)}"),
    "npy four colours": claimed_shape("(6,1,1,4)"),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("extension", ["jpg", "mp4", "npy"])
def test_garbage_is_a_shard_error(extension: str, name: str) -> None:
    with pytest.raises(ShardError, match=rf"\.{extension} member"):
        decode_member(extension, GARBAGE[name], T)


@pytest.mark.parametrize("extension", ["pkl", "", "../jpg", "jpeg", "JPG"])
def test_unknown_extension_is_a_shard_error(extension: str) -> None:
    with pytest.raises(ShardError, match="must be one of"):
        decode_member(extension, b"", T)


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_members_are_shard_errors(codec: str) -> None:
    member = ENCODERS[codec](smooth_clip())
    for length in (1, 20, len(member) // 4, len(member) // 2, 9 * len(member) // 10):
        with pytest.raises(ShardError, match="member does not decode"):
            decode_member(EXTENSIONS[codec], member[:length], T)


@pytest.mark.parametrize("codec", CODECS)
def test_flipped_bytes_decode_to_a_clip_or_are_a_shard_error(codec: str) -> None:
    member = ENCODERS[codec](smooth_clip())
    rng = np.random.default_rng(7)
    for _ in range(150):
        damaged = bytearray(member)
        for place in rng.integers(0, len(member), 3):
            damaged[place] = rng.integers(256)
        try:
            decoded = decode_member(EXTENSIONS[codec], bytes(damaged), T)
        except ShardError:
            continue
        assert decoded.dtype == np.uint8
        assert decoded.shape[0] == T
        assert decoded.ndim == 4


def jpeg_that_claims(rows: int, columns: int) -> bytes:
    member = bytearray(encode_filmstrip(np.zeros((1, 16, 16, 3), np.uint8)))
    frame_header = member.find(b"\xff\xc0")
    member[frame_header + 5 : frame_header + 7] = rows.to_bytes(2, "big")
    member[frame_header + 7 : frame_header + 9] = columns.to_bytes(2, "big")
    return bytes(member)


def mp4_with(changes: dict[bytes, list[int]]) -> bytes:
    """Return an mp4 of 4 frames with other numbers behind the version of some of its boxes."""
    member = bytearray(encode_h264(smooth_clip(4)))
    for kind, numbers in changes.items():
        start = member.find(kind) + 8
        for number in numbers:
            member[start : start + 4] = number.to_bytes(4, "big")
            start += 4
    return bytes(member)


BOMBS = {
    "jpeg of gigapixels": ("jpg", lambda: jpeg_that_claims(65_488, 65_488), 1),
    "jpeg above the largest sample": ("jpg", lambda: jpeg_that_claims(16_384, 8_192), 1),
    "mp4 of 67 million samples": (  # 4 GB in FFmpeg's demuxer
        "mp4",
        lambda: mp4_with(
            {b"stsz": [1, 2**26], b"stsc": [1, 1, 2**26], b"stts": [1, 2**26]},
        ),
        4,
    ),
    "mp4 of as many frames as wanted": ("mp4", lambda: mp4_with({b"stsz": [1, 2**31]}), 2**31),
    "mp4 of that many empty frames": ("mp4", lambda: mp4_with({b"stsz": [0, 2**31]}), 2**31),
    "mp4 of more frames than wanted": (
        "mp4",
        lambda: encode_h264(np.zeros((120, 720, 1280, 3), np.uint8)),
        4,
    ),
    "mp4 of frames above 4K": ("mp4", lambda: encode_h264(np.zeros((1, 2304, 4096, 3), "u1")), 1),
    "mp4 above the largest sample": (
        "mp4",
        lambda: encode_h264(np.zeros((100, 720, 1280, 3), np.uint8)),
        100,
    ),
    "npy of terabytes": ("npy", lambda: claimed_shape("(6, 1000000, 1000000, 3), "), 6),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_shard_errors_and_take_little(name: str) -> None:
    extension, make, num_frames = BOMBS[name]
    member = make()
    with memory_bound(GIB // 2), pytest.raises(ShardError, match="member does not decode"):
        decode_member(extension, member, num_frames)


def test_a_progressive_jpeg_takes_three_times_its_pixels_and_no_more() -> None:
    image = np.zeros((4_096, 5_456, 3), np.uint8)  # a quarter of the largest sample
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    member = cv2.imencode(".jpg", image, settings)[1].tobytes()
    del image
    with memory_bound(GIB // 4):
        assert decode_member("jpg", member, 1).nbytes * 4 <= LARGEST_SAMPLE


@pytest.mark.parametrize(
    "header",
    [
        "-" * 9000 + "1",  # MemoryError in numpy's reader
        "{[]: 1}",  # TypeError
        "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 1, 1, 3), 1: 2}",
        "__import__('os').system('true')",
    ],
)
def test_headers_of_numpy_files_are_not_evaluated(header: str) -> None:
    with pytest.raises(ShardError, match="must be a NumPy file of uint8"):
        decode_member("npy", npy_header(header) + bytes(18), T)


def test_an_mp4_that_is_cut_anywhere_is_a_shard_error() -> None:
    member = encode_h264(smooth_clip(4))
    for length in range(len(member)):
        with pytest.raises(ShardError, match="member does not decode"):
            decode_member("mp4", member[:length], 4)


@pytest.mark.parametrize("playlist", ["#EXTM3U\n{}\n", "ffconcat version 1.0\nfile {}\n"])
def test_a_playlist_is_no_member(tmp_path: Path, playlist: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(encode_h264(smooth_clip(4)))
    with pytest.raises(ShardError, match="member does not decode"):
        decode_member("mp4", playlist.format(tmp_path / "clip.mp4").encode(), 4)

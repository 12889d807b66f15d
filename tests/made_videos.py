"""Build small video files whose every frame says which frame it is.

A frame carries its number as twelve light or dark blocks that survive lossy coding, so a test can
assert "frame i is frame i" without trusting any decoder. `NAMES` lists what can be built.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from manifests import run_ffmpeg

NUM_FRAMES = 60
FPS = 25
BLOCK = 16  # pixels
COLUMNS, ROWS = 6, 2


def stamped_frames(num_frames: int = NUM_FRAMES, width: int = 128, height: int = 96) -> np.ndarray:
    """Return frames (T, H, W, 3) uint8: a moving texture under the frame's number."""
    y, x = np.mgrid[:height, :width]
    frames_THWC = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        wave = 127 + 60 * np.sin((x + 3 * t) / 9) * np.cos((y - 2 * t) / 7)
        frames_THWC[t] = np.stack([wave, np.roll(wave, 5, 0), 255 - wave], -1)
        for bit in range(ROWS * COLUMNS):
            top, left = BLOCK * (bit // COLUMNS), BLOCK * (bit % COLUMNS)
            level = 225 if t >> bit & 1 else 30
            frames_THWC[t, top : top + BLOCK, left : left + BLOCK] = level
    return frames_THWC


def read_stamps(frames_THWC: np.ndarray) -> list[int]:
    """Return the number that each frame carries."""
    blocks = frames_THWC[:, : ROWS * BLOCK, : COLUMNS * BLOCK].astype(float).mean(-1)
    blocks = blocks.reshape(len(blocks), ROWS, BLOCK, COLUMNS, BLOCK)[:, :, 4:12, :, 4:12]
    bits = blocks.mean((2, 4)).reshape(len(blocks), -1) > 127
    return [int(number) for number in bits @ (1 << np.arange(ROWS * COLUMNS))]


def encode(path: Path, frames_THWC: np.ndarray, filters: str = "", **options: Any) -> Path:
    """Encode `frames_THWC` at 25 frames/s with the ffmpeg program; `options` are its output's."""
    height, width = frames_THWC.shape[1:3]
    source = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=FPS
    )
    settings = {"c:v": "libx264", "pix_fmt": "yuv420p", "threads": 1, "crf": 20, "g": 12} | options
    settings |= {"vf": filters} if filters else {}
    settings = {name: value for name, value in settings.items() if value is not None}
    run_ffmpeg(ffmpeg.output(source, str(path), **settings), frames_THWC.tobytes())
    return path


def remux(source: Path, path: Path, before: dict[str, Any] | None = None, **options: Any) -> Path:
    """Copy the streams of `source` into `path`; `before` are options of the input."""
    stream = ffmpeg.input(str(source), **(before or {}))
    run_ffmpeg(ffmpeg.output(stream, str(path), c="copy", **options))
    return path


def flip_bytes(source: Path, path: Path, seed: int, count: int = 8) -> Path:
    """Copy `source` with `count` bytes of the middle of the file changed."""
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(len(content) // 5, len(content) * 4 // 5, count):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return path


def cut(source: Path, path: Path, fraction: float) -> Path:
    """Copy the first `fraction` of the bytes of `source`."""
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


class MadeVideos:
    """Made files by name, each built once, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._paths:
            self._paths[name] = _BUILDERS[name](self)
        return self._paths[name]

    def path(self, name: str) -> Path:
        """Return where a file called `name` goes."""
        return self.folder / name


def _simple(name: str, num_frames: int = NUM_FRAMES, **options: Any) -> Callable:
    size = {side: options.pop(side) for side in ("width", "height") if side in options}
    filters = options.pop("filters", "")

    def build(made: MadeVideos) -> Path:
        return encode(made.path(name), stamped_frames(num_frames, **size), filters, **options)

    return build


def _x264(parameters: str) -> dict[str, str]:
    return {"x264-params": parameters}


def _rotated(degrees: int, **before: Any) -> Callable:
    """The picture is stored turned, and the display matrix turns it upright again."""

    def build(made: MadeVideos) -> Path:
        name = "".join(before) + str(degrees)
        turned = np.rot90(stamped_frames(), -degrees // 90, axes=(1, 2))
        turned = turned[:, :, ::-1] if before else turned
        stored = encode(made.path(f"stored{name}.mp4"), np.ascontiguousarray(turned))
        rotation = {"display_rotation": degrees} | before
        return remux(stored, made.path(f"rotated{name}.mp4"), rotation)

    return build


def _with_audio(made: MadeVideos) -> Path:
    path = made.path("with_audio.mp4")
    sound = ffmpeg.input("sine=frequency=300:duration=2.4", format="lavfi")
    video = ffmpeg.input(str(made["plain"]))
    run_ffmpeg(ffmpeg.output(video, sound, str(path), **{"c:v": "copy", "c:a": "aac"}))
    return path


def _audio_only(made: MadeVideos) -> Path:
    path = made.path("audio_only.mp4")
    sound = ffmpeg.input("sine=frequency=300:duration=1", format="lavfi")
    run_ffmpeg(ffmpeg.output(sound, str(path), **{"c:a": "aac"}))
    return path


def _cover_art(made: MadeVideos) -> Path:
    path = made.path("cover_art.m4a")
    picture = encode(made.path("cover.jpg"), stamped_frames(1), **{"c:v": "mjpeg", "crf": None})
    streams = [ffmpeg.input(str(made["audio_only"])), ffmpeg.input(str(picture))]
    flags = {"c": "copy", "disposition:v:0": "attached_pic"}
    run_ffmpeg(ffmpeg.output(*streams, str(path), **flags))
    return path


def _silence_first(made: MadeVideos) -> Path:
    """The sound starts at 0 and the picture half a second later."""
    path = made.path("silence_first.mp4")
    sound = ffmpeg.input("sine=frequency=300:duration=3", format="lavfi")
    video = ffmpeg.input(str(made["plain"]), itsoffset=0.5)
    run_ffmpeg(ffmpeg.output(video, sound, str(path), **{"c:v": "copy", "c:a": "aac"}))
    return path


def _packed_avi(made: MadeVideos) -> Path:
    """MPEG-4 with B-frames in an AVI: the packets carry no presentation time."""
    options = {"c:v": "mpeg4", "bf": 2, "q:v": 3, "crf": None}
    return encode(made.path("no_pts.avi"), stamped_frames(), **options)


def _patched(source: str, name: str, mark: bytes, skip: int, field: bytes) -> Callable:
    """Overwrite `field` in a copy of `source`, `skip` bytes behind the only `mark`."""

    def build(made: MadeVideos) -> Path:
        content = bytearray(made[source].read_bytes())
        assert content.count(mark) == 1
        at = content.index(mark) + skip
        content[at : at + len(field)] = field
        made.path(name).write_bytes(content)
        return made.path(name)

    return build


def _text(made: MadeVideos) -> Path:
    path = made.path("text.mp4")
    path.write_text("This is not a video, whatever its name says.\n" * 40)
    return path


def _empty(made: MadeVideos) -> Path:
    path = made.path("empty.mp4")
    path.write_bytes(b"")
    return path


def _copy_of(name: str, suffix: str, fraction: float) -> Callable:
    return lambda made: cut(made[name], made.path(f"cut_{name}{suffix}"), fraction)


_BUILDERS: dict[str, Callable[[MadeVideos], Path]] = {
    # Readable: frame i of the file carries the number i unless the test says otherwise.
    "plain": _simple("plain.mp4", bf=0),
    "b_frames": _simple("b_frames.mp4", bf=3),
    "long_gop": _simple("long_gop.mp4", bf=3, g=250),
    "open_gop": _simple("open_gop.mp4", bf=3, **_x264("open-gop=1:scenecut=0:b-adapt=0")),
    "open_gop_mkv": _simple("open_gop.mkv", bf=3, **_x264("open-gop=1:scenecut=0:b-adapt=0")),
    "intra_refresh": _simple("intra_refresh.mp4", bf=0, **_x264("intra-refresh=1")),
    "vfr": _simple("vfr.mp4", filters="setpts=(N+floor(N/3)+floor(N/7))/(25*TB)", fps_mode="vfr"),
    "mkv": _simple("mkv.mkv"),
    "mpegts": _simple("mpegts.ts"),
    "avi": _simple("avi.avi", **{"c:v": "mpeg4", "q:v": 3, "crf": None}),
    "no_pts_avi": _packed_avi,
    "h264_avi": _simple("h264.avi", bf=2),
    "odd": _simple("odd.mp4", width=131, height=99, **{"pix_fmt": "yuv444p"}),
    "odd_420": _simple("odd_420.avi", width=131, height=99, **{"c:v": "mpeg4", "q:v": 3}, crf=None),
    "grey": _simple("grey.mp4", **{"pix_fmt": "gray"}),
    "grey_only": _simple("grey.mkv", **{"c:v": "ffv1", "pix_fmt": "gray", "crf": None}),
    "ten_bit": _simple("ten_bit.mp4", **{"pix_fmt": "yuv420p10le"}),
    "full_range": _simple("full_range.mp4", **{"pix_fmt": "yuvj420p"}),
    "bt709": _simple("bt709.mp4", colorspace="bt709", color_range="tv"),
    "mpeg2": _simple("mpeg2.mpg", bf=2, **{"c:v": "mpeg2video", "q:v": 3, "crf": None}),
    "hevc": _simple("hevc.mp4", **{"c:v": "libx265", "x265-params": "log-level=error:pools=1"}),
    "hevc_open": _simple(
        "hevc_open.mp4",
        **{"c:v": "libx265", "x265-params": "log-level=error:pools=1:open-gop=1:keyint=12"},
    ),
    "vp9": _simple("vp9.webm", **{"c:v": "libvpx-vp9", "cpu-used": 8, "b:v": 0}),
    "vp8": _simple(
        "vp8.webm",
        **{"c:v": "libvpx", "cpu-used": 8, "auto-alt-ref": 1, "lag-in-frames": 16, "b:v": "1M"},
    ),
    "mjpeg": _simple("mjpeg.avi", **{"c:v": "mjpeg", "pix_fmt": "yuvj420p", "crf": None}),
    "one_frame": _simple("one_frame.mp4", num_frames=1),
    "two_frames": _simple("two_frames.mp4", num_frames=2),
    "fragmented": _simple("fragmented.mp4", movflags="frag_keyframe+empty_moov"),
    "faststart": _simple("faststart.mp4", movflags="+faststart"),
    "with_audio": _with_audio,
    "silence_first": _silence_first,
    "offset": lambda made: remux(made["b_frames"], made.path("offset.mkv"), output_ts_offset=5),
    "offset_ts": lambda made: remux(made["b_frames"], made.path("offset.ts"), output_ts_offset=5),
    # Starts at frame 20 inside the group of pictures 12..23; an edit list hides 12..19.
    "edit_list": lambda made: remux(made["b_frames"], made.path("edit_list.mp4"), {"ss": 0.8}),
    "edit_list_end": lambda made: remux(
        made["b_frames"], made.path("edit_list_end.mp4"), {"ss": 0.8}, t=0.8
    ),
    # The only edit ends after 1.2 of 2.4 s: version and flags, number of edits, then its duration.
    "edit_list_tail": _patched("plain", "tail.mp4", b"elst", 12, (1200).to_bytes(4, "big")),
    # The stream header promises 600 frames: 32 bytes of other fields lie before that number.
    "boasting_avi": _patched("avi", "boasting.avi", b"vids", 32, (600).to_bytes(4, "little")),
    # Starts at the open group of pictures, whose leading B-frames need the one before.
    "open_gop_cut": lambda made: remux(
        made["open_gop_mkv"], made.path("open_gop_cut.mkv"), {"ss": 0.97}
    ),
    "rotated_90": _rotated(90),
    "rotated_180": _rotated(180),
    "rotated_270": _rotated(270),
    "mirrored": _rotated(0, display_hflip=None),
    # Not readable.
    "audio_only": _audio_only,
    "cover_art": _cover_art,
    "text": _text,
    "empty": _empty,
    # The sample entry behind its box, flags, count and size.
    "unknown_codec": _patched("plain", "unknown.mp4", b"stsd", 16, b"zzz1"),
    "skewed": lambda made: remux(made["plain"], made.path("skewed.mp4"), {"display_rotation": 30}),
    "cut_faststart": _copy_of("faststart", ".mp4", 0.6),
    "cut_moov_last": _copy_of("plain", ".mp4", 0.6),
    "cut_fragmented": _copy_of("fragmented", ".mp4", 0.6),
    "cut_mkv": _copy_of("mkv", ".mkv", 0.6),
    "cut_avi": _copy_of("avi", ".avi", 0.6),
    "cut_no_pts_avi": _copy_of("no_pts_avi", ".avi", 0.6),
}
NAMES = tuple(_BUILDERS)

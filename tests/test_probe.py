"""The probe: what presents and when, which decoder may read it, and what is refused."""

import csv
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import FPS, NUM_FRAMES, MadeVideos, cut, flip_bytes

from manifests import UsageError, VideoError, orientation_of, probe_video, scan_packets
from manifests.containers import declared_bytes
from manifests.packets import _int32

pytestmark = pytest.mark.slow

# name: frames, decoder
READABLE = {
    "plain": (60, "decord"),
    "b_frames": (60, "decord"),
    "long_gop": (60, "decord"),
    "vfr": (60, "decord"),
    "mkv": (60, "decord"),
    "avi": (60, "decord"),
    "odd": (60, "decord"),
    "grey": (60, "decord"),
    "grey_only": (60, "decord"),
    "full_range": (60, "decord"),
    "bt709": (60, "decord"),
    "vp9": (60, "decord"),
    "vp8": (60, "decord"),
    "mjpeg": (60, "decord"),
    "one_frame": (1, "decord"),
    "two_frames": (2, "decord"),
    "fragmented": (60, "decord"),
    "faststart": (60, "decord"),
    "with_audio": (60, "decord"),
    "silence_first": (60, "decord"),
    "offset": (60, "decord"),
    "rotated_90": (60, "decord"),
    "rotated_180": (60, "decord"),
    "rotated_270": (60, "decord"),
    # decord jumps to the wrong frame
    "open_gop": (60, "pyav"),
    "open_gop_mkv": (60, "pyav"),
    "intra_refresh": (60, "pyav"),
    "hevc": (60, "pyav"),
    "mpeg2": (60, "pyav"),
    "mpegts": (60, "pyav"),
    "offset_ts": (60, "pyav"),
    "no_pts_avi": (60, "pyav"),
    "h264_avi": (60, "pyav"),
    # decord shows frames that an edit list hides
    "edit_list": (40, "pyav"),
    "edit_list_tail": (30, "pyav"),
    # decord ignores a mirror, and converts other formats otherwise than FFmpeg does now
    "mirrored": (60, "pyav"),
    "ten_bit": (60, "pyav"),
    "odd_420": (60, "pyav"),
    # decord would wait for ever for frames that only the header knows
    "boasting_avi": (60, "pyav"),
}

REFUSED = {
    "audio_only": "has no video stream \\(only audio\\)",
    "cover_art": "has no video stream \\(only audio\\)",
    "text": "cannot be read as video",
    "empty": "is empty \\(0 bytes\\)",
    "unknown_codec": "is of a codec that no decoder here knows",
    "skewed": "its display matrix .* is no multiple of 90 degrees",
    "cut_faststart": "cut short",
    "cut_moov_last": "cannot be read as video",
    "cut_fragmented": "cut short",
    "cut_mkv": "is cut short: 9,... of 15,... bytes",
    "cut_avi": "cut short",
    "cut_no_pts_avi": "cut short",
    "open_gop_cut": "cannot be read as video",  # its first pictures need one that was cut off
}


@pytest.mark.parametrize("name", READABLE)
def test_counts_frames_and_chooses_the_decoder(name: str, made_videos: MadeVideos) -> None:
    video = probe_video(str(made_videos[name]))
    num_frames, decoder = READABLE[name]
    assert (video.num_frames, video.decoder) == (num_frames, decoder)
    assert (video.first_frame, video.end_frame) == (0, num_frames)
    odd = name.startswith("odd")
    assert (video.width, video.height) == ((131, 99) if odd else (128, 96))
    assert video.num_bytes == made_videos[name].stat().st_size
    assert video.is_vfr == (name == "vfr")
    if name != "vfr":
        assert video.fps == FPS


@pytest.mark.parametrize("check", ["decode", "packets"])
@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name: str, check: str, made_videos: MadeVideos) -> None:
    path = str(made_videos[name])
    with pytest.raises(VideoError, match=REFUSED[name]) as caught:
        probe_video(path, check=check)
    assert caught.value.path == path
    assert "\n" not in caught.value.reason


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be opened"):
        probe_video(str(tmp_path / "absent.mp4"))
    with pytest.raises(VideoError, match="is a folder"):
        probe_video(str(tmp_path))


def test_packets_are_enough_when_asked(made_videos: MadeVideos) -> None:
    whole = probe_video(str(made_videos["rotated_90"]))
    quick = probe_video(str(made_videos["rotated_90"]), check="packets")
    assert (whole.decoder, quick.decoder) == ("decord", "pyav")
    assert quick.num_frames == whole.num_frames
    assert quick.rotation == whole.rotation == 270  # stored a quarter turn clockwise


@pytest.mark.parametrize(
    ("name", "rotation"),
    [("plain", 0), ("rotated_90", 270), ("rotated_180", 180), ("rotated_270", 90)],
)
def test_reports_rotation_clockwise(name: str, rotation: int, made_videos: MadeVideos) -> None:
    assert probe_video(str(made_videos[name])).rotation == rotation


def test_times_are_presentation_times(made_videos: MadeVideos) -> None:
    numbers = np.arange(NUM_FRAMES)
    even = numbers / FPS
    for name in ("plain", "b_frames", "mkv", "avi", "no_pts_avi", "mpegts", "offset", "fragmented"):
        np.testing.assert_array_equal(scan_packets(str(made_videos[name])).times_N, even)
    uneven = (numbers + numbers // 3 + numbers // 7) / FPS
    np.testing.assert_array_equal(scan_packets(str(made_videos["vfr"])).times_N, uneven)
    np.testing.assert_array_equal(scan_packets(str(made_videos["edit_list"])).times_N, even[:40])


def test_time_zero_is_the_containers_start(made_videos: MadeVideos) -> None:
    scan = scan_packets(str(made_videos["silence_first"]))  # the sound starts first
    np.testing.assert_allclose(scan.times_N, 0.5 + np.arange(NUM_FRAMES) / FPS, atol=1e-9)
    assert scan.duration_seconds == pytest.approx(2.9)
    video = probe_video(str(made_videos["silence_first"]), start_seconds=0, end_seconds=0.54)
    assert (video.first_frame, video.end_frame) == (0, 1)


@settings(deadline=None, max_examples=40)
@given(st.floats(-1, 4), st.floats(-1, 4))
def test_range_holds_exactly_the_frames_within(made_videos: MadeVideos, a: float, b: float) -> None:
    path = str(made_videos["vfr"])
    within = [i for i, t in enumerate(scan_packets(path).times_N) if a <= t < b]
    if within:
        video = probe_video(path, start_seconds=a, end_seconds=b, check="packets")
        assert list(range(video.first_frame, video.end_frame)) == within
    else:
        with pytest.raises(VideoError, match="presents no frame from"):
            probe_video(path, start_seconds=a, end_seconds=b, check="packets")


def test_range_is_half_open_on_the_grid(made_videos: MadeVideos) -> None:
    video = probe_video(str(made_videos["plain"]), start_seconds=0.4, end_seconds=1.2)
    assert (video.first_frame, video.end_frame) == (10, 30)
    assert (video.start_seconds, video.end_seconds) == (0.4, 1.2)


@pytest.mark.parametrize("name", ["plain", "b_frames", "mkv", "long_gop"])
def test_flipped_bytes_are_found(name: str, made_videos: MadeVideos, tmp_path: Path) -> None:
    for seed in range(8):
        path = flip_bytes(made_videos[name], tmp_path / f"{seed}{made_videos[name].suffix}", seed)
        with pytest.raises(VideoError):
            probe_video(str(path))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["faststart", "plain", "mkv", "fragmented", "avi"]), st.floats(0, 0.999))
def test_no_cut_file_is_accepted(made_videos: MadeVideos, name: str, fraction: float) -> None:
    whole = made_videos[name]
    path = cut(whole, made_videos.path(f"some{whole.suffix}"), fraction)
    if name == "avi" and _holds_all_frames(whole, path):
        assert probe_video(str(path)).num_frames == NUM_FRAMES  # only the index at the end is gone
    else:
        with pytest.raises(VideoError):
            probe_video(str(path))


def _holds_all_frames(whole: Path, part: Path) -> bool:
    return part.stat().st_size >= whole.read_bytes().rindex(b"idx1")


@pytest.mark.parametrize("name", ["plain", "faststart", "fragmented", "mkv", "vp9", "avi"])
def test_whole_containers_declare_their_size(name: str, made_videos: MadeVideos) -> None:
    with open(made_videos[name], "rb") as file:
        assert declared_bytes(file) == made_videos[name].stat().st_size


def test_streams_and_strangers_declare_nothing(made_videos: MadeVideos) -> None:
    for name in ("mpegts", "text", "empty"):
        with open(made_videos[name], "rb") as file:
            assert declared_bytes(file) is None


def test_unknown_sizes_are_no_damage(made_videos: MadeVideos) -> None:
    content = bytearray(made_videos["mkv"].read_bytes())
    at = content.index(bytes.fromhex("18538067")) + 4
    content[at : at + 8] = bytes.fromhex("01ffffffffffffff")  # as a live recorder leaves it
    path = made_videos.path("live.mkv")
    path.write_bytes(content)
    assert probe_video(str(path)).num_frames == NUM_FRAMES
    # then the duration in the header still tells that something is missing
    short = cut(path, made_videos.path("live_cut.mkv"), 0.5)
    with pytest.raises(VideoError, match="is cut short: it ends at"):
        probe_video(str(short))


def test_reads_remote_files(made_videos: MadeVideos) -> None:
    content = made_videos["edit_list"].read_bytes()
    with fsspec.open("memory://probe/remote.mp4", "wb") as file:
        file.write(content)
    video = probe_video("memory://probe/remote.mp4")
    assert (video.num_frames, video.decoder, video.num_bytes) == (40, "pyav", len(content))
    with pytest.raises(VideoError, match="cannot be opened"):
        probe_video("memory://probe/absent.mp4")


def test_a_missing_package_is_not_the_videos_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", lacking)
    with pytest.raises(UsageError, match="cannot be opened: Install s3fs to access S3"):
        probe_video("s3://bucket/video.mp4")


@pytest.mark.parametrize(
    "path",
    [
        "pipe:///0",
        "http://127.0.0.1:9/a.mp4",
        "file:///etc/passwd",
        "simplecache::memory://probe/remote.mp4",
        "memory://probe/remote.mp4::http://127.0.0.1:9/a.mp4",
        "reference://a",
        "data://a",
        "://a",
    ],
)
def test_urls_of_no_object_store_are_refused(path: str) -> None:
    with pytest.raises(VideoError, match="is no URL of an object"):
        probe_video(path)


@pytest.mark.parametrize("path", ["pipe:0", "concat:a|b", "subfile,,start,0,end,9,,:a", "-i"])
def test_protocols_of_ffmpeg_are_names_of_files(path: str) -> None:
    with pytest.raises(VideoError, match="cannot be opened"):
        probe_video(path)


def test_names_that_no_file_can_have_are_refused() -> None:
    for path in ("a\0b", "\ud800", "a" * 5000):
        with pytest.raises(VideoError, match="cannot be opened"):
            probe_video(path)


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # to open it would wait for ever
    for path in (str(tmp_path / "pipe.mp4"), "/dev/zero"):
        with pytest.raises(VideoError, match="is not a regular file"):
            probe_video(path)


def test_odd_names_are_just_names(made_videos: MadeVideos) -> None:
    for name in ("concat:a::b|c %03d.mp4", "leer zeichen é.mp4", "#?*.mp4"):
        path = made_videos.path(name)
        path.write_bytes(made_videos["plain"].read_bytes())
        assert probe_video(str(path)).num_frames == NUM_FRAMES


def test_playlists_are_no_videos(made_videos: MadeVideos) -> None:
    """A text file must not make the decoder open other files."""
    for name, text in (
        ("list.m3u8", f"#EXTM3U\n#EXTINF:2,\n{made_videos['mpegts']}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", f"ffconcat version 1.0\nfile {made_videos['plain'].name}\n"),
    ):
        path = made_videos.path(name)
        path.write_text(text)
        with pytest.raises(VideoError, match="cannot be read as video"):
            probe_video(str(path))


def test_stays_silent(made_videos: MadeVideos, capfd: pytest.CaptureFixture) -> None:
    for name in (*READABLE, *REFUSED):
        try:
            probe_video(str(made_videos[name]))
        except VideoError:
            assert name in REFUSED
    assert capfd.readouterr() == ("", "")


@given(st.fractions(min_value=Fraction(1, 1000), max_value=1000))
def test_rates_fit_the_table(rate: Fraction) -> None:
    fitted = _int32(rate)
    assert max(fitted.numerator, fitted.denominator) < 2**31
    assert abs(fitted - rate) <= rate / 10**6


def test_display_matrix_oracle() -> None:
    picture = np.arange(2 * 3).reshape(2, 3, 1)
    turns = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    for rotation, (a, b, c, d) in turns.items():
        for mirror in (1, -1):
            matrix = np.zeros(9, np.int32)
            matrix[[0, 1, 3, 4]] = np.array([mirror * a, b, mirror * c, d]) * 65536
            frame = SimpleNamespace(side_data={"DISPLAYMATRIX": matrix.tobytes()})
            orientation = orientation_of(frame)
            upright = np.rot90(picture, -rotation // 90)  # np.rot90 turns the other way
            expected = upright[:, ::mirror]
            np.testing.assert_array_equal(orientation.apply(picture), expected)
            assert orientation.rotation == rotation
            assert orientation.is_mirrored == (mirror == -1)


def test_refuses_a_skewed_display_matrix() -> None:
    matrix = np.array([60000, 20000, 0, -20000, 60000, 0, 0, 0, 1 << 30], np.int32)
    frame = SimpleNamespace(side_data={"DISPLAYMATRIX": matrix.tobytes()})
    with pytest.raises(ValueError, match="no multiple of 90 degrees"):
        orientation_of(frame)


def test_real_clips_count_as_published(shared: Path) -> None:
    with open(shared / "data/clips/clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 41
    for row in rows:
        scan = scan_packets(str(shared / "data/clips" / row["path"]))
        assert len(scan) == int(row["num_frames"])
        assert (scan.width, scan.height) == (int(row["width"]), int(row["height"]))
        assert not scan.is_vfr
        assert float(scan.rate) == pytest.approx(float(row["fps"]), rel=0.02)


@pytest.mark.slow
def test_real_clips_decode_strictly(shared: Path) -> None:
    paths = sorted((shared / "data/clips").glob("*/**/*.*"))
    decoders = {path.name: probe_video(str(path)).decoder for path in paths}
    by_pyav = {name for name, decoder in decoders.items() if decoder == "pyav"}
    # an AVI that announces B-frames, and keyframes that are not IDR pictures
    assert by_pyav == {"open-mmlab__test.avi", "tensorflow__carving_ice.mp4"}
    assert len(decoders) == 41

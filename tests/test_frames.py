"""The frame source: frame i is frame i, whichever decoder reads it and in whatever order."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import NUM_FRAMES, MadeVideos, flip_bytes, read_stamps, stamped_frames
from test_probe import READABLE

from manifests import SourceVideo, VideoError, probe_video
from synth import frame_batches, frames, read_frames, resize

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def either_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `video.decoder` alone choose, so that each test meets the decoder that it names."""
    if "chooses_decoder" not in request.keywords:
        monkeypatch.setattr(frames, "_is_for_decord", lambda video, _: video.decoder == "decord")


BY_DECORD = [name for name, (_, decoder) in READABLE.items() if decoder == "decord"]
FIRST_STAMP = {"edit_list": 20}
REAL_SAMPLE = (
    "trimmed/asl_sign/intel-iot-devkit__again.mkv",
    "trimmed/archery/PaddlePaddle__example.avi",
    "trimmed/apply_eye_makeup/open-mmlab__test.avi",
    "trimmed/carving_ice/tensorflow__carving_ice.mp4",
    "trimmed/tai_chi/yysijie__ta_chi.mp4",
    "trimmed/riding_bike/showlab__inessman-go-to-work-on-his-sport-retro-bike-in-sunny-day.mp4",
)


@cache
def probed(path: Path) -> SourceVideo:
    return probe_video(str(path))


def everything(video: SourceVideo) -> np.ndarray:
    return read_frames(video, np.arange(video.num_frames))


@pytest.mark.parametrize("name", READABLE)
def test_frame_i_is_frame_i(name: str, made_videos: MadeVideos) -> None:
    video = probed(made_videos[name])
    frames_THWC = everything(video)
    first = FIRST_STAMP.get(name, 0)
    assert read_stamps(frames_THWC) == list(range(first, first + video.num_frames))
    made_THWC = stamped_frames(NUM_FRAMES, video.width, video.height)[first:][: video.num_frames]
    if name.startswith("grey"):
        assert (frames_THWC == frames_THWC[..., :1]).all()
        made_THWC = made_THWC @ np.array([[0.299], [0.587], [0.114]])  # BT.601 luma
    # the right colours in the right place: lossy coding costs 2 levels, a swapped channel 40
    assert np.abs(frames_THWC - made_THWC.astype(float)).mean() < 4


@pytest.mark.parametrize("name", BY_DECORD)
def test_decoders_agree_to_the_bit(name: str, made_videos: MadeVideos) -> None:
    video = probed(made_videos[name])
    assert video.decoder == "decord"
    expected = everything(replace(video, decoder="pyav"))
    np.testing.assert_array_equal(everything(video), expected)
    rng = np.random.default_rng(0)
    for _ in range(4):
        wanted = rng.integers(video.num_frames, size=5)
        np.testing.assert_array_equal(read_frames(video, wanted), expected[wanted])


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([name for name in READABLE if READABLE[name][0] > 30]),
    st.sampled_from(["probed", "pyav"]),
    st.lists(st.integers(0, 29), max_size=12),
    st.integers(0, 30),
)
def test_any_order_equals_sequential(
    made_videos: MadeVideos, name: str, decoder: str, wanted: list[int], shift: int
) -> None:
    video = probed(made_videos[name])
    if decoder == "pyav":
        video = replace(video, decoder="pyav")
    whole_THWC = _sequential(made_videos[name])
    indices = np.array(wanted, int) + min(shift, video.num_frames - 30)
    np.testing.assert_array_equal(read_frames(video, indices), whole_THWC[indices])


@cache
def _sequential(path: Path) -> np.ndarray:
    """Every frame, decoded from the first byte on without leaving anything out."""
    video = probed(path)
    scan = frames.scan_packets(str(path))
    indices = np.arange(video.num_frames)
    decoded = list(frames._from_the_start(scan, indices))
    converter = frames.RgbConverter(frames.orientation_of(decoded[0]))
    return np.stack([converter.convert(frame) for frame in decoded])


@pytest.mark.parametrize(
    "name", ["plain", "b_frames", "mkv", "mpegts", "mpeg2", "avi", "vp9", "edit_list", "offset"]
)
def test_jumps_land(name: str, made_videos: MadeVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short cut itself works: nothing falls back to decoding from the start."""

    def fall_back(*_: object) -> None:
        raise AssertionError("fell back")

    video = replace(probed(made_videos[name]), decoder="pyav")
    expected = _sequential(made_videos[name])
    monkeypatch.setattr(frames, "_from_the_start", fall_back)
    for wanted in ([video.num_frames - 1], [2, 7, 35], [30, 33, 36, 39]):
        np.testing.assert_array_equal(read_frames(video, np.array(wanted)), expected[wanted])


@pytest.mark.parametrize("name", ["plain", "b_frames"])
def test_falls_back_where_a_jump_misses(
    name: str, made_videos: MadeVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = replace(probed(made_videos[name]), decoder="pyav")
    expected = _sequential(made_videos[name])
    wrong = np.zeros(NUM_FRAMES, bool)
    wrong[27] = True  # decoding cannot start there

    def lying_scan(path: str) -> object:
        return replace(scan_packets(path), starts_N=wrong)

    scan_packets = frames.scan_packets
    monkeypatch.setattr(frames, "scan_packets", lying_scan)
    wanted = np.array([3, 30, 31, 50])
    np.testing.assert_array_equal(read_frames(video, wanted), expected[wanted])


def test_runs_jump_only_where_it_saves_decoding() -> None:
    starts = np.isin(np.arange(600), [0, 250, 500])

    def runs(*indices: int) -> list[tuple[int, list[int]]]:
        return [(start, run.tolist()) for start, run in frames._runs(starts, np.array(indices))]

    assert runs(3, 8) == [(0, [3, 8])]
    assert runs(3, 8, 260) == [(0, [3, 8]), (250, [260])]
    assert runs(240, 245, 251) == [(0, [240, 245, 251])]  # close enough to decode on
    assert runs(260, 270, 510, 599) == [(250, [260, 270]), (500, [510, 599])]
    assert runs(0, 599) == [(0, [0]), (500, [599])]
    never = np.zeros(600, bool)
    assert [(s, r.tolist()) for s, r in frames._runs(never, np.array([5, 300]))] == [(0, [5, 300])]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_order_repeats_and_size(decoder: str, made_videos: MadeVideos) -> None:
    video = replace(probed(made_videos["b_frames"]), decoder=decoder)
    indices = np.array([50, 3, 3, 59, 0, 50])
    assert read_stamps(read_frames(video, indices)) == indices.tolist()
    native_THWC = read_frames(video, indices)
    for short_side, size in ((48, (48, 64)), (96, (96, 128)), (112, (112, 149))):
        resized_THWC = read_frames(video, indices, short_side)
        assert resized_THWC.shape == (6, *size, 3)
        for resized_HWC, native_HWC in zip(resized_THWC, native_THWC, strict=True):
            np.testing.assert_array_equal(resized_HWC, resize(native_HWC, *size))
    assert read_frames(video, np.array([], int), 48).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_batches_stay_small(
    decoder: str, made_videos: MadeVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = replace(probed(made_videos["plain"]), decoder=decoder)
    wanted = np.arange(1, 60, 5)
    for batch, sizes in ((5, [5, 5, 2]), (100, [12])):
        batches = list(frame_batches(video, wanted, batch))
        assert [len(indices) for indices, _ in batches] == sizes
        for indices, frames_THWC in batches:
            assert read_stamps(frames_THWC) == indices.tolist()
    monkeypatch.setattr(frames, "BATCH_BYTES", 2 * 96 * 128 * 3)
    assert {len(indices) for indices, _ in frame_batches(video, wanted)} == {2}
    monkeypatch.setattr(frames, "BATCH_BYTES", 1)  # one frame is more than that already
    assert {len(indices) for indices, _ in frame_batches(video, wanted)} == {1}


@pytest.mark.chooses_decoder
def test_decord_reads_short_gapless_runs_where_it_is_right(
    made_videos: MadeVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = probed(made_videos["plain"])
    readers = []
    for name in ("_read_decord", "_read_pyav"):
        read = getattr(frames, name)
        monkeypatch.setattr(
            frames, name, lambda *given, name=name, read=read: readers.append(name) or read(*given)
        )
    monkeypatch.setattr(frames, "DECORD_BYTES", 20 * 96 * 128 * 3)
    for start, stop, step in ((10, 30, 1), (10, 31, 1), (10, 30, 2)):
        wanted = np.arange(start, stop, step)
        assert read_stamps(read_frames(video, wanted)) == wanted.tolist()
    assert readers == ["_read_decord", "_read_pyav", "_read_pyav"]
    read_frames(replace(video, decoder="pyav"), np.arange(10, 30))
    assert readers[3:] == ["_read_pyav"]


def test_wrong_use_is_said(made_videos: MadeVideos) -> None:
    video = probed(made_videos["plain"])
    for indices in ([3, 3], [4, 2], [-1, 2]):
        with pytest.raises(ValueError, match="strictly increasing"):
            list(frame_batches(video, np.array(indices)))
    with pytest.raises(ValueError, match="batch must be >= 1"):
        list(frame_batches(video, np.arange(3), batch=0))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_what_is_not_there_is_an_error(
    decoder: str, made_videos: MadeVideos, tmp_path: Path
) -> None:
    video = replace(probed(made_videos["plain"]), decoder=decoder)
    with pytest.raises(VideoError, match="frame 60 was asked for, but it has 60"):
        read_frames(video, np.array([60]))
    with pytest.raises(VideoError, match="cannot be opened"):
        read_frames(replace(video, path=str(tmp_path / "absent.mp4")), np.array([0]))
    with pytest.raises(VideoError, match=r"changed since it was probed \(60 frames.* then 61"):
        read_frames(replace(video, num_frames=61), np.array([60]))
    with pytest.raises(VideoError, match=r"changed since it was probed \(.* bytes"):
        read_frames(replace(video, num_bytes=video.num_bytes + 1), np.array([0]))
    with pytest.raises(VideoError, match="shows frames of 128x96 where 130x96 were probed"):
        read_frames(replace(video, width=130), np.array([0]))
    with pytest.raises(VideoError, match="was rejected by the probe: is empty"):
        read_frames(
            replace(video, status="rejected", reason="is empty", height=0), np.array([0]), 9
        )
    text = made_videos["text"]
    replaced = replace(video, path=str(text), num_bytes=text.stat().st_size)
    with pytest.raises(VideoError, match="cannot be"):
        read_frames(replaced, np.array([0]))


@pytest.mark.parametrize("name", ["plain", "b_frames", "mkv", "long_gop"])
def test_damage_is_never_shown(name: str, made_videos: MadeVideos, tmp_path: Path) -> None:
    """A row from packets alone: damage is met while reading, and no wrong frame comes before it."""
    whole_THWC = _sequential(made_videos[name])
    for seed in range(8):
        path = flip_bytes(made_videos[name], tmp_path / f"{seed}{made_videos[name].suffix}", seed)
        try:
            video = probe_video(str(path), check="packets")
        except VideoError:
            continue  # the damage shows in the packets already
        with pytest.raises(VideoError):
            _compare(video, whole_THWC)


def _compare(video: SourceVideo, whole_THWC: np.ndarray) -> None:
    for indices, frames_THWC in frame_batches(video, np.arange(NUM_FRAMES), batch=1):
        np.testing.assert_array_equal(frames_THWC, whole_THWC[indices])


def test_reads_remote_files(made_videos: MadeVideos) -> None:
    path = "memory://frames/remote.mp4"
    content = made_videos["edit_list"].read_bytes()
    with fsspec.open(path, "wb") as file:
        file.write(content)
    video = probe_video(path)
    wanted = np.array([39, 0, 30])
    assert read_stamps(read_frames(video, wanted)) == [59, 20, 50]
    with fsspec.open(path, "wb") as file:
        file.write(content + b"more")
    with pytest.raises(VideoError, match="changed since it was probed"):
        read_frames(video, wanted)


@pytest.fixture
def visits() -> Iterator[list[bytes]]:
    """Return what was asked of a server on loopback; its address is the first entry."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen.append(b"127.0.0.1:%d" % server.getsockname()[1])

        def answer() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    seen.append(client.recv(64))

        threading.Thread(target=answer, daemon=True).start()
        yield seen
        server.shutdown(socket.SHUT_RDWR)


def claimed(path: str, num_bytes: int) -> SourceVideo:
    """Return a row of a table that says that decord may read the file."""
    size = {"num_frames": 4, "end_frame": 4, "width": 32, "height": 32, "fps_num": 25}
    return SourceVideo("v", path, decoder="decord", num_bytes=num_bytes, **size)


@pytest.mark.chooses_decoder
@pytest.mark.parametrize("url", ["http://{}/a.mp4", "subfile,,start,0,end,9,,:http://{}/a.mp4"])
def test_a_table_cannot_make_a_decoder_call_anybody(visits: list[bytes], url: str) -> None:
    with pytest.raises(VideoError, match="is no URL of an object"):
        read_frames(claimed(url.format(visits[0].decode()), 0), np.arange(4))
    assert len(visits) == 1


def test_a_playlist_cannot_make_a_decoder_call_anybody(visits: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "playlist.mp4"
    address = visits[0].decode()
    path.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n"
    )
    video = claimed(str(path), path.stat().st_size)
    with pytest.raises(VideoError, match="it is no MP4, Matroska or AVI"):
        read_frames(video, np.arange(4))
    with pytest.raises(VideoError, match="cannot be read as video"):
        read_frames(replace(video, decoder="pyav"), np.arange(4))
    assert len(visits) == 1


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(VideoError, match="cannot be opened"):
        read_frames(claimed("a\0b", 0), np.arange(4))


def test_abandoned_reading_leaves_nothing_open(made_videos: MadeVideos) -> None:
    before = _open_files()
    for decoder in ("decord", "pyav"):
        batches = frame_batches(
            replace(probed(made_videos["plain"]), decoder=decoder), np.arange(9)
        )
        next(batches)
        batches.close()
    assert _open_files() == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_real_windows_agree(shared: Path) -> None:
    for name in REAL_SAMPLE:
        video = probed(shared / "data/clips" / name)
        start = video.num_frames // 3
        window = np.arange(start, min(start + 80, video.num_frames), 5)
        by_pyav = read_frames(replace(video, decoder="pyav"), window)
        assert len(np.unique(by_pyav.reshape(len(window), -1)[:, ::97], axis=0)) > 1
        if video.decoder == "decord":
            np.testing.assert_array_equal(read_frames(video, window), by_pyav)
        else:
            expected = _sequential(shared / "data/clips" / name)[window]
            np.testing.assert_array_equal(by_pyav, expected)


@pytest.mark.slow
def test_all_real_frames_agree(shared: Path) -> None:
    """Every frame of every clip by both decoders, then a window by jumps."""
    paths = sorted((shared / "data/clips").glob("*/**/*.*"))
    assert len(paths) == 41
    for path in paths:
        video = probe_video(str(path), check="packets")
        numbers = np.arange(video.num_frames)
        by_decord = frame_batches(replace(video, decoder="decord"), numbers)
        window = numbers[video.num_frames // 2 :: 5][:16]
        kept = {}
        for (indices, frames_THWC), (_, decord_THWC) in zip(
            frame_batches(video, numbers), by_decord, strict=True
        ):
            np.testing.assert_array_equal(frames_THWC, decord_THWC, err_msg=str(path))
            kept |= {i: frames_THWC[k] for k, i in enumerate(indices) if i in window}
        np.testing.assert_array_equal(
            read_frames(video, window), np.stack([kept[i] for i in window]), err_msg=str(path)
        )

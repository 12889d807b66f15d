"""Transcoding: the same frames at the same times, known again, and unharmed by what goes wrong."""

import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import MadeVideos, flip_bytes, read_stamps, stamped_frames
from test_build import num_calls, scripted_probe, tree
from test_frames import REAL_SAMPLE
from test_probe import READABLE

from manifests import UsageError, VideoError, build_sources, probe_video, read_sources, scan_packets
from manifests import transcode as module
from manifests.transcode import new_size, plan_transcode, transcode
from synth import read_frames, resize

pytestmark = pytest.mark.slow


def transcoded(source: Path, target: Path, *part: float | None):
    return transcode(plan_transcode(str(source), str(target), *part))


def frames_of(video) -> np.ndarray:
    return read_frames(video, np.arange(video.num_frames))


# ------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("name", READABLE)
def test_frames_and_times_are_kept(name: str, made_videos: MadeVideos, tmp_path: Path) -> None:
    source = probe_video(str(made_videos[name]))
    video = transcoded(made_videos[name], tmp_path / "new.mp4")
    made = scan_packets(video.path)
    np.testing.assert_array_equal(made.times_N, scan_packets(source.path).times_N)
    assert (video.num_frames, video.fps) == (source.num_frames, source.fps)
    assert (video.is_vfr, video.codec) == (source.is_vfr, "h264")
    assert (video.rotation, video.decoder) == (0, "decord")
    assert (video.width, video.height) == new_size(source.width, source.height)
    old_THWC, new_THWC = frames_of(source), frames_of(video)
    assert read_stamps(new_THWC) == read_stamps(old_THWC)
    resized_THWC = np.stack([resize(frame, video.height, video.width) for frame in old_THWC])
    difference_THWC = resized_THWC.astype(float) - new_THWC
    assert np.abs(difference_THWC).mean() < 3
    assert np.abs(difference_THWC.mean((0, 1, 2))).max() < 1.5  # no colour drifts


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_SAMPLE)
def test_real_clips_are_kept(name: str, shared: Path, tmp_path: Path) -> None:
    source = probe_video(str(shared / "data/clips" / name))
    video = transcoded(Path(source.path), tmp_path / "new.mp4")
    np.testing.assert_array_equal(
        scan_packets(video.path).times_N, scan_packets(source.path).times_N
    )
    wanted = np.arange(0, source.num_frames, 9)
    new_THWC = read_frames(video, wanted).astype(float)
    old_THWC = read_frames(source, wanted)
    resized_THWC = np.stack([resize(frame, video.height, video.width) for frame in old_THWC])
    assert 10 * np.log10(255**2 / np.mean((resized_THWC - new_THWC) ** 2)) > 33


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(1, 200_000), min_size=1, max_size=40),
    st.sampled_from([Fraction(1, 90_000), Fraction(1, 1_000), Fraction(1001, 30_000)]),
)
def test_any_times_are_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], time_base: Fraction
) -> None:
    folder = tmp_path_factory.mktemp("times")
    pictures = stamped_frames(len(steps), 96, 32)
    with av.open(str(folder / "old.mp4"), "w") as container:
        stream = container.add_stream("libx264", options={"x264-params": "bframes=2"})
        stream.width, stream.height, stream.pix_fmt = 96, 32, "yuv420p"
        stream.codec_context.time_base = time_base
        for picture, pts in zip(pictures, np.cumsum(steps).tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    old = scan_packets(str(folder / "old.mp4"))
    video = transcoded(folder / "old.mp4", folder / "new.mp4")
    np.testing.assert_array_equal(scan_packets(video.path).times_N, old.times_N)
    assert read_stamps(frames_of(video)) == list(range(len(steps)))


def test_a_part_becomes_a_file(made_videos: MadeVideos, tmp_path: Path) -> None:
    for name, part, first, end in [
        ("b_frames", (0.5, 1.5), 13, 38),
        ("vfr", (0.5, 1.5), 9, 27),
        ("no_pts_avi", (1.0, None), 25, 60),
        ("silence_first", (None, 0.6), 0, 3),  # the picture starts at 0.5 s
    ]:
        video = transcoded(made_videos[name], tmp_path / f"{name}.mp4", *part)
        assert read_stamps(frames_of(video)) == list(range(first, end))
        assert (video.first_frame, video.end_frame) == (0, end - first)
        times_N = scan_packets(str(made_videos[name])).times_N[first:end]
        np.testing.assert_allclose(scan_packets(video.path).times_N, times_N - times_N[0])
    with pytest.raises(VideoError, match="presents no frame from 7 s to 9 s"):
        transcoded(made_videos["plain"], tmp_path / "new.mp4", 7, 9)


def test_a_keyframe_every_twelve_frames(made_videos: MadeVideos, tmp_path: Path) -> None:
    scan = scan_packets(transcoded(made_videos["long_gop"], tmp_path / "new.mp4").path)
    assert np.flatnonzero(scan.starts_N).tolist() == [0, 12, 24, 36, 48]
    assert scan.starts_plain  # closed groups


def test_bytes_repeat(made_videos: MadeVideos, tmp_path: Path) -> None:
    shutil.copy(made_videos["vfr"], tmp_path / "copy.mp4")
    transcoded(made_videos["vfr"], tmp_path / "a.mp4")
    transcoded(tmp_path / "copy.mp4", tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.slow
def test_bytes_repeat_many_times(shared: Path, tmp_path: Path) -> None:
    """libx264 gave other bytes in two of three encodings of this, with its macroblock tree."""
    source = shared / "data/clips/trimmed/asl_sign/intel-iot-devkit__walk.mkv"
    planned = plan_transcode(str(source), str(tmp_path / "new.mp4"))
    made = set()
    for _ in range(10):
        file = BytesIO()
        module._encode(planned, file)
        made.add(file.getvalue())
    assert len(made) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((720, 1280), (256, 454)),
        ((256, 340), (256, 340)),
        ((256, 341), (256, 340)),
        ((854, 480), (454, 256)),
        ((144, 176), (144, 176)),
        ((99, 131), (98, 130)),
        ((1, 9), (2, 8)),
    ],
)
def test_new_size(old: tuple[int, int], new: tuple[int, int]) -> None:
    assert new_size(*old) == new


@given(st.integers(2, 4096), st.integers(2, 4096))
def test_new_size_is_even_and_never_larger(height: int, width: int) -> None:
    new = new_size(height, width)
    assert new == new_size(width, height)[::-1]
    assert all(side % 2 == 0 for side in new)
    assert new[0] <= height
    assert new[1] <= width
    if min(height, width) >= 256:
        assert min(new) == 256


# ------------------------------------------------------------------------------- known again


def test_a_finished_file_is_not_made_again(
    made_videos: MadeVideos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "old.mp4", tmp_path / "new.mp4"
    shutil.copy(made_videos["plain"], source)

    def is_made_again(*part: float) -> bool:
        before = target.stat().st_ino if target.exists() else None
        transcoded(source, target, *part)
        return target.stat().st_ino != before

    assert is_made_again()
    assert not is_made_again()
    os.utime(source)  # the same content
    assert not is_made_again()
    assert is_made_again(0.5, 1.5)
    assert is_made_again()
    good = target.read_bytes()
    flip_bytes(target, target, seed=0)
    assert is_made_again()
    assert target.read_bytes() == good
    shutil.copy(made_videos["vfr"], source)
    assert is_made_again()
    monkeypatch.setitem(module.OPTIONS, "crf", "30")
    assert is_made_again()


def test_files_of_others_are_left_alone(made_videos: MadeVideos, tmp_path: Path) -> None:
    for name in ("mkv", "text"):
        target = tmp_path / "new.mp4"
        shutil.copy(made_videos[name], target)
        with pytest.raises(VideoError, match="a file that is not ours is in the way"):
            transcoded(made_videos["plain"], target)
        assert target.read_bytes() == made_videos[name].read_bytes()


def test_nothing_stands_where_times_are_not_kept(made_videos: MadeVideos, tmp_path: Path) -> None:
    planned = plan_transcode(str(made_videos["plain"]), str(tmp_path / "new.mp4"))
    made = scan_packets(str(made_videos["plain"]))
    with pytest.raises(VideoError, match="to 60 frames, not to its 59"):
        module._check_kept(replace(planned, ticks_N=planned.ticks_N[:-1]), made)
    moved_N = planned.ticks_N + (np.arange(60) == 7)
    with pytest.raises(VideoError, match=r"frame 7 at 0.280000 s instead of 0.280078 s"):
        module._check_kept(replace(planned, ticks_N=moved_N), made)
    damaged = flip_bytes(made_videos["plain"], tmp_path / "damaged.mp4", seed=1)
    with pytest.raises(VideoError):
        transcoded(damaged, tmp_path / "new.mp4")
    assert os.listdir(tmp_path) == ["damaged.mp4"]


# ------------------------------------------------------------------------------- the table


def made_tree(made_videos: MadeVideos, root: Path, **names: str) -> Path:
    for path, name in names.items():
        target = root / path.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made_videos[name], target.with_suffix(made_videos[name].suffix))
    return root


@pytest.mark.slow
def test_the_table_names_the_new_files(made_videos: MadeVideos, tmp_path: Path) -> None:
    root = made_tree(
        made_videos, tmp_path / "old", run__a="rotated_90", run__same="mkv", jump__b="vfr"
    )
    made_tree(made_videos, root, run__same="plain", jump__bad="cut_moov_last")
    (tmp_path / "new/run").mkdir(parents=True)
    (tmp_path / "new/run/.a.mp4.0123456789ab.part").touch()  # of a killed run
    options: dict[str, Any] = {"transcode_to": tmp_path / "new"}
    report = build_sources(root, tmp_path / "s.parquet", workers=2, **options)
    assert (report.total, report.ok, report.num_classes) == (5, 4, 2)
    rows = {video.video_id: video for video in read_sources(tmp_path / "s.parquet")}
    paths = {key: os.path.relpath(row.path, tmp_path) for key, row in rows.items()}
    assert paths == {
        "a": "new/run/a.mp4",
        "b": "new/jump/b.mp4",
        "bad": "old/jump/bad.mp4",
        "run/same.mkv": "new/run/same.mkv.mp4",
        "run/same.mp4": "new/run/same.mp4.mp4",
    }
    assert (rows["a"].label, rows["b"].label, rows["bad"].status) == ("run", "jump", "rejected")
    for key in rows.keys() - {"bad"}:
        video = rows[key]
        unlabelled = {"video_id": Path(video.path).stem, "label": None, "label_id": None}
        assert probe_video(video.path) == replace(video, **unlabelled)
    assert not list(tmp_path.rglob("*.part"))
    table, inodes = (tmp_path / "s.parquet").read_bytes(), inodes_of(tmp_path / "new")
    build_sources(root, tmp_path / "s.parquet", workers=1, **options)
    assert (tmp_path / "s.parquet").read_bytes() == table
    assert inodes_of(tmp_path / "new") == inodes


def inodes_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in folder.rglob("*.mp4")}


def test_parts_of_one_file(made_videos: MadeVideos, tmp_path: Path) -> None:
    made_tree(made_videos, tmp_path / "old", deep__id="plain")
    (tmp_path / "list.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nrun,id,0,1,val\nrun,id,1,2,val\n"
    )
    build_sources(
        tmp_path / "list.csv",
        tmp_path / "s.parquet",
        videos=tmp_path / "old",
        transcode_to=tmp_path / "new",
        workers=1,
        check="packets",
    )
    first, second = read_sources(tmp_path / "s.parquet")
    assert os.path.relpath(second.path, tmp_path) == "new/deep/id_000001_000002.mp4"
    for video in (first, second):
        assert (video.start_seconds, video.end_seconds) == (None, None)
        assert (video.first_frame, video.end_frame, video.num_frames) == (0, 25, 25)
    assert read_stamps(frames_of(second)) == list(range(25, 50))


@pytest.mark.slow
def test_what_goes_wrong_is_a_row_and_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    root, out = (
        tree(tmp_path / "old", "a", "b", "crash", "full", "hang", "z"),
        tmp_path / "s.parquet",
    )
    options: dict[str, Any] = {"transcode_to": tmp_path / "new", "probe_file": scripted_probe}
    with pytest.raises(OSError, match=r"No space left on device: .*new/run/full.mp4"):
        build_sources(root, out, workers=1, **options)
    assert not out.exists()
    (tmp_path / "new/run/b.mp4").unlink()
    report = build_sources(root, out, workers=1, **options)
    assert report.reasons == {
        "transcoding crashed (segmentation fault)": 1,
        "transcoding ran past 120 s and 10 s per MB and 0.2 s per frame": 1,
    }
    assert report.resumed == 1
    calls = {"a": 1, "b": 2, "crash": 1 + 2, "full": 2, "hang": 1, "z": 1}
    assert num_calls(root) == calls
    paths = [os.path.relpath(video.path, tmp_path) for video in read_sources(out)]
    assert paths[:3] == ["new/run/a.mp4", "new/run/b.mp4", "old/run/crash.mp4"]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    made_videos: MadeVideos, tmp_path: Path
) -> None:
    root = made_tree(made_videos, tmp_path / "old", run__a="one_frame", run__b="plain")
    command = [sys.executable, "-c", "from cli import synth; synth()", "manifest", str(root)]
    command += ["-o", "s.parquet", "--transcode", "new", "--workers", "1"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].startswith("Error: File too large: ")
    assert "Traceback" not in ended.stderr
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["a.mp4", "a.mp4", "b.mp4", "s.parquet.partial.jsonl"]
    report = build_sources(root, tmp_path / "s.parquet", transcode_to=tmp_path / "new")
    assert (report.ok, report.resumed) == (2, 1)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("old", "must name a folder outside of the videos'"),
        ("old/run/new", "must name a folder outside of the videos'"),
        ("link/new", "must name a folder outside of the videos'"),
        ("file", "must name a folder, but '.*file' is a file"),
    ],
)
def test_wrong_use_writes_nothing(tmp_path: Path, folder: str, message: str) -> None:
    tree(tmp_path / "old", "a")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=message):
        build_sources(tmp_path / "old", tmp_path / "s.parquet", transcode_to=tmp_path / folder)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "old"]


def test_two_videos_never_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "old/a").mkdir(parents=True)
    for name in ("x.avi", "x.mp4", "x.avi.mp4"):
        (tmp_path / "old/a" / name).touch()
    with pytest.raises(UsageError, match=r"not be transcoded to one file, .*new/a"):
        build_sources(tmp_path / "old", tmp_path / "s.parquet", transcode_to=tmp_path / "new")

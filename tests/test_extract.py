"""Extraction: every row against the frames it must be made of, and against crashes and damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_videos import MadeVideos, encode, flip_bytes, read_stamps, stamped_frames

import cli
import features.extraction.extract_plan as plan_module
import features.extraction.pipeline as pipeline_module
from features import Encoder, FeatureStore, encoder_of_run, extract_features, verify_store
from features.extraction.batches import BatchAssembler, Cancelled, plan_batches
from features.extraction.crops import Framing
from features.store.layout import plan_layout
from manifests import (
    CheckpointError,
    SnippetGrid,
    SourceVideo,
    StoreError,
    UsageError,
    VideoError,
    VideoUnavailable,
    probe_video,
    read_sources,
    scan_packets,
    write_sources,
)
from synth import apply_view, read_frames
from train import X3D, X3DArguments
from train.checkpoint import write_model

pytestmark = pytest.mark.slow

LENGTH = 8


def stamps_of(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Read the number of every frame of every clip: features that say what they were made of."""
    frames = (clips_NCTHW.permute(0, 2, 3, 4, 1) * 255).round().to(torch.uint8).numpy()
    return torch.tensor([read_stamps(clip) for clip in frames], dtype=torch.float32)


def stamp_encoder(embed: Callable[[torch.Tensor], torch.Tensor] = stamps_of) -> Encoder:
    """Return an encoder whose feature vector is the list of the snippet's frame numbers."""
    return Encoder(
        name="stamps",
        embed=embed,
        feature_dim=LENGTH,
        num_frames=LENGTH,
        height=96,
        width=128,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        weights_digest="0" * 64,
    )


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory) -> list[SourceVideo]:
    """Return five videos of different lengths, one of them long enough for several batches."""
    folder = tmp_path_factory.mktemp("long")
    videos = []
    for number, num_frames in enumerate((30, 200, 61, 7, 90)):
        path = encode(folder / f"v{number}.mp4", stamped_frames(num_frames))
        videos.append(replace(probe_video(str(path)), video_id=f"set/v{number}"))
    return videos


@pytest.fixture
def small_shards(monkeypatch):
    """Give every 64 rows a shard of their own."""
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))


def named(videos: MadeVideos, *names: str) -> list[SourceVideo]:
    return [replace(probe_video(str(videos[name])), video_id=name) for name in names]


def expected_rows(num_frames: int, stride: int, length: int = LENGTH) -> np.ndarray:
    return SnippetGrid(length, stride).frame_positions(num_frames)


@pytest.mark.parametrize("stride", [1, 3, 8, 20])
def test_every_row_is_made_of_its_frames(tmp_path, long_videos, stride):
    report = extract_features(
        long_videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=stride, batch=4
    )
    assert report.ok
    assert report.num_extracted == report.num_snippets
    store = FeatureStore.open(tmp_path / "s.zarr")
    for video in long_videos:
        np.testing.assert_array_equal(
            store[video.video_id], expected_rows(video.num_frames, stride)
        )
    assert verify_store(tmp_path / "s.zarr").ok


def test_hard_files_give_their_frames_and_times(tmp_path, made_videos):
    names = ("vfr", "b_frames", "edit_list", "silence_first", "offset", "no_pts_avi", "one_frame")
    videos = named(made_videos, *names)
    extract_features(videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=5)
    store = FeatureStore.open(tmp_path / "s.zarr")
    for video in videos:
        scan = scan_packets(video.path)
        # A file whose edit list hides its first 20 frames presents frame 20 first.
        shift = 20 if video.video_id == "edit_list" else 0
        rows_SL = expected_rows(len(scan), 5)
        np.testing.assert_array_equal(store[video.video_id], rows_SL + shift)
        times_S3 = store.times(video.video_id)
        np.testing.assert_array_equal(times_S3[:, 0], scan.times_N[rows_SL[:, 0]])
        np.testing.assert_array_equal(
            times_S3[:, 2], np.append(scan.times_N, scan.duration_seconds)[rows_SL[:, -1] + 1]
        )
        np.testing.assert_allclose(times_S3[:, 1], times_S3[:, ::2].mean(axis=1))


@pytest.mark.parametrize(
    ("fps", "step"), [(Fraction(5), 5), (Fraction(25, 2), 2), (Fraction(50), 0.5)]
)
def test_resampling_takes_frames_by_time(tmp_path, long_videos, fps, step):
    video = long_videos[1]
    extract_features([video], stamp_encoder(), tmp_path / "s.zarr", fps=fps, snippet_stride=4)
    store = FeatureStore.open(tmp_path / "s.zarr")
    num = round(video.duration_seconds * fps)
    shown = np.floor(np.arange(num) * step + 1e-6)
    np.testing.assert_array_equal(store[video.video_id], shown[expected_rows(num, 4)])
    times_S3 = store.times(video.video_id)
    np.testing.assert_allclose(times_S3[:, 0], np.arange(len(times_S3)) * 4 / float(fps))


def test_a_part_of_a_file_keeps_the_clock_of_the_file(tmp_path, long_videos):
    whole = long_videos[1]
    part = probe_video(whole.path, start_seconds=2.0, end_seconds=4.0)
    extract_features([part], stamp_encoder(), tmp_path / "s.zarr", snippet_stride=8)
    store = FeatureStore.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store[part.video_id], expected_rows(50, 8) + 50)
    times_S3 = store.times(part.video_id)
    assert (times_S3[0, 0], times_S3[-1, 2]) == (2.0, 4.0)
    assert store.between(part.video_id, 0.0, 2.0).shape == (0, LENGTH)


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_part_of_a_file_as_long_is_another_video(tmp_path, long_videos, is_finished):
    path = long_videos[1].path
    early, late = (
        probe_video(path, start_seconds=start, end_seconds=start + 2.0) for start in (2.0, 4.0)
    )
    extract_features([early], stamp_encoder(), tmp_path / "s.zarr")
    if not is_finished:
        (tmp_path / "s.zarr" / "index.parquet").unlink()
        (tmp_path / "s.zarr" / "commits").mkdir()
    moved = replace(early, path=str(shutil.copy(path, tmp_path / "moved.mp4")))
    for changed in (late, replace(early, num_bytes=early.num_bytes + 1)):
        with pytest.raises(StoreError, match="or their table has changed since"):
            extract_features([changed], stamp_encoder(), tmp_path / "s.zarr")
    assert extract_features([moved], stamp_encoder(), tmp_path / "s.zarr").ok


def test_tail_drop_keeps_full_snippets_and_rejects_what_is_too_short(tmp_path, long_videos):
    report = extract_features(
        long_videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=8, tail="drop"
    )
    assert dict(report.rejected) == {"set/v3": "it is shorter than one snippet of 8 frames"}
    assert not report.ok
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert [len(store[video_id]) for video_id in store.video_ids] == [3, 25, 7, 11]


def test_digits_do_not_depend_on_the_decoders(tmp_path, long_videos, small_shards):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(3, LENGTH, 5, stride=3)

    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        return network(clips_NCTHW).mean(dim=(2, 3, 4))

    cores = torch.get_num_threads()
    digests = {
        extract_features(
            long_videos, stamp_encoder(embed), tmp_path / f"{workers}.zarr", workers=workers
        ).digest
        for workers in (1, 2, 5)
    }
    assert len(digests) == 1
    assert torch.get_num_threads() == cores
    one = FeatureStore.open(tmp_path / "1.zarr")
    extract_features(long_videos, stamp_encoder(embed), tmp_path / "b.zarr", batch=3)
    other = FeatureStore.open(tmp_path / "b.zarr")
    for video_id in one.video_ids:
        np.testing.assert_allclose(one[video_id], other[video_id], atol=2e-3)


def damaged_copy(source: SourceVideo, path: Path) -> SourceVideo:
    """Copy a good video with its second half damaged, leaving its row of the table as it was."""
    for seed in range(20):
        flip_bytes(Path(source.path), path, seed, count=60)
        copy = replace(source, path=str(path), video_id="damaged", decoder="pyav")
        try:
            read_frames(copy, np.arange(copy.num_frames))
        except VideoError:
            return copy
    raise AssertionError("no damage was found in 20 damaged copies")


def test_a_bad_video_is_a_row_and_leaves_the_others_alone(tmp_path, long_videos, small_shards):
    bad = [
        damaged_copy(long_videos[1], tmp_path / "damaged.mp4"),
        replace(long_videos[0], video_id="gone", path=str(tmp_path / "gone.mp4")),
        SourceVideo("probed", "nowhere.mp4", status="rejected", reason="it is not a video"),
        replace(long_videos[0], video_id="other", num_frames=29),
    ]
    mixed = [bad[0], long_videos[1], bad[1], long_videos[0], bad[2], bad[3], *long_videos[2:]]
    report = extract_features(mixed, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=3)
    reasons = dict(report.rejected)
    assert set(reasons) == {"damaged", "gone", "probed", "other"}
    assert reasons["probed"] == "it is not a video"
    assert "changed since it was probed (30 frames" in reasons["other"]
    assert not report.ok
    store = FeatureStore.open(tmp_path / "s.zarr")
    for video in long_videos:
        np.testing.assert_array_equal(store[video.video_id], expected_rows(video.num_frames, 3))
    assert verify_store(tmp_path / "s.zarr").ok
    with pytest.raises(StoreError, match="'gone' was rejected"):
        store["gone"]


def test_a_disk_that_is_away_rejects_nothing(tmp_path, long_videos, small_shards):
    away = tmp_path / "disk" / "v.mp4"
    videos = [*long_videos, replace(long_videos[0], video_id="away", path=str(away))]
    with pytest.raises(VideoUnavailable, match="its folder is not there"):
        extract_features(videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=3)
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(tmp_path / "s.zarr")
    away.parent.mkdir()
    shutil.copy(long_videos[0].path, away)
    report = extract_features(videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=3)
    assert not report.rejected
    whole = extract_features(videos, stamp_encoder(), tmp_path / "whole.zarr", snippet_stride=3)
    assert report.digest == whole.digest


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (float("nan"), "2 of its rows, first row 36, are not finite numbers (NaN)"),
        (1e9, "2 of its rows, first row 36, do not fit into float16 (at most 65504)"),
    ],
)
def test_features_that_are_no_numbers_of_float16_reject_their_video(
    tmp_path, long_videos, number, sentence
):
    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        numbers = stamps_of(clips_NCTHW)
        return torch.where(numbers == 150, torch.tensor(number), numbers)

    report = extract_features(
        long_videos, stamp_encoder(embed), tmp_path / "s.zarr", snippet_stride=4, tail="drop"
    )
    assert dict(report.rejected)["set/v1"] == sentence
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.video_ids == ("set/v0", "set/v2", "set/v4")  # v3 is too short
    assert verify_store(tmp_path / "s.zarr").ok


def test_a_finished_store_is_left_as_it_is(tmp_path, long_videos):
    first = extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr")
    written = (tmp_path / "s.zarr" / "index.parquet").stat().st_mtime_ns
    again = extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr")
    assert (again.num_extracted, again.digest) == (0, first.digest)
    assert (tmp_path / "s.zarr" / "index.parquet").stat().st_mtime_ns == written


def test_an_open_encoder_stays_in_this_process_beside_many_gpus(tmp_path, long_videos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for name, checkpoint in (("s", stamp_encoder()), ("t", {"rgb": stamp_encoder()})):
        assert extract_features(long_videos, checkpoint, tmp_path / f"{name}.zarr").ok


def test_another_spec_and_other_videos_are_refused(tmp_path, long_videos):
    extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=4)
    with pytest.raises(StoreError, match="snippet_stride: 8 here, 4 there"):
        extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr", snippet_stride=8)
    with pytest.raises(StoreError, match="planned for other videos"):
        extract_features(long_videos[:2], stamp_encoder(), tmp_path / "s.zarr", snippet_stride=4)


def test_an_error_of_the_network_ends_everything_at_once(tmp_path, long_videos):
    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        extract_features(long_videos, stamp_encoder(embed), tmp_path / "s.zarr", snippet_stride=1)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("decode", "forward"))]


def test_an_error_of_our_own_in_a_decoder_reaches_the_caller(tmp_path, long_videos, monkeypatch):
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(pipeline_module, "fill_snippets", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch": 0}, "batch >= 1"),
        ({"snippet_stride": 0}, "must be >= 1, got 8 and 0"),
        ({"tail": "cut"}, "'pad' or 'drop', got 'cut'"),
        ({"fps": Fraction(0)}, "fps must be above 0"),
        ({"fps": Fraction("23.976023976023978")}, "fps must be .* at most 10 digits"),
        ({"snippet_len": 4097}, "snippet_len must be at most 4096, got 4097"),
        ({"snippet_stride": 2**31}, "snippet_stride must be .*got 2147483648"),
        ({"batch": 2**31}, "batch must be .*got 2147483648"),
    ],
)
def test_wrong_numbers_fail_before_anything_is_written(tmp_path, long_videos, arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        extract_features(long_videos, stamp_encoder(), tmp_path / "s.zarr", **arguments)
    with pytest.raises(UsageError, match="got 0 videos"):
        extract_features([], stamp_encoder(), tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("duration_seconds", "width", "fps_den", "end_frame")),
        *(("duration_seconds", value) for value in (float("nan"), float("inf"), 1e300, -1.0)),
        *(("start_seconds", float("nan")), ("end_seconds", float("inf"))),
        *(
            ("width", 0),
            ("height", -5),
            ("width", 2**31 - 1),
            ("num_bytes", None),
            ("num_frames", 2**62),
            ("first_frame", -1),
        ),
    ],
)
def test_numbers_that_no_video_has_are_named(tmp_path, long_videos, name, value):
    videos = [long_videos[0], replace(long_videos[3], **{name: value})]
    with pytest.raises(UsageError, match=f"{name} of video 'set/v3' must be from .*, got "):
        extract_features(videos, stamp_encoder(), tmp_path / "s.zarr", fps=Fraction(5))
    assert not (tmp_path / "s.zarr").exists()
    videos[1] = replace(videos[1], status="rejected", reason="damaged", duration_seconds=0.0)
    if name in ("width", "height"):
        assert not extract_features(videos, stamp_encoder(), tmp_path / "s.zarr").ok


def test_centre_view_fits_every_shape():
    (view,) = Framing(112, 112, 112).views(240, 320)
    assert (view.short_side, view.x, view.y) == (112, 18, 0)
    wide = Framing(96, 160, 96)
    for height, width in [(96, 96), (300, 100), (1, 1), (97, 161), (1080, 1920)]:
        frame = np.zeros((height, width, 3), np.uint8)
        assert apply_view(frame, wide.views(height, width)[0]).shape == (96, 160, 3)


def test_batches_of_a_shard_do_not_depend_on_other_shards():
    plan = plan_batches(np.array([3, 2, 5]), np.array([0, 0, 1]), 4)
    assert plan.first_V.tolist() == [0, 3, 8]
    assert plan.size_B.tolist() == [4, 1, 4, 1]
    assert plan.shard_B.tolist() == [0, 0, 1, 1]
    alone = plan_batches(np.array([5]), np.array([1]), 4)
    assert alone.size_B.tolist() == [4, 1]


def test_batches_are_taken_when_complete_and_once():
    plan = plan_batches(np.array([5]), np.array([0]), 2)
    assembler = BatchAssembler(plan, [(1, 1, 1, 1, 3)], max_ready=9)
    for snippet in (2, 3, 0, 4, 1):
        assembler.slot(snippet)[0][:] = snippet
        assembler.complete(snippet, lost=snippet == 3)
    taken = [assembler.take() for _ in range(4)]
    assert [batch.number for batch in taken[:3]] == [1, 2, 0]
    assert taken[3] is None
    assert taken[0].frames[0][0, :, 0, 0, 0, 0].tolist() == [2, 0]
    assert taken[0].lost == {1}


def test_decoders_wait_while_nobody_reads_and_are_let_go():
    plan = plan_batches(np.array([6]), np.array([0]), 1)
    assembler = BatchAssembler(plan, [(1, 1, 1, 1, 3)], max_ready=2)
    for snippet in range(2):
        assembler.slot(snippet)[0][:] = snippet
        assembler.complete(snippet)
    seen: list[str] = []

    def wait() -> None:
        try:
            assembler.slot(2)
        except Cancelled:
            seen.append("let go")

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assembler.close()
    thread.join(5)
    assert seen == ["let go"]
    assert assembler.take() is None


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
import test_extract as t
import features.extraction.extract as e
import features.extraction.extract_plan as p
p.plan_layout = lambda counts: t.plan_layout(counts, 64)
def slow(clips):
    time.sleep(0.05)
    return t.stamps_of(clips)
videos = list(t.read_sources({table!r}))
e.extract_features(videos, t.stamp_encoder(slow), {store!r}, snippet_stride=1)
"""


@pytest.mark.slow
def test_killed_and_run_again_ends_with_the_same_bytes(tmp_path, long_videos, small_shards):
    write_sources(tmp_path / "sources.parquet", long_videos, ["none"])
    videos = list(read_sources(tmp_path / "sources.parquet"))
    whole, store = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    expected = extract_features(videos, stamp_encoder(), whole, snippet_stride=1)
    script = KILLED.format(
        tests=str(Path(__file__).parent), table=str(tmp_path / "sources.parquet"), store=str(store)
    )
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(store.glob("commits/*.json")):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not (store / "index.parquet").exists()
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(store)
    report = extract_features(videos, stamp_encoder(), store, snippet_stride=1)
    assert 0 < report.num_extracted < report.num_snippets
    assert report.digest == expected.digest
    files = {path.relative_to(store) for path in store.rglob("*") if path.is_file()}
    assert files == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    for path in files:
        assert (store / path).read_bytes() == (whole / path).read_bytes(), path


def write_tiny_run(folder: Path) -> X3D:
    """Write a run folder as training does, with random weights."""
    torch.manual_seed(1)
    arguments = {"size": "XS", "depth_factor": 0.5, "width_factor": 0.5, "feature_dim": 24}
    backbone = X3D(3, X3DArguments(**arguments)).eval()
    folder.mkdir()
    record = {
        "backbone": "x3d",
        "arguments": arguments,
        "num_outputs": 3,
        "classes": ["a", "b", "c"],
        "objective": "classification",
        "frames": 4,
        "height": 32,
        "width": 32,
        "mean": [0.45, 0.45, 0.45],
        "std": [0.225, 0.225, 0.225],
    }
    write_model(folder, backbone, record)
    return backbone


def test_a_run_that_does_not_say_its_clips_is_refused(tmp_path):
    write_tiny_run(tmp_path / "run")
    record = (tmp_path / "run" / "model.json").read_text().replace('"height"', '"tall"')
    (tmp_path / "run" / "model.json").write_text(record)
    with pytest.raises(CheckpointError, match="lacks height"):
        encoder_of_run(tmp_path / "run")
    with pytest.raises(UsageError, match="'cpu' or 'cuda', got 'abacus'"):
        encoder_of_run(tmp_path / "run", "abacus")


def test_durations_that_another_tool_rounded_are_the_same_file(tmp_path, long_videos):
    video = long_videos[0]
    rounded = replace(video, duration_seconds=round(video.duration_seconds + 4e-4, 3))
    longer = replace(video, video_id="longer", duration_seconds=video.duration_seconds + 0.1)
    report = extract_features([rounded, longer], stamp_encoder(), tmp_path / "s.zarr")
    assert [video_id for video_id, _ in report.rejected] == ["longer"]


@pytest.mark.slow
def test_reports_of_features_are_json(tmp_path, long_videos):
    write_tiny_run(tmp_path / "run")
    write_sources(tmp_path / "sources.parquet", long_videos[:1], [])
    store = str(tmp_path / "s.zarr")
    for words in (
        ["extract", str(tmp_path / "sources.parquet"), "--checkpoint", str(tmp_path / "run"),
         "--store", store],
        ["info", store],
        ["verify", store],
        ["export", store, str(tmp_path / "npy")],
    ):  # fmt: skip
        result = CliRunner().invoke(cli.features, [*words, "--json"])
        assert result.exit_code == 0, result.output
        assert isinstance(json.loads(result.stdout), dict)


@pytest.mark.slow
def test_real_clips_equal_one_snippet_at_a_time(tmp_path, shared):
    backbone = write_tiny_run(tmp_path / "run")
    folder = shared / "data" / "clips" / "untrimmed"
    names = ("felixchenfy__exercise.avi", "microsoft__sample.mp4", "v-iashin__women_long_jump.mp4")
    videos = [probe_video(str(folder / name)) for name in names]
    report = extract_features(
        videos, tmp_path / "run", tmp_path / "s.zarr", snippet_len=8, snippet_stride=16, tail="drop"
    )
    assert report.ok
    store = FeatureStore.open(tmp_path / "s.zarr")
    for video in videos:
        feats_SD, times_S3 = store[video.video_id], store.times(video.video_id)
        assert len(feats_SD) == (video.num_frames - 8) // 16 + 1
        (view,) = Framing(32, 32, 32).views(video.height, video.width)
        for snippet in (0, len(feats_SD) // 2, len(feats_SD) - 1):
            frames_THWC = read_frames(video, np.arange(8) + 16 * snippet)
            clip = np.stack([apply_view(frame, view) for frame in frames_THWC]).astype(np.float32)
            clips_NCTHW = torch.from_numpy((clip / 255 - 0.45) / 0.225).permute(3, 0, 1, 2)[None]
            with torch.no_grad():
                expected_ND = backbone.features(clips_NCTHW)
            np.testing.assert_allclose(feats_SD[snippet], expected_ND[0], atol=2e-3, rtol=2e-3)
        fps = float(video.fps)
        np.testing.assert_allclose(times_S3[:, 0], np.arange(len(times_S3)) * 16 / fps, atol=0.1)
        assert times_S3[-1, 2] <= video.duration_seconds + 1e-9

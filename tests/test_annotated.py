"""Annotated windows: labels by presentation time, half-open, several classes on a frame."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import shown_clip
from made_shards import file_digest
from made_videos import MadeVideos

from manifests import UsageError, probe_video, read_sources, scan_packets, write_sources
from manifests.tables import write_segments
from synth import read_dataset, read_sample
from synth.annotated import annotate_labels, frames_of_segments, runs_of_window
from synth.job import render_plan
from synth.labels import MOST_WEIGHTS
from synth.plan_files import PlanReport, read_plan, write_plan
from synth.verify import verify_output

CLASSES = ("run", "jump", "fall")
RECIPE = """
[synth]
kinds = {annotated = 1}
frames = 8
frame_stride = 4
short_side = [64, 64]
crop = 64
samples_per_video = 8
"""
# video, class, seconds
SEGMENTS: list[tuple[str, int, float, float]] = [
    ("vfr", 0, 0.16, 1.6),
    ("vfr", 1, 0.32, 2.0),  # two classes at once
    ("vfr", 1, 1.9, 2.2),  # of one class, overlapping
    ("vfr", 2, 1.0, 1.0),  # without any length
    ("vfr", 2, 900.0, 901.0),  # beyond the end
    ("vfr", 2, 3.0, 900.0),  # until beyond the end
    ("plain", 2, 0.0, 0.04),  # the first frame alone
    ("plain", 0, -5.0, 0.5),
    ("silence_first", 1, 0.0, 1.0),  # whose first frame presents at 0.5 s
]


def frames_by_loop(times: Sequence[float], start: float, end: float) -> list[int]:
    return [n for n, time in enumerate(times) if start <= time < end]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30, unique=True).map(sorted),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 45), st.integers(-3, 45)), max_size=6),
)
def test_frames_of_segments_are_those_whose_time_lies_inside(
    ticks: list[int], segments: list[tuple[int, int, int]]
) -> None:
    times = np.array(ticks) / 8
    ids, starts, ends = np.array(segments, float).reshape(-1, 3).T
    found = frames_of_segments(times, ids.astype(int), starts / 8, ends / 8)
    expected = [
        [class_id, inside[0], inside[-1] + 1]
        for class_id, start, end in segments
        if (inside := frames_by_loop(times.tolist(), start / 8, end / 8))
    ]
    assert found.tolist() == expected
    assert found.dtype == np.int64


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(1, 30)), max_size=6),
    st.integers(0, 40),
    st.integers(1, 7),
    st.integers(1, 12),
)
def test_labels_of_a_window_are_those_of_each_of_its_frames(
    segments: list[tuple[int, int, int]], start_frame: int, stride: int, num_frames: int
) -> None:
    table = np.array([(c, first, first + n) for c, first, n in segments], np.int64).reshape(-1, 3)
    track = annotate_labels(runs_of_window(table, start_frame, stride, num_frames), num_frames)
    for k in range(num_frames):
        frame = start_frame + k * stride
        present = {c for c, first, n in segments if first <= frame < first + n}
        shown = track.class_ids[track.weights_CT[:, k] == 1]
        assert set(shown.tolist()) == present
    assert set(np.unique(track.weights_CT)) <= {0.0, 1.0}
    assert (track.weights_CT.max(axis=1, initial=0) == 1).all()  # no class that is not shown
    assert not track.exclusive
    assert track.num_frames == num_frames


def test_runs_by_hand() -> None:
    segments = np.array([[7, 11, 15], [2, 0, 11], [7, 16, 17], [3, 13, 14]])
    assert runs_of_window(segments, 10, 2, 4) == [(2, 1, 1), (7, 2, 3), (7, 4, 4)]
    assert runs_of_window(np.empty((0, 3), np.int64), 10, 2, 4) == []
    track = annotate_labels([(7, 2, 3), (2, 1, 2), (7, 3, 3)], 4)
    assert track.class_ids.tolist() == [2, 7]
    assert track.weights_CT.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    assert track.background_T.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("run", [(0, 0, 2), (0, 3, 2), (0, 1, 5), (-1, 1, 2), (0, 5, 5)])
def test_runs_outside_of_the_clip_are_refused(run: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"within 1\.\.4, got"):
        annotate_labels([(0, 1, 4), run], 4)


def test_labels_that_would_fill_the_memory_are_refused() -> None:
    num_frames = 2**16
    runs = [(class_id, 1, 1) for class_id in range(MOST_WEIGHTS // num_frames + 1)]
    with pytest.raises(ValueError, match="weights, got 17 classes x 65536 frames"):
        annotate_labels(runs, num_frames)


def make_annotated(folder: Path, made: MadeVideos, **changes: Any) -> Path:
    """Write sources and segments of three made videos; return the sources table."""
    videos = [
        dataclasses.replace(
            probe_video(str(made[name])),
            **{"video_id": name, "label": "trimmed", "label_id": 0, **changes.get(name, {})},
        )
        for name in ("plain", "silence_first", "vfr")
    ]
    write_sources(folder / "sources.parquet", videos, ("trimmed",))  # a class list of its own
    rows = [
        {"video_id": v, "label": CLASSES[c], "label_id": c, "start_seconds": s, "end_seconds": e}
        for v, c, s, e in SEGMENTS
    ]
    write_segments(folder / "segments.parquet", rows, CLASSES)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "sources.parquet"


def plan_annotated(folder: Path, made: MadeVideos, **changes: Any) -> PlanReport:
    sources = make_annotated(folder, made, **changes)
    return write_plan(folder / "recipe.toml", sources, folder / "plan")


def test_windows_carry_the_labels_of_their_presentation_times(
    tmp_path: Path, made_videos: MadeVideos
) -> None:
    """Plan, render and verify: every frame of every sample against the segments, one by one."""
    report = plan_annotated(tmp_path, made_videos)
    assert report.record["classes"] == list(CLASSES)
    assert report.record["counts"]["unreadable"] == 0
    assert report.record["counts"]["kinds"] == {"annotated": 24}
    out = tmp_path / "out"
    assert render_plan(tmp_path / "plan", out, workers=0, codec="raw").rejected == 0
    assert verify_output(out, tmp_path / "plan", deep=True).problems == []
    dataset = read_dataset(out)
    assert dataset.classes == CLASSES
    videos = {video.video_id: video for video in read_sources(tmp_path / "sources.parquet")}
    times = {name: scan_packets(video.path).times_N for name, video in videos.items()}
    assert times["silence_first"][0] == pytest.approx(0.5)
    assert np.ptp(np.diff(times["vfr"])) > 0.03
    shown, together = set(), 0
    for shard in dataset.shards:
        for offset, size in zip(shard.offsets, shard.sizes, strict=True):
            sample = read_sample(shard.path, int(offset), int(size))
            (source,) = sample.meta["sources"]
            assert source["label_id"] is None  # classes are those of the segments alone
            track = sample.track()
            assert not track.exclusive
            name = source["video_id"]
            for k in range(8):
                time = times[name][source["start_frame"] + 4 * k]
                present = {c for v, c, s, e in SEGMENTS if v == name and s <= time < e}
                assert set(track.class_ids[track.weights_CT[:, k] == 1].tolist()) == present
                together += len(present) > 1
                shown |= {(name, class_id) for class_id in present}
            clip = shown_clip(source | {"augment": None}, videos)
            np.testing.assert_array_equal(sample.frames(), clip)
    assert together
    assert shown == {("vfr", 0), ("vfr", 1), ("vfr", 2), ("plain", 0), ("silence_first", 1)} | (
        shown & {("plain", 2)}  # a single frame, seen by chance
    )


def test_rows_stay_inside_the_part_that_is_meant(tmp_path: Path, made_videos: MadeVideos) -> None:
    plan_annotated(tmp_path, made_videos, vfr={"first_frame": 20, "end_frame": 51})
    rows = [row for _, t in read_plan(tmp_path / "plan").shards() for row in t.to_pylist()]
    starts = {
        source["start_frame"]
        for row in rows
        for source in row["sources"]
        if source["video_id"] == "vfr"
    }
    assert starts <= {20, 21, 22}
    assert {row["kind"] for row in rows} == {"annotated"}
    assert {json.loads(row["tree"])["op"] for row in rows} == {"annotate"}


def test_segments_may_stand_elsewhere(tmp_path: Path, made_videos: MadeVideos) -> None:
    sources = make_annotated(tmp_path, made_videos)
    (tmp_path / "segments.parquet").rename(tmp_path / "moved.parquet")
    with pytest.raises(UsageError, match=r"no '.*segments\.parquet', name them with --segments"):
        write_plan(tmp_path / "recipe.toml", sources, tmp_path / "plan")
    report = write_plan(
        tmp_path / "recipe.toml", sources, tmp_path / "plan", tmp_path / "moved.parquet"
    )
    assert report.record["counts"]["samples"] == 24
    assert report.record["segments"] == os.path.join("..", "moved.parquet")
    assert report.record["segments_digest"] == file_digest(tmp_path / "moved.parquet")
    clips = tmp_path / "clips.toml"
    clips.write_text(RECIPE.replace("annotated", "clip"))
    with pytest.raises(UsageError, match="--segments belongs to kind 'annotated'"):
        write_plan(clips, sources, tmp_path / "other", tmp_path / "moved.parquet")


GOOD = {"video_id": "vfr", "label": "run", "label_id": 0, "start_seconds": 0.0, "end_seconds": 1.0}


@pytest.mark.parametrize(
    ("rows", "classes", "says"),
    [
        ([], CLASSES, "class list in the metadata and a label_id"),
        ([GOOD], (), "class list in the metadata"),
        ([GOOD], {"run": 0}, "class list in the metadata"),
        ([GOOD], (1, 2), "class list in the metadata"),
        ([GOOD | {"label_id": None}], CLASSES, "label_id in every row"),
        ([GOOD | {"label_id": 3}], CLASSES, "label_id must be within the 3 classes"),
        ([GOOD | {"label_id": -1}], CLASSES, "label_id must be within the 3 classes"),
        ([GOOD, GOOD | {"end_seconds": None}], CLASSES, "end_seconds must be a finite number"),
        ([GOOD | {"start_seconds": float("nan")}], CLASSES, "start_seconds must be a finite"),
        ([GOOD | {"end_seconds": float("inf")}], CLASSES, "end_seconds must be a finite"),
        ([GOOD | {"video_id": "absent"}], CLASSES, "no readable video with annotated segments"),
    ],
)
def test_segments_that_cannot_be_meant_are_one_sentence(
    tmp_path: Path, made_videos: MadeVideos, rows: list[dict], classes: Any, says: str
) -> None:
    sources = make_annotated(tmp_path, made_videos)
    write_segments(tmp_path / "segments.parquet", rows, list(classes))
    if isinstance(classes, dict):
        rewrite_metadata(tmp_path / "segments.parquet", json.dumps(classes).encode())
    with pytest.raises(UsageError, match=says) as caught:
        write_plan(tmp_path / "recipe.toml", sources, tmp_path / "plan")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "plan").exists()


def rewrite_metadata(path: Path, classes: bytes) -> None:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"classes": classes}), path)


def test_a_class_list_that_is_no_json_is_one_sentence(
    tmp_path: Path, made_videos: MadeVideos
) -> None:
    sources = make_annotated(tmp_path, made_videos)
    rewrite_metadata(tmp_path / "segments.parquet", b'["run", \xff')
    with pytest.raises(UsageError, match="class list in the metadata"):
        write_plan(tmp_path / "recipe.toml", sources, tmp_path / "plan")


def test_segments_that_show_nothing_are_counted(tmp_path: Path, made_videos: MadeVideos) -> None:
    sources = make_annotated(tmp_path, made_videos)
    rows = [
        GOOD,
        GOOD | {"video_id": "vfr.mp4"},  # no such id
        GOOD | {"video_id": "absent"},
        GOOD | {"start_seconds": 500.0, "end_seconds": 900.0},
        GOOD | {"start_seconds": 1.0, "end_seconds": 0.5},
        GOOD | {"start_seconds": 1.0, "end_seconds": 1.0},
    ]
    write_segments(tmp_path / "segments.parquet", rows, CLASSES)
    counts = write_plan(tmp_path / "recipe.toml", sources, tmp_path / "plan").record["counts"]
    assert (counts["segments_of_unknown_videos"], counts["segments_without_frames"]) == (2, 3)
    assert counts["videos"] == 1


def test_the_subset_may_stand_in_either_table(tmp_path: Path, made_videos: MadeVideos) -> None:
    sources = make_annotated(tmp_path, made_videos, plain={"subset": "train"})
    rows = [
        GOOD | {"video_id": name, "subset": subset}
        for name, subset in (("vfr", "train"), ("vfr", "val"), ("silence_first", "val"))
    ]
    write_segments(tmp_path / "segments.parquet", [*rows, GOOD | {"video_id": "plain"}], CLASSES)
    for subset, names in (("train", {"plain", "vfr"}), ("val", {"silence_first", "vfr"})):
        recipe = tmp_path / f"{subset}.toml"
        recipe.write_text(RECIPE + f'subset = "{subset}"\n')
        write_plan(recipe, sources, tmp_path / subset)
        rows_read = [row for _, t in read_plan(tmp_path / subset).shards() for row in t.to_pylist()]
        assert {row["sources"][0]["video_id"] for row in rows_read} == names


def test_videos_that_cannot_be_read_are_counted(tmp_path: Path, made_videos: MadeVideos) -> None:
    gone = {"path": str(tmp_path / "gone.mp4")}
    report = plan_annotated(tmp_path, made_videos, plain=gone)
    counts = report.record["counts"]
    assert (counts["videos"], counts["unreadable"], counts["samples"]) == (2, 1, 16)
    assert report.rejected_share == pytest.approx(1 / 3)
    names = ("plain", "silence_first", "vfr")
    with pytest.raises(UsageError, match="none of the 3 videos with annotated segments"):
        plan_annotated(tmp_path, made_videos, **dict.fromkeys(names, gone))

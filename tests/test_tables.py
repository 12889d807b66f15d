"""The sources and segments tables, and putting files in place atomically."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_videos import MadeVideos

from manifests import (
    SourceVideo,
    UsageError,
    atomic_writer,
    probe_video,
    read_segments,
    read_sources,
    resolve_path,
    write_atomic,
    write_segments,
    write_sources,
)
from manifests.tables import SOURCES_SCHEMA

VIDEO = SourceVideo(
    video_id="a",
    path="x/a.mp4",
    label="swim",
    label_id=1,
    num_frames=60,
    fps_num=30000,
    fps_den=1001,
    duration_seconds=2.002,
    width=128,
    height=96,
    codec="h264",
    num_bytes=1000,
    decoder="decord",
    end_frame=60,
)

text = st.text(st.characters(codec="utf-8"), max_size=8)
videos = st.lists(
    st.builds(
        SourceVideo,
        video_id=text,
        path=text.map(lambda name: "/" + name),
        label=st.just("run") | st.none(),
        subset=text | st.none(),
        start_seconds=st.floats(0, 1e6) | st.none(),
        end_seconds=st.floats(0, 1e6) | st.none(),
        num_frames=st.integers(0, 2**40),
        fps_num=st.integers(0, 2**31 - 1),
        is_vfr=st.booleans(),
        status=st.sampled_from(["ok", "rejected"]),
        reason=text | st.none(),
    ),
    max_size=5,
    unique_by=lambda video: video.video_id,
)


@settings(max_examples=50, deadline=None)
@given(rows=videos)
def test_sources_survive_the_round_trip(tmp_path_factory, rows: list[SourceVideo]) -> None:
    path = tmp_path_factory.mktemp("round") / "sources.parquet"
    write_sources(path, rows, ["run"])
    table = read_sources(path)
    assert list(table) == rows
    assert table.classes == ("run",)
    assert len(table) == len(rows)


def test_the_schema_is_the_promised_one() -> None:
    promised = {
        **dict.fromkeys(["video_id", "path", "label", "subset", "codec"], pa.string()),
        **dict.fromkeys(["status", "reason"], pa.string()),
        **dict.fromkeys(["label_id", "fps_num", "fps_den"], pa.int32()),
        **dict.fromkeys(["width", "height", "rotation"], pa.int32()),
        **dict.fromkeys(["start_seconds", "end_seconds", "duration_seconds"], pa.float64()),
        **dict.fromkeys(["num_frames", "num_bytes"], pa.int64()),
        "is_vfr": pa.bool_(),
    }
    for name, kind in promised.items():
        assert SOURCES_SCHEMA.field(name).type == kind, name


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    write_sources(tmp_path / "one.parquet", [VIDEO], ["run", "swim"])
    write_sources(tmp_path / "two.parquet", [VIDEO], ["run", "swim"])
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    one = read_sources(tmp_path / "one.parquet")
    assert len(one.digest) == 64
    write_sources(tmp_path / "two.parquet", [VIDEO], ["run", "swim", "walk"])
    assert read_sources(tmp_path / "two.parquet").digest != one.digest


def test_relative_paths_are_resolved_from_the_table(tmp_path: Path) -> None:
    write_sources(tmp_path / "sources.parquet", [VIDEO], ["run", "swim"])
    assert read_sources(tmp_path / "sources.parquet")[0].path == str(tmp_path / "x/a.mp4")


@pytest.mark.parametrize(
    ("path", "resolved"),
    [("a.mp4", "/t/a.mp4"), ("/v/a.mp4", "/v/a.mp4"), ("s3://b/a.mp4", "s3://b/a.mp4")],
)
def test_resolve_path(path: str, resolved: str) -> None:
    assert resolve_path(path, "/t") == resolved


def test_columns_and_selection(tmp_path: Path) -> None:
    rows = [replace(VIDEO, video_id=name, label=None, label_id=None) for name in "abc"]
    write_sources(tmp_path / "sources.parquet", [*rows, replace(VIDEO, video_id="d")], ["x", "y"])
    table = read_sources(tmp_path / "sources.parquet")
    np.testing.assert_array_equal(table.column("label_id"), [np.nan, np.nan, np.nan, 1])
    assert table.select(["c", "a", "c"]).keys() == {"a", "c"}
    with pytest.raises(UsageError, match="video 'z' of the plan is not in the sources table"):
        table.select(["a", "z"])


def written(
    path: Path, /, drop: tuple[str, ...] = (), metadata: dict | None = None, **columns: list
) -> Path:
    """Write a table of two rows as another tool might, with some columns other than promised."""
    write_sources(path, [replace(VIDEO, video_id=name) for name in "ab"], ["run", "swim"])
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    table = table.drop_columns(list(drop))
    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)
    return path


def test_columns_beyond_the_contract_are_optional(tmp_path: Path) -> None:
    path = written(tmp_path / "s.parquet", drop=("decoder", "first_frame", "end_frame", "subset"))
    video = read_sources(path)[1]
    assert (video.decoder, video.first_frame, video.end_frame) == ("pyav", 0, 60)


def test_parts_in_seconds_alone_find_their_frames(tmp_path: Path, made_videos: MadeVideos) -> None:
    path = made_videos["plain"]  # 60 frames at 25 frames/s
    whole = probe_video(str(path))
    rows = [
        replace(
            whole,
            video_id=name,
            label="swim",
            label_id=0,
            start_seconds=start,
            end_seconds=end,
        )
        for name, start, end in [
            ("all", None, None),
            ("end", 1.5, None),
            ("middle", 0.4, 0.8),
            ("none", 90.0, 99.0),
        ]
    ]
    write_sources(tmp_path / "s.parquet", rows, ["swim"])
    table = pq.read_table(tmp_path / "s.parquet").drop_columns(["first_frame", "end_frame"])
    pq.write_table(table, tmp_path / "s.parquet")
    videos = {video.video_id: video for video in read_sources(tmp_path / "s.parquet")}
    found = {name: (video.first_frame, video.end_frame) for name, video in videos.items()}
    assert found["all"] == (0, 60)
    assert found["middle"] == (10, 20)
    assert found["end"] == (38, 60)
    assert videos["none"].status == "rejected"
    assert "presents no frame" in videos["none"].reason


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "label=3").mkdir()
    assert read_sources(written(tmp_path / "label=3/s.parquet"))[0].label == "swim"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ("codec",)}, "column 'codec' is missing"),
        ({"num_frames": ["many", "few"]}, "column 'num_frames' must be int64, got string"),
        ({"path": [b"\xff", b"x"]}, "column 'path' must be string, got binary"),
        ({"video_id": ["a", "a"]}, "video_id must be unique"),
        ({"path": ["x", None]}, "column 'path' must have a value in every row"),
        ({"label_id": [0, 2]}, "label_id must be the position of one of the 2 classes, got 2"),
        ({"label_id": [-1, 0]}, "got -1"),
        ({"metadata": {}}, "must have the class list as JSON under 'classes'"),
        ({"metadata": {"classes": "run, swim"}}, "must have the class list as JSON"),
        ({"metadata": {"classes": json.dumps({"run": 0})}}, "must have the class list as JSON"),
        ({"metadata": {"classes": "[" * 100_000}}, "must have the class list as JSON"),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    path = written(tmp_path / "s.parquet", **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_sources(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such table"):
        read_sources(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="no such table"):
        read_sources(tmp_path)
    for content in (b"", b"label,path\n", b"PAR1" * 8):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(UsageError, match="not a Parquet table"):
            read_sources(tmp_path / "bad.parquet")


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s.parquet")
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a Parquet table"):
        read_sources(path)


def test_segments_survive_the_round_trip(tmp_path: Path) -> None:
    row = {"video_id": "a", "label": "run", "label_id": 0, "start_seconds": 0.5, "subset": None}
    rows = [row | {"end_seconds": end} for end in (1.0, 2.5)]
    write_segments(tmp_path / "segments.parquet", rows, ["run"])
    table = read_segments(tmp_path / "segments.parquet")
    assert sorted(table.column_names) == sorted(rows[0])
    assert table.to_pylist() == [{name: r[name] for name in table.column_names} for r in rows]


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def write_half() -> None:
        with atomic_writer(path) as file:
            file.write(b"half of the n")
            file.flush()
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_writer(path) as first:
        first.write(b"first")
        write_atomic(path, b"second")
        first.write(b" still")
    assert path.read_bytes() == b"first still"

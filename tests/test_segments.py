"""From annotated actions to segments.parquet: every rule, the ledger, and the whole command."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cli
from manifests import SourceVideo, UsageError, build_sources, read_segments, write_segments
from manifests.readers import Listing, Segment
from manifests.segments import (
    BACKWARDS,
    EARLY,
    EMPTY,
    LATE,
    OTHER_DURATION,
    OUTSIDE,
    REPEATED,
    UNPROBED,
    WITHOUT_FILE,
    clean_segments,
    segments_path,
)

CLASSES = ("run", "jump")
LEFT_OUT = (BACKWARDS, EMPTY, REPEATED, WITHOUT_FILE, OUTSIDE)
VIDEOS = (
    SourceVideo("a", "a.mp4", subset="training", duration_seconds=10.0),
    SourceVideo("bad", "bad.mp4", subset="testing", status="rejected", reason="is damaged"),
)


def clean(*segments: Segment, **listing) -> tuple[list[tuple], dict[str, int]]:
    rows, counts = clean_segments(Listing((), CLASSES, segments=segments, **listing), VIDEOS)
    return [tuple(row.values()) for row in rows], counts


@pytest.mark.parametrize(
    ("times", "kept", "rules"),
    [
        ((1, 4), (1, 4), set()),
        ((0, 10), (0, 10), set()),
        ((4, 1), None, {BACKWARDS}),
        ((4, 4), None, {EMPTY}),
        ((0, 0), None, {EMPTY}),
        ((9, 12), (9, 10), {LATE}),
        ((-1, 12), (0, 10), {EARLY, LATE}),
        ((-2, 1), (0, 1), {EARLY}),
        ((-2, 0), None, {OUTSIDE}),
        ((10, 12), None, {OUTSIDE}),
        ((12, 11), None, {BACKWARDS}),  # the annotation alone is asked first
    ],
)
def test_the_rules_of_times(times: tuple, kept: tuple | None, rules: set[str]) -> None:
    rows, counts = clean(Segment("a", "jump", *times))
    assert rows == ([] if kept is None else [("a", "jump", 1, *kept, "training")])
    assert counts == dict.fromkeys(rules, 1)


def test_the_end_of_a_rejected_video_is_unknown() -> None:
    rows, counts = clean(Segment("bad", "run", 5, 1e6), Segment("bad", "run", 3, 2))
    assert rows == [("bad", "run", 0, 5, 1e6, "testing")]
    assert counts == {UNPROBED: 1, BACKWARDS: 1}


def test_segments_of_missing_videos_are_left_out() -> None:
    rows, counts = clean(Segment("gone", "run", 1, 2), Segment("gone", "run", 2, 2))
    assert (rows, counts) == ([], {WITHOUT_FILE: 1, EMPTY: 1})


@pytest.mark.parametrize(
    ("label", "start", "end", "is_kept"),
    [
        ("run", 1.0, 2.0, False),
        ("run", 1.0009, 1.9991, False),
        ("run", 1.002, 2.0, True),
        ("run", 1.0, 2.002, True),
        ("jump", 1.0, 2.0, True),
    ],
)
def test_a_repeated_segment_is_left_out(label: str, start: float, end: float, is_kept) -> None:
    rows, counts = clean(Segment("a", "run", 1, 2), Segment("a", label, start, end))
    assert len(rows) == 1 + is_kept
    assert counts == ({} if is_kept else {REPEATED: 1})
    assert ("a", "run", 0, 1, 2, "training") in rows


def test_a_file_of_another_length_is_counted_and_its_end_is_the_probed_one() -> None:
    rows, counts = clean(Segment("a", "run", 1, 9.5), durations={"a": 8.9, "bad": 3, "gone": 1})
    assert rows == [("a", "run", 0, 1, 9.5, "training")]
    assert counts == {OTHER_DURATION: 1}
    assert clean(durations={"a": 9.0}) == ([], {})


def test_the_oddities_of_the_reader_are_counted_too() -> None:
    assert clean(oddities={"ids are odd": 3}) == ([], {"ids are odd": 3})


second = st.floats(-5, 15).map(lambda time: round(time, 1))
segment = st.builds(
    Segment, st.sampled_from(["a", "bad", "gone"]), st.sampled_from(CLASSES), second, second
)


@given(st.lists(segment, max_size=30))
def test_every_segment_is_kept_or_left_out_by_one_rule(segments: list[Segment]) -> None:
    rows, counts = clean(*segments)
    assert len(rows) + sum(counts.get(rule, 0) for rule in LEFT_OUT) == len(segments)
    assert rows == sorted(rows, key=lambda row: (row[0], row[3], row[4], row[2]))
    for video_id, label, label_id, start, end, _ in rows:
        assert CLASSES[label_id] == label
        assert start < end
        assert video_id == "bad" or (start >= 0 and end <= 10)
    again, none = clean(*(Segment(row[0], row[1], row[3], row[4]) for row in rows))
    assert again == rows or none.get(REPEATED)  # cut segments may coincide
    assert not set(none) - {REPEATED, UNPROBED}


# ------------------------------------------------------------------------ where the table goes


def test_segments_of_another_table_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "train.parquet"
    assert segments_path(out) == tmp_path / "segments.parquet"
    write_segments(tmp_path / "segments.parquet", [], CLASSES, sources="train.parquet")
    assert segments_path(out) == tmp_path / "segments.parquet"
    with pytest.raises(UsageError, match=r"its segments are those of 'train\.parquet': write 'te"):
        segments_path(tmp_path / "test.parquet")
    write_segments(tmp_path / "segments.parquet", [], CLASSES)
    with pytest.raises(UsageError, match="its segments are made elsewhere: write 'train"):
        segments_path(out)
    with pytest.raises(UsageError, match=r"must not be called segments\.parquet"):
        segments_path(tmp_path / "segments.parquet")


# -------------------------------------------------------------------------- the whole command

NOTES = [
    {"segment": [0.5, 1.5], "label": "jump"},
    {"segment": [0.5, 1.5], "label": "jump"},
    {"segment": [1.0, 99.0], "label": "run"},
    {"segment": [0, 0], "label": "run"},
    {"segment": [3.0, 4.0], "label": "run"},
]
DATABASE = {
    "database": {
        "QOlSCBRmfWY": {"subset": "training", "duration": 2.4, "annotations": NOTES},
        "ehGHCYKzyZ8": {"subset": "validation", "duration": 7, "annotations": NOTES[2:3]},
        "zzz_3yWpTXo": {"subset": "testing", "duration": 9, "annotations": []},
        "notonthedis": {"subset": "training", "duration": 9, "annotations": NOTES[:1]},
    }
}


def run(*words: object):
    return CliRunner().invoke(cli.synth, [str(word) for word in ("manifest", *words)])


@pytest.mark.slow
def test_activitynet_end_to_end(made_videos, tmp_path: Path) -> None:
    (tmp_path / "videos/val").mkdir(parents=True)
    shutil.copy(made_videos["plain"], tmp_path / "videos/v_QOlSCBRmfWY.mp4")  # 2.4 s
    shutil.copy(made_videos["text"], tmp_path / "videos/val/ehGHCYKzyZ8.mp4")
    shutil.copy(made_videos["vfr"], tmp_path / "videos/v_zzz_3yWpTXo.mkv")
    (tmp_path / "activity_net.json").write_text(json.dumps(DATABASE))
    words = [tmp_path / "activity_net.json", "--videos", tmp_path / "videos"]
    words += ["-o", tmp_path / "sources.parquet", "--workers", 1, "--max-rejected", 0.5]
    result = run(*words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for line in (
        f"{tmp_path / 'segments.parquet'}: 3 segments",
        "  1 x segments of zero length are left out",
        "  1 x segments that repeat another of their class within 0.001 s are left out",
        "  1 x segments that lie wholly outside of their file are left out",
        "  1 x segments that end after their file are cut to its end",
        "  1 x segments of videos without a file are left out",
        "  1 x segments of rejected videos are kept as annotated",
        "  1 x videos are listed without a segment, and kept",
        "  1 x files last over 1 s more or less than the annotations say; times are kept",
    ):
        assert line in lines
    assert "1 listed videos are missing" in result.stdout
    table = read_segments(tmp_path / "segments.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("QOlSCBRmfWY", "jump", 0, 0.5, 1.5, "training"),
        ("QOlSCBRmfWY", "run", 1, 1.0, 2.4, "training"),
        ("ehGHCYKzyZ8", "run", 1, 1.0, 99.0, "validation"),
    ]
    assert json.loads(table.schema.metadata[b"classes"]) == ["jump", "run"]
    first = (tmp_path / "segments.parquet").read_bytes()
    again = run(*words, "--json")
    report = json.loads(again.stdout.splitlines()[-1])
    assert (report["segments"], report["segments_path"]) == (3, str(tmp_path / "segments.parquet"))
    assert report["oddities"][EMPTY] == 1
    assert (tmp_path / "segments.parquet").read_bytes() == first
    rows = pq.read_table(tmp_path / "sources.parquet").to_pylist()
    assert [(row["video_id"], row["label"], row["subset"]) for row in rows] == [
        ("QOlSCBRmfWY", None, "training"),
        ("ehGHCYKzyZ8", None, "validation"),
        ("zzz_3yWpTXo", None, "testing"),
    ]


@pytest.mark.slow
def test_a_layout_without_times_writes_no_segments(made_videos, tmp_path: Path) -> None:
    (tmp_path / "videos/Archery").mkdir(parents=True)
    shutil.copy(made_videos["avi"], tmp_path / "videos/Archery/v_Archery_g01_c01.avi")
    lists = {"classInd.txt": "1 Archery\n", "testlist01.txt": "Archery/v_Archery_g01_c01.avi\n"}
    (tmp_path / "ucf").mkdir()
    for name, content in lists.items():
        (tmp_path / "ucf" / name).write_text(content)
    report = build_sources(
        tmp_path / "ucf", tmp_path / "sources.parquet", videos=tmp_path / "videos", workers=1
    )
    assert (report.ok, report.segments, report.segments_path) == (1, None, None)
    assert report.oddities == {"classes are numbered from 1 in the file; label_id counts from 0": 1}
    assert not (tmp_path / "segments.parquet").exists()
    (row,) = pq.read_table(tmp_path / "sources.parquet").to_pylist()
    assert (row["label"], row["label_id"], row["subset"]) == ("Archery", 0, "test")


@pytest.mark.slow
def test_nothing_is_probed_when_segments_would_be_lost(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/QOlSCBRmfWY.mp4").touch()
    (tmp_path / "a.json").write_text(json.dumps(DATABASE))
    write_segments(tmp_path / "segments.parquet", [], CLASSES)
    result = run(
        tmp_path / "a.json", "--videos", tmp_path / "videos", "-o", tmp_path / "sources.parquet"
    )
    assert result.exit_code == 2
    assert "its segments are made elsewhere" in result.stderr
    assert not (tmp_path / "sources.parquet").exists()


@pytest.mark.slow
def test_a_real_video_in_the_layout_of_thumos(shared: Path, tmp_path: Path) -> None:
    clips = sorted((shared / "data/clips/untrimmed").iterdir())
    clip = min(clips, key=lambda path: path.stat().st_size)
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, tmp_path / f"videos/video_test_0000004{clip.suffix}")
    annotations = shared / "data/annotations/thumos14_test_Annotation.csv"
    report = build_sources(
        annotations,
        tmp_path / "sources.parquet",
        videos=tmp_path / "videos",
        workers=1,
        check="packets",
    )
    (video,) = pq.read_table(tmp_path / "sources.parquet").to_pylist()
    rows = read_segments(tmp_path / "segments.parquet").to_pylist()
    assert (report.ok, report.missing) == (1, 212)
    assert rows
    assert {row["video_id"] for row in rows} == {"video_test_0000004"}
    assert all(row["end_seconds"] <= video["duration_seconds"] for row in rows)
    left_out = [WITHOUT_FILE, OUTSIDE]
    assert len(rows) + sum(report.oddities.get(rule, 0) for rule in left_out) == 3358

"""Listing the videos of folder trees and Kinetics lists."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import UsageError
from manifests.readers import FORMATS, Listing, find_videos, list_sources, read_classes


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def rows(listing: Listing, root: Path) -> list[tuple]:
    return [
        (entry.video_id, os.path.relpath(entry.path, root), entry.label, entry.subset)
        for entry in listing.entries
    ]


# ---------------------------------------------------------------- folder trees


def test_class_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, "swim/b.MP4", "run/c.webm", "run/part 2/a.avi", "run/notes.txt", "run/poster.jpg"
    )
    listing = list_sources(tmp_path)
    assert rows(listing, tmp_path) == [
        ("a", "run/part 2/a.avi", "run", None),
        ("b", "swim/b.MP4", "swim", None),
        ("c", "run/c.webm", "run", None),
    ]
    assert listing.classes == ("run", "swim")
    assert listing.missing == ()


def test_subset_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", "Val/run/c.mp4", "test/d.txt")
    assert rows(list_sources(tmp_path), tmp_path) == [
        ("a", "train/run/a.mp4", "run", "train"),
        ("b", "train/swim/b.mp4", "swim", "train"),
        ("c", "Val/run/c.mp4", "run", "Val"),
    ]


def test_the_tree_may_be_one_subset_itself(tmp_path: Path) -> None:
    touch(tmp_path / "train", "run/a.mp4", "val/b.mp4")
    listing = list_sources(tmp_path / "train")
    assert [(e.label, e.subset) for e in listing.entries] == [("run", "train"), ("val", "train")]


def test_subset_folders_without_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "test/b.mp4")
    listing = list_sources(tmp_path)
    assert [(e.video_id, e.label, e.subset) for e in listing.entries] == [
        ("a", None, "train"),
        ("b", None, "test"),
    ]
    assert listing.classes == ()


def test_a_class_may_be_called_like_a_subset(tmp_path: Path) -> None:
    touch(tmp_path, "test/a.mp4", "jump/b.mp4")
    assert [(e.label, e.subset) for e in list_sources(tmp_path).entries] == [
        ("test", None),
        ("jump", None),
    ]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.mkv")
    assert rows(list_sources(tmp_path), tmp_path) == [
        ("a", "a.mkv", None, None),
        ("b", "b.mp4", None, None),
    ]


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["run/a.mp4", "swim/b.mp4"], ["a", "b"]),
        (["run/a.mp4", "swim/a.mp4", "swim/b.mp4"], ["b", "run/a", "swim/a"]),
        (["run/a.mp4", "run/a.avi"], ["run/a.avi", "run/a.mp4"]),
        (["run/a.mp4", "run/a.avi", "swim/a.avi"], ["run/a.avi", "run/a.mp4", "swim/a"]),
        (["x.mp4", "x.avi", "x.mp4.avi"], ["x.avi", "x.mp4", "x.mp4.avi"]),
    ],
)
def test_ids_are_the_shortest_that_are_unique(tmp_path: Path, paths: list, ids: list) -> None:
    assert [entry.video_id for entry in list_sources(touch(tmp_path, *paths)).entries] == ids


name = st.sampled_from(["a", "b", "a.mp4", "a.avi"])


@settings(max_examples=60, deadline=None)
@given(
    paths=st.sets(
        st.tuples(name, name, st.sampled_from([".mp4", ".avi", ".MP4"])).map(
            lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}"
        ),
        min_size=1,
    )
)
def test_every_file_has_its_own_id(tmp_path_factory, paths: set[str]) -> None:
    root = touch(tmp_path_factory.mktemp("tree"), *paths)
    listing = list_sources(root)
    assert {os.path.relpath(entry.path, root) for entry in listing.entries} == paths
    ids = [entry.video_id for entry in listing.entries]
    assert ids == sorted(set(ids))
    assert all(e.label == os.path.relpath(e.path, root).split("/")[0] for e in listing.entries)


def test_hidden_files_are_left_out_and_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "store", "x.mp4", "y.mp4")
    tree = touch(tmp_path / "tree", "run/a.mp4", "run/.b.mp4", ".cache/c.mp4", "run/._a.mp4")
    (tree / "swim").symlink_to(tmp_path / "store")
    (tree / "run/z.mp4").symlink_to(tmp_path / "store/x.mp4")
    (tree / "run/gone.mp4").symlink_to(tmp_path / "nowhere")  # listed; the probe says what is wrong
    (tree / "run/again").symlink_to(tree)  # a loop
    assert [entry.video_id for entry in list_sources(tree).entries] == ["a", "gone", "x", "y", "z"]


def test_a_video_beside_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "stray.mp4")
    with pytest.raises(UsageError, match=r"must lie in a class folder.*'stray\.mp4' does not"):
        list_sources(tmp_path)


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder or annotation file: .*none"):
        list_sources(tmp_path / "none")
    touch(tmp_path, "run/readme.txt")
    with pytest.raises(UsageError, match="the folder must hold videos, got none in"):
        list_sources(tmp_path)
    with pytest.raises(UsageError, match="--videos goes with an annotation file"):
        list_sources(tmp_path, videos=tmp_path)
    with pytest.raises(UsageError, match=r"the folder of videos must exist, got .*gone"):
        list(find_videos(tmp_path / "gone"))


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / os.fsdecode(b"run/caf\xe9.mp4")).touch()
    with pytest.raises(UsageError, match=r"must be UTF-8, got 'run/caf\\udce9.mp4'"):
        list_sources(tmp_path)


# ---------------------------------------------------------------- class lists


def test_a_classes_file_fixes_the_ids(tmp_path: Path) -> None:
    touch(tmp_path / "tree", "arm_wrestling/a.mp4", "abseiling/b.mp4")
    (tmp_path / "classes.txt").write_text("zumba\narm wrestling\n\nabseiling\n")
    listing = list_sources(tmp_path / "tree", classes=tmp_path / "classes.txt")
    assert listing.classes == ("zumba", "arm wrestling", "abseiling")
    assert [entry.label for entry in listing.entries] == ["arm wrestling", "abseiling"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"run\n", "'swim' is none of its 1 classes"),
        (b"\n \n", "must name a class per line"),
        (b"run\nswim\nrun\n", "must be unique, got 'run' twice"),
        (b"caf\xe9\n", "must be UTF-8 text"),
    ],
)
def test_a_classes_file_that_does_not_fit_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    touch(tmp_path / "tree", "run/a.mp4", "swim/b.mp4")
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list_sources(tmp_path / "tree", classes=tmp_path / "classes.txt")


def test_a_missing_classes_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the classes file .*No such file"):
        read_classes(tmp_path / "none.txt")


# ---------------------------------------------------------------- Kinetics

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
LIST = (
    HEADER
    + '"air drumming",-abcdefghij,5,15,train,0\n'
    + "abseiling,under_score_,62,72,train,1\n"
    + "abseiling,AAAAAAAAAAA,0,10,train,0\n"
    + "zumba,notonthedisk,36,46,train,0\n"
)


def kinetics(tmp_path: Path, content: str, *paths: str, suffix: str = ".csv", **options) -> Listing:
    source = tmp_path / f"list{suffix}"
    source.write_text(content)
    touch(tmp_path / "videos", *paths).mkdir(exist_ok=True)
    return list_sources(source, videos=tmp_path / "videos", **options)


@pytest.mark.parametrize("folder", ["", "air_drumming/", "train/air drumming/"])
def test_trimmed_clips_are_found_at_any_depth(tmp_path: Path, folder: str) -> None:
    path = f"{folder}-abcdefghij_000005_000015.mp4"
    listing = kinetics(tmp_path, LIST, path)
    assert rows(listing, tmp_path / "videos") == [
        ("-abcdefghij_000005_000015", path, "air drumming", "train")
    ]
    assert (listing.entries[0].start_seconds, listing.entries[0].end_seconds) == (None, None)
    assert listing.classes == ("abseiling", "air drumming", "zumba")
    assert listing.missing == (
        "AAAAAAAAAAA_000000_000010",
        "notonthedisk_000036_000046",
        "under_score__000062_000072",
    )


def test_whole_videos_keep_the_times(tmp_path: Path) -> None:
    listing = kinetics(tmp_path, LIST, "under_score_.mkv", "AAAAAAAAAAA_000000_000010.WEBM")
    assert [(e.video_id, e.start_seconds, e.end_seconds) for e in listing.entries] == [
        ("AAAAAAAAAAA_000000_000010", None, None),
        ("under_score__000062_000072", 62.0, 72.0),
    ]


def test_the_clip_is_preferred_to_the_whole_video(tmp_path: Path) -> None:
    listing = kinetics(tmp_path, LIST, "a/AAAAAAAAAAA.mp4", "b/AAAAAAAAAAA_000000_000010.mp4")
    assert [Path(e.path).name for e in listing.entries] == ["AAAAAAAAAAA_000000_000010.mp4"]


def test_of_two_files_the_first_by_path_is_taken(tmp_path: Path) -> None:
    listing = kinetics(tmp_path, LIST, "b/AAAAAAAAAAA.mp4", "a/AAAAAAAAAAA.webm")
    assert [Path(e.path).name for e in listing.entries] == ["AAAAAAAAAAA.webm"]


def test_several_clips_of_one_video(tmp_path: Path) -> None:
    content = "label,youtube_id,time_start,time_end,split\nx,id,0,10,val\ny,id,20,30,val\n"
    listing = kinetics(tmp_path, content + "x,id,0,10,val\n", "id.mp4")  # one row twice
    assert [(e.video_id, e.label, e.start_seconds) for e in listing.entries] == [
        ("id_000000_000010", "x", 0.0),
        ("id_000020_000030", "y", 20.0),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "label,youtube_id,time_start,time_end,split",
        "\ufefflabel,youtube_id,time_start,time_end,split,is_cc",
        '"label","youtube_id","time_start","time_end","split"',
        "#Label, YouTube_ID, Time_Start, Time_End, Split",
    ],
)
def test_header_variants(tmp_path: Path, header: str) -> None:
    listing = kinetics(tmp_path, f"{header}\r\nrun,id,1,11,validate\r\n\r\n", "id.mp4")
    assert [(e.label, e.subset) for e in listing.entries] == [("run", "validate")]


def test_a_test_list_has_no_labels(tmp_path: Path) -> None:
    content = "youtube_id,time_start,time_end,split\nid,1,11,test\n"
    listing = kinetics(tmp_path, content, "id_000001_000011.mp4")
    assert [(e.label, e.subset) for e in listing.entries] == [(None, "test")]
    assert listing.classes == ()


def test_json_list(tmp_path: Path) -> None:
    video = {"duration": 10.0, "subset": "train", "url": "https://example.org/watch?v=id"}
    content = {
        "id1": video | {"annotations": {"label": "run", "segment": [2.0, 12.0]}},
        "id2": video | {"annotations": {"label": "swim", "segment": [0.5, 10.5]}},
        "id3": video | {"annotations": {"segment": [0, 10]}, "subset": "test"},
    }
    listing = kinetics(
        tmp_path,
        json.dumps(content, indent=2),
        "id1_000002_000012.mp4",
        "id2.mp4",
        "id3.mp4",
        suffix=".json",
    )
    assert [(e.video_id, e.label, e.start_seconds) for e in listing.entries] == [
        ("id1_000002_000012", "run", None),
        ("id2_000000.500_000010.500", "swim", 0.5),
        ("id3_000000_000010", None, 0.0),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",id,0,10,train,0", "line 2 has no label, which only clips of a test split may lack"),
        ("run,,0,10,train,0", "line 2 has no youtube_id"),
        ("run,id,ten,20,train,0", "line 2 must have times .* got 'ten' and '20'"),
        ("run,id,20,10,train,0", "line 2 must have times 0 <= time_start < time_end"),
        ("run,id,nan,inf,train,0", "line 2 must have times"),
        ("run", "line 2 has no youtube_id"),
        ("run,id,0,10,train,0\nswim,id,0,10,train,0", "line 2 and line 3 differ on 'id_000000"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        kinetics(tmp_path, HEADER + row + "\n", "id.mp4")
    assert "list.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", HEADER, "the list must name clips, got none"),
        (".csv", "label,youtube_id\nrun,id\n", "column 'time_start' is missing"),
        (".csv", "", "column 'youtube_id' is missing"),
        (".csv", "youtube_id,time_start,time_end\nid,0,10\n", "line 2 has no label"),
        (".json", "{", "not a Kinetics list"),
        (".json", "[]", "no object of youtube_ids"),
        (".json", '{"id": 3}', "entry 'id' must have annotations with a segment"),
        (".json", '{"id": {"annotations": {"segment": [0]}}}', "entry 'id' must have annotations"),
        (".json", '{"id": {"annotations": {"segment": [0, 1]}}}', "entry 'id' has no label"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, suffix: str, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kinetics(tmp_path, content, "id.mp4", suffix=suffix, format="kinetics")


def test_a_binary_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match="not a Kinetics list"):
        list_sources(tmp_path / "list.csv", format="kinetics", videos=tmp_path)


def test_a_list_needs_its_videos(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST)
    with pytest.raises(UsageError, match="--videos must say where the videos"):
        list_sources(tmp_path / "list.csv")
    with pytest.raises(UsageError, match="the folder of videos must exist"):
        list_sources(tmp_path / "list.csv", videos=tmp_path / "none")


def test_the_format_is_guessed_or_asked_for(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("video,label\n")
    (tmp_path / "list.json").write_text('{"x": {"annotations": [{"segment": [1]}]}}')
    for name in ("list.csv", "list.json"):
        with pytest.raises(UsageError, match="looks like none of the known layouts"):
            list_sources(tmp_path / name)
    with pytest.raises(UsageError, match="got 'kinetic'; nearest is 'kinetics'"):
        list_sources(tmp_path / "list.csv", format="kinetic")
    assert " ".join(FORMATS) == (
        "kinetics ucf101 hmdb51 thumos14 activitynet multithumos charades folder"
    )


def test_the_real_kinetics_validation_list(shared: Path, tmp_path: Path) -> None:
    annotations = shared / "data/annotations"
    with open(annotations / "kinetics-400_val.csv", newline="") as file:
        clips = list(csv.DictReader(file))
    whole, flat, nested = clips[0], clips[7000], clips[-1]

    def clip_name(clip: dict) -> str:
        return f"{clip['youtube_id']}_{int(clip['time_start']):06}_{int(clip['time_end']):06}"

    touch(
        tmp_path,
        f"{whole['youtube_id']}.mkv",
        f"{clip_name(flat)}.mp4",
        f"{nested['label'].replace(' ', '_')}/{clip_name(nested)}.mp4",
        "somebody_else.mp4",
    )
    listing = list_sources(
        annotations / "kinetics-400_val.csv",
        videos=tmp_path,
        classes=annotations / "kinetics-400_labels.txt",
    )
    assert len(listing.missing) == len(clips) - 3 == 19_903
    assert listing.classes == tuple(sorted(listing.classes))
    assert len(listing.classes) == 400
    found = {entry.video_id: entry for entry in listing.entries}
    assert {key: entry.label for key, entry in found.items()} == {
        clip_name(clip): clip["label"] for clip in (whole, flat, nested)
    }
    assert found[clip_name(whole)].start_seconds == float(whole["time_start"])
    assert found[clip_name(flat)].start_seconds is None

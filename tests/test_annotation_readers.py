"""Listing the official annotations of datasets: tiny files in each layout, then the real ones."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifests import SourceVideo, UsageError
from manifests.readers import Listing, list_sources
from manifests.segments import clean_segments


def listed(tmp_path: Path, files: dict[str, Any], source: str = "", **options: Any) -> Listing:
    """Write the annotation files and list them, with a video for every name under `videos`."""
    for name in options.pop("stems", ()):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "videos").mkdir(exist_ok=True)
    for name, content in files.items():
        path = tmp_path / "official" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return list_sources(tmp_path / "official" / source, videos=tmp_path / "videos", **options)


def found(listing: Listing) -> list[tuple]:
    return [
        (entry.video_id, os.path.basename(entry.path), entry.label, entry.subset)
        for entry in listing.entries
    ]


def segments(listing: Listing) -> list[tuple]:
    assert listing.segments is not None
    return [(s.video_id, s.label, s.start_seconds, s.end_seconds) for s in listing.segments]


def count(listing: Listing, words: str) -> int:
    """Return how often the one rule with these words was applied, 0 if never."""
    counts = [count for rule, count in listing.oddities.items() if words in rule]
    assert len(counts) < 2
    return sum(counts)


# ------------------------------------------------------------------------------- ActivityNet

NOTE = {"segment": [1.5, 4], "label": "Ballet"}
DATABASE = {
    "version": "VERSION 1.3",
    "taxonomy": [{"nodeName": "Ballet", "nodeId": 1, "parentId": None}],
    "database": {
        "QOlSCBRmfWY": {"subset": "training", "duration": 82.73, "annotations": [NOTE], "url": "u"},
        "ehGHCYKzyZ8": {
            "subset": "validation",
            "duration": 61.7,
            "annotations": [{"segment": ["43.9", "45.4"], "label": "Zumba"}, NOTE],
        },
        "zzz_3yWpTXo": {"subset": "testing", "duration": 21.5, "annotations": []},
    },
}


def test_activitynet(tmp_path: Path) -> None:
    listing = listed(
        tmp_path,
        {"activity_net.v1-3.min.json": DATABASE},
        "activity_net.v1-3.min.json",
        stems=["train/v_QOlSCBRmfWY.mp4", "ehGHCYKzyZ8.MKV"],
    )
    assert found(listing) == [
        ("QOlSCBRmfWY", "v_QOlSCBRmfWY.mp4", None, "training"),
        ("ehGHCYKzyZ8", "ehGHCYKzyZ8.MKV", None, "validation"),
    ]
    assert listing.missing == ("zzz_3yWpTXo",)
    assert listing.classes == ("Ballet", "Zumba")
    assert segments(listing) == [
        ("QOlSCBRmfWY", "Ballet", 1.5, 4.0),
        ("ehGHCYKzyZ8", "Zumba", 43.9, 45.4),
        ("ehGHCYKzyZ8", "Ballet", 1.5, 4.0),
    ]
    assert listing.durations == {"QOlSCBRmfWY": 82.73, "ehGHCYKzyZ8": 61.7, "zzz_3yWpTXo": 21.5}
    assert (count(listing, "given as text"), count(listing, "without a segment")) == (1, 1)


BMN = {
    "v_QOlSCBRmfWY": {
        "duration_second": 82.73,
        "duration_frame": 2067,
        "annotations": [NOTE],
        "feature_frame": 2064,
    },
    "v_short": {"duration_second": 5, "annotations": [NOTE]},
}
BMN_VIDEOS = (
    "video,numFrame,seconds,fps,rfps,subset,featureFrame\n"
    "v_QOlSCBRmfWY,2067,82.73,25.0,24.98,training,2064\n"
    "v_short,150,5.0,30.0,30.0,validation,144\n"
)


def test_the_layout_of_bmn_gives_the_ids_of_activitynet(tmp_path: Path) -> None:
    files = {"my_anet_anno_action.json": BMN, "my_video_info_new.csv": BMN_VIDEOS}
    stems = ["QOlSCBRmfWY.mp4", "short.mp4"]
    listing = listed(tmp_path, files, "my_anet_anno_action.json", stems=stems)
    assert found(listing) == [
        ("QOlSCBRmfWY", "QOlSCBRmfWY.mp4", None, "training"),
        ("v_short", "short.mp4", None, "validation"),  # no YouTube id: as it is written
    ]
    assert count(listing, "begin with v_") == 1
    assert count(listing, "no subset") == 0
    assert listing.durations["v_short"] == 5.0


def test_a_video_without_a_stated_subset_has_none(tmp_path: Path) -> None:
    listing = listed(
        tmp_path, {"anet_anno_val.json": BMN}, "anet_anno_val.json", stems=["short.ts"]
    )
    assert found(listing) == [("v_short", "short.ts", None, None)]
    assert count(listing, "no subset") == 2


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"segment": [1, 2], "label": "x"}, "video 'a' must have annotations"),
        ([{"segment": [1], "label": "x"}], "must have annotations {segment: .*, got {'segment'"),
        ([{"segment": [1, 2]}], "must have annotations {segment"),
        ([{"segment": [1, "ten"], "label": "x"}], "must have times in seconds, got 'ten'"),
        ([{"segment": [1, None], "label": "x"}], "must have times in seconds, got None"),
        ([{"segment": [True, 2], "label": "x"}], "must have times in seconds, got True"),
        ([{"segment": [float("nan"), 2], "label": "x"}], "must have times in seconds, got nan"),
    ],
)
def test_a_damaged_database_is_refused(tmp_path: Path, annotations: Any, message: str) -> None:
    database = {"database": {"a": {"subset": "training", "annotations": annotations}}}
    with pytest.raises(UsageError, match=message) as caught:
        listed(tmp_path, {"a.json": database}, "a.json", format="activitynet")
    assert "a.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not an annotation file"),
        ("[]", "must be a JSON object of videos"),
        ('{"database": []}', "'database' must be an object"),
        ('{"database": {}}', "must name videos, got none"),
        ("[" * 100_000, "not an annotation file"),
    ],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        listed(tmp_path, {"a.json": content}, "a.json", format="activitynet")


def test_a_video_is_listed_once_and_needs_a_folder(tmp_path: Path) -> None:
    twice = {"database": {key: {"annotations": []} for key in ("v_QOlSCBRmfWY", "QOlSCBRmfWY")}}
    with pytest.raises(UsageError, match="listed once, but 'QOlSCBRmfWY' is twice"):
        listed(tmp_path, {"a.json": twice}, "a.json")
    (tmp_path / "b.json").write_text(json.dumps(DATABASE))
    with pytest.raises(UsageError, match=r"--videos must say where the videos of .*b\.json"):
        list_sources(tmp_path / "b.json")


# ------------------------------------------------------------------- THUMOS'14 and MultiTHUMOS

TABLE = "video,type,type_idx,start,end,startFrame,endFrame\n"
VAL = TABLE + "video_validation_0000051,Billiards,12,67.5,75.9,2025,2277\n"
TEST = (
    TABLE
    + "video_test_0000004,CliffDiving,22,0.2,1.1,6,33\n"
    + "video_test_0000004,Diving,26,0.2,1.1,6,33\n"
    + "video_test_0001292,Ambiguous,0,5.0,6.0,150,180\n"
)
TRUTH = (
    "video-name,t-init,t-end,f-init,f-end,video-duration,frame-rate,video-frames,label-idx\n"
    "video_test_0000004,0.2,1.1,6,33,33.7,30.0,1011,4\n"
    "video_test_0000004,0.2,1.1,6,33,33.7,30.0,1011,7\n"
    "video_test_0001292,5.0,6.0,150,180,100.5,30.0,3015,-1\n"
)
THUMOS_FILES = {"val_Annotation.csv": VAL, "test_Annotation.csv": TEST}
THUMOS_STEMS = [f"video_{part}.mp4" for part in ("validation_0000051", "test_0000004")]
TEST_SEGMENTS = [
    ("video_test_0000004", "CliffDiving", 0.2, 1.1),
    ("video_test_0000004", "Diving", 0.2, 1.1),
]
VAL_SEGMENTS = [("video_validation_0000051", "Billiards", 67.5, 75.9)]


def test_the_folder_of_gtad(tmp_path: Path) -> None:
    files = THUMOS_FILES | {"thumos14_test_groundtruth.csv": TRUTH}
    listing = listed(tmp_path, files, stems=THUMOS_STEMS)
    assert found(listing) == [
        ("video_test_0000004", "video_test_0000004.mp4", None, "test"),
        ("video_validation_0000051", "video_validation_0000051.mp4", None, "validation"),
    ]
    assert listing.missing == ("video_test_0001292",)
    assert segments(listing) == TEST_SEGMENTS + VAL_SEGMENTS
    assert (len(listing.classes), listing.classes[4]) == (20, "CliffDiving")
    assert listing.durations == {"video_test_0000004": 33.7, "video_test_0001292": 100.5}
    assert count(listing, "Ambiguous") == 1
    assert count(listing, "0001292") == 1
    assert count(listing, "without a segment") == 1
    assert count(listing, "other numbers") == 3


@pytest.mark.parametrize("name", ["test_Annotation.csv", "thumos14_test_groundtruth.csv"])
def test_a_table_of_gtad_alone(tmp_path: Path, name: str) -> None:
    files = THUMOS_FILES | {"thumos14_test_groundtruth.csv": TRUTH}
    listing = listed(tmp_path, files, name, stems=THUMOS_STEMS)
    assert segments(listing) == TEST_SEGMENTS
    assert {entry.subset for entry in listing.entries} == {"test"}
    assert listing.durations["video_test_0000004"] == 33.7


def test_the_official_text_files_of_thumos(tmp_path: Path) -> None:
    files = {
        "CliffDiving_test.txt": "video_test_0000004  0.2 1.1\n",
        "Diving_test.txt": "video_test_0000004  0.2 1.1\n\n",
        "Ambiguous_test.txt": "video_test_0001292 5.0 6.0\n",
        "Billiards_val.txt": "video_validation_0000051 67.5 75.9\n",
        "readme_test.txt": "nothing of the kind\n",
    }
    listing = listed(tmp_path, files, stems=THUMOS_STEMS)
    assert segments(listing) == TEST_SEGMENTS + VAL_SEGMENTS
    assert count(listing, "Ambiguous") == 1
    (tmp_path / "official/Diving_test.txt").write_text("video_test_0000004 0.2\n")
    with pytest.raises(UsageError, match="line 1 must be 'video start end', got 'video_test_00"):
        list_sources(tmp_path / "official", videos=tmp_path / "videos")


def test_the_json_file_of_gtad(tmp_path: Path) -> None:
    note = {"segment": ["0.2", "1.1"], "label": "Diving"}
    database = {"video_test_0000004": {"subset": "test", "annotations": [note]}}
    listing = listed(
        tmp_path, {"thumos_gt.json": {"database": database}}, "thumos_gt.json", stems=THUMOS_STEMS
    )
    assert segments(listing) == TEST_SEGMENTS[1:]
    assert [entry.subset for entry in listing.entries] == ["test"]
    assert len(listing.classes) == 20
    assert count(listing, "given as text") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", TABLE + "video_test_0000004,Diving\n", "line 2 must have 7 cells"),
        ("a.csv", TABLE + "video_test_0000004,Diving,26,x,1,0,0\n", "line 2 must have times"),
        ("a.csv", TRUTH.replace(",7\n", ",20\n"), "line 3 must have a class number in 0..19, got"),
        ("a.csv", TRUTH.replace(",7\n", ",x\n"), "line 3 must have a class number .* got 'x'"),
        ("a.csv", "video,type\n", "column 'type_idx' is missing"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        listed(tmp_path, {name: content}, name, format="thumos14")


def test_a_folder_without_annotations_is_no_thumos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must hold annotations of THUMOS'14"):
        listed(tmp_path, {"readme.txt": ""}, format="thumos14")


ACTIONS = {"subset": "testing", "duration": 9.5, "actions": [[1, 0.0, 2.5], [3, 1, 12]]}


def test_multithumos_json_counts_classes_from_one(tmp_path: Path) -> None:
    files = {"multithumos.json": {"video_test_0000004": ACTIONS}}
    listing = listed(tmp_path, files, "multithumos.json", stems=THUMOS_STEMS)
    assert [entry.subset for entry in listing.entries] == ["testing"]
    assert listing.classes == tuple(str(number) for number in range(1, 66))
    assert segments(listing) == [
        ("video_test_0000004", "1", 0.0, 2.5),
        ("video_test_0000004", "3", 1.0, 12.0),
    ]
    assert count(listing, "numbered from 1") == 65
    assert count(listing, "no names") == 65
    assert listing.durations == {"video_test_0000004": 9.5}


CLASS_LIST = "1 BaseballPitch\n2 BasketballBlock\n3 BasketballDribble\n"


def test_the_official_folder_of_multithumos(tmp_path: Path) -> None:
    files = {
        "class_list.txt": CLASS_LIST,
        "annotations/BasketballDribble.txt": "video_test_0000004 1.00 12.00\n",
        "annotations/BaseballPitch.txt": "video_test_0000004 0.00 2.50\n",
        "multithumos.json": {"video_test_0000004": ACTIONS},
    }
    listing = listed(tmp_path, files, stems=THUMOS_STEMS)
    assert listing.classes == ("BaseballPitch", "BasketballBlock", "BasketballDribble")
    assert [entry.subset for entry in listing.entries] == ["test"]
    assert segments(listing) == [
        ("video_test_0000004", "BaseballPitch", 0.0, 2.5),
        ("video_test_0000004", "BasketballDribble", 1.0, 12.0),
    ]
    of_json = listed(tmp_path, {}, "multithumos.json")  # named by the list beside it
    assert segments(of_json) == segments(listing)
    (tmp_path / "official/annotations/Baseball.txt").write_text("")
    with pytest.raises(UsageError, match=r"called by one of the 3 classes, got .*Baseball\.txt"):
        listed(tmp_path, {})


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0, 1, 2], r"must have a class number in 1\.\.65, got 0"),
        ([66, 1, 2], r"must have a class number in 1\.\.65, got 66"),
        (["3", 1, 2], r"must have a class number in 1\.\.65, got '3'"),
        ([3, 1], "must have actions .class, start, end., got"),
        ([3, 1, "x"], "must have times in seconds, got 'x'"),
    ],
)
def test_a_damaged_action_is_refused(tmp_path: Path, action: list, message: str) -> None:
    content = {"video_test_0000004": {"subset": "testing", "actions": [action]}}
    with pytest.raises(UsageError, match=f"video 'video_test_0000004' {message}"):
        listed(tmp_path, {"a.json": content}, "a.json")
    with pytest.raises(UsageError, match="'x' must have actions"):
        listed(tmp_path, {"b.json": {"x": {"actions": 3}}}, "b.json", format="charades")


# ----------------------------------------------------------------------------------- Charades

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = HEADER + (
    '46GP8,HR43,Kitchen,6,7,Yes,"A person, cooking.",food,A person,'
    "c092 11.90 21.20;c147 0.00 12.60,24.83\n"
    "N11GT,0KZ7,Stairs,5,7,No,A man,door,A man,,18.33\n"
)
CHARADES_TEST = HEADER + "0A8CF,A,Hall,6,7,Yes,s,o,d,c001 1.00 40.00,30.5\n"
CHARADES_CLASSES = "".join(f"c{number:03d} Holding thing {number}\n" for number in range(157))
CHARADES_FILES = {
    "Charades_v1_train.csv": TRAIN,
    "Charades_v1_test.csv": CHARADES_TEST,
    "Charades_v1_classes.txt": CHARADES_CLASSES,
}


def test_charades(tmp_path: Path) -> None:
    stems = ["46GP8.mp4", "N11GT.mp4", "0A8CF.mp4"]
    listing = listed(tmp_path, CHARADES_FILES, stems=stems)
    assert found(listing) == [
        ("0A8CF", "0A8CF.mp4", None, "test"),
        ("46GP8", "46GP8.mp4", None, "train"),
        ("N11GT", "N11GT.mp4", None, "train"),
    ]
    assert (listing.classes[0], len(listing.classes)) == ("Holding thing 0", 157)
    assert segments(listing) == [
        ("0A8CF", "Holding thing 1", 1.0, 40.0),
        ("46GP8", "Holding thing 92", 11.9, 21.2),
        ("46GP8", "Holding thing 147", 0.0, 12.6),
    ]
    assert listing.durations["46GP8"] == 24.83
    assert count(listing, "without a segment") == 1
    one = listed(tmp_path, {}, "Charades_v1_test.csv")
    assert segments(one) == segments(listing)[:1]


def test_charades_without_its_class_list(tmp_path: Path) -> None:
    stems = ["46GP8.mp4"]
    listing = listed(
        tmp_path, {"Charades_v1_train.csv": TRAIN}, "Charades_v1_train.csv", stems=stems
    )
    assert listing.classes[:2] == ("c000", "c001")
    assert segments(listing)[0] == ("46GP8", "c092", 11.9, 21.2)
    assert count(listing, "no names") == 157
    (tmp_path / "names.txt").write_text(CHARADES_CLASSES)
    named = listed(tmp_path, {}, "Charades_v1_train.csv", classes=tmp_path / "names.txt")
    assert segments(named)[0] == ("46GP8", "Holding thing 92", 11.9, 21.2)
    assert count(named, "no names") == 0


def test_charades_json_counts_classes_from_zero(tmp_path: Path) -> None:
    files = {"charades.json": {"46GP8": ACTIONS | {"actions": [[0, 1.5, 2.0], [156, 3, 2]]}}}
    listing = listed(tmp_path, files, "charades.json", stems=["46GP8.mp4"])
    assert segments(listing) == [("46GP8", "c000", 1.5, 2.0), ("46GP8", "c156", 3.0, 2.0)]
    assert [entry.subset for entry in listing.entries] == ["testing"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,,,,,,,,c157 0 1,9\n", r"line 2 must have a class number in 0\.\.156, got 157"),
        ("a,,,,,,,,,c001 0,9\n", "line 2 must have actions like 'c092 11.90 21.20', got 'c001 0'"),
        ("a,,,,,,,,,1 0 1,9\n", "line 2 must have actions like"),
        ("a,,,,,,,,,c001 0 1,\n", "line 2 must have times in seconds, got ''"),
    ],
)
def test_a_damaged_row_of_charades_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        listed(tmp_path, {"Charades_v1_test.csv": HEADER + row})


# --------------------------------------------------------------------------- UCF101 and HMDB51

UCF_FILES = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 Archery\r\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "Archery/v_Archery_g08_c01.avi 2\r\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\n",
    "trainlist02.txt": "Archery/v_Archery_g01_c01.avi 2\n",
    "testlist02.txt": "",
}
UCF_STEMS = [
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
    "Archery/v_Archery_g01_c01.mp4",
]


@pytest.mark.parametrize("source", ["", "trainlist01.txt", "testlist01.txt"])
def test_ucf101(tmp_path: Path, source: str) -> None:
    listing = listed(tmp_path, UCF_FILES, source, stems=UCF_STEMS)
    assert found(listing) == [
        ("v_ApplyEyeMakeup_g08_c01", "v_ApplyEyeMakeup_g08_c01.avi", "ApplyEyeMakeup", "train"),
        ("v_Archery_g01_c01", "v_Archery_g01_c01.mp4", "Archery", "test"),
    ]
    assert listing.missing == ("v_Archery_g08_c01",)
    assert listing.classes == ("ApplyEyeMakeup", "Archery")
    assert listing.segments is None
    assert count(listing, "numbered from 1") == 2


def test_a_list_of_ucf101_means_its_split(tmp_path: Path) -> None:
    listing = listed(tmp_path, UCF_FILES, "testlist02.txt", stems=UCF_STEMS)
    assert [(entry.video_id, entry.subset) for entry in listing.entries] == [
        ("v_Archery_g01_c01", "train")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classInd.txt": "1 Archery\n"}, "line 1 must be 'CLASS/NAME.avi' with one of the 1 cl"),
        (
            {"trainlist01.txt": "Archery/a.avi 1\n"},
            "must have the number of 'Archery' .* 2, got '1",
        ),
        ({"trainlist01.txt": "a.avi 1\n"}, "line 1 must be 'CLASS/NAME.avi'"),
        ({"testlist01.txt": "Archery/v_Archery_g08_c01.avi"}, "once in a split, but 'v_Archery_g0"),
        ({"trainlist01.txt": "", "testlist01.txt": ""}, "must name clips, got none"),
    ],
)
def test_a_damaged_split_of_ucf101_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        listed(tmp_path, UCF_FILES | changes)


def test_ucf101_needs_its_classes(tmp_path: Path) -> None:
    files = {name: content for name, content in UCF_FILES.items() if name != "classInd.txt"}
    with pytest.raises(UsageError, match=r"cannot read the classes file .*classInd\.txt"):
        listed(tmp_path, files)
    (tmp_path / "official/list.txt").touch()
    with pytest.raises(UsageError, match=r"called like trainlist01\.txt, got"):
        listed(tmp_path, {}, "list.txt", format="ucf101")


HMDB_FILES = {
    "wave_test_split1.txt": "#1_wave_u_nm.avi 1 \nb_wave.avi 2 \nc_wave.avi 0 \n",
    "brush_hair_test_split1.txt": "a_brush_hair.x.avi 2 \n",
    "wave_test_split2.txt": "b_wave.avi 0 \nc_wave.avi 1 \n",
}
HMDB_STEMS = ["wave/#1_wave_u_nm.avi", "wave/b_wave.avi", "wave/c_wave.avi"]


def test_hmdb51(tmp_path: Path) -> None:
    listing = listed(tmp_path, HMDB_FILES, stems=HMDB_STEMS)
    assert found(listing) == [
        ("#1_wave_u_nm", "#1_wave_u_nm.avi", "wave", "train"),
        ("b_wave", "b_wave.avi", "wave", "test"),
    ]
    assert listing.missing == ("a_brush_hair.x",)
    assert listing.classes == ("brush_hair", "wave")
    assert count(listing, "marked 0") == 1
    second = listed(tmp_path, {}, "wave_test_split2.txt")
    assert [(entry.video_id, entry.subset) for entry in second.entries] == [("c_wave", "train")]


def test_a_damaged_split_of_hmdb51_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'NAME\.avi' and 0, 1 or 2, got 'a\.avi 3'"):
        listed(tmp_path, {"wave_test_split1.txt": "a.avi 3\n"})
    (tmp_path / "official/list.txt").touch()
    with pytest.raises(UsageError, match=r"called like brush_hair_test_split1\.txt"):
        listed(tmp_path, {}, "list.txt", format="hmdb51")


# ------------------------------------------------------------------- the real files, in numbers


@pytest.fixture
def real(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """List a real annotation file as if every video that it names were there."""

    class EveryVideo(dict):
        def __contains__(self, name: object) -> bool:
            return True

        def __missing__(self, name: str) -> str:
            return f"/{name}.mp4"

    monkeypatch.setattr(
        "manifests.readers.annotated.index_videos", lambda videos, source: EveryVideo()
    )
    annotations = shared / "data/annotations"
    return lambda name: list_sources(annotations / name, videos=tmp_path)


def cleaned(listing: Listing) -> tuple[list[dict], dict[str, int]]:
    """Clean the segments as if every file lasted as long as its annotation says."""
    videos = [
        SourceVideo(
            entry.video_id,
            entry.path,
            subset=entry.subset,
            duration_seconds=listing.durations.get(entry.video_id, 1e9),
        )
        for entry in listing.entries
    ]
    return clean_segments(listing, videos)


@pytest.mark.slow
def test_the_real_activitynet(real) -> None:
    listing = real("activitynet_anet_anno_action.json")
    assert Counter(entry.subset for entry in listing.entries) == {
        "training": 9649,
        "validation": 4728,
        "testing": 4851,
    }
    assert (len(listing.segments), len(listing.classes)) == (22_152, 200)
    assert all(len(entry.video_id) == 11 for entry in listing.entries)
    rows, oddities = cleaned(listing)
    assert len(rows) == 22_090
    assert sorted(oddities.values()) == [12, 50, 215, 4851, 19_228]
    assert oddities["segments of zero length are left out"] == 12
    zero = [s for s in listing.segments if s.start_seconds == s.end_seconds]
    assert sum(segment.end_seconds == 0 for segment in zero) == 9


@pytest.mark.slow
def test_the_real_thumos14(real) -> None:
    tables, of_json = real("."), real("thumos14_gtad.json")
    assert Counter(e.subset for e in tables.entries) == {"validation": 200, "test": 213}
    assert Counter(e.subset for e in of_json.entries) == {"train": 200, "test": 210}
    rows, oddities = cleaned(tables)
    counts = {rule.split()[0]: number for rule, number in oddities.items()}
    assert counts == {"Ambiguous": 188, "test": 3, "classes": 20, "videos": 1, "segments": 26}
    assert (len(tables.segments), len(rows)) == (6365, 6339)
    # The JSON file is the tables without three videos: 47 segments.
    gone = {entry.video_id for entry in tables.entries} - {e.video_id for e in of_json.entries}
    assert gone == {f"video_test_{number}" for number in ("0000270", "0001292", "0001496")}
    kept = Counter(segment for segment in tables.segments if segment.video_id not in gone)
    assert kept == Counter(of_json.segments)
    assert sum(kept.values()) == 6318


@pytest.mark.slow
def test_the_real_ground_truth_is_the_test_table(real) -> None:
    truth = real("frostinassiky__thumos14_test_groundtruth.csv")
    table = real("thumos14_test_Annotation.csv")
    order = [(s.video_id, s.start_seconds, s.end_seconds, s.label) for s in truth.segments]
    assert sorted(order) == sorted(
        (s.video_id, s.start_seconds, s.end_seconds, s.label) for s in table.segments
    )
    assert len(order) == 3358
    assert truth.durations == table.durations


@pytest.mark.slow
def test_the_real_multithumos(real) -> None:
    listing = real("multithumos.json")
    assert Counter(e.subset for e in listing.entries) == {"training": 200, "testing": 213}
    assert (len(listing.segments), len(listing.classes)) == (38_690, 65)
    rows, oddities = cleaned(listing)
    assert len(rows) == 38_690 - 7 - 60
    assert sorted(oddities.values()) == [5, 7, 60, 65, 65]
    # Its first 20 classes are those of THUMOS'14 in their order, annotated again: most agree.
    thumos, ours = real("thumos14_gtad.json"), set(listing.segments)
    for number, name in enumerate(thumos.classes, start=1):
        theirs = {s for s in thumos.segments if s.label == name}
        assert len({replace(s, label=str(number)) for s in theirs} & ours) > 0.5 * len(theirs)

"""`evaluate_files`: official files in, official numbers out, and a sentence for what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import METRICS, EvaluationOptions, evaluate_files
from features.evaluation.truth_files import read_truth
from manifests import SourceVideo, UsageError, write_segments, write_sources


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def database(**videos: list[tuple[float, float, str]]) -> dict[str, Any]:
    return {
        "database": {
            video_id: {
                "subset": "validation",
                "duration": 10.0,
                "annotations": [{"segment": [s, e], "label": label} for s, e, label in rows],
            }
            for video_id, rows in videos.items()
        }
    }


def results(**videos: list[tuple[float, float, str, float]]) -> dict[str, Any]:
    return {
        "results": {
            video_id: [{"segment": [s, e], "label": x, "score": score} for s, e, x, score in rows]
            for video_id, rows in videos.items()
        }
    }


NAN = float("nan")
TRUTH = database(a=[(0, 4, "jump"), (5, 9, "run")], b=[(1, 3, "jump")])
FOUND = results(a=[(0, 4, "jump", 0.9), (5, 8, "run", 0.8)], b=[(7, 9, "jump", 0.95)])


def segment(video_id: str, label: str, start: float, end: float, subset: str) -> dict[str, Any]:
    times = {"start_seconds": start, "end_seconds": end}
    return {"video_id": video_id, "label": label, "subset": subset, **times}


def test_files_of_activitynet(shared: Path) -> None:
    folder = shared / "parity/evaluation"
    known = json.loads((folder / "aran_expected.json").read_text())["cases"]["b"]
    files = (folder / "aran_b_result.json", folder / "aran_b_gt.json")
    options = EvaluationOptions(subset="validation")
    report = evaluate_files("activitynet", *files, options)
    assert report.scores["mAP"] == known["detection_average_mAP"]
    assert report.scores["mAP@0.50"] == known["detection_mAP"][0]
    report = evaluate_files("proposals", *files, options)
    assert report.scores["AUC"] == known["AUC"]
    assert report.scores["AR@10"] == known["avg_recall"][9]
    assert report.counts["in other videos"] == 9
    assert report.counts["videos without proposals"] == 2


def test_files_of_mmaction2_differ_in_their_ids_only(shared: Path) -> None:
    folder = shared / "parity/eval_localization"
    known = json.loads((folder / "expected.json").read_text())["mmaction2"]["average_mAP"]
    for truth in ("gt.json", "gt_activitynet_style.json"):
        report = evaluate_files("activitynet", folder / "result.json", folder / truth)
        assert report.scores["mAP"] == known
    assert report.to_dict()["per_class"]["Cleaning shoes"] == 1.0
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_files_of_charades(shared: Path) -> None:
    folder = shared / "parity/evaluation"
    known = json.loads((folder / "charades25.json").read_text())
    report = evaluate_files(
        "charades", folder / "charades25_submission.txt", folder / "charades25_gt.csv"
    )
    assert (report.scores["mAP"], report.scores["wAP"]) == (known["map"], known["wap"])
    assert list(report.per_class.values()) == known["ap"]
    assert report.counts["missing frames"] == 2


def test_frames_of_multithumos(shared: Path, tmp_path: Path) -> None:
    truth = shared / "data/annotations/multithumos.json"
    annotated = read_truth(truth, "testing", first_class=1)
    rng = np.random.default_rng(0)
    ids = sorted(annotated.segments)[:4]
    rows = {video_id: rng.random((30, 65)) for video_id in ids}
    np.savez(tmp_path / "rows.npz", **rows, other=np.zeros((2, 65)))
    report = evaluate_files(
        "multithumos", tmp_path / "rows.npz", truth, EvaluationOptions(subset="testing")
    )
    assert report.counts["frames"] == 120
    assert report.counts["videos without predictions, left out"] == 209
    assert report.counts["videos of predictions that the annotation lacks"] == 1
    assert len(report.per_class) == 65
    means = [report.scores[f"mAP ({name})"] for name in ("APMeter, all classes",)]
    per_class = np.nan_to_num(list(report.per_class.values()))
    assert means == [pytest.approx(per_class.mean())]
    assert report.scores["mAP on multi-action frames"] > 0
    in_json = write(tmp_path / "rows.json", {key: array.tolist() for key, array in rows.items()})
    again = evaluate_files("multithumos", in_json, truth, EvaluationOptions(subset="testing"))
    assert again.scores == report.scores
    with pytest.raises(UsageError, match=r"subset 'val' has no video .* 'testing', 'training'"):
        read_truth(truth, "val", first_class=1)


def test_both_layouts_of_thumos(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    write(folder / "BaseballPitch_test.txt", "video_test_0000001  0.0  10.0\n")
    write(folder / "Ambiguous_test.txt", "video_test_0000001 20 22\nvideo_test_0000002 1 2\n")
    write(folder / "Billiards_val.txt", "video_validation_0000001 0 10\n")
    found = write(
        tmp_path / "found.txt",
        "video_test_0000001.mp4 0 8 7 0.5\nvideo_test_0000001 21 30 7 0.9\n"
        "video_test_0000002 5 6 7 0.6\n",
    )
    test = EvaluationOptions(subset="test")
    report = evaluate_files("thumos", found, folder, test)
    assert report.scores["mAP@0.50"] == 0.5  # after one false detection; the other is ambiguous
    assert list(report.per_class) == ["BaseballPitch"]
    assert evaluate_files("thumos-activitynet", found, folder, test).scores["mAP@0.50"] == 1 / 3
    truth = write(
        tmp_path / "truth.json", database(video_test_0000001=[("0.0", "10.0", "BaseballPitch")])
    )
    assert evaluate_files("thumos", found, truth).scores["mAP@0.50"] == 1 / 3


def test_tables_of_thumos(shared: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "found.txt", "v_test_1 0 8 7 0.5\nv_test_1 21 30 7 0.9\nw 5 6 7 0.6\n")
    table = write(
        tmp_path / "test_Annotation.csv",
        "video,type,type_idx,start,end,startFrame,endFrame\n"
        "v_test_1,BaseballPitch,7,0,10,0,300\nv_test_1,Ambiguous,102,20,22,600,660\n",
    )
    ground = write(
        tmp_path / "groundtruth.csv",
        "video-name,t-init,t-end,f-init,f-end,video-duration,frame-rate,video-frames,label-idx\n"
        "v_test_1,0,10,0,300,40.0,30.0,1200,0\nv_test_1,20,22,600,660,40.0,30.0,1200,-1\n",
    )
    for truth in (table, ground):
        report = evaluate_files("thumos", found, truth, EvaluationOptions(subset="test"))
        assert report.scores["mAP@0.50"] == 0.5
        assert list(report.per_class) == ["BaseballPitch"]
        report = evaluate_files("proposals", found, truth)
        assert report.counts["segments"] == 1  # what is ambiguous need not be found
    folder = shared / "data/annotations"
    one, other = (
        read_truth(folder / name, "test")
        for name in ("thumos14_test_Annotation.csv", "frostinassiky__thumos14_test_groundtruth.csv")
    )
    assert {row[2] for rows in one.segments.values() for row in rows} == {
        row[2] for rows in other.segments.values() for row in rows
    }
    assert other.lengths["video_test_0000278"] == 215.166667
    with pytest.raises(UsageError, match=r"line 2 .* class index of THUMOS'14, got '20'"):
        read_truth(write(ground, ground.read_text().replace(",0\n", ",20\n")))


def test_files_in_the_wrong_place_are_told(tmp_path: Path) -> None:
    truth, found = write(tmp_path / "truth.json", TRUTH), write(tmp_path / "found.json", FOUND)
    with pytest.raises(UsageError, match=r"'results', .* predictions come first, then the truth"):
        evaluate_files("activitynet", truth, found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tious": (NAN,)}, "tIoU must be from 0 to 1, got nan"),
        ({"tious": (0.5, 2.0)}, "tIoU must be from 0 to 1, got 2.0"),
        ({"max_proposals": NAN}, "number of proposals must be above 0, got nan"),
        ({"max_proposals": float("inf")}, "number of proposals must be above 0, got inf"),
        ({"max_proposals": -3.0}, "number of proposals must be above 0, got -3.0"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluationOptions(**options)


def test_our_own_segments_are_a_truth_too(tmp_path: Path) -> None:
    rows = [("a", "jump", 0.0, 4.0, "test"), ("a", "run", 5.0, 9.0, "test")]
    rows += [("b", "jump", 1.0, 3.0, "test"), ("c", "run", 0.0, 1.0, "train")]
    table = [segment(*row) for row in rows]
    write_segments(tmp_path / "segments.parquet", table, ["run", "jump"])
    found = write(tmp_path / "found.json", FOUND)
    ours = evaluate_files(
        "activitynet", found, tmp_path / "segments.parquet", EvaluationOptions(subset="test")
    )
    official = evaluate_files("activitynet", found, write(tmp_path / "truth.json", TRUTH))
    assert ours.scores == official.scores
    assert ours.per_class == official.per_class
    np.savez(tmp_path / "rows.npz", a=np.zeros((4, 2)))
    with pytest.raises(UsageError, match="length of video 'a' must be known"):
        evaluate_files("multithumos", tmp_path / "rows.npz", tmp_path / "segments.parquet")


def test_lengths_and_videos_without_segments_are_those_of_the_sources(tmp_path: Path) -> None:
    rows = [segment("a", "run", 2.0, 6.0, "test"), segment("a", "jump", 4.0, 8.0, "test")]
    write_segments(tmp_path / "segments.parquet", rows, ["run", "jump"])
    videos = [
        SourceVideo("a", "a.mp4", duration_seconds=8.0),
        SourceVideo("b", "b.mp4", duration_seconds=2.0, subset="test"),
        SourceVideo("c", "c.mp4", duration_seconds=2.0, subset="train"),
    ]
    write_sources(tmp_path / "sources.parquet", videos, [])
    # rows of `a` are at 0 1 2 ... 7 s: run at 3 4 5, jump at 5 6 7
    scores = {"a": np.array([[9, 0, 0, 8, 7, 6, 0, 0], [0, 0, 0, 0, 0, 7, 9, 8]]).T}
    np.savez(tmp_path / "rows.npz", **scores, b=np.zeros((2, 2)), c=np.zeros((2, 2)))
    report = evaluate_files(
        "charades-dense",
        tmp_path / "rows.npz",
        tmp_path / "segments.parquet",
        EvaluationOptions(subset="test"),
    )
    assert (report.counts["videos"], report.counts["frames"]) == (2, 10)
    assert report.per_class == {"run": pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3), "jump": 1.0}
    assert report.scores["mAP on single-action frames"] == 1.0
    assert report.scores["mAP on multi-action frames"] == 1.0
    (tmp_path / "sources.parquet").rename(tmp_path / "elsewhere.parquet")
    options = EvaluationOptions(subset="test", lengths=tmp_path / "elsewhere.parquet")
    rows, segments = tmp_path / "rows.npz", tmp_path / "segments.parquet"
    again = evaluate_files("charades-dense", rows, segments, options)
    assert (again.counts["videos"], again.counts["frames"]) == (1, 8)  # none names b's subset


def test_sentences_by_both_rules(tmp_path: Path) -> None:
    # what else ends a line of text than a line break is within a sentence
    truth = write(
        tmp_path / "sta.txt", "AAA 0.0 4.0##a person\u2028 sits.\nBBB 2.0 6.0##it is\x85 late.\n"
    )
    found = write(tmp_path / "found.json", [[[0, 2], [0, 4]], [[4, 8]]])
    report = evaluate_files("grounding-lgi", found, truth)
    assert report.scores["R@1,IoU=0.5"] == 0.5
    assert report.scores["mIoU"] == pytest.approx((1 + 2 / 6) / 2)
    lengths = write(tmp_path / "v1.csv", "id,actions,length\nAAA,,4.0\nBBB,c001 0 1,5.0\n")
    report = evaluate_files("grounding-2d-tan", found, truth, EvaluationOptions(lengths=lengths))
    assert report.scores["R@1,IoU=0.5"] == 0.0
    with pytest.raises(UsageError, match="--lengths"):
        evaluate_files("grounding-2d-tan", found, truth)


def test_steps_of_crosstask(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    write(folder / "105222_abc.csv", "1,0.5,1.5\n2,3.0,5.0\n")
    scores = [[0.1, 0.9], [0.8, 0.1], [0.9, 0.2], [0.1, 0.3], [0.0, 0.1]]
    found = write(tmp_path / "found.json", {"105222_abc": scores})
    report = evaluate_files("crosstask", found, folder)
    assert report.scores["step recall"] == 0.5
    assert report.per_class == {"105222": 0.5}


def test_odd_predictions_are_counted(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", database(a=[(0, 4, "jump"), (3, 1, "jump")]))
    found = write(
        tmp_path / "found.json",
        results(a=[(0, 4, "jump", 0.5), (0, 4, "fly", 0.9)], zz=[(0, 4, "jump", 0.6)]),
    )
    report = evaluate_files("activitynet", found, truth, EvaluationOptions(drop_unknown=True))
    assert report.scores["mAP"] == 0.25
    assert report.counts["in other videos"] == report.counts["with unknown labels"] == 1
    assert report.counts["segments that end before they start"] == 1
    assert evaluate_files("opentad", found, truth).scores["mAP"] == 0.5
    assert report.lines()[0] == "activitynet: mAP of detections by the ActivityNet script"
    assert report.lines()[1].split() == ["mAP", "0.250000"]
    assert report.lines()[-1].startswith("  videos 1 · segments 2 · predictions 2")


WRONG: dict[str, tuple[str, Any, Any, str]] = {
    "unknown label": (
        "activitynet",
        results(a=[(0, 1, "fly", 0.5), (0, 1, "swim", 0.5)]),
        TRUTH,
        "labels of the truth, got 2 with 2 others: 'fly', 'swim'",
    ),
    "no label": (
        "activitynet",
        {"results": {"a": [{"segment": [0, 1], "score": 1}]}},
        TRUTH,
        "label",
    ),
    "no results": ("activitynet", {"a": []}, TRUTH, "'results'"),
    "no JSON": ("activitynet", "results", TRUTH, "JSON"),
    "deep JSON": ("proposals", "[" * 100_000, TRUTH, "JSON"),
    "a NaN score": ("activitynet", results(a=[(0, 1, "jump", NAN)]), TRUTH, "finite"),
    "backward": (
        "activitynet",
        results(a=[(3, 1, "jump", 0.5)]),
        TRUTH,
        "prediction 0 of video 'a'",
    ),
    "truth is no object": ("activitynet", FOUND, [], "object of videos"),
    "no annotations": ("activitynet", FOUND, {"database": {"a": {}}}, "'annotations' or 'actions'"),
    "no segment": ("activitynet", FOUND, database(a=[]), "at least one segment"),
    "a time": ("activitynet", FOUND, database(a=[(0, "x", "jump")]), "finite numbers"),
    "no proposal": ("proposals", {"results": {}}, TRUTH, "at least one segment"),
    "class number": (
        "multithumos",
        {"a": [[0.0] * 65]},
        {"a": {"duration": 1, "actions": [[0, 0, 1]]}},
        "class numbers from 1, got 0",
    ),
    "class beyond": (
        "multithumos",
        {"a": [[0.0] * 65]},
        {"a": {"duration": 1, "actions": [[66, 0, 1]]}},
        "classes among '0' to '64'",
    ),
    "columns": (
        "multithumos",
        {"a": [[0.0] * 20]},
        {"a": {"duration": 1, "actions": []}},
        "each of the 65 classes .* got 20",
    ),
    "other videos": (
        "multithumos",
        {"b": [[0.0] * 65]},
        {"a": {"duration": 1, "actions": []}},
        "no video of the predictions .'b'",
    ),
    "a NaN frame": ("multithumos", {"a": [[NAN] * 65]}, {"a": {"actions": []}}, "none NaN"),
    "ragged": ("multithumos", {"a": [[1.0], []]}, {"a": {"actions": []}}, "rows of numbers"),
    "sentences": ("grounding-lgi", [[[0, 1]]], "AAA 0 4##x\nBBB 0 4##y\n", "queries"),
    "span": ("grounding-lgi", [[[1, 0]]], "AAA 0 4##x\n", "do not end before"),
    "no sentence": ("grounding-lgi", [[[0, 1]]], "AAA 0##x\n", "'video start end##sentence'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_says_what_is_wrong_in_one_sentence(name: str, tmp_path: Path) -> None:
    metric, found, truth, message = WRONG[name]
    files = (write(tmp_path / "found.json", found), write(tmp_path / "truth.json", truth))
    with pytest.raises(UsageError, match=message) as caught:
        evaluate_files(metric, *files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("V000A 26 1 2", "frame of 1 to 25"),
        ("V000A 1 nan 2", "finite numbers"),
        ("V000A 1 1 2\nV000A 1 1 2", "another frame"),
        ("V000A 1 1 2\nV000A 2 1", "2 scores"),
        ("other 1 1 2", "no video of the predictions"),
        ("", "got none"),
    ],
)
def test_submissions_to_charades(line: str, message: str, tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.csv", "id,length,actions\nV000A,9.0,c001 0 3;c000 1 2\n")
    with pytest.raises(UsageError, match=message):
        evaluate_files("charades", write(tmp_path / "sent.txt", line), truth)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.json", {"a": {"duration": 1, "actions": []}})
    np.savez(tmp_path / "rows.npz", a=np.array([{"x": 1}], object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "rows.npz").read_bytes()[:60])
    np.save(tmp_path / "plain.npy", np.zeros((2, 65)))
    for name in ("rows.npz", "cut.npz", "plain.npy"):
        with pytest.raises(UsageError, match=r"arrays in \.npz"):
            evaluate_files("multithumos", tmp_path / name, truth)
    with pytest.raises(UsageError, match="cannot read"):
        evaluate_files("multithumos", tmp_path / "absent.npz", truth)
    with pytest.raises(UsageError, match=r"one of activitynet, opentad, .* got 'map'"):
        evaluate_files("map", truth, truth)


@pytest.mark.parametrize("metric", METRICS)
def test_absent_files_are_named(metric: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        evaluate_files(metric, tmp_path / "absent.json", tmp_path / "absent too.json")


def test_every_rule_is_a_clause() -> None:
    rules: list[tuple[str, Callable]] = list(METRICS.values())
    assert all(rule and not rule.endswith(".") for rule, _ in rules)

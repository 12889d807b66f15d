"""Detections and proposals: the scripts' numbers to the last digit, and their loops on others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import evaluator_loops as loops
from features.metrics import (
    ACTIVITYNET_TIOUS,
    AMBIGUOUS,
    THUMOS_TIOUS,
    average_recall,
    detection_map,
    thumos_map,
    without_duplicates,
)
from features.metrics import matching as matching_module
from features.metrics.matching import match_in_turn, pairs_of_groups, temporal_iou

Rows = dict[str, list[tuple]]

# times are quarters, so that tIoU meets thresholds exactly; scores and times repeat
quarters = st.integers(0, 24).map(lambda n: n / 4)
spans = st.tuples(quarters, quarters).map(sorted).map(tuple)
labels = st.sampled_from(["jump", "run", AMBIGUOUS])
videos = st.sampled_from(["a", "b", "c"])
annotated = st.lists(st.tuples(videos, spans, labels), min_size=1, max_size=10)
detected = st.lists(
    st.tuples(videos, spans, st.sampled_from(["jump", "run"]), st.integers(0, 9)), max_size=14
)


def by_video(rows: list[tuple]) -> Rows:
    found: Rows = {}
    for video_id, span, *rest in rows:
        found.setdefault(video_id, []).append((*span, *rest))
    return found


def official(path: Path, key: str = "results") -> Rows:
    content = json.loads(path.read_text())[key]
    if key == "database":
        content = {video_id: entry["annotations"] for video_id, entry in content.items()}
    return rows_of(content)


def rows_of(content: dict[str, list[dict[str, Any]]]) -> Rows:
    return {
        video_id: [
            (*entry["segment"], entry["label"], *([entry["score"]] if "score" in entry else []))
            for entry in entries
        ]
        for video_id, entries in content.items()
    }


def test_edge_cases_of_activitynet_to_the_last_digit(shared: Path) -> None:
    known = json.loads((shared / "parity/evaluation/detection_edge_cases.json").read_text())
    assert len(known["cases"]) == 8
    for name, case in known["cases"].items():
        score = detection_map(
            rows_of(case["ground_truth"]), rows_of(case["predictions"]), known["thresholds"]
        )
        assert score.classes == tuple(case["class_index"]), name
        assert score.ap_TC.tolist() == case["ap_threshold_by_class"], name
        assert score.map_T.tolist() == case["mAP"], name
        assert score.map == case["average_mAP"], name


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_activitynet_files_to_the_last_digit(name: str, shared: Path) -> None:
    folder = shared / "parity/evaluation"
    known = json.loads((folder / "aran_expected.json").read_text())["cases"][name]
    truth = official(folder / f"aran_{name}_gt.json", "database")
    found = official(folder / f"aran_{name}_result.json")
    detections = detection_map(truth, found)
    assert detections.classes == tuple(known["detection_class_index"])
    assert detections.ap_TC.tolist() == known["detection_ap_threshold_by_class"]
    assert detections.map_T.tolist() == known["detection_mAP"]
    assert detections.map == known["detection_average_mAP"]
    recall = average_recall(truth, found, max_proposals=known["max_avg_nr_proposals"])
    assert recall.ar_J.tolist() == known["avg_recall"]
    assert recall.an_J.tolist() == known["proposals_per_video"]
    assert recall.auc == known["AUC"]
    assert recall.recall_TJ[0].tolist() == known["recall_at_0.5"]
    assert recall.recall_TJ[-1].tolist() == known["recall_at_0.95"]
    assert recall.num_videos_without == len(known["videos_without_proposals"])


def test_two_videos_of_mmaction2_to_the_last_digit(shared: Path) -> None:
    folder = shared / "parity/eval_localization"
    known = json.loads((folder / "expected.json").read_text())
    truth = official(folder / "gt_activitynet_style.json", "database")
    found = official(folder / "result_activitynet_style.json")
    score = detection_map(truth, found, known["thresholds"])
    assert score.ap_TC.tolist() == known["activitynet"]["ap_threshold_by_class"]
    assert score.map_T.tolist() == known["mmaction2"]["mAP"] == known["gtad_copy"]["mAP"]
    assert score.map == known["activitynet"]["average_mAP"]
    known = known["proposals_activitynet_max100"]
    recall = average_recall(truth, found)
    assert recall.ar_J.tolist() == known["avg_recall"]
    assert recall.an_J.tolist() == known["proposals_per_video"]
    assert recall.auc == known["AUC"]
    for number in (1, 5, 10, 100):
        assert recall.at(number) == known[f"AR@{number}"]


@settings(deadline=None)
@given(annotated, detected)
def test_activitynet_map_is_that_of_the_loop(truth: list[tuple], found: list[tuple]) -> None:
    for row, *_ in zip(truth, range(3), strict=False):  # classes to detect, one without length
        truth = [*truth, (row[0], row[1], "jump"), (row[0], (1.0, 1.0), "run")]
    expected = loops.detection_map(by_video(truth), by_video(found), ACTIVITYNET_TIOUS)
    score = detection_map(by_video(truth), by_video(found), ACTIVITYNET_TIOUS)
    assert score.ap_TC.tolist() == expected.tolist()


@settings(deadline=None)
@given(annotated, detected)
def test_the_thumos_kit_is_its_loop(truth: list[tuple], found: list[tuple]) -> None:
    truth = [*truth, ("a", (0.0, 2.0), "jump"), ("b", (1.0, 2.0), "run")]
    expected = loops.thumos_map(by_video(truth), by_video(found), THUMOS_TIOUS)
    score = thumos_map(by_video(truth), by_video(found))
    assert score.ap_TC.tolist() == expected.tolist()


@settings(deadline=None)
@given(annotated, detected.filter(len), st.sampled_from([1, 5, 100]))
def test_average_recall_is_that_of_the_loop(
    truth: list[tuple], found: list[tuple], most: int
) -> None:
    annotated_rows, proposals = by_video(truth), by_video(found)
    try:
        score = average_recall(annotated_rows, proposals, max_proposals=most)
    except ValueError as err:
        assert "keeps none" in str(err)  # noqa: PT017 - the loop divides by zero there
        return
    ar_J, an_J = loops.average_recall(annotated_rows, proposals, ACTIVITYNET_TIOUS, most)
    assert score.ar_J.tolist() == ar_J.tolist()
    assert score.an_J.tolist() == an_J.tolist()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), unique=True, max_size=30),
    st.randoms(use_true_random=False),
)
def test_asking_at_once_ends_as_asking_in_turn(wishes: list[tuple], dice: Any) -> None:
    dice.shuffle(wishes)
    wishes = sorted(wishes, key=lambda wish: wish[0])  # each in an order of its own
    expected, free = np.full(8, -1), set(range(6))
    for who, whom in wishes:
        if expected[who] < 0 and whom in free:
            expected[who] = whom
            free.remove(whom)
    asking, asked = np.array(wishes, np.int64).reshape(-1, 2).T
    assert match_in_turn(asking, asked, 8, 6).tolist() == expected.tolist()


def test_pairs_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = np.array([2, 0, 5, 2]), np.array([0, 2, 2, 2])
    expected = [(0, 1), (0, 2), (0, 3), (1, 0), (3, 1), (3, 2), (3, 3)]
    for most in (1, 4, 100):
        monkeypatch.setattr(matching_module, "PAIRS_AT_ONCE", most)
        blocks = list(pairs_of_groups(left, right))
        assert [pair for one in blocks for pair in zip(*map(list, one), strict=True)] == expected
        assert len(blocks) == {1: 3, 4: 2, 100: 1}[most]


def test_tiou_by_hand() -> None:
    one = np.array([[0.0, 4], [0, 4], [0, 4], [1, 1]])
    other = np.array([[2.0, 6], [4, 6], [0, 4], [1, 1]])
    assert temporal_iou(one, other)[:3].tolist() == [2 / 6, 0, 1]
    assert np.isnan(temporal_iou(one, other)[3])


def test_the_two_rules_of_thumos_by_hand() -> None:
    truth = {"v": [(0.0, 10.0, "jump"), (8.0, 12.0, "jump"), (20.0, 22.0, AMBIGUOUS)]}
    found = {
        "v": [
            (6.0, 12.0, "jump", 0.9),  # 4/12 of the first, 4/6 of the second segment
            (21.0, 30.0, "jump", 0.8),  # meets what is ambiguous: left out, or false
            (0.0, 5.0, "jump", 0.7),  # exactly half of the first
        ]
    }
    # The kit: the first segment asks first and takes 0.5 only where that is more than enough.
    assert thumos_map(truth, found, [0.3]).ap_TC.tolist() == [[(1 + 2 / 2) / 2]]
    assert thumos_map(truth, found, [0.5]).ap_TC.tolist() == [[(1 / 1) / 2]]
    # ActivityNet: the surest asks first, 0.5 is enough at 0.5, and nothing is left out.
    plain = {"v": truth["v"][:2]}
    assert detection_map(plain, found, [0.5]).ap_TC.tolist() == [[0.5 * 1 + 0.5 * 2 / 3]]


def test_counts_what_the_truth_lacks() -> None:
    truth = {"v": [(0.0, 1.0, "jump")]}
    found = {"v": [(0.0, 1.0, "jump", 0.5)], "w": [(0.0, 1.0, "jump", 0.9), (0, 1, "fly", 1.0)]}
    for score_map in (detection_map, thumos_map):
        with pytest.raises(ValueError, match=r"labels of the truth, got 1 with 1 others: 'fly'"):
            score_map(truth, found)
        score = score_map(truth, found, [0.5], drop_unknown=True)
        assert (score.num_predictions, score.num_foreign, score.num_unknown) == (2, 1, 1)
        assert score.map == 0.5
    recall = average_recall(truth, found, max_proposals=6)
    assert (recall.num_proposals, recall.num_foreign, recall.num_videos_without) == (3, 2, 0)


def test_scores_that_are_no_numbers_and_empty_truths_are_refused() -> None:
    truth = {"v": [(0.0, 1.0, "jump")]}
    found = {"v": [(0.0, 1.0, "jump", float("nan"))]}
    for score in (detection_map, thumos_map, average_recall):
        with pytest.raises(ValueError, match="scores must not be NaN"):
            score(truth, found)
        with pytest.raises(ValueError, match="at least one segment"):
            score({"v": []}, found)
    assert detection_map(truth, {}).map == thumos_map(truth, {}).map == 0


def test_duplicates_and_what_has_no_length_go_as_in_actionformer() -> None:
    rows = [(0.0, 4.0, "a"), (0.0005, 4.0, "a"), (0.0, 4.0, "b"), (3.0, 3.0005, "a"), (0, 4.1, "a")]
    assert without_duplicates({"v": rows, "w": []}) == {"v": [rows[0], rows[2], rows[4]], "w": []}

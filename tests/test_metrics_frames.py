"""Per-frame evaluators, grounding and steps: known numbers, hand-worked rows, and their loops."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import evaluator_loops as loops
from features.metrics import (
    assign_steps,
    boundary_rows,
    charades_labels,
    charades_score,
    dense_labels,
    frame_breakdown,
    grounding_score,
    mean_average_precision,
    sampled_25,
    step_rows,
    step_score,
)

quarters = st.integers(-4, 44).map(lambda n: n / 4)
segments_of = st.lists(st.tuples(quarters, quarters, st.integers(0, 2)), max_size=5)


def test_apmeter_within_its_own_rounding(shared: Path) -> None:
    known = json.loads((shared / "parity/evaluation/apmeter.json").read_text())
    arrays = np.load(shared / "parity/evaluation/apmeter.npz")
    scores = [arrays[f"scores_{video}"] for video in range(known["videos"])]
    labels = [arrays[f"labels_{video}"] > 0 for video in range(known["videos"])]
    dense = mean_average_precision(np.concatenate(scores), np.concatenate(labels))
    ap_C = np.nan_to_num(dense.per_class_C)
    assert ap_C.tolist() == known["ap_dense_float64_reference"]
    assert np.abs(ap_C - arrays["ap_dense"]).max() <= known["max_diff_float32_vs_float64"]
    assert dense.mean_of_all == pytest.approx(known["mean_all_classes_dense"], abs=1e-7)
    nonzero = known["mean_over_nonzero_dense_PDAN_rule"]
    assert dense.mean_of_nonzero == pytest.approx(nonzero, abs=1e-7)
    assert dense.mean_of_nonzero == dense.mean  # where only classes without positives have 0
    rows = [sampled_25(len(one)) for one in scores]
    sampled = mean_average_precision(
        np.concatenate([one[at] for one, at in zip(scores, rows, strict=True)]),
        np.concatenate([one[at] for one, at in zip(labels, rows, strict=True)]),
    )
    assert np.abs(np.nan_to_num(sampled.per_class_C) - arrays["ap_sampled25"]).max() < 1e-7
    assert sampled.mean_of_all == pytest.approx(known["mean_all_classes_sampled25"], abs=1e-7)


def test_charades_on_25_frames_to_the_last_digit(shared: Path) -> None:
    folder = shared / "parity/evaluation"
    known = json.loads((folder / "charades25.json").read_text())
    num_classes = known["classes"]
    lines = (folder / "charades25_submission.txt").read_text().splitlines()
    sent = {tuple(line.split()[:2]): list(map(float, line.split()[2:])) for line in lines}
    scores, labels = [], []
    for row in csv.DictReader((folder / "charades25_gt.csv").open()):
        actions = [action.split() for action in row["actions"].split(";") if action]
        segments = [(float(start), float(end), int(name[1:])) for name, start, end in actions]
        labels.append(charades_labels(float(row["length"]), segments, num_classes))
        missing = [-np.inf] * num_classes
        scores += [sent.get((row["id"], str(frame)), missing) for frame in range(1, 26)]
    score = charades_score(np.array(scores), np.concatenate(labels))
    assert score.ap_C.tolist() == known["ap"]
    assert score.num_positives_C.tolist() == known["positives_per_class"]
    assert (score.map, score.wap) == (known["map"], known["wap"])


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([np.float32, np.float64]),
)
def test_frames_of_equal_score_rank_as_given(
    frames: list[tuple[int, bool]], dtype: type[np.floating]
) -> None:
    scores_N, positive_N = np.array(frames).T
    found = mean_average_precision(scores_N[:, None].astype(dtype), positive_N[:, None] > 0)
    expected = loops.frame_ap([s for s, _ in frames], [p for _, p in frames])
    assert found.mean_of_all == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found.mean) == (not positive_N.any())


def test_the_three_means_by_hand() -> None:
    scores = np.array([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]])
    found = mean_average_precision(scores, np.array([[1, 0, 0], [0, 1, 0]]))
    assert found.per_class_C[:2].tolist() == [1, 0.5]
    assert (found.mean, found.mean_of_all, found.mean_of_nonzero) == (0.75, 0.5, 0.75)


@given(st.integers(1, 40), st.sampled_from([0.5, 9.0, 10.0, 33.3]), segments_of)
def test_rows_strictly_inside_a_segment_have_its_label(
    num_rows: int, duration: float, segments: list[tuple[float, float, int]]
) -> None:
    found = dense_labels(num_rows, duration, segments, 3)
    assert found.tolist() == loops.dense_labels(num_rows, duration, segments, 3).tolist()
    found = charades_labels(duration, segments, 3)
    assert found.tolist() == loops.charades_labels(duration, segments, 3).tolist()


def test_both_ends_belong_to_a_charades_segment() -> None:
    labels_JC = charades_labels(25.0, [(2.0, 4.0, 0), (6.0, 5.0, 1)], 2)
    assert np.flatnonzero(labels_JC[:, 0]).tolist() == [2, 3, 4]
    assert not labels_JC[:, 1].any()
    assert np.flatnonzero(dense_labels(25, 25.0, [(2.0, 4.0, 0)], 1)).tolist() == [3]
    assert sampled_25(25).tolist() == []
    assert sampled_25(60).tolist() == list(range(1, 51, 2))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1), st.integers(1, 4))
def test_rows_near_a_change_are_boundary(labels: list[tuple[bool, bool]], radius: int) -> None:
    labels_TC = np.array(labels)
    found = boundary_rows(labels_TC, radius)
    assert found.tolist() == loops.boundary_rows(labels_TC, radius).tolist()


def test_breakdown_by_hand() -> None:
    # rows:                 0 1 2 3 4 5
    labels_TC = np.array([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]], bool).T
    scores_TC = np.array([[0.1, 0.9, 0.8, 0.7, 0.95, 0.2], [0.1, 0.2, 0.3, 0.4, 0.1, 0.5]]).T
    found = frame_breakdown([scores_TC, scores_TC[:1]], [labels_TC, labels_TC[:1]])
    assert found.num_frames == {
        "single_action": 3,
        "multi_action": 1,
        "boundary": 6,
        "non_boundary": 1,
    }
    single = found.scores["single_action"].per_class_C  # rows 1 2 4
    assert single.tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 3])
    assert found.scores["multi_action"].per_class_C.tolist() == [1, 1]
    assert np.isnan(found.scores["non_boundary"].mean)
    whole = mean_average_precision(scores_TC, labels_TC)
    assert found.scores["boundary"].per_class_C.tolist() == whole.per_class_C.tolist()
    with pytest.raises(ValueError, match="radius >= 1"):
        frame_breakdown([scores_TC], [labels_TC], radius=0)


def test_grounding_by_hand_and_by_rule() -> None:
    truth = np.array([[0.0, 4.0], [2.0, 6.0]])
    found = np.array([[[0.0, 2.0], [0.0, 4.0]], [[4.0, 8.0], [np.nan, np.nan]]])
    lgi = grounding_score(truth, found, ious=(0.5,))
    assert lgi.recall == {(1, 0.5): 0.5, (5, 0.5): 0.5}
    assert lgi.miou == pytest.approx((1 + 2 / 6) / 2)
    durations = np.array([4.0, 5.0])  # the second truth is clipped to 2 .. 5
    tan = grounding_score(truth, found, ious=(0.5, 0.1), rule="2d-tan", durations_Q=durations)
    assert tan.recall == {(1, 0.5): 0.0, (5, 0.5): 0.5, (1, 0.1): 1.0, (5, 0.1): 1.0}
    assert tan.miou == pytest.approx((2 / 4 + 1 / 6) / 2)
    for wrong, message in (({"rule": "mine"}, "one of lgi"), ({"rule": "2d-tan"}, "lengths")):
        with pytest.raises(ValueError, match=message):
            grounding_score(truth, found, **wrong)
    with pytest.raises(ValueError, match=r"\(queries, K, 2\)"):
        grounding_score(truth, found[0])


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(quarters, quarters), min_size=2, max_size=7), min_size=1))
def test_grounding_is_its_loop(queries: list[list[tuple[float, float]]]) -> None:
    spans = [[tuple(sorted(span)) for span in query] for query in queries]
    most = max(len(query) for query in spans) - 1
    found = np.full((len(spans), most, 2), np.nan)
    for row, query in enumerate(spans):
        found[row, : len(query) - 1] = query[1:]
    truth = [query[0] for query in spans]
    recall, miou = loops.grounding(truth, [query[1:] for query in spans], (1, 5), (0.3, 0.5))
    score = grounding_score(np.array(truth), found, ious=(0.3, 0.5))
    assert score.recall == pytest.approx(recall)
    assert score.miou == pytest.approx(miou)


@settings(deadline=None)
@given(st.integers(1, 4), st.data())
def test_steps_are_placed_as_by_the_dynamic_programme(num_steps: int, data: st.DataObject) -> None:
    row = st.lists(st.integers(-2, 2).map(float), min_size=num_steps, max_size=num_steps)
    scores = data.draw(st.lists(row, min_size=num_steps, max_size=9))
    seconds = assign_steps(np.array(scores)).tolist()
    assert seconds == sorted(set(seconds))
    expected = loops.assign_steps(scores)
    totals = [sum(scores[t][k] for k, t in enumerate(found)) for found in (seconds, expected)]
    assert totals[0] == totals[1]
    assert seconds == expected


def test_step_recall_and_ap_by_hand() -> None:
    rows_TK = step_rows(5, [(0.5, 1.5, 0), (3.0, 9.0, 1), (-2.0, -1.0, 1)], 2)
    assert rows_TK.T.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]
    scores_TK = np.array([[0.1, 0.9], [0.8, 0.1], [0.9, 0.2], [0.1, 0.3], [0.0, 0.1]])
    assert assign_steps(scores_TK).tolist() == [2, 3]
    other = (scores_TK[:, ::-1], np.zeros((5, 2), bool))  # a video without steps counts nothing
    score = step_score({"tea": [(scores_TK, rows_TK), other], "none": [other]})
    assert (score.recall, score.num_videos) == (0.5, 3)
    assert set(score.map_of) == {"tea"}
    assert score.recall_of == {"tea": 0.5}
    with pytest.raises(ValueError, match="at least one step"):
        step_score({"none": [other]})
    with pytest.raises(ValueError, match="2 steps need as many seconds, got 1"):
        assign_steps(scores_TK[:1])

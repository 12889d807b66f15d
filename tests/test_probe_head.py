"""The metric, the linear head, and the probe of a store."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import SPEC, planned

from features import (
    HEADS,
    FeatureStore,
    TrainedHead,
    draw_timelines,
    probe_store,
    rows_digest,
    score_head,
)
from features.annotations import snippet_labels
from features.heads import build_head, train_linear
from features.metrics import (
    average_precision,
    chance_average_precision,
    mean_average_precision,
)
from features.probing.detection_heads import DETECTION_HEADS
from features.store.layout import plan_layout
from features.store.writer import StoreWriter
from manifests import StoreError, UsageError
from manifests.tables import SEGMENTS_SCHEMA

CLASSES = ("jump", "spin", "wave")


def slow_average_precision(scores: list[float], positive: list[bool]) -> float:
    """Walk down the ranking with a counter; ties keep the order given."""
    ranking = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    hits, total = 0, 0.0
    for rank, i in enumerate(ranking, start=1):
        if positive[i]:
            hits += 1
            total += hits / rank
    return total / sum(positive)


def grouped_average_precision(scores: list[float], positive: list[bool]) -> float:
    """Sum precision times recall gained over the thresholds, as scikit-learn defines it."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [positive[i] for i in range(len(scores)) if scores[i] >= threshold]
        gained = sum(taken) / sum(positive)
        total += (gained - recall) * sum(taken) / len(taken)
        recall = gained
    return total


ranked = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=40
).filter(lambda rows: any(positive for _, positive in rows))


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.9, 0.8, 0.7], [1, 0, 1], (1 / 1 + 2 / 3) / 2),
        ([0.9, 0.8, 0.7], [0, 0, 1], 1 / 3),
        ([0.9, 0.8, 0.7], [1, 1, 1], 1.0),
    ],
)
def test_average_precision_by_hand(scores, positive, expected):
    for ties in ("stable", "grouped"):
        assert average_precision(np.array(scores), np.array(positive), ties) == pytest.approx(
            expected
        )


@given(ranked)
def test_average_precision_equals_the_slow_loops(rows):
    scores, positive = [score for score, _ in rows], [flag for _, flag in rows]
    found = average_precision(np.array(scores), np.array(positive))
    assert found == pytest.approx(slow_average_precision(scores, positive), abs=1e-12)
    found = average_precision(np.array(scores), np.array(positive), ties="grouped")
    assert found == pytest.approx(grouped_average_precision(scores, positive), abs=1e-12)


@given(ranked, st.randoms())
def test_grouped_ties_do_not_see_the_order(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (
        average_precision(np.array([s for s, _ in some]), np.array([p for _, p in some]), "grouped")
        for some in (rows, shuffled)
    )
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(("num_positives", "num_frames"), [(1, 1), (1, 5), (2, 6), (3, 7), (6, 6)])
def test_chance_equals_the_mean_over_all_rankings(num_positives, num_frames):
    scores_N = -np.arange(num_frames)
    found = []
    for chosen in itertools.combinations(range(num_frames), num_positives):
        positive_N = np.isin(np.arange(num_frames), chosen)
        found.append(average_precision(scores_N, positive_N))
    assert chance_average_precision(num_positives, num_frames) == pytest.approx(np.mean(found))


def test_a_class_without_positives_is_left_out_of_the_mean():
    score = mean_average_precision(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, 0]]))
    assert score.mean == 1.0
    assert np.isnan(score.per_class_C[1])
    assert np.isnan(chance_average_precision(0, 5))


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="must not be NaN"):
        average_precision(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="one length"):
        average_precision(np.zeros(2), np.zeros(3, bool))
    with pytest.raises(ValueError, match="'stable' or 'grouped', got 'random'"):
        average_precision(np.zeros(1), np.ones(1, bool), ties="random")


def test_linear_head_stands_where_the_gradient_vanishes():
    rng = np.random.default_rng(3)
    feats_ND = rng.normal(size=(300, 6)) * [1, 10, 0.1, 5, 1, 0] + 3  # the last one is constant
    positive_NC = np.stack([feats_ND[:, 0] + rng.normal(size=300) > 3, feats_ND[:, 1] > 20], axis=1)
    head = train_linear(feats_ND, positive_NC, penalty=0.05, max_steps=500)
    inputs_ND = (feats_ND - head.mean_D) / head.scale_D
    error_NC = head.predict(feats_ND) - positive_NC
    gradient_DC = inputs_ND.T @ error_NC / 300 + 0.05 * head.weights_DC
    assert abs(gradient_DC).max() < 1e-5
    assert abs(error_NC.mean(axis=0)).max() < 1e-5
    again = train_linear(feats_ND, positive_NC, penalty=0.05, max_steps=500)
    np.testing.assert_array_equal(head.weights_DC, again.weights_DC)


@settings(max_examples=20, deadline=None)
@given(st.floats(-3e4, 3e4))
def test_predictions_are_probabilities_however_large_the_features(value):
    head = train_linear(np.array([[0.0], [1.0]]), np.array([[False], [True]]))
    with np.errstate(over="raise", invalid="raise"):
        assert 0 <= head.predict(np.array([[value]]))[0, 0] <= 1


def test_linear_head_refuses_what_it_cannot_learn_from():
    with pytest.raises(ValueError, match="finite"):
        train_linear(np.array([[np.nan]]), np.array([[True]]))


def segment_rows(num_videos: int) -> list[dict]:
    """Three segments a video, one of each class, in an order that the id decides."""
    rows = []
    for v in range(num_videos):
        for k in range(3):
            label_id = (v + k) % 3
            rows.append(
                {
                    "video_id": f"v/{v}",
                    "label": CLASSES[label_id],
                    "label_id": label_id,
                    "start_seconds": 2.0 + 6 * k,
                    "end_seconds": 6.0 + 6 * k,
                    "subset": "train" if v % 3 else "test",
                }
            )
    return rows


def make_probe_store(path, num_videos: int = 12, signal: float = 4.0) -> FeatureStore:
    """Write features in which channel c rises where class c is on."""
    counts = {f"v/{v}": 50 for v in range(num_videos)}
    layout = plan_layout(list(counts.values()), 4096)
    writer = StoreWriter(path, SPEC, planned(counts, layout), layout)
    feats_RD = np.zeros((layout.shard_rows, 5), np.float16)
    times_R3 = np.zeros((layout.shard_rows, 3))
    done, rng = [], np.random.default_rng(1)
    for v, video in enumerate(planned(counts, layout)):
        start_S = np.arange(50) * 0.4
        times_S3 = np.stack([start_S, start_S + 0.4, start_S + 0.8], axis=1)
        mine = [
            (row["start_seconds"], row["end_seconds"], row["label_id"])
            for row in segment_rows(num_videos)
            if row["video_id"] == f"v/{v}"
        ]
        feats_SD = rng.normal(size=(50, 5))
        feats_SD[:, :3] += signal * snippet_labels(times_S3, mine, 3)
        rows = slice(video.row_start, video.row_start + 50)
        feats_RD[rows], times_R3[rows] = feats_SD, times_S3
        done.append(replace(video, digest=rows_digest(feats_RD[rows], times_S3)))
    writer.commit(0, feats_RD, times_R3, done)
    writer.finish()
    return FeatureStore.open(path)


def segments_table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SEGMENTS_SCHEMA)


def test_snippet_labels_follow_the_centre():
    times_S3 = np.array([[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])
    found = snippet_labels(times_S3, [(0.5, 1.5, 0), (1.0, 9.0, 2), (0.0, 0.5, 1)], 3)
    assert found.tolist() == [[True, False, False], [False, False, True], [False, False, True]]


def test_probe_finds_what_is_there_and_not_what_is_not(tmp_path):
    segments = segments_table(segment_rows(12))
    report = probe_store(make_probe_store(tmp_path / "s.zarr"), segments)
    assert report.map > 0.95
    assert report.chance == pytest.approx(0.2, abs=0.05)
    assert report.shuffled < 0.45
    assert (report.num_train_videos, report.num_test_videos) == (8, 4)
    assert set(report.per_class) == set(CLASSES)
    nothing = probe_store(make_probe_store(tmp_path / "n.zarr", signal=0.0), segments)
    assert nothing.map < 0.35
    assert (
        probe_store(FeatureStore.open(tmp_path / "s.zarr"), segments).to_dict() == report.to_dict()
    )


def test_probe_names_what_is_missing(tmp_path):
    store = make_probe_store(tmp_path / "s.zarr")
    rows = segment_rows(13)
    assert probe_store(store, segments_table(rows)).absent == ("v/12",)
    with pytest.raises(UsageError, match="subset 'val' has 0 annotated videos"):
        probe_store(store, segments_table(rows), test_subset="val")
    with pytest.raises(UsageError, match=r"linear, pdan, .*, gtad, gtad-anet, bmn, got"):
        probe_store(store, segments_table(rows), head="deep")
    with pytest.raises(UsageError, match="names no class"):
        probe_store(store, segments_table([]))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["pdan", "tgm", "super_events"])
def test_temporal_heads_find_what_is_there(tmp_path, head):
    segments, store = segments_table(segment_rows(12)), make_probe_store(tmp_path / "s.zarr")
    arguments = {} if head == "super_events" else {"width": 16}
    report = probe_store(store, segments, head, epochs=25, lr=0.02, arguments=arguments)
    assert report.map > max(0.7, report.shuffled + 0.25)
    assert report.trained.notes["epochs"] == 25
    assert report.lines()[0].startswith(f"{head} head of {report.trained.num_parameters:,} param")
    assert len(report.lines()) == 1 + len(CLASSES)
    again = probe_store(store, segments, head, epochs=25, lr=0.02, arguments=arguments)
    assert again.to_dict() == report.to_dict()
    report.trained.save(tmp_path / "head")
    kept = score_head(TrainedHead.load(tmp_path / "head"), store, segments)
    assert (kept.map, kept.per_class) == (report.map, report.per_class)
    assert math.isnan(kept.shuffled)
    assert "trained before" in page_of(kept, tmp_path / "page.html")
    assert "trained before" not in page_of(report, tmp_path / "page.html")


def page_of(report, path):
    draw_timelines(report, path)
    return path.read_text()


def test_a_head_that_does_not_fit_says_why(tmp_path):
    segments, store = segments_table(segment_rows(12)), make_probe_store(tmp_path / "s.zarr")
    other = TrainedHead("pdan", CLASSES, build_head("pdan", 7, 3, {"width": 8}))
    with pytest.raises(UsageError, match=r"rows of 7 channels, but those of .* have 5; train"):
        score_head(other, store, segments)
    unknown = TrainedHead("pdan", ("a", "b", "c"), build_head("pdan", 5, 3, {"width": 8}))
    with pytest.raises(UsageError, match=r"knows 3 classes \(a, b, c, ...\), which must be"):
        score_head(unknown, store, segments)
    assert {head for head in HEADS if HEADS[head] == "segments"} == set(DETECTION_HEADS)
    for head in DETECTION_HEADS:
        with pytest.raises(UsageError, match=f"'{head}' predicts segments, not frames"):
            probe_store(store, segments, head)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "linear", "epochs": 3}, "trained until it converges: it has no epochs"),
        ({"head": "pdan", "epochs": 0}, "epochs must be >= 1, got 0"),
        ({"head": "pdan", "lr": -1.0}, "lr must be > 0"),
        ({"head": "pdan", "lr": math.nan}, "lr must be > 0"),
        ({"head": "pdan", "arguments": {"widht": 8}}, "did you mean 'width'"),
        ({"head": "tgm", "arguments": {"variant": "pile"}}, "variant"),
        ({"head": "ms_tct", "arguments": {"width": 10}}, "multiple of 8"),
        ({"head": "pdan", "device": "abacus"}, "device"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    store = make_probe_store(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match=message):
        probe_store(store, segments_table(segment_rows(12)), **options)


def test_features_that_are_not_finite_are_refused_by_name(tmp_path, monkeypatch):
    store = make_probe_store(tmp_path / "s.zarr")
    read = FeatureStore.__getitem__

    def damaged(self, video_id):
        feats_SD = read(self, video_id).copy()
        if video_id == "v/4":
            feats_SD[7, 2] = np.nan
        return feats_SD

    monkeypatch.setattr(FeatureStore, "__getitem__", damaged)
    with pytest.raises(StoreError, match="row 7 of video 'v/4' is not"):
        probe_store(store, segments_table(segment_rows(12)))


def test_absent_videos_are_counted_and_named(tmp_path):
    store = make_probe_store(tmp_path / "s.zarr")
    report = probe_store(store, segments_table(segment_rows(20)))
    assert len(report.absent) == 8
    assert report.lines()[-1] == (
        "not in the store: 8 annotated videos (v/12, v/13, v/14, v/15, v/16 and 3 more)"
    )


def test_timelines_are_one_page_that_loads_nothing(tmp_path):
    rows = segment_rows(12)
    rows[0]["label"] = "jump & <script>"
    segments = segments_table(rows)
    report = probe_store(make_probe_store(tmp_path / "s.zarr"), segments)
    page = tmp_path / "probe.html"
    draw_timelines(report, page)
    text = page.read_text()
    assert text.count("<svg") >= report.num_test_videos
    assert "jump &amp; &lt;script&gt;" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)\s*=|url\(|@import", text)

"""Train a detection head on made features and score it; classes of proposals; bad input."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_stores import write_store
from test_store import SPEC, planned

from features import (
    DETECTION_HEADS,
    FeatureStore,
    probe_detection,
    read_detections,
    rows_digest,
    write_detections,
)
from features.annotations import Annotations, snippet_labels
from features.probing.detection_run import (
    NUM_DRAWS,
    deal_annotations,
    random_detections,
    read_videos,
)
from features.probing.proposal_classes import read_class_scores, segment_means, train_classifier
from features.store.layout import plan_layout
from features.store.writer import StoreWriter
from manifests import StoreError, UsageError
from manifests.tables import SEGMENTS_SCHEMA

pytestmark = pytest.mark.slow

CLASSES = ("jump", "spin")
NUM_ROWS, GAP = 40, 0.4
SMALL: dict[str, Any] = {"temporal_scale": 16, "hidden_dim": 16, "epochs": 1}


def segment_rows(num_videos: int) -> list[dict[str, Any]]:
    """Return two actions per video, drawn; the last third of the videos is for the test."""
    rng = np.random.default_rng(3)
    rows = []
    for v in range(num_videos):
        for half in range(2):
            start = 8 * half + rng.uniform(0.5, 3)
            label = int(rng.integers(2))
            rows.append(
                {
                    "video_id": f"v_{v}",
                    "label": CLASSES[label],
                    "label_id": label,
                    "start_seconds": start,
                    "end_seconds": start + rng.uniform(1.5, 3.5),
                    "subset": "train" if v < num_videos * 2 / 3 else "test",
                }
            )
    return rows


def segments_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SEGMENTS_SCHEMA)


def made_store(path: Path, num_videos: int, dim: int = 8, damage: Any = None) -> FeatureStore:
    """Write features in which channel c rises where class c is on, above noise."""
    counts = {f"v_{v}": NUM_ROWS for v in range(num_videos)}
    layout = plan_layout(list(counts.values()), 4096)
    writer = StoreWriter(path, replace(SPEC, feature_dim=dim), planned(counts, layout), layout)
    feats_RD = np.zeros((layout.shard_rows, dim), np.float16)
    times_R3 = np.zeros((layout.shard_rows, 3))
    done, rng = [], np.random.default_rng(1)
    for video in planned(counts, layout):
        start_S = np.arange(NUM_ROWS) * GAP
        times_S3 = np.stack([start_S, start_S + GAP, start_S + 2 * GAP], axis=1)
        mine = [
            (row["start_seconds"], row["end_seconds"], row["label_id"])
            for row in segment_rows(num_videos)
            if row["video_id"] == video.video_id
        ]
        feats_SD = rng.normal(size=(NUM_ROWS, dim))
        feats_SD[:, :2] += 4 * snippet_labels(times_S3, mine, 2)
        if damage:
            damage(video.video_id, feats_SD)
        rows = slice(video.row_start, video.row_start + NUM_ROWS)
        feats_RD[rows], times_R3[rows] = feats_SD, times_S3
        digest = rows_digest(feats_RD[rows], times_S3)
        done.append(replace(video, digest=digest, duration_seconds=float(times_S3[-1, 2])))
    writer.commit(0, feats_RD, times_R3, done)
    writer.finish()
    return FeatureStore.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return made_store(tmp_path_factory.mktemp("made") / "made.zarr", 12)


@pytest.fixture(scope="module")
def segments() -> pa.Table:
    return segments_table(segment_rows(12))


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("gtad", {"temporal_scale": 24, "max_duration": 12, "epochs": 25, "lr": 1e-3}),
        ("gtad-anet", {"temporal_scale": 32, "max_duration": 12, "epochs": 25}),
        ("bmn", {"temporal_scale": 32, "epochs": 25, "lr": 2e-3}),
    ],
)
def test_heads_find_what_the_features_show(
    store: FeatureStore, segments: pa.Table, head: str, settings: dict[str, Any]
) -> None:
    report = probe_detection(store, segments, head, hidden_dim=32, device="cpu", **settings)
    print("\n".join(report.lines()))
    assert report.shuffled is not None
    assert report.scores.map > report.random.map + 0.15
    assert report.scores.map > report.shuffled.map + 0.15
    assert report.scores.recall_at[0] > report.random.recall_at[0]
    assert report.losses[-1] < 0.8 * report.losses[0]


@pytest.mark.parametrize("head", DETECTION_HEADS)
def test_a_probe_repeats_itself(
    store: FeatureStore, segments: pa.Table, head: str, tmp_path: Path
) -> None:
    reports = [probe_detection(store, segments, head, device="cpu", **SMALL) for _ in range(2)]
    assert reports[0].to_dict() == reports[1].to_dict()
    assert reports[0].detections == reports[1].detections
    json.dumps(reports[0].to_dict(), allow_nan=False)
    report = reports[0]
    assert (report.num_train_videos, report.num_test_videos, report.num_test_segments) == (8, 4, 8)
    assert [video.video_id for video in report.videos] == ["v_8", "v_9", "v_10", "v_11"]
    for video in report.videos:
        assert 0 < len(video.detections) <= 400
        scores = [found.score for found in video.detections]
        assert scores == sorted(scores, reverse=True)
        for found in video.detections:
            assert 0 <= found.start_seconds < found.end_seconds <= video.duration_seconds
            assert found.label in CLASSES
        assert {found.label for found in report.proposals[video.video_id]} == {None}
    assert len(report.lines()) == 5
    write_detections(tmp_path / "found.json", report.detections)
    assert read_detections(tmp_path / "found.json") == report.detections


def test_classes_may_come_from_outside(
    store: FeatureStore, segments: pa.Table, tmp_path: Path
) -> None:
    """Under ids without `v_` too, as in the file for ActivityNet; the best class comes first."""
    path = tmp_path / "scores.json"
    results = {f"{v}": [0.1, 0.9, 0.3] for v in range(12)}
    path.write_text(json.dumps({"results": results, "class": ["other", "spin", "jump"]}))
    report = probe_detection(store, segments, "bmn", device="cpu", class_scores=path, **SMALL)
    for video in report.videos:
        assert video.detections[0].label == "spin"
        proposals = report.proposals[video.video_id]
        assert video.detections[0].score == pytest.approx(0.9 * proposals[0].score)
        assert len(video.detections) == 2 * len(proposals)


def test_classes_may_come_from_another_store(
    store: FeatureStore, segments: pa.Table, tmp_path: Path
) -> None:
    """Places stay; the store's own features name them as before, others without news at random."""
    plain, own = (
        probe_detection(store, segments, "bmn", device="cpu", class_scores=scores, **SMALL)
        for scores in (None, store)
    )
    assert own.detections == plain.detections
    rows = {v: (np.ones((len(store[v]), 2)), store.times(v)) for v in store.video_ids}
    blind = write_store(tmp_path / "blind.zarr", rows)
    other = probe_detection(store, segments, "bmn", device="cpu", class_scores=blind, **SMALL)
    assert other.proposals == plain.proposals
    assert other.scores.recall_at == plain.scores.recall_at
    labels = [found.label for video in other.videos for found in video.detections]
    assert {labels.count(name) for name in CLASSES} == {len(labels) // 2}
    assert other.scores.map < plain.scores.map
    fewer = {v: row for v, row in rows.items() if v != "v_9"}
    lacking = write_store(tmp_path / "fewer.zarr", fewer)
    with pytest.raises(UsageError, match=r"class scores .* lack 'v_9'"):
        probe_detection(store, segments, "bmn", device="cpu", class_scores=lacking, **SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "class scores must be an object"),
        ('{"results": {"8": [1]}}', "class scores must be an object"),
        ('{"results": {"8": [1]}, "class": ["jump"]}', "lack the class 'spin'"),
        ('{"results": {"8": [1]}, "class": ["jump", "spin"]}', "must be 2 finite numbers"),
        ('{"results": {"8": [1, NaN]}, "class": ["jump", "spin"]}', "must be 2 finite numbers"),
        ('{"results": {"8": [1, 2]}, "class": ["jump", "spin"]}', "lack the video 'v_9'"),
    ],
)
def test_class_scores_that_do_not_fit(
    store: FeatureStore, segments: pa.Table, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        probe_detection(store, segments, class_scores=path, device="cpu", **SMALL)
    with pytest.raises(UsageError, match="cannot be read"):
        read_class_scores(tmp_path / "absent.json", CLASSES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"head": "linear"}, "the head must be one of gtad, gtad-anet, bmn, got 'linear'"),
        ({"test_subset": "val"}, "subset 'val' has 0 annotated videos"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"hidden_dim": 12}, "hidden_dim must be a multiple of 8"),
        ({"temporal_scale": 2}, "temporal_scale must be >= 3"),
        ({"temporal_scale": -4}, "temporal_scale must be >= 3"),
        ({"head": "bmn", "lr": 1e30}, "scores of a head must be numbers"),
        ({"head": "bmn", "lr": 1e30, "epochs": 3}, "loss must stay finite"),
        ({"temporal_scale": 3, "max_duration": 3}, "raise the temporal scale"),
    ],
)
def test_wrong_use(
    store: FeatureStore, segments: pa.Table, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        probe_detection(store, segments, **{"device": "cpu", **SMALL, **wrong})


@pytest.mark.parametrize("head", DETECTION_HEADS)
def test_features_that_groups_do_not_divide(head: str, tmp_path: Path) -> None:
    store = made_store(tmp_path / "odd.zarr", 3, dim=6)
    with pytest.raises(UsageError, match=r"must be a multiple of 4 .* got 6; extract with a"):
        probe_detection(store, segments_table(segment_rows(3)), head, device="cpu", **SMALL)


def test_features_that_are_not_finite(tmp_path: Path) -> None:
    def damage(video_id: str, feats_SD: np.ndarray) -> None:
        if video_id == "v_1":
            feats_SD[7, 2] = np.nan

    store = made_store(tmp_path / "nan.zarr", 3, damage=damage)
    with pytest.raises(StoreError, match="but row 7 of video 'v_1' is not"):
        probe_detection(store, segments_table(segment_rows(3)), device="cpu", **SMALL)


def test_a_head_that_finds_nothing_has_scores(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s.zarr", 3)
    sizes = {**SMALL, "temporal_scale": 2}  # one candidate, which the suppression drops
    report = probe_detection(store, segments_table(segment_rows(3)), "bmn", device="cpu", **sizes)
    assert report.detections == {"v_2": ()}
    assert (report.scores.map, report.scores.recall_at) == (0.0, (0.0, 0.0, 0.0))
    assert (report.random.map, report.random.auc) == (0.0, 0.0)


def test_videos_that_are_absent_are_named(store: FeatureStore) -> None:
    rows = segment_rows(12)
    rows += [{**rows[-1], "video_id": "v_99"}, {**rows[0], "video_id": "v_98"}]
    report = probe_detection(store, segments_table(rows), device="cpu", **SMALL)
    assert report.absent == ("v_98", "v_99")
    assert report.lines()[-1] == "not in the store: 2 annotated videos (v_98, v_99)"


def test_one_training_video_has_no_shuffled_reference(store: FeatureStore) -> None:
    rows = [row for row in segment_rows(12) if row["video_id"] in ("v_0", "v_11")]
    report = probe_detection(store, segments_table(rows), device="cpu", **SMALL)
    assert report.shuffled is None
    assert report.to_dict()["shuffled"] is None
    assert len(report.lines()) == 4


def test_dealt_annotations_are_another_videos(store: FeatureStore, segments: pa.Table) -> None:
    videos, absent = read_videos(store, Annotations.of_table(segments), "train")
    assert (len(videos), absent) == (8, [])
    for seed in range(5):
        dealt = deal_annotations(videos, seed)
        assert all(a.segments != b.segments for a, b in zip(videos, dealt, strict=True))
        assert {video.segments for video in dealt} == {video.segments for video in videos}


def test_random_detections_lie_in_the_video(store: FeatureStore, segments: pa.Table) -> None:
    videos, _ = read_videos(store, Annotations.of_table(segments), "test")
    numbers = {video.video_id: 50 for video in videos}
    draws = list(random_detections(videos, videos, numbers, CLASSES, 0))
    assert len({draw["v_8"] for draw in draws}) == len(draws) == NUM_DRAWS
    assert draws == list(random_detections(videos, videos, numbers, CLASSES, 0))
    drawn = draws[0]
    lengths = {round(s.end_seconds - s.start_seconds, 6) for v in videos for s in v.segments}
    for video in videos:
        assert len(drawn[video.video_id]) == 50
        for found in drawn[video.video_id]:
            assert 0 <= found.start_seconds < found.end_seconds <= video.duration_seconds
            assert round(found.end_seconds - found.start_seconds, 6) in lengths


@pytest.mark.parametrize("head", DETECTION_HEADS)
def test_what_is_found_lies_in_a_short_video(head: str) -> None:
    """Two rows far apart: bins begin before 0 seconds, and windows are padded beyond the end."""
    kind = DETECTION_HEADS[head]
    sizes = kind.resize(16)
    times_S3 = np.array([[0.0, 0.1, 0.2], [1.0, 1.1, 1.2]])
    windows = kind.cut("a", np.zeros((2, 4), np.float16), times_S3, 16)
    rng = np.random.default_rng(0)
    shape = kind.cells(sizes).shape[1:]
    outputs = [(rng.uniform(size=(2, *shape)), rng.uniform(size=16), rng.uniform(size=16))]
    segments_N2, scores_N = kind.select(windows, outputs, 1.2)
    assert len(segments_N2) == len(scores_N) > 0
    assert np.all((segments_N2 >= 0) & (segments_N2 <= 1.2))
    assert np.all(segments_N2[:, 0] < segments_N2[:, 1])


def test_means_of_segments_by_hand() -> None:
    """Centres at 1, 2, 3, 4; a segment without a centre takes the nearest row."""
    centre_S = np.arange(1.0, 5)
    times_S3 = np.stack([centre_S - 1, centre_S, centre_S + 1], axis=1)
    feats_SD = np.array([[1.0], [2], [4], [8]], np.float16)
    segments_N2 = np.array([[1, 3], [0, 9], [2.1, 2.9], [3.4, 3.5], [8, 9], [2, 2.5]])
    means = segment_means(feats_SD, times_S3, segments_N2)
    assert means[:, 0].tolist() == [1.5, 3.75, 2.0, 4.0, 8.0, 2.0]


def test_the_classifier_learns_segments() -> None:
    times_S3 = np.stack([np.arange(8.0), np.arange(8) + 0.5, np.arange(8) + 1.0], axis=1)
    feats_SD = np.repeat(np.eye(2), 4, axis=0)
    classifier = train_classifier([(feats_SD, times_S3, [(0, 4, 1), (4, 8, 0)])], 2)
    scores_NC = classifier.scores(feats_SD, times_S3, np.array([[1.0, 3.0], [5.0, 8.0]]))
    assert scores_NC.argmax(axis=1).tolist() == [1, 0]

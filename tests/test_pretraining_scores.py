"""Scores of the pretraining experiment: resampled metrics against repeated videos, and heads."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import even_times, write_store
from made_videos import encode, stamped_frames
from test_predict import write_run

from benchmarks.pretraining.downstream import (
    bmn_scores,
    boundary_score,
    equivariance_score,
    frame_head_scores,
    frame_probabilities,
    frames_scores,
    gtad_scores,
    linear_scores,
)
from benchmarks.pretraining.records import NUM_RESAMPLES, Score, video_weights
from benchmarks.pretraining.resampling import (
    resampled_auc,
    resampled_detection_map,
    resampled_map,
    resampled_mean,
    resampled_recall,
)
from features import (
    Annotations,
    DetectionReport,
    FeatureStore,
    ProbeReport,
    draw_boundaries,
    draw_similarity,
    extract_features,
    metrics,
    predict_frames,
    probe,
    probe_store,
    snippet_labels,
)
from features.pictures.boundaries import roc_auc
from manifests import SnippetGrid, SourceTable, UsageError, probe_video, read_sources, write_sources
from manifests.tables import SEGMENTS_SCHEMA

NUM_VIDEOS = 5
CLASSES = ("jump", "run", "wave")
seeds = st.integers(0, 2**32 - 1)


def drawn_weights(rng: np.random.Generator, num_resamples: int = 4) -> np.ndarray:
    """The videos as they are, each some times, and a resample that lacks most of them."""
    weights_BV = video_weights(NUM_VIDEOS, num_resamples, int(rng.integers(2**32)))
    lonely_V = np.eye(NUM_VIDEOS, dtype=np.int16)[rng.integers(NUM_VIDEOS)] * 2
    return np.concatenate([np.ones((1, NUM_VIDEOS), np.int16), lonely_V[None], weights_BV])


def repeated(
    by_video: Mapping[str, Sequence[Any]], weights_V: np.ndarray
) -> dict[str, Sequence[Any]]:
    """Return each video as often as it counts, under names of its own."""
    return {
        f"{video_id} {copy}": rows
        for (video_id, rows), weight in zip(by_video.items(), weights_V, strict=True)
        for copy in range(weight)
    }


# ---------------------------------------------------------------- per frame


@settings(deadline=None)
@given(seeds, st.booleans())
def test_map_is_that_of_repeated_videos(seed: int, is_tied: bool) -> None:
    rng = np.random.default_rng(seed)
    video_N = np.sort(rng.integers(NUM_VIDEOS, size=40))
    scores_NC = rng.random((40, 3))
    scores_NC = np.round(scores_NC, 1) if is_tied else scores_NC
    positive_NC = rng.random((40, 3)) < [0.3, 0.1, 0.02]
    weights_BV = drawn_weights(rng)
    found_B = resampled_map(scores_NC, positive_NC, video_N, weights_BV)
    for found, weights_V in zip(found_B, weights_BV, strict=True):
        rows = np.repeat(np.arange(40), weights_V[video_N])
        expected = metrics.mean_average_precision(scores_NC[rows], positive_NC[rows], "grouped")
        assert found == pytest.approx(expected.mean, abs=1e-12, nan_ok=True)


def test_map_by_hand() -> None:
    """Rows A+ B- A+ B+ by score: (1 + 2/3 + 3/4) / 3; A twice (1 + 1 + 4/5 + 4/5) / 4 or alone."""
    scores_NC, positive_NC = np.array([[4.0], [3], [2], [1]]), np.array([[1], [0], [1], [1]]) > 0
    weights_BV = np.array([[1, 1], [2, 0], [2, 1], [0, 3]])
    found_B = resampled_map(scores_NC, positive_NC, np.array([0, 1, 0, 1]), weights_BV)
    # A twice and B once: ++-+++, grouped by score: 2/2 2/2, 4/5 4/5, 5/6
    assert found_B == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3, 1, (2 + 8 / 5 + 5 / 6) / 5, 0.5])


# ---------------------------------------------------------------- segments


def drawn_segments(
    rng: np.random.Generator, most: int, with_scores: bool
) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for v in range(NUM_VIDEOS):
        start_N = rng.uniform(0, 10, rng.integers(most + 1))
        found[f"v{v}"] = [
            (start, start + rng.uniform(0.5, 5), str(rng.choice(CLASSES)))
            + ((float(rng.random()),) if with_scores else ())
            for start in start_N.tolist()
        ]
    return found


@settings(deadline=None)
@given(seeds)
def test_detection_map_is_that_of_repeated_videos(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, detections = drawn_segments(rng, 4, False), drawn_segments(rng, 12, True)
    truth["v0"] += [(1.0, 3.0, "jump")]
    weights_BV = drawn_weights(rng)
    found_TB = resampled_detection_map(truth, detections, weights_BV)
    for found_T, weights_V in zip(found_TB.T, weights_BV, strict=True):
        again = repeated(truth, weights_V)
        if not any(again.values()):
            assert np.isnan(found_T).all()
            continue
        expected = metrics.detection_map(
            again, repeated(detections, weights_V), metrics.THUMOS_TIOUS, drop_unknown=True
        )
        assert found_T == pytest.approx(expected.map_T, abs=1e-12)


@settings(deadline=None)
@given(seeds, st.sampled_from([2, 5, 100]))
def test_recall_is_that_of_repeated_videos(seed: int, max_proposals: int) -> None:
    rng = np.random.default_rng(seed)
    truth, proposals = drawn_segments(rng, 4, False), drawn_segments(rng, 30, True)
    truth["v0"] += [(1.0, 3.0, "jump")]
    weights_BV = drawn_weights(rng)
    ar_BJ, auc_B = resampled_recall(truth, proposals, weights_BV, max_proposals)
    for ar_J, auc, weights_V in zip(ar_BJ, auc_B, weights_BV, strict=True):
        again, offered = repeated(truth, weights_V), repeated(proposals, weights_V)
        if not any(again.values()):
            assert np.isnan(ar_J).all()
            assert np.isnan(auc)
            continue
        try:
            expected = metrics.average_recall(again, offered, max_proposals=max_proposals)
        except ValueError:  # the share of the proposals that it keeps is none
            assert auc == 0
            assert not ar_J.any()
            continue
        assert ar_J == pytest.approx(expected.ar_J, abs=1e-12)
        assert auc == pytest.approx(expected.auc, abs=1e-9)


# ---------------------------------------------------------------- pairs and videos


@settings(deadline=None)
@given(seeds, st.booleans())
def test_auc_is_that_of_weighted_pairs(seed: int, is_tied: bool) -> None:
    rng = np.random.default_rng(seed)
    difference_P, positive_P = rng.random(50), rng.random(50) < 0.3
    difference_P = np.round(difference_P, 1) if is_tied else difference_P
    video_P, weights_BV = rng.integers(NUM_VIDEOS, size=50), drawn_weights(rng)
    found_B = resampled_auc(difference_P, positive_P, video_P, weights_BV)
    for found, weights_V in zip(found_B, weights_BV, strict=True):
        expected = roc_auc(difference_P, positive_P, weights_V[video_P])
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_mean_by_hand() -> None:
    found_B = resampled_mean(np.array([1.0, 0.25]), np.array([[1, 1], [2, 0], [0, 0], [1, 2]]))
    assert found_B == pytest.approx([0.625, 1, np.nan, 0.5], nan_ok=True)


# ---------------------------------------------------------------- heads on a made store

NUM_ROWS, GAP = 30, 0.5


def made_segments() -> pa.Table:
    """Two or three actions in each of 10 videos, some at once; the last 4 are for the test."""
    rng, rows = np.random.default_rng(1), []
    for v in range(10):
        for start in (0.7, 5.1, 6.0)[: 2 + v % 2]:
            label = int(rng.integers(len(CLASSES)))
            rows.append(
                {
                    "video_id": f"v{v}",
                    "label": CLASSES[label],
                    "label_id": label,
                    "start_seconds": start + rng.uniform(0, 1),
                    "end_seconds": start + rng.uniform(2, 7),
                    "subset": "train" if v < 6 else "test",
                }
            )
    metadata = {b"classes": json.dumps(CLASSES).encode()}
    return pa.Table.from_pylist(rows, SEGMENTS_SCHEMA).replace_schema_metadata(metadata)


def made_store(
    path: Path, seed: int = 0, delay: float = 0.0, left_out: int = 0, noise: float = 1.0
) -> FeatureStore:
    """Features that show the classes among noise."""
    rng, rows = np.random.default_rng(seed), {}
    times_S3 = even_times(NUM_ROWS, GAP, 2 * GAP) + delay
    segments = Annotations.of(made_segments()).segments
    for video_id in list(segments)[: len(segments) - left_out]:
        labels_SC = snippet_labels(times_S3, segments[video_id], len(CLASSES))
        noise_SD = rng.normal(scale=noise, size=(NUM_ROWS, 16))
        noise_SD[:, : len(CLASSES)] += labels_SC
        rows[video_id] = (noise_SD, times_S3)
    return write_store(path, rows)


@pytest.fixture(scope="module")
def segments() -> pa.Table:
    return made_segments()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return made_store(tmp_path_factory.mktemp("store") / "s.zarr")


def by_metric(scores: Sequence[Score]) -> dict[str, Score]:
    assert len({score.metric for score in scores}) == len(scores)
    for score in scores:
        assert score.resampled_B.shape == (NUM_RESAMPLES,)
        assert score.resampled_B.dtype == np.float32
    return {score.metric: score for score in scores}


def test_linear_scores_are_those_of_the_probe(store: FeatureStore, segments: pa.Table) -> None:
    """Whole, in kinds, and on 25 frames, against the official functions."""
    scores = by_metric(linear_scores([store], segments, seed=0))
    report = probe_store(store, segments, "linear")
    labels = [snippet_labels(v.times_S3, v.segments, len(CLASSES)) for v in report.videos]
    assert scores["map"].value == pytest.approx(report.map)
    assert scores["map"].chance == pytest.approx(report.chance)
    kinds = metrics.frame_breakdown([v.scores_SC for v in report.videos], labels).scores
    for name, kind in kinds.items():
        found = scores[f"map_{name.removesuffix('_action')}"]
        assert found.value == pytest.approx(kind.mean)
    frames, shown = [], []
    for video in report.videos:
        for j in range(25):
            seconds = j / 25 * video.duration_seconds
            nearest = min(range(NUM_ROWS), key=lambda s: abs(video.times_S3[s, 1] - seconds))
            frames.append(video.scores_SC[nearest])
        shown.append(metrics.charades_labels(video.duration_seconds, video.segments, len(CLASSES)))
    expected = metrics.mean_average_precision(np.stack(frames), np.concatenate(shown), "grouped")
    assert scores["map_25"].value == pytest.approx(expected.mean)


def test_resamples_are_those_of_the_shared_draws(store: FeatureStore, segments: pa.Table) -> None:
    """Resample `b` counts the same videos for every metric, and the values are of all of them."""
    predictions = frame_probabilities("linear", store, segments, 0, {})
    score = by_metric(linear_scores([store], segments, seed=0))["map"]
    arrays = predictions.probabilities_NC, np.concatenate(predictions.labels), predictions.video_N
    for b, weights_V in enumerate(video_weights(4)[:5]):
        rows = np.repeat(np.arange(len(arrays[0])), weights_V[arrays[2]])
        expected = metrics.mean_average_precision(arrays[0][rows], arrays[1][rows], "grouped")
        assert score.resampled_B[b] == pytest.approx(expected.mean, rel=1e-6)
    assert resampled_map(*arrays, np.ones((1, 4)))[0] == pytest.approx(score.value)
    again = by_metric(linear_scores([store], segments, seed=0))["map"]
    assert np.array_equal(score.resampled_B, again.resampled_B)


def test_an_ensemble_is_the_mean_of_its_probabilities(
    store: FeatureStore, segments: pa.Table, tmp_path: Path
) -> None:
    other = made_store(tmp_path / "other.zarr", seed=1)
    alone, both = (
        by_metric(linear_scores(stores, segments, 0)) for stores in ([store] * 3, [store, other])
    )
    for name, score in by_metric(linear_scores([store], segments, 0)).items():
        assert alone[name].value == pytest.approx(score.value)
    members = [frame_probabilities("linear", one, segments, 0, {}) for one in (store, other)]
    mean_NC = (members[0].probabilities_NC + members[1].probabilities_NC) / 2
    labels_NC = np.concatenate(members[0].labels)
    expected = metrics.mean_average_precision(mean_NC, labels_NC, "grouped").mean
    assert both["map"].value == pytest.approx(expected)
    assert both["map"].value > alone["map"].value  # their noise is not the same
    later = made_store(tmp_path / "later.zarr", delay=0.25)
    with pytest.raises(ValueError, match="one set of rows, as of 'v6'"):
        linear_scores([store, later], segments, 0)


def test_scores_are_of_all_videos_or_of_none(tmp_path: Path, segments: pa.Table) -> None:
    fewer = made_store(tmp_path / "fewer.zarr", left_out=1)
    for scores in (
        lambda: linear_scores([fewer], segments, 0),
        lambda: boundary_score(fewer, segments),
    ):
        with pytest.raises(UsageError, match=r"every annotated video must .* lacks 'v9'"):
            scores()


HEADS: dict[str, dict[str, Any]] = {
    "pdan": {"epochs": 2, "lr": 1e-3, "arguments": {"width": 128}},
    "tgm": {"epochs": 2, "lr": 1e-3, "arguments": {"variant": "stack"}},
    "gtad": {"epochs": 4, "lr": 2e-3, "arguments": {"temporal_scale": 16, "hidden_dim": 16}},
    "bmn": {"epochs": 4, "lr": 4e-3, "arguments": {"temporal_scale": 16, "hidden_dim": 16}},
}


@pytest.mark.parametrize("head", ["pdan", "tgm"])
def test_heads_of_frames(head: str, store: FeatureStore, segments: pa.Table) -> None:
    """The report's own number, the same for the same seed; of equal encoders the same again."""
    (score,), (again,), (other,) = (
        frame_head_scores(head, [store], segments, seed, HEADS[head]) for seed in (0, 0, 1)
    )
    report = probe(store, segments, head, seed=0, control=False, **HEADS[head])
    assert isinstance(report, ProbeReport)
    assert (score.downstream, score.metric) == (head, "map")
    assert score.value == again.value == pytest.approx(report.map)
    assert np.array_equal(score.resampled_B, again.resampled_B)
    assert other.value != score.value
    assert math.isnan(report.shuffled)
    (twice,) = frame_head_scores(head, [store, store], segments, 0, HEADS[head])
    assert twice.value == pytest.approx(score.value)


def check_segments(scores: Sequence[Score], report: object, names: Callable[[Any], dict]) -> None:
    """Raise unless scores are the report's own numbers and references, with resamples around."""
    assert isinstance(report, DetectionReport)
    found = by_metric(scores)
    assert {key: score.value for key, score in found.items()} == names(report.scores)
    assert {key: score.chance for key, score in found.items()} == names(report.random)
    for score in scores:
        assert score.resampled_B.min() < score.value < score.resampled_B.max()
        assert score.resampled_B.std() > 0


def test_proposals_of_bmn(store: FeatureStore, segments: pa.Table) -> None:
    scores = bmn_scores(store, segments, 0, HEADS["bmn"])
    report = probe(store, segments, "bmn", seed=0, **HEADS["bmn"])
    check_segments(
        scores,
        report,
        lambda s: {"ar_10": s.recall_at[0], "ar_50": s.recall_at[1], "auc": s.auc / 100},
    )


def test_segments_of_gtad_are_named_on_other_features(
    store: FeatureStore, segments: pa.Table, tmp_path: Path
) -> None:
    """Better classes, better mAP, of the very same places."""
    clear = made_store(tmp_path / "clear.zarr", seed=1, noise=0.1)
    values = []
    for classes in (store, clear):
        scores = gtad_scores(store, classes, segments, 0, HEADS["gtad"])
        report = probe(store, segments, "gtad", seed=0, class_scores=classes, **HEADS["gtad"])
        check_segments(scores, report, lambda s: {"map": s.map, "map_50": s.map_T[2]})
        values.append(scores[0].value)
    assert values[1] > values[0]


def test_a_head_that_finds_nothing_scores_zero() -> None:
    truth = {"a": [(0.0, 1.0, "jump")], "b": [(2.0, 3.0, "run")]}
    weights_BV = np.array([[1, 1], [0, 2]])
    assert np.array_equal(resampled_detection_map(truth, {}, weights_BV), np.zeros((5, 2)))
    ar_BJ, auc_B = resampled_recall(truth, {"a": []}, weights_BV)
    assert not ar_BJ.any()
    assert not auc_B.any()


def test_boundaries_are_those_of_the_picture(
    store: FeatureStore, segments: pa.Table, tmp_path: Path
) -> None:
    (score,) = boundary_score(store, segments)
    report = draw_boundaries(store, Annotations.of(segments), tmp_path / "b.png", subset="test")
    assert (score.value, score.chance) == (pytest.approx(report.auc), 0.5)
    assert report.interval == pytest.approx(np.percentile(score.resampled_B, [2.5, 97.5]), abs=0.02)


# ---------------------------------------------------------------- runs on made videos


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> SourceTable:
    """The test videos of the segments, of 60 to 90 frames at 10 frames per second."""
    folder, found = tmp_path_factory.mktemp("videos"), []
    for v in range(6, 10):
        path = encode(folder / f"v{v}.mp4", stamped_frames(60 + 10 * (v - 6)))
        found.append(replace(probe_video(str(path)), video_id=f"v{v}"))
    write_sources(folder / "sources.parquet", found, [])
    return read_sources(folder / "sources.parquet")


@pytest.mark.slow
def test_fine_tuned_runs_are_scored_at_the_rows_of_a_store(
    tmp_path: Path, sources: SourceTable, segments: pa.Table
) -> None:
    """Row by row, the frame on screen at its centre, the mean of the runs; a slow loop."""
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        outputs = {"classes": list(CLASSES), "num_outputs": len(CLASSES)}
        write_run(run, seed, objective="frames", loss="bce", **outputs)
    grid, fps = SnippetGrid(8, 3), Fraction(5)
    (score,) = frames_scores(runs, sources, segments, grid, fps)
    report = extract_features(
        sources, runs[0], tmp_path / "s.zarr", fps=fps, snippet_stride=3, workers=1
    )
    assert report.ok
    predict_frames(sources, runs, tmp_path / "f.zarr", fps=fps)
    store, frames = (FeatureStore.open(tmp_path / name) for name in ("s.zarr", "f.zarr"))
    scores, labels = [], []
    for video_id, found in Annotations.of(segments).segments.items():
        if video_id not in store:
            continue
        times_S3, frames_N3 = store.times(video_id), frames.times(video_id)
        labels.append(snippet_labels(times_S3, found, len(CLASSES)))
        for centre in times_S3[:, 1]:
            (shown,) = [
                n for n, (start, _, end) in enumerate(frames_N3) if start <= centre < end
            ] or [len(frames_N3) - 1]
            scores.append(frames[video_id][shown])
    expected = metrics.mean_average_precision(np.stack(scores), np.concatenate(labels), "grouped")
    assert (score.downstream, score.metric) == ("frames", "map")
    assert score.value == pytest.approx(expected.mean)


@pytest.mark.slow
def test_equivariance_is_that_of_the_pictures(
    tmp_path: Path,
    sources: SourceTable,
    segments: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of as many of the first test videos as are asked for."""
    monkeypatch.setattr("benchmarks.pretraining.downstream.NUM_RETIMED", 3)
    write_run(tmp_path / "run", 0)
    extract_features(sources, tmp_path / "run", tmp_path / "s.zarr", workers=1)
    store = FeatureStore.open(tmp_path / "s.zarr")
    (score,) = equivariance_score(tmp_path / "run", store, sources, segments)
    drawn = draw_similarity(
        store,
        tmp_path / "out",
        checkpoint=tmp_path / "run",
        sources=sources,
        videos=["v6", "v7", "v8"],
    )
    assert score.value == pytest.approx(drawn.mean)
    of_video = [np.mean(list(values.values())) for values in drawn.equivariance.values()]
    weights_V = video_weights(4)[0, :3]
    assert score.resampled_B[0] == pytest.approx(np.average(of_video, weights=weights_V), rel=1e-5)

"""Boundaries: which pairs are at one, the area under the ROC curve, the picture and its number."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_stores import even_times, write_store

from features import FeatureStore
from features.annotations import AnnotatedSegment, Annotations
from features.pictures.boundaries import (
    BoundaryReport,
    at_boundary,
    compare_boundaries,
    draw_boundaries,
    roc_auc,
)
from manifests import UsageError

scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: len({positive for _, positive in pairs}) == 2
)


def slow_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compare every positive with every negative."""
    wins = [float(p > n) + 0.5 * float(p == n) for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


# ---------------------------------------------------------------- the area under the curve


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.0),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([5, 5, 5], [0, 1, 1], 0.5),
        ([1, 2, 2], [0, 0, 1], 0.75),
    ],
)
def test_auc_by_hand(scores: list[int], positive: list[int], expected: float) -> None:
    """Ties count half."""
    assert roc_auc(np.array(scores), np.array(positive, bool)) == expected


@given(scored)
def test_auc_equals_all_pairs(pairs: list[tuple[int, bool]]) -> None:
    """Against a slow loop; the other way round it is what is missing to 1."""
    scores, positive = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    found = roc_auc(scores, positive)
    assert found == pytest.approx(slow_auc(scores, positive))
    assert roc_auc(-scores, positive) == pytest.approx(1 - found)
    assert roc_auc(np.exp(scores), positive) == pytest.approx(found)


@given(scored, st.data())
def test_weights_are_repetitions(pairs: list[tuple[int, bool]], drawn: st.DataObject) -> None:
    """A weight of 3 is the same row three times, 0 is none."""
    weights = np.array(drawn.draw(st.tuples(*[st.integers(0, 3)] * len(pairs))))
    scores, positive = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    found = roc_auc(scores, positive, weights)
    repeated = roc_auc(np.repeat(scores, weights), np.repeat(positive, weights))
    assert found == pytest.approx(repeated, nan_ok=True)


# ---------------------------------------------------------------- which pairs


@pytest.mark.parametrize(
    ("segments", "tolerance", "expected"),
    [
        ([(1.2, 3.9)], 0.0, [1, 0, 0, 1]),  # centres 0.5 1.5 2.5 3.5 4.5
        ([(1.5, 2.5)], 0.0, [1, 1, 0, 0]),
        ([(0.0, 5.0)], 0.0, [0, 0, 0, 0]),
        ([(0.0, 5.0)], 0.6, [0, 0, 0, 0]),
        ([(0.5, 4.5)], 0.0, [0, 0, 0, 1]),
        ([(2.0, 9.0)], 0.0, [0, 1, 0, 0]),
        ([(2.0, 9.0)], 0.5, [1, 1, 0, 0]),
        ([(2.0, 9.0)], 0.6, [1, 1, 1, 0]),
        ([(1.6, 2.0), (1.9, 2.2)], 0.0, [0, 1, 0, 0]),
        ([], 0.0, [0, 0, 0, 0]),
    ],
)
def test_pairs_at_a_boundary(
    segments: list[tuple[float, float]], tolerance: float, expected: list[int]
) -> None:
    """Centres at half seconds; a boundary before the first or after the last is between none."""
    found = at_boundary(
        even_times(5)[:, 1], [AnnotatedSegment(a, b, 0) for a, b in segments], tolerance
    )
    assert found.tolist() == [bool(flag) for flag in expected]


# ---------------------------------------------------------------- the report


def annotations_of(segments: dict[str, list[tuple[float, float]]]) -> Annotations:
    return Annotations(
        ("jump",),
        {name: tuple(AnnotatedSegment(a, b, 0) for a, b in s) for name, s in segments.items()},
        {name: "test" if name.endswith("0") else "train" for name in segments},
    )


def steps_store(path: Path, num_videos: int = 6, noise: float = 0.0) -> FeatureStore:
    """Write features that change only where an action begins or ends, at 5 and at 12 seconds."""
    rng, rows = np.random.default_rng(0), {}
    for v in range(num_videos):
        feats_SD = np.tile([[1.0, 0, 0]], (20, 1))
        feats_SD[5:12] = [0, 1, 0]
        rows[f"v{v}"] = (feats_SD + noise * rng.normal(size=(20, 3)), even_times(20))
    return write_store(path, rows)


SEGMENTS = {f"v{v}": [(5.0, 12.0)] for v in range(6)}


def test_features_that_change_at_boundaries_only(tmp_path: Path) -> None:
    """AUC 1; the counts are the pairs; the picture is the same every time."""
    store, found = steps_store(tmp_path / "s.zarr"), []
    for name in ("a.png", "b.png"):
        found.append(draw_boundaries(store, annotations_of(SEGMENTS), tmp_path / name))
    assert found[0] == found[1]
    assert found[0] == BoundaryReport(1.0, (1.0, 1.0), 12, 102, 1.0, 0.0, 6, (), 0.0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert found[0].lines()[0] == (
        "ROC AUC of boundaries 1.000 (95 % of resampled videos: 1.000 to 1.000)"
    )
    assert found[0].to_dict()["interval"] == (1.0, 1.0)


def test_features_without_boundaries_are_at_chance(tmp_path: Path) -> None:
    """The interval holds 1/2, and is wider for fewer videos."""
    rng = np.random.default_rng(0)
    rows = {f"v{v}": (rng.normal(size=(60, 8)), even_times(60)) for v in range(40)}
    store = write_store(tmp_path / "s.zarr", rows)
    segments = {name: [(7.2, 20.1), (30.3, 44.6)] for name in rows}
    report = draw_boundaries(store, annotations_of(segments), tmp_path / "all.png")
    few = annotations_of({name: segments[name] for name in ("v0", "v1", "v2")})
    fewer = draw_boundaries(store, few, tmp_path / "few.png")
    assert report.interval is not None
    assert fewer.interval is not None
    assert report.interval[0] < 0.5 < report.interval[1]
    assert report.interval[0] <= report.auc <= report.interval[1]
    assert np.diff(fewer.interval) > np.diff(report.interval)


def test_stores_side_by_side_have_the_numbers_of_each(tmp_path: Path) -> None:
    """In the order given, each as by itself; equal bytes."""
    stores = {
        "clean": steps_store(tmp_path / "a.zarr"),
        "noisy": steps_store(tmp_path / "b.zarr", noise=0.5),
    }
    annotations = annotations_of(SEGMENTS)
    reports = [compare_boundaries(stores, annotations, tmp_path / f"{i}.png") for i in range(2)]
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert list(reports[0]) == ["clean", "noisy"]
    for name, store in stores.items():
        alone = draw_boundaries(store, annotations, tmp_path / "alone.png")
        assert reports[0][name] == alone
    assert reports[0]["clean"].auc > reports[0]["noisy"].auc


def test_subset_absent_videos_and_a_single_video(tmp_path: Path) -> None:
    """One video gives no interval; what the store lacks is named, not counted."""
    store = steps_store(tmp_path / "s.zarr", noise=0.1)
    segments = annotations_of({**SEGMENTS, "w0": [(1.0, 2.0)]})
    report = draw_boundaries(store, segments, tmp_path / "b.png", subset="test")
    assert (report.num_videos, report.absent, report.interval) == (1, ("w0",), None)
    assert report.num_at == 2
    assert report.lines()[0] == "ROC AUC of boundaries 1.000"
    assert report.lines()[2] == "1 annotated video; the store lacks 1 more that are annotated"


@pytest.mark.parametrize(
    ("segments", "changes", "options", "message"),
    [
        ({"w": [(1.0, 2.0)]}, {}, {}, "1 videos are annotated, but none is in the store"),
        (SEGMENTS, {}, {"subset": "validation"}, "0 videos of subset 'validation' are annotated"),
        ({"v0": [(0.0, 99.0)]}, {}, {}, "of 19 pairs in 1 videos 0 are at an annotated boundary"),
        (SEGMENTS, {}, {"tolerance_seconds": 50.0}, "of 114 pairs in 6 videos 114 are at"),
        (SEGMENTS, {}, {"tolerance_seconds": -1.0}, "at least 0 seconds, got -1.0"),
        (SEGMENTS, {"prediction": {"classes": ["a"]}}, {}, "holds class probabilities"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    tmp_path: Path, segments: dict, changes: dict, options: dict, message: str
) -> None:
    """No picture is left behind."""
    rows = {f"v{v}": (np.eye(20)[:, :4] + 0.1, even_times(20)) for v in range(6)}
    store = write_store(tmp_path / "s.zarr", rows, **changes)
    with pytest.raises(UsageError, match=message):
        draw_boundaries(store, annotations_of(segments), tmp_path / "b.png", **options)
    assert not (tmp_path / "b.png").exists()

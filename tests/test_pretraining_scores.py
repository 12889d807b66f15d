"""Scores of the pretraining experiment: resampled metrics against repeated videos, and heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pretraining.records import video_weights
from benchmarks.pretraining.resampling import (
    resampled_auc,
    resampled_detection_map,
    resampled_map,
    resampled_mean,
    resampled_recall,
)
from features import metrics
from features.pictures.boundaries import roc_auc

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

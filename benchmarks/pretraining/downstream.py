"""What encoders are pretrained for: heads on their frozen features, and numbers without training.

Every function returns scores of the test videos of one encoder (or of several together), the same
for the same `seed`. Whoever measures time limits the threads of torch and NumPy beforehand.

Heads and their training are smaller than the papers', alike for all encoders; the recipe says how.
"""

import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features import (
    Annotations,
    DetectionReport,
    FeatureStore,
    ProbedVideo,
    ProbeReport,
    measure_equivariance,
    neighbour_pairs,
    predict_frames,
    probe,
)
from manifests import SampledFrames, SnippetGrid, SourceTable, UsageError

from .detection_scores import detection_scores, proposal_scores
from .frame_scores import FramePredictions, map_score, mean_predictions, protocol_scores
from .records import Score, video_weights
from .resampling import resampled_auc, resampled_mean

TEST = "test"
NUM_RETIMED = 20  # test videos whose copies are encoded


def frame_probabilities(
    head: str,
    store: FeatureStore,
    segments: pa.Table | Annotations,
    seed: int,
    settings: Mapping[str, Any],
) -> FramePredictions:
    """Train a head of `features.probe` that scores rows, and predict those of the test videos.

    "linear" is one logistic regression per class, convex and trained until it converges: `seed`
    changes nothing.
    """
    report = _probe(store, segments, head, seed, **settings)
    assert isinstance(report, ProbeReport)
    return FramePredictions(report.videos, len(report.classes))


def linear_scores(
    stores: Sequence[FeatureStore], segments: pa.Table | Annotations, seed: int
) -> list[Score]:
    """Return mAP of the linear probe: all rows, 25 frames, single, multi, (non-)boundary.

    Of several encoders the probabilities of their probes are averaged.
    Source: SSDet (AAAI 2023), "Combining Augmentations", ensemble.
    """
    members = [frame_probabilities("linear", store, segments, seed, {}) for store in stores]
    return protocol_scores("linear", mean_predictions(members))


def frame_head_scores(
    head: str,
    stores: Sequence[FeatureStore],
    segments: pa.Table | Annotations,
    seed: int,
    settings: Mapping[str, Any],
) -> list[Score]:
    """Return the per-frame mAP of a head ("pdan", "tgm"), averaged as in `linear_scores`."""
    members = [frame_probabilities(head, store, segments, seed, settings) for store in stores]
    return [map_score(head, mean_predictions(members))]


def gtad_scores(
    store: FeatureStore,
    classes: FeatureStore,
    segments: pa.Table | Annotations,
    seed: int,
    settings: Mapping[str, Any],
) -> list[Score]:
    """Return the detection mAP of G-TAD, its segments named by a classifier on other features."""
    return detection_scores(
        _detect(store, segments, "gtad", seed, class_scores=classes, **settings)
    )


def bmn_scores(
    store: FeatureStore, segments: pa.Table | Annotations, seed: int, settings: Mapping[str, Any]
) -> list[Score]:
    """Return average recall and AUC of BMN's proposals."""
    return proposal_scores(_detect(store, segments, "bmn", seed, **settings))


def frames_scores(
    runs: Sequence[Path],
    sources: SourceTable,
    segments: pa.Table | Annotations,
    grid: SnippetGrid,
    fps: Fraction | None,
) -> list[Score]:
    """Return the per-frame mAP of fine-tuned runs, at the moments of the rows of a store.

    A row says what they say of the sampled frame that shows the row's centre.

    Args:
        runs: Trained with the objective `frames`; the probabilities of several are averaged.
        sources: The untrimmed videos.
        segments: Their annotation.
        grid: Of the store that it is compared with.
        fps: Of that store.
    """
    annotations = Annotations.of(segments)
    test = annotations.video_ids(TEST)
    with tempfile.TemporaryDirectory() as folder:
        report = predict_frames(
            sources.select(test).values(), runs, Path(folder) / "frames.zarr", fps=fps, workers=1
        )
        _require_all([video_id for video_id, _ in report.rejected])
        store = FeatureStore.open(Path(folder) / "frames.zarr")
        videos = tuple(_at_rows(store, annotations, video_id, grid) for video_id in test)
    return [map_score("frames", FramePredictions(videos, len(annotations.classes)))]


def boundary_score(store: FeatureStore, segments: pa.Table | Annotations) -> list[Score]:
    """Return how well the difference of neighbouring rows tells boundaries, as ROC AUC.

    Source: BSP (ICCV 2021), figure 4, made a number (`features.draw_boundaries`).
    """
    pairs = neighbour_pairs(store, Annotations.of(segments), TEST)
    _require_all(pairs.absent)
    arrays = pairs.difference_P, pairs.at_P, pairs.video_P
    weights_BV = video_weights(len(pairs.video_ids))
    value = float(resampled_auc(*arrays, np.ones((1, len(pairs.video_ids))))[0])
    resampled_B = resampled_auc(*arrays, weights_BV).astype(np.float32)
    return [Score("neighbours", "boundary_auc", value, 0.5, resampled_B)]


def equivariance_score(
    run: Path, store: FeatureStore, sources: SourceTable, segments: pa.Table | Annotations
) -> list[Score]:
    """Return the temporal equivariance of the first test videos, 0 by chance.

    A video counts with the mean of its re-timed copies (twice and half as fast, halves swapped).

    Args:
        run: That made the store.
        store: Features of the videos as they are.
        sources: Where the videos lie.
        segments: Their annotation.
    """
    test = Annotations.of(segments).video_ids(TEST)
    measured = measure_equivariance(store, run, sources, test[:NUM_RETIMED])
    values_V = np.array([np.mean(list(values.values())) for values in measured.values()])
    weights_BV = video_weights(len(test))[:, : len(values_V)]
    resampled_B = resampled_mean(values_V, weights_BV).astype(np.float32)
    return [Score("retimed", "equivariance", float(values_V.mean()), 0.0, resampled_B)]


def _probe(
    store: FeatureStore,
    segments: pa.Table | Annotations,
    head: str,
    seed: int,
    **settings: Any,
) -> ProbeReport | DetectionReport:
    report = probe(store, segments, head, seed=seed, control=False, **settings)
    _require_all(report.absent)
    return report


def _detect(
    store: FeatureStore, segments: pa.Table | Annotations, head: str, seed: int, **settings: Any
) -> DetectionReport:
    report = _probe(store, segments, head, seed, **settings)
    assert isinstance(report, DetectionReport)
    return report


def _require_all(absent: Sequence[str]) -> None:
    """Raise UsageError where a video is missing: scores are of all videos, or of none."""
    if absent:
        raise UsageError(f"every annotated video must be in the store, which lacks {absent[0]!r}")


def _at_rows(
    store: FeatureStore, annotations: Annotations, video_id: str, grid: SnippetGrid
) -> ProbedVideo:
    """Return predictions per sampled frame as those of the rows that a grid has of the video."""
    frames_N3 = store.times(video_id)
    frames = SampledFrames(np.arange(len(frames_N3)), frames_N3[:, 0], frames_N3[:, 2])
    times_S3 = grid.times(frames)
    shown_S = np.searchsorted(frames_N3[:, 2], times_S3[:, 1], side="right")
    shown_S = np.minimum(shown_S, len(frames_N3) - 1)
    return ProbedVideo(
        video_id,
        times_S3,
        store[video_id][shown_S].astype(np.float64),
        annotations.segments[video_id],
        store.video(video_id).duration_seconds,
    )

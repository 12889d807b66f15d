"""Per-frame mAP of predictions on the test videos, whole and in parts, with its resamples.

Rows of equal score share a threshold, so that the order of videos cannot matter. Means are over
the classes that have positives among the rows in question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features import ProbedVideo, metrics, snippet_labels

from .records import Score, video_weights
from .resampling import resampled_map

BOUNDARY_RADIUS = 1  # rows before and after a change of the labels


@dataclass(frozen=True, eq=False)
class FramePredictions:
    """Class probabilities of every row of the test videos, beside the truth.

    Attributes:
        videos: In the order of the annotation.
        num_classes: `C`.
    """

    videos: tuple[ProbedVideo, ...]
    num_classes: int

    @property
    def probabilities_NC(self) -> np.ndarray:
        """Return the probabilities of all rows, video by video, float64 `(N, C)`."""
        return np.concatenate([video.scores_SC for video in self.videos])

    @property
    def labels(self) -> list[np.ndarray]:
        """Return for each video which classes its rows show, bool `(S, C)`."""
        return [
            snippet_labels(video.times_S3, video.segments, self.num_classes)
            for video in self.videos
        ]

    @property
    def video_N(self) -> np.ndarray:
        """Return the video of each row, int64 `(N,)`."""
        return np.repeat(
            np.arange(len(self.videos)), [len(video.times_S3) for video in self.videos]
        )


def mean_predictions(members: Sequence[FramePredictions]) -> FramePredictions:
    """Average the probabilities of several encoders' heads, row by row.

    Raises:
        ValueError: They are not of the same rows.
    """
    averaged = []
    for same in zip(*(member.videos for member in members), strict=True):
        first = same[0]
        for other in same[1:]:
            if other.video_id != first.video_id or not np.array_equal(
                other.times_S3, first.times_S3
            ):
                raise ValueError(f"an ensemble must have one set of rows, as of {first.video_id!r}")
        averaged.append(replace(first, scores_SC=np.mean([v.scores_SC for v in same], axis=0)))
    return replace(members[0], videos=tuple(averaged))


def map_score(downstream: str, predictions: FramePredictions) -> Score:
    """Return the mAP over all rows."""
    labels_NC = np.concatenate(predictions.labels)
    rows = np.arange(len(labels_NC))
    return _score(downstream, "map", predictions, labels_NC, rows)


def protocol_scores(downstream: str, predictions: FramePredictions) -> list[Score]:
    """Return the mAP over all rows, on 25 frames a video, and on four kinds of rows."""
    scores = [map_score(downstream, predictions)]
    row_of, labels = zip(*_charades_frames(predictions), strict=True)
    scores.append(
        _score(downstream, "map_25", predictions, np.concatenate(labels), np.concatenate(row_of))
    )
    labels_NC = np.concatenate(predictions.labels)
    for name, is_kind_N in _kinds(predictions.labels).items():
        rows = np.flatnonzero(is_kind_N)
        scores.append(_score(downstream, f"map_{name}", predictions, labels_NC[rows], rows))
    return scores


def _charades_frames(
    predictions: FramePredictions,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each video the rows nearest to its 25 frames, and what these frames show.

    Source: Charades_v1_localize.m (`features.metrics.charades_labels`).
    """
    first = 0
    for video in predictions.videos:
        num_frames = metrics.CHARADES_FRAMES
        seconds_J = np.arange(num_frames) / num_frames * video.duration_seconds
        distance_JS = np.abs(video.times_S3[None, :, 1] - seconds_J[:, None])
        labels_JC = metrics.charades_labels(
            video.duration_seconds, video.segments, predictions.num_classes
        )
        yield first + distance_JS.argmin(axis=1), labels_JC
        first += len(video.times_S3)


def _kinds(labels: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return which rows are of which kind, as `features.metrics.frame_breakdown` has them."""
    num_active_N = np.concatenate(labels).sum(axis=1)
    at_boundary_N = np.concatenate(
        [metrics.boundary_rows(labels_SC, BOUNDARY_RADIUS) for labels_SC in labels]
    )
    return {
        "single": num_active_N == 1,
        "multi": num_active_N >= 2,
        "boundary": at_boundary_N,
        "non_boundary": ~at_boundary_N,
    }


def _score(
    downstream: str,
    metric: str,
    predictions: FramePredictions,
    labels_KC: np.ndarray,
    rows_K: np.ndarray,
) -> Score:
    """Score some rows, which may come several times, against labels of their own."""
    scores_KC, video_K = predictions.probabilities_NC[rows_K], predictions.video_N[rows_K]
    found = metrics.mean_average_precision(scores_KC, labels_KC, ties="grouped")
    chances = [
        metrics.chance_average_precision(int(number), len(labels_KC))
        for number in found.num_positives_C
        if number
    ]
    weights_BV = video_weights(len(predictions.videos))
    return Score(
        downstream,
        metric,
        found.mean,
        float(np.mean(chances)) if chances else None,
        resampled_map(scores_KC, labels_KC, video_K, weights_BV).astype(np.float32),
    )

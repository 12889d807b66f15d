"""Train a detection head on a store and score what it finds in held-out videos, against chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import UsageError

from ..annotations import Annotations, say_absent
from ..extraction.encoder import choose_device
from ..heads import DetectorRecipe
from ..metrics import THUMOS_TIOUS, average_recall, detection_map
from ..store.feature_store import FeatureStore
from .detection_heads import DETECTION_HEADS, DetectionHead, DetectorSizes
from .detection_run import (
    Classify,
    DetectionRun,
    DetectionVideo,
    Found,
    deal_annotations,
    random_detections,
    read_videos,
    segment_classifier,
    train_and_detect,
)
from .detections import DetectedVideo, Detection
from .proposal_classes import read_class_scores

RECALL_AT = (10, 50, 100)  # average numbers of proposals that the report shows


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """How well segments were found.

    Attributes:
        map_T: Mean average precision at each threshold of `THUMOS_TIOUS`, ActivityNet's rule.
        map: Their mean.
        recall_at: Average recall at `RECALL_AT` proposals per video, tIoU 0.5 to 0.95.
        auc: Area below average recall, in percent.
    """

    map_T: tuple[float, ...]
    map: float
    recall_at: tuple[float, ...]
    auc: float


@dataclass(frozen=True, slots=True, eq=False)
class DetectionReport:
    """The scores of a detection head on a store.

    Attributes:
        head: Its name in `DETECTION_HEADS`.
        scores: Of the head.
        shuffled: Of the same head trained on annotations dealt to other videos; None where there
            is only one training video, or without this control.
        random: Of as many proposals with random segments, classes and scores; the mean of several
            draws.
        sizes: The head was built so large.
        recipe: It was trained so.
        losses: Mean training loss of every epoch.
        num_train_videos: Annotated videos that it was trained on.
        num_train_windows: Windows of those.
        num_test_videos: Videos that it was scored on.
        num_test_segments: Their annotated segments.
        classes: Names in id order.
        absent: Annotated videos of both subsets that the store lacks, or of which it has no row.
        videos: The test videos with what was found in them, for pictures.
        proposals: Video id -> its proposals, without classes.
    """

    head: str
    scores: DetectionScores
    shuffled: DetectionScores | None
    random: DetectionScores
    sizes: DetectorSizes
    recipe: DetectorRecipe
    losses: tuple[float, ...]
    num_train_videos: int
    num_train_windows: int
    num_test_videos: int
    num_test_segments: int
    classes: tuple[str, ...]
    absent: tuple[str, ...]
    videos: tuple[DetectedVideo, ...]
    proposals: Mapping[str, tuple[Detection, ...]]

    @property
    def detections(self) -> dict[str, tuple[Detection, ...]]:
        """Return what was found, by video id, as `write_detections` takes it."""
        return {video.video_id: video.detections for video in self.videos}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values, without the videos."""
        named = {"scores": self.scores, "shuffled": self.shuffled, "random": self.random}
        return {
            "head": self.head,
            **{name: None if s is None else asdict(s) for name, s in named.items()},
            "sizes": asdict(self.sizes),
            "recipe": asdict(self.recipe),
            "losses": list(self.losses),
            "num_train_videos": self.num_train_videos,
            "num_train_windows": self.num_train_windows,
            "num_test_videos": self.num_test_videos,
            "num_test_segments": self.num_test_segments,
            "absent": list(self.absent),
        }

    def lines(self) -> list[str]:
        """Return the numbers as a table for people."""
        titles = [f"mAP@{tiou:g}" for tiou in THUMOS_TIOUS] + ["mean"]
        titles += [f"AR@{number}" for number in RECALL_AT] + ["AUC"]
        rows = {self.head: self.scores, "shuffled": self.shuffled, "random": self.random}
        width = max(map(len, rows))
        lines = [
            f"{self.head}: {self.num_train_windows} windows of {self.num_train_videos} videos, "
            f"{self.recipe.epochs} epochs; {self.num_test_segments} segments in "
            f"{self.num_test_videos} test videos",
            " " * width + "".join(f"{title:>9}" for title in titles),
        ]
        for name, scores in rows.items():
            if scores is not None:
                numbers = (*scores.map_T, scores.map, *scores.recall_at)
                cells = [f"{number:9.3f}" for number in numbers] + [f"{scores.auc:9.2f}"]
                lines.append(f"{name:{width}}" + "".join(cells))
        return lines + say_absent(self.absent)


def probe_detection(
    store: FeatureStore,
    segments: pa.Table | Annotations,
    head: str = "gtad",
    train_subset: str = "train",
    test_subset: str = "test",
    *,
    seed: int = 0,
    device: str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    temporal_scale: int | None = None,
    max_duration: int | None = None,
    hidden_dim: int | None = None,
    class_scores: Path | str | FeatureStore | None = None,
    control: bool = True,
) -> DetectionReport:
    """Train `head` on the annotated videos of one subset and score it on those of the other.

    Sizes and recipe are the paper's where they are not given. Classes of proposals come from a
    linear classifier of their mean features, trained on the annotated segments of the training
    subset, or from `class_scores`. On a CPU the same seed gives the same detections.

    Args:
        store: Features of both subsets.
        segments: Table of `segments.parquet`, or what was read of it.
        head: A key of `DETECTION_HEADS`.
        train_subset: Value of the column `subset` to train on.
        test_subset: Value to score on.
        seed: Of the weights, the order of training, and both references.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        epochs: Passes over the training windows.
        lr: Adam's rate at the start.
        temporal_scale: Bins of a window, or that a video is rescaled to.
        max_duration: Bins of the longest segment; in proportion to `temporal_scale` by default.
        hidden_dim: Channels of the first layers, a multiple of 8.
        class_scores: JSON of scores of whole videos (`read_class_scores`), as the papers use; or
            another store, on whose features the linear classifier is trained instead: where places
            are compared, classes should come from one network for all.
        control: Train the head a second time, on annotations dealt to other videos.

    Raises:
        UsageError: An unknown head, sizes or features that it cannot be built for, a subset
            without a readable video, or class scores that lack a class or a video.
        StoreError: Features that are not finite.
    """
    if head not in DETECTION_HEADS:
        raise UsageError(f"the head must be one of {', '.join(DETECTION_HEADS)}, got {head!r}")
    kind = DETECTION_HEADS[head]
    sizes = kind.resize(temporal_scale, max_duration, hidden_dim)
    recipe = _recipe(kind, epochs, lr)
    annotations = Annotations.of(segments)
    train, absent = read_videos(store, annotations, train_subset)
    test, also_absent = read_videos(store, annotations, test_subset)
    external = _external(class_scores, annotations, train_subset, test)
    chosen = choose_device(device)

    def run(videos: Sequence[DetectionVideo]) -> DetectionRun:
        return train_and_detect(
            kind, sizes, recipe, videos, test, annotations.classes, external, seed, chosen
        )

    found = run(train)
    shuffled = run(deal_annotations(train, seed)) if control and len(train) > 1 else None
    numbers = {video_id: len(rows) for video_id, rows in found.detections.items()}
    truth = {video.video_id: _truth(video, annotations.classes) for video in test}
    return DetectionReport(
        head=head,
        scores=_score(truth, found),
        shuffled=None if shuffled is None else _score(truth, shuffled),
        random=_mean(
            [
                _score(truth, replace(found, detections=drawn, proposals=_fewer(drawn, found)))
                for drawn in random_detections(train, test, numbers, annotations.classes, seed)
            ]
        ),
        sizes=sizes,
        recipe=recipe,
        losses=found.losses,
        num_train_videos=len(train),
        num_train_windows=found.num_windows,
        num_test_videos=len(test),
        num_test_segments=sum(map(len, truth.values())),
        classes=annotations.classes,
        absent=tuple(sorted({*absent, *also_absent})),
        videos=tuple(_detected(video, found) for video in test),
        proposals=found.proposals,
    )


def _recipe(head: DetectionHead, epochs: int | None, lr: float | None) -> DetectorRecipe:
    try:
        return head.recipe.over(epochs, lr)
    except ValueError as err:
        raise UsageError(str(err)) from err


def _external(
    class_scores: Path | str | FeatureStore | None,
    annotations: Annotations,
    train_subset: str,
    videos: Sequence[DetectionVideo],
) -> Classify | None:
    """Return what names segments instead of a classifier on the store's own features, if given."""
    if isinstance(class_scores, FeatureStore):
        return _other_features(class_scores, annotations, train_subset, videos)
    if class_scores is not None:
        return _scores_of_videos(class_scores, annotations.classes, videos)
    return None


def _scores_of_videos(
    path: Path | str, classes: Sequence[str], videos: Sequence[DetectionVideo]
) -> Classify:
    """Return class scores from a file, under the id or, as ActivityNet's, the id without `v_`."""
    scores = read_class_scores(path, classes)
    for video in videos:
        if scores.keys().isdisjoint({video.video_id, video.video_id.removeprefix("v_")}):
            raise UsageError(f"the class scores {str(path)!r} lack the video {video.video_id!r}")

    def classify(video: DetectionVideo, _segments_N2: np.ndarray) -> np.ndarray:
        found = scores.get(video.video_id)
        return (scores[video.video_id.removeprefix("v_")] if found is None else found)[None]

    return classify


def _other_features(
    store: FeatureStore, annotations: Annotations, subset: str, videos: Sequence[DetectionVideo]
) -> Classify:
    """Return the linear classifier of segments on the features of another store."""
    classify = segment_classifier(
        read_videos(store, annotations, subset)[0], len(annotations.classes)
    )
    for video in videos:
        if video.video_id not in store or len(store[video.video_id]) == 0:
            raise UsageError(f"the class scores {str(store.path)!r} lack {video.video_id!r}")

    def of_other(video: DetectionVideo, segments_N2: np.ndarray) -> np.ndarray:
        own = replace(video, feats_SD=store[video.video_id], times_S3=store.times(video.video_id))
        return classify(own, segments_N2)

    return of_other


def _truth(video: DetectionVideo, classes: Sequence[str]) -> list[tuple[float, float, str]]:
    return [(start, end, classes[class_index]) for start, end, class_index in video.segments]


def _detected(video: DetectionVideo, found: DetectionRun) -> DetectedVideo:
    detections = found.detections[video.video_id]
    return DetectedVideo(video.video_id, detections, video.segments, video.duration_seconds)


def _fewer(detections: Found, like: DetectionRun) -> Found:
    """Return the best of each video, as many as the other has proposals."""
    return {
        video_id: tuple(row._replace(label=None) for row in rows[: len(like.proposals[video_id])])
        for video_id, rows in detections.items()
    }


def _score(
    truth: Mapping[str, Sequence[tuple[float, float, str]]], found: DetectionRun
) -> DetectionScores:
    labelled = {
        video_id: [(start, end, label, score) for start, end, score, label in rows]
        for video_id, rows in found.detections.items()
    }
    bare = {video_id: [row[:3] for row in rows] for video_id, rows in found.proposals.items()}
    precision = detection_map(truth, labelled, THUMOS_TIOUS, drop_unknown=True)
    if not any(bare.values()):  # suppression drops a last candidate, and what has no score left
        return DetectionScores(tuple(precision.map_T.tolist()), 0.0, (0.0,) * len(RECALL_AT), 0.0)
    recall = average_recall(truth, bare)
    return DetectionScores(
        tuple(precision.map_T.tolist()),
        precision.map,
        tuple(float(recall.ar_J[number - 1]) for number in RECALL_AT),
        float(recall.auc),
    )


def _mean(scores: Sequence[DetectionScores]) -> DetectionScores:
    return DetectionScores(
        tuple(np.mean([one.map_T for one in scores], axis=0).tolist()),
        float(np.mean([one.map for one in scores])),
        tuple(np.mean([one.recall_at for one in scores], axis=0).tolist()),
        float(np.mean([one.auc for one in scores])),
    )

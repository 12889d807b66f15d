"""Train a head on a store and score it per snippet on held-out videos, against chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import UsageError

from .annotations import AnnotatedSegment, Annotations, snippet_labels
from .heads import train_linear
from .metrics import chance_average_precision, mean_average_precision
from .store import FeatureStore

HEADS = {"linear": train_linear}


@dataclass(frozen=True, slots=True, eq=False)
class ProbedVideo:
    """What the head says of one test video, beside the truth.

    Attributes:
        video_id: As in the store.
        times_S3: Start, centre and end of each snippet in seconds.
        scores_SC: float64, probability of each class.
        segments: Of the annotation.
        duration_seconds: Of the video.
    """

    video_id: str
    times_S3: np.ndarray
    scores_SC: np.ndarray
    segments: tuple[AnnotatedSegment, ...]
    duration_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ProbeReport:
    """The score of a head on a store.

    Attributes:
        head: Its kind.
        map: Mean average precision per snippet on the test videos, over classes that occur there.
        chance: What scores that know nothing are expected to get on the same labels.
        shuffled: What the same head gets when its training labels are dealt to random rows.
        per_class: Class name -> AP, NaN where the test videos have no positive snippet.
        classes: Class names in id order.
        num_train_videos: Videos of the training subset in the store.
        num_test_videos: Videos of the test subset in the store.
        num_train_snippets: Rows that the head was trained on.
        num_test_snippets: Rows that it was scored on.
        absent: Annotated videos of both subsets that cannot be read from the store.
        videos: The test videos, for pictures.
    """

    head: str
    map: float
    chance: float
    shuffled: float
    per_class: dict[str, float]
    classes: tuple[str, ...]
    num_train_videos: int
    num_test_videos: int
    num_train_snippets: int
    num_test_snippets: int
    absent: tuple[str, ...]
    videos: tuple[ProbedVideo, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values (NaN as None), without the videos."""
        return {
            "head": self.head,
            "map": _or_none(self.map),
            "chance": _or_none(self.chance),
            "shuffled": _or_none(self.shuffled),
            "num_train_videos": self.num_train_videos,
            "num_test_videos": self.num_test_videos,
            "num_train_snippets": self.num_train_snippets,
            "num_test_snippets": self.num_test_snippets,
            "per_class": {name: _or_none(ap) for name, ap in self.per_class.items()},
            "absent": list(self.absent),
        }


def probe_store(
    store: FeatureStore,
    segments: pa.Table,
    head: str = "linear",
    train_subset: str = "train",
    test_subset: str = "test",
    seed: int = 0,
) -> ProbeReport:
    """Train `head` on the annotated videos of one subset and score it on those of the other.

    A snippet is positive for a class when its centre lies in one of the class's segments. Videos
    are those that the annotation names; the ones that the store lacks are reported as `absent`.

    Args:
        store: Features of both subsets.
        segments: Table of `segments.parquet`.
        head: A key of `HEADS`.
        train_subset: Value of the column `subset` to train on.
        test_subset: Value to score on.
        seed: For dealing the labels of the control.

    Raises:
        UsageError: An unknown head, no class, or a subset without a readable video.
    """
    if head not in HEADS:
        raise UsageError(f"the head must be one of {', '.join(HEADS)}, got {head!r}")
    annotations = Annotations.of_table(segments)
    classes, annotated = annotations.classes, annotations.segments
    ids = {name: annotations.video_ids(name) for name in (train_subset, test_subset)}
    absent = sorted(
        {video_id for found in ids.values() for video_id in found if video_id not in store}
    )
    readable = {
        name: [video_id for video_id in found if video_id in store] for name, found in ids.items()
    }
    for name, found in readable.items():
        if not found:
            raise UsageError(
                f"subset {name!r} has {len(ids[name])} annotated videos, but none is in the store "
                f"{str(store.path)!r}"
            )
    train_ND, train_NC = _rows(store, readable[train_subset], annotated, len(classes))
    fitted = HEADS[head](train_ND, train_NC)
    dealt = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(train_NC))
    control = HEADS[head](train_ND, train_NC[dealt])
    test_ND, test_NC = _rows(store, readable[test_subset], annotated, len(classes))
    score = mean_average_precision(fitted.predict(test_ND), test_NC)
    chances = [chance_average_precision(int(num), len(test_NC)) for num in score.num_positives_C]
    return ProbeReport(
        head=head,
        map=score.mean,
        chance=float(np.nanmean(chances)) if np.any(score.num_positives_C) else float("nan"),
        shuffled=mean_average_precision(control.predict(test_ND), test_NC).mean,
        per_class=dict(zip(classes, score.per_class_C.tolist(), strict=True)),
        classes=classes,
        num_train_videos=len(readable[train_subset]),
        num_test_videos=len(readable[test_subset]),
        num_train_snippets=len(train_ND),
        num_test_snippets=len(test_ND),
        absent=tuple(absent),
        videos=tuple(
            ProbedVideo(
                video_id,
                store.times(video_id),
                fitted.predict(store[video_id]),
                annotated[video_id],
                store.video(video_id).duration_seconds,
            )
            for video_id in readable[test_subset]
        ),
    )


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _rows(
    store: FeatureStore,
    video_ids: Sequence[str],
    annotated: Mapping[str, Sequence[AnnotatedSegment]],
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of all snippets of `video_ids`, end to end."""
    feats = [store[video_id] for video_id in video_ids]
    labels = [
        snippet_labels(store.times(video_id), annotated[video_id], num_classes)
        for video_id in video_ids
    ]
    return np.concatenate(feats), np.concatenate(labels)

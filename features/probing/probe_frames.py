"""Train a head on a store, or take a trained one, and score it per snippet against chance."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import StoreError, UsageError

from ..annotations import AnnotatedSegment, Annotations, say_absent, snippet_labels
from ..extraction.encoder import choose_device
from ..heads import (
    FRAME_HEADS,
    AnnotatedVideo,
    FrameHead,
    HeadRecipe,
    TrainedHead,
    build_head,
    train_head,
    train_linear,
)
from ..metrics import chance_average_precision, mean_average_precision
from ..store.feature_store import FeatureStore

HEADS = {  # what each predicts
    "linear": "frames",
    "pdan": "frames",
    "tgm": "frames",
    "super_events": "frames",
    "ms_tct": "frames",
    "gtad": "segments",
    "gtad-anet": "segments",
    "bmn": "segments",
}


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
        shuffled: What the same head gets when its training labels are dealt to random rows; NaN of
            a head that was trained before, or without this control.
        per_class: Class name -> AP, NaN where the test videos have no positive snippet.
        chance_per_class: The same of scores that know nothing.
        classes: Class names in id order.
        num_train_videos: Videos of the training subset in the store; 0 of a head trained before.
        num_test_videos: Videos of the test subset in the store.
        num_train_snippets: Rows that the head was trained on.
        num_test_snippets: Rows that it was scored on.
        absent: Annotated videos of the subsets that cannot be read from the store.
        trained: The head itself.
        videos: The test videos, for predictions and pictures.
    """

    head: str
    map: float
    chance: float
    shuffled: float
    per_class: dict[str, float]
    chance_per_class: dict[str, float]
    classes: tuple[str, ...]
    num_train_videos: int
    num_test_videos: int
    num_train_snippets: int
    num_test_snippets: int
    absent: tuple[str, ...]
    trained: TrainedHead
    videos: tuple[ProbedVideo, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values (NaN as None), without the videos."""
        return {
            "head": self.head,
            "num_parameters": self.trained.num_parameters,
            "map": _or_none(self.map),
            "chance": _or_none(self.chance),
            "shuffled": _or_none(self.shuffled),
            "num_train_videos": self.num_train_videos,
            "num_test_videos": self.num_test_videos,
            "num_train_snippets": self.num_train_snippets,
            "num_test_snippets": self.num_test_snippets,
            "per_class": {name: _or_none(ap) for name, ap in self.per_class.items()},
            "chance_per_class": {n: _or_none(ap) for n, ap in self.chance_per_class.items()},
            "absent": list(self.absent),
            "training": dict(self.trained.notes),
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        control = "" if math.isnan(self.shuffled) else f", with shuffled labels {self.shuffled:.3f}"
        lines = [
            f"{self.head} head of {self.trained.num_parameters:,} parameters: mAP {self.map:.3f} "
            f"per snippet on {self.num_test_videos:,} test videos, chance {self.chance:.3f}"
            f"{control}"
        ]
        width = max(map(len, self.classes))
        for name, score in self.per_class.items():
            shown = (
                "not in the test videos"
                if math.isnan(score)
                else f"{score:.3f}  chance {self.chance_per_class[name]:.3f}"
            )
            lines.append(f"  {name:{width}}  {shown}")
        return lines + say_absent(self.absent)


def probe_store(
    store: FeatureStore,
    segments: pa.Table | Annotations,
    head: str = "linear",
    train_subset: str = "train",
    test_subset: str = "test",
    seed: int = 0,
    *,
    device: str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    control: bool = True,
) -> ProbeReport:
    """Train `head` on the annotated videos of one subset and score it on those of the other.

    A snippet is positive for a class when its centre lies in one of the class's segments. Videos
    are those that the annotation names; the ones that the store lacks are reported as `absent`.

    Args:
        store: Features of both subsets.
        segments: Table of `segments.parquet`, or what was read of it.
        head: A key of `HEADS` that predicts frames.
        train_subset: Value of the column `subset` to train on.
        test_subset: Value to score on.
        seed: Of the initial weights, the order of training, and dealing the labels of the control.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        epochs: Passes over the training videos; the paper's by default.
        lr: Adam's rate; the paper's by default.
        arguments: Of the network, by name (its `Arguments`): a size, a variant.
        control: Train the head a second time, on labels dealt to random rows.

    Raises:
        StoreError: Features of a video are damaged, or not finite.
        UsageError: An unknown head, no class, a subset without a readable video, options that the
            head does not have, a loss that does not stay finite.
    """
    check_head(head, "frames")
    training = _Training(seed, device, epochs, lr, arguments or {})
    annotations = Annotations.of(segments)
    videos, absent = _read_videos(store, annotations, train_subset)
    videos = [video for video in videos if len(video.feats_SD)]
    if not videos:
        raise UsageError(f"the videos of subset {train_subset!r} have no snippets")
    tested, absent_too = _read_videos(store, annotations, test_subset)
    num_rows = sum(len(video.feats_SD) for video in videos)
    trained = _fit(head, videos, annotations.classes, training)
    report = _score(trained, store, tested, tuple(sorted({*absent, *absent_too})))
    shuffled = math.nan
    if control:
        dealt_N = np.random.default_rng(np.random.SeedSequence(seed)).permutation(num_rows)
        dealt = _fit(head, videos, annotations.classes, training, dealt_N)
        shuffled = _score(dealt, store, tested, ()).map
    return dataclasses.replace(
        report, shuffled=shuffled, num_train_videos=len(videos), num_train_snippets=num_rows
    )


def score_head(
    trained: TrainedHead,
    store: FeatureStore,
    segments: pa.Table | Annotations,
    test_subset: str = "test",
) -> ProbeReport:
    """Score a head that was trained before on the annotated videos of a subset.

    Raises:
        StoreError: Features of a video are damaged, or not finite.
        UsageError: The head takes other channels than the store has, or knows other classes than
            the annotation; no readable video.
    """
    annotations = Annotations.of(segments)
    if store.feature_dim != trained.feature_dim:
        raise UsageError(
            f"this {trained.kind} head takes rows of {trained.feature_dim} channels, but those of "
            f"the store {str(store.path)!r} have {store.feature_dim}; train one on this store"
        )
    if annotations.classes != trained.classes:
        raise UsageError(
            f"the head knows {len(trained.classes)} classes ({', '.join(trained.classes[:3])}, "
            f"...), which must be those of the segments table in their order, but it has "
            f"{len(annotations.classes)} ({', '.join(annotations.classes[:3])}, ...)"
        )
    tested, absent = _read_videos(store, annotations, test_subset)
    return _score(trained, store, tested, absent)


def check_head(head: str, predicts: str) -> None:
    """Raise UsageError unless `head` is known and predicts "frames" or "segments", as asked."""
    if head not in HEADS:
        raise UsageError(f"the head must be one of {', '.join(HEADS)}, got {head!r}")
    if HEADS[head] != predicts:
        raise UsageError(f"the head {head!r} predicts {HEADS[head]}, not {predicts}")


@dataclass(frozen=True, slots=True)
class _Training:
    """How the head of a probe is trained; None leaves a number as the paper has it."""

    seed: int
    device: str | None
    epochs: int | None
    lr: float | None
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"epochs must be >= 1, got {self.epochs}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise UsageError(f"lr must be > 0, got {self.lr}")

    def recipe(self, paper: HeadRecipe) -> HeadRecipe:
        """Return the recipe of the paper with the numbers that were chosen here."""
        if self.epochs is not None:
            paper = dataclasses.replace(paper, epochs=self.epochs)
        if self.lr is not None:
            paper = dataclasses.replace(paper, lr=self.lr, lr_per_share=False)
        return paper


def _read_videos(
    store: FeatureStore, annotations: Annotations, subset: str
) -> tuple[list[AnnotatedVideo], tuple[str, ...]]:
    """Return the annotated videos of a subset, and the ids of those that the store lacks."""
    ids = annotations.video_ids(subset)
    found = [video_id for video_id in ids if video_id in store]
    if not found:
        subsets = sorted({str(name) for name in annotations.subsets.values()})
        raise UsageError(
            f"subset {subset!r} has {len(ids)} annotated videos, but none is in the store "
            f"{str(store.path)!r} (subsets of the segments table: {', '.join(subsets)})"
        )
    videos = []
    for video_id in found:
        feats_SD, times_S3 = store[video_id], store.times(video_id)
        wrong_S = ~np.isfinite(feats_SD).all(axis=1)
        if wrong_S.any():
            raise StoreError(
                f"features must be finite, but row {int(wrong_S.argmax())} of video {video_id!r} "
                f"is not ({int(wrong_S.sum())} of its rows; store {str(store.path)!r})"
            )
        segments = annotations.segments[video_id]
        labels_SC = snippet_labels(times_S3, segments, len(annotations.classes))
        videos.append(AnnotatedVideo(video_id, feats_SD, times_S3, labels_SC, segments))
    return videos, tuple(video_id for video_id in ids if video_id not in store)


def _fit(
    kind: str,
    videos: Sequence[AnnotatedVideo],
    classes: tuple[str, ...],
    training: _Training,
    dealt_N: np.ndarray | None = None,
) -> TrainedHead:
    """Train a head; with `dealt_N` on labels of other rows, as that permutation says."""
    seed, mean_seconds = training.seed, _mean_seconds(videos, len(classes))
    notes: dict[str, Any] = {"seed": seed, "mean_seconds": mean_seconds}
    if kind not in FRAME_HEADS:
        if training.epochs is not None or training.lr is not None or training.arguments:
            raise UsageError(
                f"the {kind} head is trained until it converges: it has no epochs, lr or arguments"
            )
        labels_NC = np.concatenate([video.labels_SC for video in videos])
        labels_NC = labels_NC if dealt_N is None else labels_NC[dealt_N]
        fitted = train_linear(np.concatenate([video.feats_SD for video in videos]), labels_NC)
        return TrainedHead(kind, classes, fitted, notes)
    device = choose_device(training.device)
    network = build_head(kind, videos[0].feats_SD.shape[1], len(classes), training.arguments, seed)
    recipe = training.recipe(network.recipe)
    targets = _targets(network.to(device), videos, dealt_N)
    losses = train_head(network, [video.feats_SD for video in videos], targets, recipe, seed)
    notes |= dataclasses.asdict(recipe) | {"losses": [losses[0], losses[-1]]}
    return TrainedHead(kind, classes, network, notes)


def _targets(
    head: FrameHead, videos: Sequence[AnnotatedVideo], dealt_N: np.ndarray | None
) -> list[np.ndarray]:
    targets = [head.targets(video) for video in videos]
    if dealt_N is None:
        return targets
    ends = np.cumsum([len(rows_SJK) for rows_SJK in targets])
    return np.split(np.concatenate(targets)[dealt_N], ends[:-1])


def _mean_seconds(videos: Sequence[AnnotatedVideo], num_classes: int) -> list[float | None]:
    """Return the mean length of a class's segments, None for a class without."""
    lengths: list[list[float]] = [[] for _ in range(num_classes)]
    for start, end, class_index in (one for video in videos for one in video.segments):
        lengths[class_index].append(end - start)
    return [float(np.mean(found)) if found else None for found in lengths]


def _score(
    trained: TrainedHead,
    store: FeatureStore,
    videos: Sequence[AnnotatedVideo],
    absent: tuple[str, ...],
) -> ProbeReport:
    scores = [trained.predict(video.feats_SD) for video in videos]
    labels_NC = np.concatenate([video.labels_SC for video in videos])
    found = mean_average_precision(np.concatenate(scores), labels_NC)
    chances = [chance_average_precision(int(num), len(labels_NC)) for num in found.num_positives_C]
    return ProbeReport(
        head=trained.kind,
        map=found.mean,
        chance=float(np.nanmean(chances)) if np.any(found.num_positives_C) else float("nan"),
        shuffled=float("nan"),
        per_class=dict(zip(trained.classes, found.per_class_C.tolist(), strict=True)),
        chance_per_class=dict(zip(trained.classes, chances, strict=True)),
        classes=trained.classes,
        num_train_videos=0,
        num_test_videos=len(videos),
        num_train_snippets=0,
        num_test_snippets=len(labels_NC),
        absent=absent,
        trained=trained,
        videos=tuple(
            ProbedVideo(
                video.video_id,
                video.times_S3,
                scores_SC,
                tuple(AnnotatedSegment(*segment) for segment in video.segments),
                store.video(video.video_id).duration_seconds,
            )
            for video, scores_SC in zip(videos, scores, strict=True)
        ),
    )


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number

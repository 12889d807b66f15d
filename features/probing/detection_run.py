"""Train one detection head on annotated videos of a store and find segments in others."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from manifests import StoreError, UsageError

from ..annotations import AnnotatedSegment, Annotations
from ..heads import DetectorRecipe, detect, make_example, train_detector
from ..store.feature_store import FeatureStore
from .detection_heads import DetectionHead, DetectorSizes
from .detection_windows import DetectionWindow
from .detections import Detection, best_first
from .postprocessing import Proposals, fuse_gtad
from .proposal_classes import train_classifier

MOST_INSIDE = 0.9  # a training window holds more than this share of some action (G-TAD)
NUM_BEST_CLASSES = 2  # that every proposal gets
NUM_DRAWS = 10  # of the random reference

Found = dict[str, tuple[Detection, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionVideo:
    """A video to train on or to score.

    Attributes:
        video_id: As in the store.
        feats_SD: Rows, at least one, finite.
        times_S3: Start, centre and end of each in seconds.
        segments: Of the annotation.
        duration_seconds: Of the video.
    """

    video_id: str
    feats_SD: np.ndarray
    times_S3: np.ndarray
    segments: tuple[AnnotatedSegment, ...]
    duration_seconds: float


# class scores (N or 1, C) of segments of a video, given in seconds
Classify = Callable[[DetectionVideo, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionRun:
    """What a head found after one training.

    Attributes:
        detections: Video id -> segments with classes, best first.
        proposals: Video id -> the same segments without classes.
        losses: Mean training loss of every epoch.
        num_windows: That it was trained on.
    """

    detections: Found
    proposals: Found
    losses: tuple[float, ...]
    num_windows: int


def read_videos(
    store: FeatureStore, annotations: Annotations, subset: str
) -> tuple[list[DetectionVideo], list[str]]:
    """Return the annotated videos of a subset, and the ids of those without a row in the store.

    Raises:
        UsageError: None has a row.
        StoreError: Features that are not finite.
    """
    ids, videos, absent = annotations.video_ids(subset), [], []
    for video_id in ids:
        feats_SD = store[video_id] if video_id in store else np.zeros((0, store.feature_dim))
        if len(feats_SD) == 0:
            absent.append(video_id)
            continue
        finite_S = np.isfinite(feats_SD).all(axis=1)
        if not finite_S.all():
            raise StoreError(
                f"features must be finite, but row {int(finite_S.argmin())} of video {video_id!r} "
                f"is not ({str(store.path)!r})"
            )
        duration = store.video(video_id).duration_seconds
        segments = annotations.segments[video_id]
        videos.append(DetectionVideo(video_id, feats_SD, store.times(video_id), segments, duration))
    if not videos:
        raise UsageError(
            f"subset {subset!r} has {len(ids)} annotated videos, but none has a row in the store "
            f"{str(store.path)!r}"
        )
    return videos, absent


def train_and_detect(
    head: DetectionHead,
    sizes: DetectorSizes,
    recipe: DetectorRecipe,
    train: Sequence[DetectionVideo],
    test: Sequence[DetectionVideo],
    classes: Sequence[str],
    classify: Classify | None,
    seed: int,
    device: torch.device,
) -> DetectionRun:
    """Train a head, and a classifier of segments, and find segments in the test videos.

    Args:
        head: What to build.
        sizes: How large.
        recipe: How to train it.
        train: Videos to train on.
        test: Videos to search.
        classes: Names in id order.
        classify: Scores of segments from outside; None trains a linear classifier of their means.
        seed: Of the weights and of the training.
        device: Where to train.

    Raises:
        UsageError: The head cannot be built so, no window holds an action, or its training
            diverges.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = head.network(train[0].feats_SD.shape[1], sizes)
    cells = head.cells(sizes)
    examples = [
        make_example(window.feats_DT, bins_G2, cells, recipe.anchor_margin)
        for video in train
        for window, bins_G2 in _learned(head, sizes, video)
    ]
    if not examples:
        raise UsageError(
            f"a head needs training windows that hold more than {MOST_INSIDE:.0%} of an action, "
            f"but no window of {sizes.temporal_scale} bins does; raise the temporal scale"
        )
    losses = train_detector(model, examples, cells, recipe, seed, device)
    if classify is None:
        classify = segment_classifier(train, len(classes))
    detections: Found = {}
    proposals: Found = {}
    for video in test:
        windows = _windows(head, sizes, video)
        inputs = [window.feats_DT for window in windows]
        outputs = list(detect(model, inputs, recipe.batch_size, device))
        found = head.select(windows, outputs, end_seconds(video))
        scores_NC = classify(video, found.segments_N2)
        detections[video.video_id] = _labelled(found, scores_NC, classes)
        rows = np.column_stack([found.segments_N2, found.scores_N]).tolist()
        proposals[video.video_id] = tuple(Detection(*row) for row in rows)
    return DetectionRun(detections, proposals, tuple(losses), len(examples))


def deal_annotations(videos: Sequence[DetectionVideo], seed: int) -> list[DetectionVideo]:
    """Give every video the annotation of another, none its own; needs two videos at least."""
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(videos))
    segments = {a: videos[b].segments for a, b in zip(order, np.roll(order, 1), strict=True)}
    return [replace(video, segments=segments[i]) for i, video in enumerate(videos)]


def random_detections(
    train: Sequence[DetectionVideo],
    test: Sequence[DetectionVideo],
    numbers: Mapping[str, int],
    classes: Sequence[str],
    seed: int,
) -> Iterator[Found]:
    """Draw segments that know nothing of the videos: lengths of training actions, all else even.

    Args:
        train: Videos whose actions have the lengths.
        test: Videos to draw in.
        numbers: Video id -> how many.
        classes: Names.
        seed: Of the draws.

    Yields:
        `NUM_DRAWS` independent draws.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    lengths = [s.end_seconds - s.start_seconds for video in train for s in video.segments]
    for _ in range(NUM_DRAWS):
        yield {
            video.video_id: _drawn(
                rng, numbers[video.video_id], lengths, end_seconds(video), classes
            )
            for video in test
        }


def _drawn(
    rng: np.random.Generator,
    number: int,
    lengths: Sequence[float],
    end: float,
    classes: Sequence[str],
) -> tuple[Detection, ...]:
    length_N = np.minimum(rng.choice(lengths, number), end)
    start_N = rng.uniform(0, 1, number) * (end - length_N)
    score_N, class_N = rng.uniform(0, 1, number), rng.integers(len(classes), size=number)
    rows = zip(*(part.tolist() for part in (start_N, length_N, score_N, class_N)), strict=True)
    return best_first([Detection(a, a + length, score, classes[c]) for a, length, score, c in rows])


def end_seconds(video: DetectionVideo) -> float:
    """Return where a video ends: its duration, or the end of its last row if that is later."""
    return max(video.duration_seconds, float(video.times_S3[-1, 2]))


def _windows(
    head: DetectionHead, sizes: DetectorSizes, video: DetectionVideo
) -> list[DetectionWindow]:
    return head.cut(video.video_id, video.feats_SD, video.times_S3, sizes.temporal_scale)


def _learned(
    head: DetectionHead, sizes: DetectorSizes, video: DetectionVideo
) -> Iterable[tuple[DetectionWindow, np.ndarray]]:
    """Yield the windows to learn from, with the actions that they show, in bins."""
    if not video.segments:
        return
    seconds_G2 = np.array([segment[:2] for segment in video.segments])
    for window in _windows(head, sizes, video):
        bins_G2 = window.bins_of(seconds_G2)
        shown_G2 = np.clip(bins_G2, 0, sizes.temporal_scale)
        length_G = bins_G2[:, 1] - bins_G2[:, 0]
        shown_G = shown_G2[:, 1] - shown_G2[:, 0]
        if np.any(shown_G > MOST_INSIDE * length_G):
            yield window, bins_G2[shown_G > 0]


def segment_classifier(videos: Sequence[DetectionVideo], num_classes: int) -> Classify:
    """Train the classifier of segments on the annotated ones; it reads a video's own features."""
    classifier = train_classifier(
        [(video.feats_SD, video.times_S3, video.segments) for video in videos], num_classes
    )
    return lambda video, segments_N2: classifier.scores(video.feats_SD, video.times_S3, segments_N2)


def _labelled(
    found: Proposals, scores_NC: np.ndarray, classes: Sequence[str]
) -> tuple[Detection, ...]:
    """Give every proposal its best classes."""
    proposal_M, class_M, fused_M = fuse_gtad(found.scores_N, scores_NC, NUM_BEST_CLASSES)
    return best_first(
        [
            Detection(start, end, score, classes[c])
            for (start, end), c, score in zip(
                found.segments_N2[proposal_M].tolist(), class_M, fused_M.tolist(), strict=True
            )
        ]
    )

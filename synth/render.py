"""Render one shard from its plan rows: decode, view, evaluate, encode, write. Draws nothing.

Each video is decoded once for all the views that the coming rows show of it; frames at native size
are dropped as soon as their views are cut. A source that fails rejects its samples with the reason
and the shard still completes. The bytes depend on the rows and the codec alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from manifests import SourceVideo, VideoError, atomic_writer, write_atomic

from .augment import Augment, augment_frame
from .codecs import ENCODERS, EXTENSIONS, check_size
from .frames import frame_batches
from .labels import LabelTrack, constant_track
from .plan import Row
from .shards import TarWriter, dump_json, shard_path, write_index
from .tree import (
    LARGEST_SAMPLE,
    LabelledSize,
    Tree,
    clips_of,
    describe_sample,
    evaluate_frames,
    evaluate_labels,
)
from .views import Scratch, View, apply_view, check_crop, resized_size

VIEWS_BUDGET = 192 * 2**20  # bytes of views held while their rows wait
PACKAGES = ("av", "decord", "numpy", "opencv-python-headless", "simplejpeg")


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """One source of a row: `num_frames` frames of a video from `start_frame`, seen through a view.

    The `k`-th is presentation frame `start_frame + k * frame_stride`; `augment` follows the view.
    """

    video: SourceVideo
    label_id: int | None
    start_frame: int
    frame_stride: int
    num_frames: int
    view: View
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if min(self.num_frames, self.frame_stride) < 1 or self.start_frame < 0:
            raise ValueError(
                f"a source needs num_frames and frame_stride >= 1 and start_frame >= 0, got "
                f"{self.num_frames}, {self.frame_stride} and {self.start_frame}"
            )
        if self.label_id is not None and self.label_id < 0:
            raise ValueError(f"label_id must be >= 0, got {self.label_id}")
        height, width = resized_size(self.video.height, self.video.width, self.view.short_side)
        check_crop(self.view, height, width)
        if self.indices[-1] >= self.video.num_frames:
            raise ValueError(
                f"frame {self.indices[-1]} is beyond the end of video {self.video.video_id!r} "
                f"({self.video.num_frames} frames)"
            )

    @property
    def indices(self) -> range:
        """The presentation frames that are shown."""
        step = self.frame_stride
        return range(self.start_frame, self.start_frame + self.num_frames * step, step)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the clip."""
        shown = self.augment or self.view
        return shown.height, shown.width

    @property
    def num_bytes(self) -> int:
        """Bytes of the clip."""
        height, width = self.size
        return self.num_frames * height * width * 3

    @property
    def labelled_size(self) -> LabelledSize:
        """What is known of the clip without its pixels."""
        return LabelledSize(constant_track(self.label_id, self.num_frames), *self.size)

    def cut(self, frame_HWC: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """Write what the source shows of a frame into `out`."""
        if self.augment is None:
            apply_view(frame_HWC, self.view, out, scratch)
        else:
            augment_frame(apply_view(frame_HWC, self.view, None, scratch), self.augment, out)


@dataclass(frozen=True)
class PlannedSample:
    """A plan row, checked: everything that rendering relies on holds."""

    row: Row
    tree: Tree
    sources: tuple[PlannedSource, ...]
    track: LabelTrack

    @property
    def num_bytes(self) -> int:
        """Bytes of the source clips."""
        return sum(source.num_bytes for source in self.sources)


@dataclass(frozen=True)
class Rejected:
    """A planned sample that cannot be rendered, and why."""

    row: Row
    reason: str


@dataclass(frozen=True)
class RenderedSample:
    """A sample ready to be encoded: uint8 frames `(T, H, W, 3)` of its clip, or of both of a pair.

    `clips` has one entry "", or "query" and "key".
    """

    sample: PlannedSample
    clips: Mapping[str, np.ndarray]

    @property
    def frames(self) -> np.ndarray:
        """The frames as `ShardSample.frames` gives them: `(T, H, W, 3)` or `(2, T, H, W, 3)`."""
        clips = list(self.clips.values())
        return clips[0] if len(clips) == 1 else np.stack(clips)


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to render one shard: rows and paths, no pixels."""

    shard: int
    rows: Sequence[Row]
    videos: Mapping[str, SourceVideo]
    out: str
    codec: str
    plan_digest: str


@dataclass(frozen=True)
class ShardReport:
    """The done record of a shard; its existence on disk means done.

    `reasons` counts the rejected samples by reason up to the colon; the index has all of it.
    """

    shard: int
    plan_digest: str
    codec: str
    planned: int
    rendered: int
    rejected: int
    reasons: Mapping[str, int]
    kinds: Mapping[str, int]
    bytes: int
    sha256: str
    index_sha256: str
    versions: Mapping[str, str]


@cache
def tool_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the bytes."""
    return {package: version(package) for package in PACKAGES}


def check_row(row: Row, videos: Mapping[str, SourceVideo], codec: str) -> PlannedSample | Rejected:
    """Check a plan row against its videos and the codec; the row may come from anywhere."""
    try:
        tree = json.loads(row["tree"])
        sources = tuple(_check_source(source, videos) for source in row["sources"])
        if sum(source.num_bytes for source in sources) > LARGEST_SAMPLE:
            raise ValueError(f"the sources of a sample must fit in {LARGEST_SAMPLE} bytes")
        size = evaluate_labels(tree, [source.labelled_size for source in sources])
        if not size.track.exclusive and row["kind"] != "annotated":
            raise ValueError(
                f"op 'annotate' makes samples of kind 'annotated', got {row['kind']!r}"
            )
        check_size(codec, size.track.num_frames, size.height, size.width)
        dump_json(tree)  # ValueError for NaN and infinity, wherever they stand: JSON has neither
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        return Rejected(row, f"invalid plan row: {err}")
    return PlannedSample(row, tree, sources, size.track)


def _check_source(source: Row, videos: Mapping[str, SourceVideo]) -> PlannedSource:
    video = videos[source["video_id"]]
    if video.status != "ok":
        raise ValueError(f"video {video.video_id!r} is rejected: {video.reason}")
    return PlannedSource(
        video,
        source["label_id"],
        source["start_frame"],
        source["frame_stride"],
        source["num_frames"],
        View(**_whole_struct(source, "view")),
        None if source.get("augment") is None else Augment(**_whole_struct(source, "augment")),
    )


def _whole_struct(source: Row, name: str) -> dict[str, Any]:
    """Return a struct of a source; ValueError if a number is missing in it."""
    struct = source[name] or {}
    missing = [number for number, value in struct.items() if value is None]
    if not struct or missing:
        raise ValueError(f"{name} must have all its numbers, but lacks {missing or 'all'}")
    return struct


Use = tuple[int, int]  # row position in the shard, position among the row's sources


class ClipReader:
    """Cut the source clips of consecutive rows, decoding each video once for all coming rows."""

    def __init__(self, samples: Sequence[PlannedSample | Rejected], budget: int) -> None:
        self._samples = samples
        self._budget = budget
        self._clips: dict[Use, np.ndarray] = {}
        self._failed: dict[str, str] = {}
        self._scratch = Scratch()
        self.num_decodes = 0

    def read(self, position: int) -> list[np.ndarray]:
        """Return the source clips of the row at `position`; rows must be asked for in order.

        Raises:
            VideoError: A source of this row cannot be decoded.
        """
        sample = self._samples[position]
        assert isinstance(sample, PlannedSample)
        for slot, source in enumerate(sample.sources):
            if source.video.video_id in self._failed:
                break
            if (position, slot) not in self._clips:
                self._decode(source.video, position)
        clips = [self._clips.pop((position, slot), None) for slot in range(len(sample.sources))]
        for source in sample.sources:
            if source.video.video_id in self._failed:
                raise VideoError(source.video.path, self._failed[source.video.video_id])
        return [clip for clip in clips if clip is not None]

    def _decode(self, video: SourceVideo, position: int) -> None:
        """Cut every view of `video` that the coming rows show, in one decoding pass."""
        wanted: dict[int, list[tuple[np.ndarray, PlannedSource]]] = {}
        uses = []
        for use, source in self._coming_uses(video, position):
            clip = self._clips[use] = np.empty((source.num_frames, *source.size, 3), np.uint8)
            uses.append(use)
            for k, index in enumerate(source.indices):
                wanted.setdefault(index, []).append((clip[k], source))
        self.num_decodes += 1
        try:
            for indices, frames in frame_batches(video, np.array(sorted(wanted), np.int64)):
                for index, frame_HWC in zip(indices.tolist(), frames, strict=True):
                    for slot, source in wanted[index]:
                        source.cut(frame_HWC, slot, self._scratch)
        except (VideoError, ValueError) as err:
            self._failed[video.video_id] = err.reason if isinstance(err, VideoError) else str(err)
            for use in uses:
                del self._clips[use]

    def _coming_uses(
        self, video: SourceVideo, position: int
    ) -> Iterator[tuple[Use, PlannedSource]]:
        held = 0
        for later in range(position, len(self._samples)):
            sample = self._samples[later]
            if isinstance(sample, Rejected):
                continue
            held += sample.num_bytes
            if held > self._budget and later > position:
                return
            for slot, source in enumerate(sample.sources):
                if source.video.video_id == video.video_id:
                    yield (later, slot), source


def render_samples(
    rows: Sequence[Row],
    videos: Mapping[str, SourceVideo],
    codec: str,
    budget: int = VIEWS_BUDGET,
) -> Iterator[RenderedSample | Rejected]:
    """Render rows in order; a row that cannot be rendered comes out as rejected."""
    samples = [check_row(row, videos, codec) for row in rows]
    reader = ClipReader(samples, budget)
    for position, sample in enumerate(samples):
        if isinstance(sample, Rejected):
            yield sample
            continue
        try:
            clips = reader.read(position)
        except VideoError as err:
            yield Rejected(sample.row, err.reason)
            continue
        trees = clips_of(sample.tree)
        yield RenderedSample(
            sample, {name: evaluate_frames(tree, clips) for name, tree in trees.items()}
        )


def sample_meta(sample: PlannedSample) -> dict[str, Any]:
    """Return the `.json` member of a sample."""
    return {
        "kind": sample.row["kind"],
        "num_frames": sample.track.num_frames,
        "class_ids": sample.track.class_ids.tolist(),
        "weights": sample.track.weights_CT.tolist(),
        "tree": sample.tree,
        "sources": [_without_null_augment(source) for source in sample.row["sources"]],
        **describe_sample(sample.tree, [source.labelled_size for source in sample.sources]),
    }


def _without_null_augment(source: Row) -> Row:
    return {name: value for name, value in source.items() if (name, value) != ("augment", None)}


def render_shard(task: ShardTask) -> ShardReport:
    """Render and commit one shard: tar, index, and last the done record.

    Raises:
        OSError: The output cannot be written; nothing stands under a final name then.
    """
    index: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    path = shard_path(task.out, task.shard)
    with atomic_writer(path) as file:
        tar = TarWriter(file)
        for result in render_samples(task.rows, task.videos, task.codec):
            start = tar.offset
            if isinstance(result, Rejected):
                reasons[result.reason.partition(": ")[0]] += 1
                index.append(_index_row(result.row, result.reason, None, None))
                continue
            row = result.sample.row
            key = row["sample_key"]
            for name, frames_THWC in result.clips.items():
                part = f"{name}." if name else ""
                member = ENCODERS[task.codec](frames_THWC)
                tar.add(f"{key}.{part}{EXTENSIONS[task.codec]}", member)
            tar.add(f"{key}.json", dump_json(sample_meta(result.sample)))
            index.append(_index_row(row, None, start, tar.offset - start))
        sha256 = tar.close()
        num_bytes = tar.offset
    index_path = shard_path(task.out, task.shard, "parquet")
    write_index(index_path, index)
    kinds = Counter(row["kind"] for row in index if row["status"] == "rendered")
    rejected = sum(reasons.values())
    report = ShardReport(
        shard=task.shard,
        plan_digest=task.plan_digest,
        codec=task.codec,
        planned=len(index),
        rendered=len(index) - rejected,
        rejected=rejected,
        reasons=dict(sorted(reasons.items())),
        kinds=dict(sorted(kinds.items())),
        bytes=num_bytes,
        sha256=sha256,
        index_sha256=hashlib.sha256(Path(index_path).read_bytes()).hexdigest(),
        versions=tool_versions(),
    )
    write_atomic(shard_path(task.out, task.shard, "json"), dump_json(vars(report)) + b"\n")
    return report


def _index_row(
    row: Row, reason: str | None, offset: int | None, size: int | None
) -> dict[str, Any]:
    return {
        "key": row["sample_key"],
        "status": "rendered" if reason is None else "rejected",
        "reason": reason,
        "offset": offset,
        "bytes": size,
        "kind": row["kind"],
        "video_ids": [source["video_id"] for source in row["sources"]],
    }

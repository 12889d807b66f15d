"""Render one shard from its plan rows: decode, view, evaluate, encode, write. Draws nothing.

Each video is decoded once for all the views that the coming rows show of it; frames at native size
are dropped as soon as their views are cut. A source that fails rejects its samples with the reason
and the shard still completes. The bytes depend on the rows and the codec alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import SourceVideo, VideoError, atomic_writer, write_atomic

from .clip_reader import ClipReader, Watch, unwatched
from .codecs import ENCODERS, EXTENSIONS
from .plan import Row
from .planned import PlannedSample, Rejected, check_row
from .retry import source_digests
from .shards import TarWriter, dump_json, shard_path, write_index
from .tree import clips_of, describe_sample, evaluate_frames

VIEWS_BUDGET = 192 * 2**20  # bytes of views held while their rows wait
PACKAGES = ("av", "decord", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg")


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
    """All that a worker needs to render one shard: rows and paths, no pixels.

    Attributes:
        shard: Its number.
        rows: Its plan rows.
        videos: Their sources.
        out: The output folder.
        codec: Of the clips.
        plan_digest: For the done record.
        failed: Reasons by video that is known to fail: processes were ended for them.
    """

    shard: int
    rows: pa.Table
    videos: Mapping[str, SourceVideo]
    out: str
    codec: str
    plan_digest: str
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardReport:
    """The done record of a shard; its existence on disk means done.

    `reasons` counts the rejected samples by reason up to the colon; the index has all of it.
    `rejected_sources` has the sha256 of the files that the rejected samples show, by video id.
    """

    shard: int
    plan_digest: str
    codec: str
    planned: int
    rendered: int
    rejected: int
    reasons: Mapping[str, int]
    rejected_sources: Mapping[str, str | None]
    kinds: Mapping[str, int]
    bytes: int
    sha256: str
    index_sha256: str
    versions: Mapping[str, str]


@cache
def tool_versions() -> dict[str, str]:
    """Return the versions of the packages that decide the bytes."""
    return {package: version(package) for package in PACKAGES}


def render_samples(
    rows: Sequence[Row],
    videos: Mapping[str, SourceVideo],
    codec: str,
    budget: int = VIEWS_BUDGET,
    failed: Mapping[str, str] = MappingProxyType({}),
    watch: Watch = unwatched,
) -> Iterator[RenderedSample | Rejected]:
    """Render rows in order; a row that cannot be rendered comes out as rejected."""
    samples = [check_row(row, videos, codec) for row in rows]
    reader = ClipReader(samples, budget, failed, watch)
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


def render_shard(task: ShardTask, watch: Watch = unwatched) -> ShardReport:
    """Render and commit one shard: tar, index, and last the done record.

    Args:
        task: What to render.
        watch: Guards the decoding of a video.

    Raises:
        OSError: The output cannot be written; nothing stands under a final name then.
    """
    index: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    rejected: dict[str, SourceVideo] = {}
    path = shard_path(task.out, task.shard)
    with atomic_writer(path) as file:
        tar = TarWriter(file)
        results = render_samples(
            task.rows.to_pylist(), task.videos, task.codec, failed=task.failed, watch=watch
        )
        for result in results:
            start = tar.offset
            if isinstance(result, Rejected):
                reasons[result.reason.partition(": ")[0]] += 1
                index.append(_index_row(result.row, result.reason, None, None))
                ids = [source["video_id"] for source in result.row["sources"]]
                rejected |= {video_id: task.videos[video_id] for video_id in ids}
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
    index_sha256 = write_index(shard_path(task.out, task.shard, "parquet"), index)
    kinds = Counter(row["kind"] for row in index if row["status"] == "rendered")
    num_rejected = sum(reasons.values())
    digests = source_digests(v for v in rejected.values() if v.video_id not in task.failed)
    report = ShardReport(
        shard=task.shard,
        plan_digest=task.plan_digest,
        codec=task.codec,
        planned=len(index),
        rendered=len(index) - num_rejected,
        rejected=num_rejected,
        reasons=dict(sorted(reasons.items())),
        rejected_sources=dict.fromkeys(sorted(rejected)) | digests,  # hanging ones are not read
        kinds=dict(sorted(kinds.items())),
        bytes=num_bytes,
        sha256=sha256,
        index_sha256=index_sha256,
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

"""A finished output folder, opened for reading: what lies where, checked against its records."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests import AnyPath, ShardError, UsageError, file_sizes, read_many, to_path

from .shards import RECORDS_AT_A_TIME, parse_index, parse_record, read_record, shard_path

SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardIndex:
    """Where the rendered samples of one shard lie.

    Attributes:
        path: The tar.
        num_bytes, sha256: Of the tar, as its done record says.
        keys, kinds: Sample key and kind, one per rendered sample.
        video_ids: The source videos of each sample.
        offsets, sizes: First byte and number of bytes of each sample's members, int64.
    """

    path: AnyPath
    num_bytes: int
    sha256: str
    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    video_ids: tuple[tuple[str, ...], ...]
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class ShardDataset:
    """A finished output folder, checked against its records.

    Attributes:
        path: The folder.
        classes: Class names in id order.
        shards: Index of every shard, in order.
        digest: sha256 over the shard digests: equal for equal bytes.
    """

    path: AnyPath
    classes: tuple[str, ...]
    shards: tuple[ShardIndex, ...]
    digest: str


def read_shard_index(out: AnyPath | str, shard: int, plan_digest: str | None = None) -> ShardIndex:
    """Read the index of a finished shard and check that the tar is as long as it should be.

    Raises:
        ShardError: No done record, a record of another plan, a tar that is missing or truncated.
    """
    path = shard_path(out, shard)
    record, index = read_many([path.with_suffix(".json"), path.with_suffix(".parquet")])
    size = path.stat().st_size if path.is_file() else -1
    return _parse_shard(path, size, record, index, plan_digest)


def _parse_shard(
    path: AnyPath,
    size: int,
    record_content: bytes | None,
    index_content: bytes | None,
    plan_digest: str | None,
) -> ShardIndex:
    """Check the files of a shard against each other; `size` is that of the tar, -1: no tar."""
    if record_content is None:
        raise ShardError(f"shard {path} is not finished: it has no done record")
    record = parse_record(record_content, path.with_suffix(".json"))
    if plan_digest is not None and record.get("plan_digest") != plan_digest:
        raise ShardError(f"shard {path} belongs to another plan: {record.get('plan_digest')!r}")
    if size != record.get("bytes"):
        found = "is missing" if size < 0 else f"has {size} bytes"
        raise ShardError(
            f"shard {path} must have {record.get('bytes')} bytes but {found}: render it again"
        )
    sha256 = record.get("sha256")
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise ShardError(f"the done record of shard {path} must have a sha256, got {sha256!r}")
    if index_content is None:
        raise ShardError(f"the index of shard {path} is missing: render it again")
    if hashlib.sha256(index_content).hexdigest() != record.get("index_sha256"):
        raise ShardError(f"the index of shard {path} is not the one that its done record names")
    rows = parse_index(index_content, path)
    done = [row for row in rows if row["status"] == "rendered"]
    if len(done) != record.get("rendered"):
        raise ShardError(f"shard {path}: index and done record disagree on what was rendered")
    for row in done:
        if not _is_inside(row, size):
            raise ShardError(f"the index of shard {path} places {row['key']!r} outside the tar")
    return ShardIndex(
        path,
        size,
        sha256,
        tuple(row["key"] for row in done),
        tuple(row["kind"] for row in done),
        tuple(tuple(row["video_ids"]) for row in done),
        np.array([row["offset"] for row in done], np.int64),
        np.array([row["bytes"] for row in done], np.int64),
    )


def _is_inside(row: Mapping[str, Any], size: int) -> bool:
    """Return whether an index row names bytes of the tar, and where they come from."""
    offset, length = row["offset"], row["bytes"]
    if None in (row["key"], row["kind"], row["video_ids"], offset, length):
        return False
    return offset >= 0 and length > 0 and offset + length <= size


def read_dataset(out: AnyPath | str) -> ShardDataset:
    """Open a finished output folder for reading.

    Raises:
        UsageError: No such folder, or its rendering is not finished.
        ShardError: A shard that is missing, truncated or of another plan.
    """
    out = to_path(out)
    if not out.is_dir():
        raise UsageError(f"no such folder of shards: {str(out)!r}")
    record = read_record(out / "dataset.json")
    if record is None:
        raise UsageError(
            f"the shards in {str(out)!r} are not finished (no dataset.json): "
            f"run `synth render` again"
        )
    _check_dataset(record, out / "dataset.json")
    shards = tuple(_read_shards(out, record["shards"], record["plan_digest"]))
    for shard, sha256 in zip(shards, record["shard_digests"], strict=True):
        if shard.sha256 != sha256:
            raise ShardError(f"shard {shard.path} is another than dataset.json names")
    digest = hashlib.sha256("".join(record["shard_digests"]).encode()).hexdigest()
    return ShardDataset(out, tuple(record["classes"]), shards, digest)


def _read_shards(out: AnyPath, shards: Sequence[int], plan_digest: str) -> Iterator[ShardIndex]:
    """Read the indices of finished shards, many files at a time."""
    sizes = file_sizes(out, "shard-", ".tar")
    for first in range(0, len(shards), RECORDS_AT_A_TIME):
        paths = [shard_path(out, shard) for shard in shards[first : first + RECORDS_AT_A_TIME]]
        records = read_many([path.with_suffix(".json") for path in paths])
        indices = read_many([path.with_suffix(".parquet") for path in paths])
        for path, record, index in zip(paths, records, indices, strict=True):
            yield _parse_shard(path, sizes.get(path.name, -1), record, index, plan_digest)


def _check_dataset(record: Mapping[str, Any], path: AnyPath) -> None:
    """Raise ShardError unless the fields that readers rely on are there and fit together."""

    def is_list_of(kind: type, name: str) -> bool:
        return isinstance(record.get(name), list) and all(type(x) is kind for x in record[name])

    if not (
        is_list_of(str, "classes")
        and is_list_of(int, "shards")
        and is_list_of(str, "shard_digests")
        and len(record["shards"]) == len(record["shard_digests"])
        and isinstance(record.get("plan_digest"), str)
    ):
        raise ShardError(f"not the record of a finished dataset: {str(path)!r}")
    if not all(0 <= shard < 2**31 for shard in record["shards"]):
        raise ShardError(f"shard numbers must be >= 0 and below 2^31 ({str(path)!r})")

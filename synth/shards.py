"""Shards on disk: plain WebDataset tars, an index of offsets beside each, a done record last.

A sample is a run of tar members that share a key, the `.json` last. Members are read by offset,
without walking the tar. `docs/formats.md` describes every file.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import ShardError, UsageError, write_atomic

from .codecs import decode_member
from .labels import LabelTrack
from .tree import PAIR

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("kind", pa.string()),
        ("video_ids", pa.list_(pa.string())),
    ]
)
TAR_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class ShardSample:
    """One sample as it stands in a shard.

    Attributes:
        key: The sample key.
        members: Bytes by extension ("jpg", "mp4", "npy"; of a pair "query.jpg" and "key.jpg", in
            this order).
        meta: The `.json` member: kind, num_frames, class_ids, weights, tree, sources.
    """

    key: str
    members: Mapping[str, bytes]
    meta: Mapping[str, Any]

    def frames(self, out: np.ndarray | None = None) -> np.ndarray:
        """Decode the clip to uint8 `(T, H, W, 3)`, or a pair to `(2, T, H, W, 3)`: query, key.

        `out` is memory that the decoder may write into: fresh pages are dear.

        Raises:
            ShardError: A member does not decode, or the two of a pair differ in size.
        """
        if len(self.members) == 1:
            ((extension, member),) = self.members.items()
            return decode_member(extension, member, self.num_frames, out)
        views = [name.partition(".")[0] for name in self.members]
        if views != list(PAIR):
            raise ShardError(f"sample {self.key} is no clip and no pair: {list(self.members)}")
        slots = (None, None) if out is None or len(out) != len(PAIR) else out
        clips = [
            decode_member(name.partition(".")[2], member, self.num_frames, slot)
            for (name, member), slot in zip(self.members.items(), slots, strict=True)
        ]
        if clips[0].shape != clips[1].shape:
            raise ShardError(f"the clips of pair {self.key} differ in size")
        if slots is out and all(map(np.shares_memory, clips, slots)):
            return out
        return np.stack(clips)

    @property
    def num_frames(self) -> int:
        """Frames of the clip; ShardError if the `.json` member does not say."""
        num_frames = self.meta.get("num_frames")
        if type(num_frames) is not int or num_frames < 1:
            raise ShardError(f"sample {self.key} needs num_frames >= 1, got {num_frames!r}")
        return num_frames

    def check_classes(self, num_classes: int) -> None:
        """Raise ShardError if a label is none of `num_classes` classes."""
        for class_id in self.meta.get("class_ids") or ():
            if type(class_id) is not int or not 0 <= class_id < num_classes:
                raise ShardError(f"class ids must be whole and below {num_classes}, got {class_id}")

    def track(self) -> LabelTrack:
        """Return the label track."""
        ids, weights = self.meta.get("class_ids"), self.meta.get("weights")
        try:
            if not isinstance(ids, list) or any(type(class_id) is not int for class_id in ids):
                raise ValueError(f"class_ids must be whole numbers, got {ids!r}")
            weights_CT = np.array(weights, np.float64)
            return LabelTrack(
                np.array(ids, np.int64),
                weights_CT.reshape(len(ids), self.num_frames),
                exclusive=self.meta.get("kind") != "annotated",
            )
        except (ValueError, TypeError, OverflowError) as err:
            raise ShardError(f"sample {self.key} has no label track: {err}") from err


class TarWriter:
    """Write members with fixed times, owners and modes, hashing the bytes as they pass."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.offset = 0

    def add(self, name: str, content: bytes) -> None:
        """Append one regular file."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o444, 0
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        self._write(content)
        self._write(bytes(-len(content) % TAR_BLOCK))

    def close(self) -> str:
        """Write the end of the archive and return the sha256 of the whole file."""
        self._write(bytes(2 * TAR_BLOCK))
        self._write(bytes(-self.offset % tarfile.RECORDSIZE))
        return self._digest.hexdigest()

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        self._digest.update(block)
        self.offset += len(block)


def shard_path(out: Path | str, shard: int, suffix: str = "tar") -> Path:
    """Return the path of shard number `shard`, or of its index ("parquet") or record ("json")."""
    return Path(out) / f"shard-{shard:06d}.{suffix}"


def dump_json(record: Any) -> bytes:
    """Serialise deterministically, without spaces."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()


def write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a shard's index: one row per planned sample, rendered or rejected."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), INDEX_SCHEMA), sink, compression="zstd")
    write_atomic(path, sink.getvalue())


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a JSON record, or None if there is none.

    Raises:
        ShardError: The file is not a JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as err:
        raise ShardError(f"not a JSON record: {str(path)!r} ({err})") from err
    if not isinstance(record, dict):
        raise ShardError(f"not a JSON record: {str(path)!r}")
    return record


def read_done(out: Path | str, shard: int) -> dict[str, Any] | None:
    """Return the done record of a shard, or None unless its tar and index stand as it says.

    Raises:
        ShardError: The record is not a JSON object.
    """
    record = read_record(shard_path(out, shard, "json"))
    tar = shard_path(out, shard)
    if record is None or not tar.is_file() or not shard_path(out, shard, "parquet").is_file():
        return None
    return record if tar.stat().st_size == record.get("bytes") else None


@dataclass(frozen=True)
class ShardIndex:
    """Where the rendered samples of one shard lie.

    Attributes:
        path: The tar.
        keys, kinds: Sample key and kind, one per rendered sample.
        video_ids: The source videos of each sample.
        offsets, sizes: First byte and number of bytes of each sample's members, int64.
    """

    path: Path
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

    path: Path
    classes: tuple[str, ...]
    shards: tuple[ShardIndex, ...]
    digest: str


def read_shard_index(out: Path | str, shard: int, plan_digest: str | None = None) -> ShardIndex:
    """Read the index of a finished shard and check that the tar is as long as it should be.

    Raises:
        ShardError: No done record, a record of another plan, a tar that is missing or truncated.
    """
    path = shard_path(out, shard)
    record = read_record(shard_path(out, shard, "json"))
    if record is None:
        raise ShardError(f"shard {path} is not finished: it has no done record")
    if plan_digest is not None and record.get("plan_digest") != plan_digest:
        raise ShardError(f"shard {path} belongs to another plan: {record.get('plan_digest')!r}")
    size = path.stat().st_size if path.is_file() else -1
    if size != record.get("bytes"):
        found = "is missing" if size < 0 else f"has {size} bytes"
        raise ShardError(
            f"shard {path} must have {record.get('bytes')} bytes but {found}: render it again"
        )
    try:
        rows = pq.read_table(shard_path(out, shard, "parquet"), schema=INDEX_SCHEMA).to_pylist()
    except (OSError, pa.ArrowInvalid) as err:
        raise ShardError(f"the index of shard {path} cannot be read: {err}") from err
    done = [row for row in rows if row["status"] == "rendered"]
    if len(done) != record.get("rendered"):
        raise ShardError(f"shard {path}: index and done record disagree on what was rendered")
    for row in done:
        if not _is_inside(row, size):
            raise ShardError(f"the index of shard {path} places {row['key']!r} outside the tar")
    return ShardIndex(
        path,
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


def read_dataset(out: Path | str) -> ShardDataset:
    """Open a finished output folder for reading.

    Raises:
        UsageError: No such folder, or its rendering is not finished.
        ShardError: A shard that is missing, truncated or of another plan.
    """
    out = Path(out)
    if not out.is_dir():
        raise UsageError(f"no such folder of shards: {str(out)!r}")
    record = read_record(out / "dataset.json")
    if record is None:
        raise UsageError(
            f"the shards in {str(out)!r} are not finished (no dataset.json): "
            f"run `synth render` again"
        )
    _check_dataset(record, out / "dataset.json")
    shards = tuple(
        read_shard_index(out, shard, record["plan_digest"]) for shard in record["shards"]
    )
    digest = hashlib.sha256("".join(record["shard_digests"]).encode()).hexdigest()
    return ShardDataset(out, tuple(record["classes"]), shards, digest)


def _check_dataset(record: Mapping[str, Any], path: Path) -> None:
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


def read_sample(file: int | Path | str, offset: int, size: int) -> ShardSample:
    """Read one sample with one positioned read.

    Args:
        file: Path of the tar, or an open file descriptor.
        offset, size: From the shard's index.

    Raises:
        ShardError: The bytes there are not the members of one sample.
    """
    if isinstance(file, int):
        return parse_sample(os.pread(file, size, offset), size)
    with open(file, "rb") as tar:
        return parse_sample(os.pread(tar.fileno(), size, offset), size)


def parse_sample(content: bytes, size: int) -> ShardSample:
    """Parse the tar members of one sample; ShardError if they are not that."""
    if len(content) != size:
        raise ShardError(f"a sample of {size} bytes ends after {len(content)}: truncated shard")
    members: dict[str, bytes] = {}
    keys, position = set(), 0
    try:
        while position < size:
            header = tarfile.TarInfo.frombuf(
                content[position : position + TAR_BLOCK], "utf-8", "strict"
            )
            key, _, extension = header.name.partition(".")
            position += TAR_BLOCK
            if not 0 <= header.size <= size - position:
                raise ValueError(f"member {header.name!r} claims {header.size} bytes")
            members[extension] = content[position : position + header.size]
            position += header.size + -header.size % TAR_BLOCK
            keys.add(key)
        meta = json.loads(members.pop("json"))
        (key,) = keys
        if not isinstance(meta, dict):
            raise ValueError("its .json member is not an object")
    except (tarfile.HeaderError, ValueError, KeyError, RecursionError) as err:
        raise ShardError(f"the bytes at a sample's offset are not one sample: {err!r}") from err
    return ShardSample(key, members, meta)

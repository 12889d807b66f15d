"""Shards as files: plain WebDataset tars, an index of offsets beside each, a done record last.

A sample is a run of tar members that share a key, the `.json` last. Members are read by offset,
without walking the tar. `docs/formats.md` describes every file.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import (
    AnyPath,
    ShardError,
    file_sizes,
    open_table,
    read_json,
    read_many,
    read_table,
    to_path,
    write_atomic,
)

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
LARGEST_INDEX = 2**25  # bytes; as Python's objects it takes 30 times that
TAR_BLOCK = tarfile.BLOCKSIZE
RECORDS_AT_A_TIME = 256


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
        class_ids = self.meta.get("class_ids") or []
        if not isinstance(class_ids, list):
            raise ShardError(f"class_ids of sample {self.key} must be a list, got {class_ids!r}")
        for class_id in class_ids:
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


def shard_path(out: AnyPath | str, shard: int, suffix: str = "tar") -> AnyPath:
    """Return the path of shard number `shard`, or of its index ("parquet") or record ("json")."""
    return to_path(out) / f"shard-{shard:06d}.{suffix}"


def shard_number(name: str) -> int | None:
    """Return the number in the name of a shard's file, None if it is not such a name."""
    number = name.partition(".")[0].removeprefix("shard-")
    return int(number) if number.isdecimal() and number.isascii() else None


def dump_json(record: Any) -> bytes:
    """Serialise deterministically, without spaces."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()


def write_index(path: AnyPath, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a shard's index, one row per planned sample, and return the file's sha256."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), INDEX_SCHEMA), sink, compression="zstd")
    write_atomic(path, sink.getvalue())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def parse_index(content: bytes, path: AnyPath) -> list[dict[str, Any]]:
    """Parse the index of the shard at `path`; ShardError if it is none, or of too many samples."""
    try:
        table = read_table(open_table(pa.BufferReader(content)), INDEX_SCHEMA)
        if table.nbytes > LARGEST_INDEX:
            raise ValueError(f"it must take at most {LARGEST_INDEX} bytes, got {table.nbytes}")
    except ValueError as err:
        raise ShardError(f"the index of shard {path} cannot be read: {err}") from err
    return table.to_pylist()


def read_record(path: AnyPath) -> dict[str, Any] | None:
    """Return a JSON record, or None if there is none.

    Raises:
        ShardError: The file is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise ShardError(f"not a JSON record: {str(path)!r} ({err})") from err
    return parse_record(content, path)


def parse_record(content: bytes, path: AnyPath) -> dict[str, Any]:
    """Parse a JSON record; ShardError if it is not a JSON object."""
    try:
        record = read_json(content)
    except ValueError as err:
        raise ShardError(f"not a JSON record: {str(path)!r} ({err})") from err
    if not isinstance(record, dict):
        raise ShardError(f"not a JSON record: {str(path)!r}")
    return record


def done_records(out: AnyPath) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yield number and done record of every shard, and whether tar and index stand as it says.

    Few records are held at a time, of the files only the sizes.

    Raises:
        ShardError: A record is not what `render_shard` writes.
    """
    # records first: they are written last
    found = sorted(file_sizes(out, "shard-", ".json"))
    names = [name for name in found if shard_number(name) is not None]
    tars, indices = file_sizes(out, "shard-", ".tar"), file_sizes(out, "shard-", ".parquet")
    for first in range(0, len(names), RECORDS_AT_A_TIME):
        paths = [out / name for name in names[first : first + RECORDS_AT_A_TIME]]
        for path, content in zip(paths, read_many(paths), strict=True):
            if content is None:
                continue  # it was taken back meanwhile
            record = parse_record(content, path)
            _check_record(record, path)
            size = tars.get(f"{path.stem}.tar")
            stands = size is not None and f"{path.stem}.parquet" in indices
            yield cast(int, shard_number(path.name)), record, stands and size == record.get("bytes")


def read_done(out: AnyPath, shard: int) -> dict[str, Any] | None:
    """Return the done record of one shard; None unless tar and index stand as it says."""
    tar = shard_path(out, shard)
    (content,) = read_many([tar.with_suffix(".json")])
    if content is None or not tar.is_file() or not tar.with_suffix(".parquet").is_file():
        return None
    record = parse_record(content, tar.with_suffix(".json"))
    _check_record(record, tar.with_suffix(".json"))
    return record if tar.stat().st_size == record["bytes"] else None


def _check_record(record: Mapping[str, Any], path: AnyPath) -> None:
    """Raise ShardError unless a done record has its counts and digests."""

    def are_counts(found: Any) -> bool:
        return isinstance(found, dict) and all(type(count) is int for count in found.values())

    counts = {name: record.get(name) for name in ("planned", "rendered", "rejected", "bytes")}
    if not are_counts(counts):
        raise ShardError(f"the counts of a done record must be whole numbers ({str(path)!r})")
    for name in ("reasons", "kinds"):
        if not are_counts(record.get(name)):
            raise ShardError(f"a done record must have {name} with counts ({str(path)!r})")
    if not isinstance(record.get("sha256"), str):
        raise ShardError(f"a done record must have a sha256 ({str(path)!r})")


def read_sample(file: int | AnyPath | str, offset: int, size: int) -> ShardSample:
    """Read one sample with one positioned read.

    Args:
        file: Path or URL of the tar, or an open file descriptor.
        offset, size: From the shard's index.

    Raises:
        ShardError: The bytes there are not the members of one sample.
    """
    if isinstance(file, int):
        return parse_sample(os.pread(file, size, offset), size)
    path = to_path(file)
    if not isinstance(path, Path):
        return parse_sample(path.fs.cat_file(path.path, start=offset, end=offset + size), size)
    with open(path, "rb") as tar:
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
        meta = read_json(members.pop("json"))
        (key,) = keys
        if not isinstance(meta, dict):
            raise ValueError("its .json member is not an object")
    except (tarfile.HeaderError, ValueError, KeyError) as err:
        raise ShardError(f"the bytes at a sample's offset are not one sample: {err!r}") from err
    return ShardSample(key, members, meta)

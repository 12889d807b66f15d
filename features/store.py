"""The feature store: one Zarr v3 group of two arrays, and an index table.

    S.zarr/zarr.json       group attributes: the FeatureSpec and its digest
    S.zarr/features        (rows, dim) float16, videos laid end to end
    S.zarr/times           (rows, 3) float64: start, centre, end of each snippet in seconds
    S.zarr/index.parquet   a row per video; written last, its existence means the store is complete
    S.zarr/commits         only while unfinished: a record per finished shard

Both arrays are sharded alike; every chunk carries a crc32c. A shard is written whole, by one
writer, and counts only when its commit record exists, so a killed writer costs one shard
(`writer.py`). This module reads.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from manifests import StoreError, open_table, read_json, read_table, snippets_between

from .arrays import check_read, open_arrays
from .spec import FeatureSpec, canonical_digest

FORMAT_VERSION = 1
INDEX_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("row_start", pa.int64()),
        ("num_snippets", pa.int64()),
        ("duration_seconds", pa.float64()),
        ("fps_num", pa.int32()),
        ("fps_den", pa.int32()),
        ("num_frames", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("digest", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One row of `index.parquet`.

    Attributes:
        video_id: As in the sources table.
        row_start: First row of the video in both arrays.
        num_snippets: Its rows; 0 if it was rejected.
        duration_seconds: Presentation duration of the file.
        fps_num: Average native frame rate, numerator.
        fps_den: Its denominator.
        num_frames: Native frames that were covered.
        status: "ok" or "rejected".
        reason: Why it was rejected, else None.
        digest: sha256 of its feature rows followed by its times, as stored; None if rejected.
    """

    video_id: str
    row_start: int
    num_snippets: int
    duration_seconds: float
    fps_num: int
    fps_den: int
    num_frames: int
    status: str = "ok"
    reason: str | None = None
    digest: str | None = None


def rows_digest(feats_SD: np.ndarray, times_S3: np.ndarray) -> str:
    """Return sha256 of a video's rows as they are stored (float16 and float64, little endian)."""
    sha = hashlib.sha256(np.ascontiguousarray(feats_SD, "<f2").tobytes())
    sha.update(np.ascontiguousarray(times_S3, "<f8").tobytes())
    return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class _Stored:
    """One store on disk, open for reading."""

    path: Path
    spec: FeatureSpec
    index: pa.Table
    features: zarr.Array
    times: zarr.Array
    position_of: dict[str, int]  # of the videos with status "ok"

    def rows(self, video_id: str) -> tuple[int, int]:
        position = self.position_of.get(video_id)
        if position is None:
            raise StoreError(self._absent(video_id))
        start = self.index["row_start"][position].as_py()
        return start, start + self.index["num_snippets"][position].as_py()

    def _absent(self, video_id: str) -> str:
        known = pc.index(self.index["video_id"], video_id).as_py()
        if known < 0:
            return f"video {video_id!r} is not in the store {str(self.path)!r}"
        reason = self.index["reason"][known].as_py()
        return f"video {video_id!r} was rejected from the store {str(self.path)!r}: {reason}"


@dataclass(frozen=True, eq=False)
class _Stream:
    """Some columns of a store on disk, those from `first` to before `end`, under a name."""

    name: str
    stored: _Stored
    first: int
    end: int


class FeatureStore:
    """Read snippet features of videos, by video id; several stores may lie side by side.

    `store[video_id]` is float16 `(S, D)`, C-contiguous; `store.times(video_id)` float64 `(S, 3)`.
    """

    def __init__(self, streams: Sequence[_Stream], video_ids: Sequence[str]) -> None:
        self._streams, self._video_ids = tuple(streams), tuple(video_ids)
        self._stored = tuple(dict.fromkeys(stream.stored for stream in streams))

    @classmethod
    def open(cls, path: Path | str, *beside: Path | str) -> "FeatureStore":
        """Open a finished store, the channels of those `beside` it laid after its own (`concat`).

        Raises:
            StoreError: No store there, one that is not finished, damaged, or of a newer version;
                stores that `concat` refuses.
        """
        opened: FeatureStore = cls._open(Path(path))
        for other in beside:
            opened = opened.concat(cls._open(Path(other)))
        return opened

    @classmethod
    def _open(cls, path: Path) -> Self:
        attributes = read_attributes(path)
        if not (path / "index.parquet").exists():
            raise StoreError(
                f"the store {str(path)!r} is not finished; run the same extraction again"
            )
        spec = FeatureSpec.from_dict(attributes["feature_spec"])
        features, times = open_arrays(path, spec.feature_dim)
        if features.shape[0] != times.shape[0]:
            raise StoreError(
                f"features must have the rows of times, got {features.shape} and {times.shape} "
                f"({str(path)!r})"
            )
        index = _read_index(path, features.shape[0])
        status = index["status"].to_pylist()
        ids = index["video_id"].to_pylist()
        position_of = {ids[i]: i for i in range(len(ids)) if status[i] == "ok"}
        stored = _Stored(path, spec, index, features, times, position_of)
        streams = [_Stream(spec.backbone, stored, 0, spec.feature_dim)]
        return cls(streams, list(position_of))

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Return the ids of the videos that can be read, in order of the sources table."""
        return self._video_ids

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Return the FeatureSpec of every store that lies here, in channel order."""
        return tuple(stored.spec for stored in self._stored)

    @property
    def spec(self) -> FeatureSpec:
        """Return the FeatureSpec of the first stream; all share its time grid."""
        return self._stored[0].spec

    @property
    def feature_dim(self) -> int:
        """Return the length of a row, all streams together."""
        return sum(stream.end - stream.first for stream in self._streams)

    @property
    def channel_ranges(self) -> dict[str, tuple[int, int]]:
        """Return `name: (first, end)` of every stream: its channels in a row, in order.

        A stream has the name that the FeatureSpec gives it, or that of the backbone where a store
        holds one stream only; of equal names the later ones get "-2", "-3".
        """
        ranges, first = {}, 0
        for stream in self._streams:
            ranges[stream.name] = (first, first + stream.end - stream.first)
            first = ranges[stream.name][1]
        return ranges

    @property
    def num_rows(self) -> int:
        """Return the rows of the array of the first stream, padding included."""
        return self._stored[0].features.shape[0]

    @property
    def index(self) -> pa.Table:
        """Return the index table of the first stream, rejected videos included."""
        return self._stored[0].index

    @property
    def path(self) -> Path:
        """Return where the first stream lies."""
        return self._stored[0].path

    @property
    def digest(self) -> str:
        """Return sha256 of what the store says: spec, ids and row digests of every stream."""
        said: list[object] = [
            [
                stored.spec.digest,
                stored.index["video_id"].to_pylist(),
                stored.index["digest"].to_pylist(),
            ]
            for stored in self._stored
        ]
        channels = [(s.stored, c) for s in self._streams for c in range(s.first, s.end)]
        if channels != [(s, c) for s in self._stored for c in range(s.spec.feature_dim)]:
            said.append([[self._stored.index(stored), c] for stored, c in channels])
        return canonical_digest(said)

    def __len__(self) -> int:
        return len(self._video_ids)

    def __contains__(self, video_id: object) -> bool:
        return all(video_id in stored.position_of for stored in self._stored)

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return all rows of a video, float16 `(S, D)`.

        Raises:
            StoreError: The video is not in the store, was rejected, or its rows are damaged.
        """
        return self._read(video_id, *self._stored[0].rows(video_id))

    def video(self, video_id: str) -> StoredVideo:
        """Return the index row of a video (of the first stream); raises StoreError as `[]` does."""
        self._stored[0].rows(video_id)
        position = self._stored[0].position_of[video_id]
        return StoredVideo(**self.index.slice(position, 1).to_pylist()[0])

    def times(self, video_id: str) -> np.ndarray:
        """Return start, centre and end of each snippet in seconds, float64 `(S, 3)`."""
        stored = self._stored[0]
        return _read_rows(stored, stored.times, video_id, *stored.rows(video_id))

    def between(self, video_id: str, t0: float, t1: float) -> np.ndarray:
        """Return the rows whose centre lies in `[t0, t1)` seconds, float16 `(S, D)`."""
        first, _ = self._stored[0].rows(video_id)
        found = snippets_between(self.times(video_id), t0, t1)
        return self._read(video_id, first + found.start, first + found.stop)

    def concat(self, other: "FeatureStore") -> "FeatureStore":
        """Lay another store's channels after these, over the videos that both hold (two-stream).

        Raises:
            StoreError: The time grids differ, a video has other times, or no video is in both.
        """
        here, there = self.spec, other.spec
        if (here.grid, here.fps) != (there.grid, there.fps):
            raise StoreError(
                "stores side by side must have one time grid, but differ in "
                + here.explain(there, ("snippet_len", "snippet_stride", "tail", "fps"))
            )
        shared = [video_id for video_id in self.video_ids if video_id in other]
        if not shared:
            raise StoreError(f"no video is both in {str(self.path)!r} and in {str(other.path)!r}")
        for video_id in shared:
            if not np.array_equal(self.times(video_id), other.times(video_id)):
                raise StoreError(
                    f"video {video_id!r} has other snippet times in {str(other.path)!r}"
                )
        return FeatureStore(_told_apart(self._streams + other._streams), shared)

    def select(self, names: Sequence[str]) -> "FeatureStore":
        """Return the same videos with these streams only, in this order (`("flow", "rgb")`).

        Raises:
            StoreError: There is no stream of that name, or none is named.
        """
        known = {stream.name: stream for stream in self._streams}
        absent = [name for name in names if name not in known]
        if absent or not names:
            raise StoreError(
                f"streams must be among {', '.join(map(repr, known))}, got "
                f"{', '.join(map(repr, absent)) or 'none'} ({str(self.path)!r})"
            )
        return FeatureStore(_told_apart([known[name] for name in names]), self.video_ids)

    def _read(self, video_id: str, first: int, end: int) -> np.ndarray:
        offset, rows = first - self._stored[0].rows(video_id)[0], {}
        for stored in self._stored:
            start = stored.rows(video_id)[0] + offset
            span = (start, start + end - first)
            rows[stored] = _read_rows(stored, stored.features, video_id, *span)
        parts = [rows[stream.stored][:, stream.first : stream.end] for stream in self._streams]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def _told_apart(streams: Sequence[_Stream]) -> list[_Stream]:
    """Return streams with names of their own: the second "rgb" is "rgb-2"."""
    named: dict[str, _Stream] = {}
    for stream in streams:
        numbered = (f"{stream.name}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stream.name], numbered) if name not in named)
        named[name] = replace(stream, name=name)
    return list(named.values())


def _read_rows(
    stored: _Stored, array: zarr.Array, video_id: str, first: int, end: int
) -> np.ndarray:
    check_read(array, stored.path, end - first)
    try:
        return np.asarray(array[first:end])
    except (ValueError, OSError, RuntimeError) as err:
        raise StoreError(
            f"the rows of video {video_id!r} in {str(stored.path)!r} are damaged: {err}"
        ) from err


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the group attributes, or say why this is no feature store."""
    try:
        attributes = read_json((path / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise StoreError(f"{str(path)!r} is not a feature store") from err
    if not isinstance(attributes, dict) or attributes.get("format") != "seamline-features":
        raise StoreError(f"{str(path)!r} is a Zarr group, but not a feature store")
    version = attributes.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise StoreError(
            f"the store {str(path)!r} has format version {version!r}, but this program reads up to "
            f"{FORMAT_VERSION}; update it"
        )
    texts = ("feature_spec_digest", "plan_digest")
    spec = attributes.get("feature_spec")
    if not isinstance(spec, dict) or not all(isinstance(attributes.get(t), str) for t in texts):
        raise StoreError(f"the attributes of the store {str(path)!r} lack its FeatureSpec")
    return attributes


def _read_index(path: Path, num_rows: int) -> pa.Table:
    """Return the index; its videos lie within the `num_rows` rows of the arrays."""
    try:
        file = open_table(pa.BufferReader((path / "index.parquet").read_bytes()))
        if file.schema_arrow.names != INDEX_SCHEMA.names:
            raise StoreError(
                f"the index of the store {str(path)!r} has other columns: {file.schema_arrow.names}"
            )
        index = read_table(file, INDEX_SCHEMA)
    except (OSError, ValueError) as err:
        raise StoreError(f"the index of the store {str(path)!r} is damaged: {err}") from err
    first, number = index["row_start"], index["num_snippets"]
    needed = ("video_id", "row_start", "num_snippets", "status")
    if any(index[name].null_count for name in needed):
        raise StoreError(f"the index of the store {str(path)!r} lacks values of {needed}")
    if len(index) and not (
        pc.min(first).as_py() >= 0
        and 0 <= pc.min(number).as_py() <= pc.max(number).as_py() <= num_rows
        and pc.max(first).as_py() <= num_rows
        and pc.max(pc.add(first, number)).as_py() <= num_rows
    ):
        raise StoreError(f"the index of the store {str(path)!r} places videos outside its rows")
    return index

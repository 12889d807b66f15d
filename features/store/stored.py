"""One feature store on disk: a Zarr v3 group of two arrays, and an index table.

    S.zarr/zarr.json       group attributes: the FeatureSpec and its digest
    S.zarr/features        (rows, dim) float16, videos laid end to end
    S.zarr/times           (rows, 3) float64: start, centre, end of each snippet in seconds
    S.zarr/index.parquet   a row per video; written last, its existence means the store is complete
    S.zarr/commits         only while unfinished: a record per finished shard

Both arrays are sharded alike; every chunk carries a crc32c. A shard is written whole, by one
writer, and counts only when its commit record exists, so a killed writer costs one shard
(`writer.py`). This module opens what is finished; `store.py` is what readers use.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import StoreError, open_table, read_json, read_table

from .arrays import stored_arrays
from .rows import StoredArray
from .spec import FeatureSpec

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
PLACES = ("video_id", "row_start", "num_snippets", "status")  # all that opening needs


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
class StoredFeatures:
    """One finished store on disk.

    Attributes:
        path: Its folder.
        spec: What its rows are.
        content: Bytes of the index file.
        places: The columns `PLACES` of the index.
        features: The rows.
        times: Their times.
        position_of: Row of the index of every video that was not rejected.
    """

    path: Path
    spec: FeatureSpec
    content: bytes
    places: pa.Table
    features: StoredArray
    times: StoredArray
    position_of: dict[str, int]

    @classmethod
    def open(cls, path: Path) -> "StoredFeatures":
        """Open the store at `path`; raises as `FeatureStore.open`."""
        attributes = read_attributes(path)
        try:
            content = (path / "index.parquet").read_bytes()
        except FileNotFoundError as err:
            raise StoreError(
                f"the store {str(path)!r} is not finished; run the same extraction again"
            ) from err
        except OSError as err:
            raise StoreError(f"the index of the store {str(path)!r} is damaged: {err}") from err
        spec = FeatureSpec.from_dict(attributes["feature_spec"])
        if spec.digest != attributes["feature_spec_digest"]:
            raise StoreError(
                f"the FeatureSpec of the store {str(path)!r} is not the one of its digest"
            )
        features, times = stored_arrays(path, spec.feature_dim)
        if features.num_rows != times.num_rows:
            raise StoreError(
                f"features must have the rows of times, got {features.num_rows} and "
                f"{times.num_rows} ({str(path)!r})"
            )
        places = _read_index(path, content, PLACES)
        _check_places(path, places, features.num_rows)
        ids, ok = places["video_id"].to_pylist(), pc.equal(places["status"], "ok").to_numpy()
        position_of = {ids[i]: i for i in np.flatnonzero(ok).tolist()}
        return cls(path, spec, content, places, features, times, position_of)

    @cached_property
    def index(self) -> pa.Table:
        """The whole index, an Arrow table of `INDEX_SCHEMA`, rejected videos included.

        Raises:
            StoreError: A column that opening does not need is damaged.
        """
        return _read_index(self.path, self.content, tuple(INDEX_SCHEMA.names))

    def video(self, video_id: str) -> StoredVideo:
        """Return the index row of a video.

        Raises:
            StoreError: The video is not in the store, or was rejected.
        """
        return StoredVideo(**self.index.slice(self._position(video_id), 1).to_pylist()[0])

    def rows(self, video_id: str) -> tuple[int, int]:
        """Return where the rows of a video begin and end; raises as `video`."""
        position = self._position(video_id)
        start = self.places["row_start"][position].as_py()
        return start, start + self.places["num_snippets"][position].as_py()

    def read_features(self, video_id: str, first: int, end: int) -> np.ndarray:
        """Return the snippets from `first` to before `end` of a video, float16 `(S, D)`.

        Raises:
            StoreError: As `video`, or the rows are damaged.
        """
        return self._checked(video_id, self._read(self.features, video_id, first, end))

    def read_times(self, video_id: str) -> np.ndarray:
        """Return the times of the snippets of a video, float64 `(S, 3)`; raises likewise."""
        first, end = self.rows(video_id)
        return self._checked(video_id, self._read(self.times, video_id, 0, end - first))

    def read_many_features(self, video_ids: Sequence[str]) -> list[np.ndarray]:
        """Return all snippets of each video; raises as `read_features`."""
        return self._read_many(self.features, video_ids)

    def read_many_times(self, video_ids: Sequence[str]) -> list[np.ndarray]:
        """Return the times of all snippets of each video; raises as `read_features`."""
        return self._read_many(self.times, video_ids)

    def _read_many(self, array: StoredArray, video_ids: Sequence[str]) -> list[np.ndarray]:
        spans = [self.rows(video_id) for video_id in video_ids]
        try:
            found = array.read_many(spans)
        except (ValueError, OSError):  # one by one, to say which video it is
            found = [
                self._read(array, video_id, 0, end - first)
                for video_id, (first, end) in zip(video_ids, spans, strict=True)
            ]
        return list(map(self._checked, video_ids, found))

    def _read(self, array: StoredArray, video_id: str, first: int, end: int) -> np.ndarray:
        start = self.rows(video_id)[0]
        try:
            return array.read(start + first, start + end)
        except (ValueError, OSError) as err:
            raise StoreError(
                f"the rows of video {video_id!r} in {str(self.path)!r} are damaged: {err}"
            ) from err

    def _checked(self, video_id: str, rows: np.ndarray) -> np.ndarray:
        """Return rows; those of zeros, as a file that is gone reads, only if the digest has them.

        Raises:
            StoreError: The index says that the video has others.
        """
        if len(rows) and not rows[0].any() and not rows.any():
            first, end = self.rows(video_id)
            feats_SD, times_S3 = (
                self._read(array, video_id, 0, end - first) for array in (self.features, self.times)
            )
            if rows_digest(feats_SD, times_S3) != self.video(video_id).digest:
                raise StoreError(
                    f"the rows of video {video_id!r} in {str(self.path)!r} are damaged: they are "
                    "zeros, as where a file is missing, but the index has another digest"
                )
        return rows

    def _position(self, video_id: str) -> int:
        position = self.position_of.get(video_id)
        if position is not None:
            return position
        known = pc.index(self.index["video_id"], video_id).as_py()
        if known < 0:
            raise StoreError(f"video {video_id!r} is not in the store {str(self.path)!r}")
        reason = self.index["reason"][known].as_py()
        raise StoreError(
            f"video {video_id!r} was rejected from the store {str(self.path)!r}: {reason}"
        )


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


def _read_index(path: Path, content: bytes, names: Sequence[str]) -> pa.Table:
    """Return some columns of the index file of a store."""
    try:
        file = open_table(pa.BufferReader(content))
        if file.schema_arrow.names != INDEX_SCHEMA.names:
            raise StoreError(
                f"the index of the store {str(path)!r} has other columns: {file.schema_arrow.names}"
            )
        return read_table(file, pa.schema([INDEX_SCHEMA.field(name) for name in names]))
    except ValueError as err:
        raise StoreError(f"the index of the store {str(path)!r} is damaged: {err}") from err


def _check_places(path: Path, places: pa.Table, num_rows: int) -> None:
    """Raise StoreError unless all videos lie within the `num_rows` rows of the arrays."""
    first, number = places["row_start"], places["num_snippets"]
    if any(column.null_count for column in places.columns):
        raise StoreError(f"the index of the store {str(path)!r} lacks values of {PLACES}")
    if len(places) and not (
        pc.min(first).as_py() >= 0
        and 0 <= pc.min(number).as_py() <= pc.max(number).as_py() <= num_rows
        and pc.max(first).as_py() <= num_rows
        and pc.max(pc.add(first, number)).as_py() <= num_rows
    ):
        raise StoreError(f"the index of the store {str(path)!r} places videos outside its rows")

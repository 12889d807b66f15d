"""Write a feature store shard by shard, so that a kill at any moment costs one shard."""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import Crc32cCodec

from manifests import StoreError, write_atomic

from .arrays import writable_arrays
from .layout import CHUNK_ROWS, StoreLayout
from .spec import FeatureSpec, canonical_digest
from .stored import FORMAT_VERSION, INDEX_SCHEMA, StoredVideo, read_attributes

DIGESTS = ("plan_digest", "sources_digest")


class StoreWriter:
    """Fill a store shard by shard; opened again after a crash it knows what is missing.

    Args:
        path: Folder of the store; made if it does not exist.
        spec: What its rows are.
        videos: What is planned, in order, `digest` still None.
        layout: Where their rows lie.
        sources_digest: Of what else of the videos decides their rows; "" if nothing does.

    Raises:
        StoreError: The path holds something else, another spec, or other videos.
    """

    def __init__(
        self,
        path: Path | str,
        spec: FeatureSpec,
        videos: Sequence[StoredVideo],
        layout: StoreLayout,
        sources_digest: str = "",
    ) -> None:
        self.path, self.layout = Path(path), layout
        attributes = {
            "format": "seamline-features",
            "format_version": FORMAT_VERSION,
            "feature_spec": spec.to_dict(),
            "feature_spec_digest": spec.digest,
            "plan_digest": canonical_digest([asdict(video) for video in videos]),
            "sources_digest": sources_digest,
        }
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            self._create(attributes, spec)
        self._check(attributes, spec)
        self.shards = ShardWriter(self.path, spec.feature_dim)

    def _create(self, attributes: dict[str, Any], spec: FeatureSpec) -> None:
        if self.path.name in ("", ".."):
            raise StoreError(f"a store must have a name of its own, got {str(self.path)!r}")
        attempt = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.part")
        attempt.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.create_group(attempt, zarr_format=3, attributes=attributes)
        for name, columns, dtype in (
            ("features", spec.feature_dim, "float16"),
            ("times", 3, "float64"),
        ):
            group.create_array(
                name,
                shape=(self.layout.num_rows, columns),
                chunks=(CHUNK_ROWS, columns),
                shards=(self.layout.shard_rows, columns),
                dtype=dtype,
                filters=None,
                compressors=[Crc32cCodec()],
                fill_value=0,
                dimension_names=("row", "feature" if name == "features" else "start_centre_end"),
            )
        (attempt / "commits").mkdir()
        try:
            os.replace(attempt, self.path)
        except OSError:
            shutil.rmtree(attempt)
            if not (self.path / "commits").exists():
                raise  # else another run of the same extraction has just made it

    def _check(self, attributes: dict[str, Any], spec: FeatureSpec) -> None:
        found = read_attributes(self.path)
        if found["feature_spec_digest"] != spec.digest:
            theirs = FeatureSpec.from_dict(found["feature_spec"])
            raise StoreError(
                f"the store {str(self.path)!r} holds features of another spec "
                f"({spec.explain(theirs)}); choose another path"
            )
        # stores that were begun before there was a digest of the sources have none
        if any(found.get(name, attributes[name]) != attributes[name] for name in DIGESTS):
            raise StoreError(
                f"the store {str(self.path)!r} was planned for other videos, or their table has "
                "changed since; choose another path"
            )

    @property
    def finished(self) -> bool:
        """Return whether the index stands, so that nothing is left to do."""
        return (self.path / "index.parquet").exists()

    def missing_shards(self) -> list[int]:
        """Return the shards without a commit record, in order."""
        if self.finished:
            return []
        return [k for k in range(self.layout.num_shards) if not self.shards.is_done(k)]

    def commit(
        self, shard: int, feats_RD: np.ndarray, times_R3: np.ndarray, videos: Sequence[StoredVideo]
    ) -> None:
        """Write one whole shard, then its record, as `ShardWriter.commit` does."""
        self.shards.commit(shard, feats_RD, times_R3, videos)

    def committed(self, shards: Iterable[int]) -> list[dict[str, Any]]:
        """Return the index rows of the videos of finished shards."""
        return [row for shard in shards for row in self.shards.committed(shard)]

    def finish(self) -> None:
        """Write the index from the commit records; afterwards the store can be opened.

        Raises:
            StoreError: A shard is missing.
        """
        if not self.finished:
            missing = self.missing_shards()
            if missing:
                raise StoreError(f"{len(missing)} shards of {str(self.path)!r} are not written yet")
            rows = self.committed(range(self.layout.num_shards))
            sink = pa.BufferOutputStream()
            pq.write_table(
                pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), sink, compression="zstd"
            )
            write_atomic(self.path / "index.parquet", sink.getvalue().to_pybytes())
        commits = self.path / "commits"
        if commits.exists():
            # Of killed writers; not before the end, as another run may be writing the same store.
            for left in [*self.path.rglob("*.partial"), *self.path.rglob(".*.part")]:
                left.unlink(missing_ok=True)
            shutil.rmtree(commits, ignore_errors=True)


class ShardWriter:
    """Write single shards of a store that exists; several may write, but never the same shard.

    Args:
        path: Folder of the store.
        feature_dim: Length of a row.

    Raises:
        StoreError: There is no such store.
    """

    def __init__(self, path: Path | str, feature_dim: int) -> None:
        self._commits = Path(path) / "commits"
        self._features, self._times = writable_arrays(Path(path), feature_dim)

    def commit(
        self, shard: int, feats_RD: np.ndarray, times_R3: np.ndarray, videos: Sequence[StoredVideo]
    ) -> None:
        """Write one whole shard, then its record.

        Args:
            shard: Which one.
            feats_RD: float16 `(shard_rows, dim)`, zeros where no video lies.
            times_R3: float64 `(shard_rows, 3)`.
            videos: The index rows of the videos of this shard, complete, in order.
        """
        rows = slice(shard * len(feats_RD), (shard + 1) * len(feats_RD))
        self._features[rows] = feats_RD
        self._times[rows] = times_R3
        record = json.dumps([asdict(video) for video in videos], allow_nan=False)
        write_atomic(self._path(shard), record.encode())

    def is_done(self, shard: int) -> bool:
        """Return whether a shard has its record."""
        return self._path(shard).exists()

    def committed(self, shard: int) -> list[dict[str, Any]]:
        """Return the index rows of the videos of a finished shard."""
        return json.loads(self._path(shard).read_text())

    def _path(self, shard: int) -> Path:
        return self._commits / f"{shard:06d}.json"

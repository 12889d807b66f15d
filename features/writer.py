"""Write a feature store shard by shard, so that a kill at any moment costs one shard."""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
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


class StoreWriter:
    """Fill a store shard by shard; opened again after a crash it knows what is missing.

    Args:
        path: Folder of the store; made if it does not exist.
        spec: What its rows are.
        videos: What is planned, in order, `digest` still None.
        layout: Where their rows lie.

    Raises:
        StoreError: The path holds something else, another spec, or other videos.
    """

    def __init__(
        self,
        path: Path | str,
        spec: FeatureSpec,
        videos: Sequence[StoredVideo],
        layout: StoreLayout,
    ) -> None:
        self.path, self.layout, self._videos = Path(path), layout, videos
        attributes = {
            "format": "seamline-features",
            "format_version": FORMAT_VERSION,
            "feature_spec": spec.to_dict(),
            "feature_spec_digest": spec.digest,
            "plan_digest": canonical_digest([asdict(video) for video in videos]),
        }
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            self._create(attributes, spec)
        self._check(attributes, spec)
        self._features, self._times = writable_arrays(self.path, spec.feature_dim)
        if not self.finished:  # what a killed writer left half-written under temporary names
            for left in [*self.path.rglob("*.partial"), *self.path.rglob(".*.part")]:
                left.unlink()

    def _create(self, attributes: dict[str, Any], spec: FeatureSpec) -> None:
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
        os.replace(attempt, self.path)

    def _check(self, attributes: dict[str, Any], spec: FeatureSpec) -> None:
        found = read_attributes(self.path)
        if found["feature_spec_digest"] != spec.digest:
            theirs = FeatureSpec.from_dict(found["feature_spec"])
            raise StoreError(
                f"the store {str(self.path)!r} holds features of another spec "
                f"({spec.explain(theirs)}); choose another path"
            )
        if found["plan_digest"] != attributes["plan_digest"]:
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
        return [k for k in range(self.layout.num_shards) if not self._commit_path(k).exists()]

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
        rows = slice(shard * self.layout.shard_rows, (shard + 1) * self.layout.shard_rows)
        self._features[rows] = feats_RD
        self._times[rows] = times_R3
        record = json.dumps([asdict(video) for video in videos], allow_nan=False)
        write_atomic(self._commit_path(shard), record.encode())

    def finish(self) -> None:
        """Write the index from the commit records; afterwards the store can be opened.

        Raises:
            StoreError: A shard is missing.
        """
        if not self.finished:
            missing = self.missing_shards()
            if missing:
                raise StoreError(f"{len(missing)} shards of {str(self.path)!r} are not written yet")
            rows = [row for k in range(self.layout.num_shards) for row in self._committed(k)]
            sink = pa.BufferOutputStream()
            pq.write_table(
                pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), sink, compression="zstd"
            )
            write_atomic(self.path / "index.parquet", sink.getvalue().to_pybytes())
        shutil.rmtree(self.path / "commits", ignore_errors=True)

    def _commit_path(self, shard: int) -> Path:
        return self.path / "commits" / f"{shard:06d}.json"

    def _committed(self, shard: int) -> list[dict[str, Any]]:
        return json.loads(self._commit_path(shard).read_text())

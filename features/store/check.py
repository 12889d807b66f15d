"""Check a feature store against its own records, and sum up what it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from manifests import Progress, StoreError

from .feature_store import FeatureStore
from .layout import CHUNK_ROWS
from .stored import rows_digest


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check found.

    Attributes:
        num_videos: Videos with status "ok" that were checked.
        num_rejected: Videos that the extraction had rejected; they have no rows.
        num_rows: Rows that were read.
        damaged: (video_id, reason) of every video whose rows are not what the index says.
    """

    num_videos: int
    num_rejected: int
    num_rows: int
    damaged: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is damaged."""
        return not self.damaged


def verify_store(path: Path | str) -> VerifyReport:
    """Read every row of a store: chunk checksums, index bounds, digests, and finite values.

    Raises:
        StoreError: There is no readable store at all.
    """
    store = FeatureStore.open(path)
    damaged: list[tuple[str, str]] = []
    num_rows, array_rows = 0, store.num_rows
    with Progress("verify", "videos", len(store)) as progress:
        previous_end = 0
        for row in store.index.to_pylist():
            if row["status"] != "ok":
                continue
            start, end = row["row_start"], row["row_start"] + row["num_snippets"]
            if start % CHUNK_ROWS or start < previous_end or end > array_rows:
                damaged.append(
                    (row["video_id"], f"rows {start} to {end} are not a place of its own")
                )
            elif reason := _rows_reason(store, row["video_id"], row["digest"]):
                damaged.append((row["video_id"], reason))
            previous_end = max(previous_end, end)
            num_rows += row["num_snippets"]
            progress.advance()
    return VerifyReport(len(store), store.index.num_rows - len(store), num_rows, tuple(damaged))


def _rows_reason(store: FeatureStore, video_id: str, digest: str) -> str | None:
    """Return what is wrong with the rows of a video, or None."""
    try:
        feats_SD, times_S3 = store[video_id], store.times(video_id)
    except StoreError as err:
        return str(err)
    if rows_digest(feats_SD, times_S3) != digest:
        return "its rows have another digest than the index says"
    finite_S = np.isfinite(feats_SD).all(axis=1) & np.isfinite(times_S3).all(axis=1)
    if not finite_S.all():
        return f"{int((~finite_S).sum())} of {len(finite_S)} rows are not finite"
    return None


def describe_store(path: Path | str) -> dict[str, Any]:
    """Return what a person wants to know of a store first, as JSON values.

    Raises:
        StoreError: There is no readable store.
    """
    store = FeatureStore.open(path)
    index, spec = store.index, store.spec
    accepted = index.filter(pc.equal(index["status"], "ok"))
    rejected = index.filter(pc.not_equal(index["status"], "ok"))
    reasons = pc.value_counts(rejected["reason"]).to_pylist()
    return {
        "path": str(path),
        "videos": accepted.num_rows,
        "rejected": rejected.num_rows,
        "rejected_reasons": {str(item["values"]): item["counts"] for item in reasons},
        "snippets": pc.sum(accepted["num_snippets"]).as_py() or 0,
        "feature_dim": store.feature_dim,
        "streams": store.channel_ranges,
        "hours": round((pc.sum(accepted["duration_seconds"]).as_py() or 0.0) / 3600, 3),
        "num_bytes": sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        "row_means": f"{spec.snippet_len} frames every {spec.snippet_stride}, sampled at "
        + (f"{spec.fps} frames/s" if spec.fps else "the video's own rate")
        + f", tail {spec.tail!r}",
        "store_digest": store.digest,
        "feature_spec_digest": spec.digest,
        "feature_spec": spec.to_dict(),
    }

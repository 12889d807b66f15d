"""Write small feature stores of given rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from features import FeatureSpec, FeatureStore, StoredVideo, rows_digest
from features.store.layout import plan_layout
from features.store.writer import StoreWriter

SPEC = FeatureSpec(
    backbone="toy",
    backbone_arguments={},
    weights_digest="0" * 64,
    feature_dim=1,
    snippet_len=8,
    snippet_stride=4,
    height=16,
    width=16,
    short_side=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
)


def even_times(num: int, stride_seconds: float = 1.0, length_seconds: float = 1.0) -> np.ndarray:
    """Return start, centre and end of `num` snippets, the first of which starts at 0."""
    start_S = np.arange(num) * stride_seconds
    return np.stack([start_S, start_S + length_seconds / 2, start_S + length_seconds], axis=1)


def write_store(
    path: Path, rows: Mapping[str, tuple[np.ndarray, np.ndarray]], **changes: Any
) -> FeatureStore:
    """Write features `(S, D)` and times `(S, 3)` of videos by id; `changes` are of the spec."""
    dim = max(feats_SD.shape[1] for feats_SD, _ in rows.values())
    layout = plan_layout([len(feats_SD) for feats_SD, _ in rows.values()])
    videos = [
        StoredVideo(
            video_id, int(first), len(times_S3), float(times_S3[-1, 2]), 10, 1, 8 * len(times_S3)
        )
        for (video_id, (_, times_S3)), first in zip(rows.items(), layout.row_start_V, strict=True)
    ]
    writer = StoreWriter(path, replace(SPEC, feature_dim=dim, **changes), videos, layout)
    for shard in writer.missing_shards():
        feats_RD = np.zeros((layout.shard_rows, dim), np.float16)
        times_R3, done = np.zeros((layout.shard_rows, 3)), []
        for position in layout.videos_of(shard):
            video = videos[position]
            first = video.row_start - shard * layout.shard_rows
            own = slice(first, first + video.num_snippets)
            feats_RD[own], times_R3[own] = rows[video.video_id]
            done.append(replace(video, digest=rows_digest(feats_RD[own], times_R3[own])))
        writer.commit(shard, feats_RD, times_R3, done)
    writer.finish()
    return FeatureStore.open(path)

"""Stores and annotations for the tests of exports: every kind of grid, known rows, known times."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from test_store import SPEC

from features import FeatureSpec, FeatureStore, StoredVideo, rows_digest
from features.annotations import AnnotatedSegment, Annotations
from features.store.layout import plan_layout
from features.store.writer import StoreWriter
from manifests import sample_frames

CLASSES = ("run_fast", "jump", "never")
I3D_SPEC = replace(SPEC, snippet_len=16, snippet_stride=4, feature_dim=8)


def pts_of(num_frames: int, fps: Fraction) -> np.ndarray:
    """Return when each frame of a video of constant rate presents."""
    return np.arange(num_frames) * fps.denominator / fps.numerator


def feats_of(video_id: str, num: int, dim: int) -> np.ndarray:
    """Return rows that depend on the id alone."""
    return np.random.default_rng(list(video_id.encode())).normal(size=(num, dim)).astype(np.float16)


def make_timed_store(
    path: Path,
    pts: Mapping[str, np.ndarray],
    spec: FeatureSpec = I3D_SPEC,
    fps: Fraction = Fraction(25),
) -> FeatureStore:
    """Write a store of videos with these presentation times, `1 / fps` long at their end."""
    kept = {}
    for video_id, pts_N in pts.items():
        end = float(pts_N[-1] + 1 / fps)
        times_S3 = spec.grid.times(sample_frames(pts_N, end, spec.sampling_fps))
        kept[video_id] = (end, len(pts_N), times_S3)
    layout = plan_layout([len(times_S3) for _, _, times_S3 in kept.values()], 4096)
    videos = [
        StoredVideo(
            *(video_id, int(layout.row_start_V[i]), len(times_S3), end),
            *(fps.numerator, fps.denominator, num_frames),
        )
        for i, (video_id, (end, num_frames, times_S3)) in enumerate(kept.items())
    ]
    writer = StoreWriter(path, spec, videos, layout)
    for shard in writer.missing_shards():
        feats_RD = np.zeros((layout.shard_rows, spec.feature_dim), np.float16)
        times_R3, done = np.zeros((layout.shard_rows, 3)), []
        for position in layout.videos_of(shard):
            video = videos[position]
            times_S3 = kept[video.video_id][2]
            feats_SD = feats_of(video.video_id, len(times_S3), spec.feature_dim)
            first = video.row_start - shard * layout.shard_rows
            feats_RD[first : first + len(feats_SD)] = feats_SD
            times_R3[first : first + len(feats_SD)] = times_S3
            done.append(replace(video, digest=rows_digest(feats_SD, times_S3)))
        writer.commit(shard, feats_RD, times_R3, done)
    writer.finish()
    return FeatureStore.open(path)


def make_annotations(**subsets: str | None) -> Annotations:
    """Return two segments per named video, of the first two classes."""
    segments = (AnnotatedSegment(0.4, 2.6, 1), AnnotatedSegment(1.25, 3.0, 0))
    return Annotations(CLASSES, dict.fromkeys(subsets, segments), subsets)


# 403 frames at 25 fps: 98 rows, the last one partial; 40 frames: 7 rows.
PTS = {
    "long": pts_of(403, Fraction(25)),
    "a/b c": pts_of(40, Fraction(25)),
    "bare": pts_of(100, Fraction(25)),
}
SUBSETS = {"long": "val", "a/b c": "test", "gone": "test"}


def named_streams(spec: FeatureSpec, **dims: int) -> FeatureSpec:
    """Return a spec of several streams."""
    streams = tuple({"name": name, "feature_dim": dim} for name, dim in dims.items())
    return replace(spec, feature_dim=sum(dims.values()), streams=streams)

"""Six small videos that several test modules share, and what the sources of a plan row show."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from made_dataset import make_sources
from made_videos import MadeVideos

from manifests import SourceTable, SourceVideo
from synth import View, apply_view, read_frames
from synth.augment import Augment, augment_frame
from synth.plan import Row
from synth.render import RenderedSample, render_samples


def six_sources(made: MadeVideos) -> Path:
    """Return the table of two videos of 40 frames in each of three classes, made once a session."""
    folder = made.path("six")
    table = folder / "sources.parquet"
    return table if table.exists() else make_sources(folder, per_class=2)


@cache
def native_frames(video: SourceVideo) -> np.ndarray:
    """Return all frames of a small video."""
    return read_frames(video, np.arange(video.num_frames))


def shown_clip(source: Mapping[str, Any], videos: Mapping[str, SourceVideo]) -> np.ndarray:
    """Return the frames of a source of a plan row, each read, viewed and augmented by itself."""
    frames_THWC = native_frames(videos[source["video_id"]])
    numbers = [
        source["start_frame"] + k * source["frame_stride"] for k in range(source["num_frames"])
    ]
    frames = [apply_view(frames_THWC[number], View(**source["view"])) for number in numbers]
    if source["augment"] is not None:
        frames = [augment_frame(frame, Augment(**source["augment"])) for frame in frames]
    return np.stack(frames)


def rendered_raw(rows: Sequence[Row], table: SourceTable) -> list[RenderedSample]:
    """Render drawn rows (trees as objects) without loss; every one of them must render."""
    written = [row | {"tree": json.dumps(row["tree"])} for row in rows]
    samples = []
    for result in render_samples(written, {video.video_id: video for video in table}, "raw"):
        assert isinstance(result, RenderedSample), result
        samples.append(result)
    assert len(samples) == len(rows)
    return samples

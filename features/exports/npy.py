"""Export one `.npy` per video, with its times beside it: what most readers of features accept.

<video_id>.npy    float32 (S, D), C order, time first
<video_id>.json   the times of the rows, and the numbers a tool's configuration asks for
store.json        FeatureSpec, digests, and the file of every video id
README.md         how row i maps to seconds
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manifests import StoreError, write_atomic

from ..store.feature_store import FeatureStore
from .report import ExportReport, claim_folder, file_name, folder_bytes
from .request import ExportRequest

UNUSED = "npy has no annotation file: nothing is made of the segments"


def export_npy(request: ExportRequest) -> ExportReport:
    """Write every readable video of the store; `store.json` comes last.

    Raises:
        StoreError: Rows are damaged, or a file read back differs from the store.
        UsageError: A video id cannot be a file name.
    """
    store, out = request.store, request.out
    claim_folder(out)
    names = {video_id: _name(video_id) for video_id in store.video_ids}
    num_rows = 0
    for video_id, name in names.items():
        feats_SD = np.ascontiguousarray(store[video_id], np.float32)
        with open(out / f"{name}.npy", "wb") as file:
            np.save(file, feats_SD, allow_pickle=False)
        times_S3 = store.times(video_id)
        _write_json(out / f"{name}.json", _describe_video(store, video_id, times_S3))
        _check(out / name, feats_SD, times_S3)
        num_rows += len(feats_SD)
    write_atomic(out / "README.md", _readme(request).encode())
    _write_json(
        out / "store.json",
        {
            "format": "npy",
            "dtype": "float32",
            "feature_dim": store.feature_dim,
            "channel_ranges": {name: list(span) for name, span in store.channel_ranges.items()},
            "store_digest": store.digest,
            "feature_specs": [spec.to_dict() for spec in store.specs],
            "files": {video_id: f"{name}.npy" for video_id, name in names.items()},
        },
    )
    notes = () if request.annotations is None else (UNUSED,)
    return ExportReport("npy", out, len(names), num_rows, folder_bytes(out), notes)


def _name(video_id: str) -> str:
    """Return the name of a video's files: another one for "store", as `store.json` is taken."""
    name = file_name(video_id)
    return "%73tore" if name == "store" else name


def _describe_video(store: FeatureStore, video_id: str, times_S3: np.ndarray) -> dict[str, Any]:
    video, spec = store.video(video_id), store.spec
    native_fps = video.fps_num / video.fps_den
    return {
        "video_id": video_id,
        "num_snippets": len(times_S3),
        "start_seconds": times_S3[:, 0].tolist(),
        "centre_seconds": times_S3[:, 1].tolist(),
        "end_seconds": times_S3[:, 2].tolist(),
        "duration_seconds": video.duration_seconds,
        "fps": native_fps if spec.sampling_fps is None else float(spec.sampling_fps),
        "native_fps": native_fps,
        "num_frames": video.num_frames,
        "snippet_len": spec.snippet_len,
        "snippet_stride": spec.snippet_stride,
        "tail": spec.tail,
        "alignment": spec.alignment,
    }


def _check(stem: Path, feats_SD: np.ndarray, times_S3: np.ndarray) -> None:
    """Read both files back as another program would; raises StoreError if they differ."""
    read_SD = np.load(stem.with_name(f"{stem.name}.npy"), mmap_mode="r", allow_pickle=False)
    stated: Mapping[str, Any] = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    if read_SD.shape != feats_SD.shape or not np.array_equal(read_SD, feats_SD):
        raise StoreError(
            f"{stem.name}.npy does not read back as it was written ({str(stem.parent)!r})"
        )
    if (
        stated["num_snippets"] != len(read_SD)
        or stated["centre_seconds"] != times_S3[:, 1].tolist()
    ):
        raise StoreError(f"{stem.name}.json does not fit its rows ({str(stem.parent)!r})")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def _readme(request: ExportRequest) -> str:
    store, spec = request.store, request.store.spec
    rate = "the video's own frame rate" if spec.fps is None else f"{spec.fps} frames per second"
    channels = ", ".join(
        f"{first}-{end - 1} {name}" for name, (first, end) in store.channel_ranges.items()
    )
    tail = (
        "The last snippet may be partial: its last frame is repeated to fill it, and its times\n"
        "cover the real frames only."
        if spec.tail == "pad"
        else "Frames after the last full snippet have no row."
    )
    lead = request.offset - spec.snippet_len / 2  # 0, or half a window before
    shift = f" - {-lead:g}" if lead else ""
    rows = (
        f"Row `i` was computed from {spec.snippet_len} frames, sampled at {rate}, starting at\n"
        f"sampled frame `i * {spec.snippet_stride}{shift}` (windows are {spec.alignment}-aligned)."
        if spec.pooling == "snippet" and spec.prediction is None
        else f"Row `i` is sampled frame `i`, at {rate}: the mean over all windows that hold it."
    )
    return f"""# Snippet features of {len(store)} videos

One `.npy` per video: float32, shape `(S, {store.feature_dim})`, C order, time first. The name is
the video id; characters that a file name cannot hold are percent-encoded (`store.json` maps ids to
files). Channels: {channels}.

## Which seconds row i stands for
{rows}
{tail}

The `.json` beside each file holds the exact `start_seconds`, `centre_seconds` and `end_seconds` of
every row, from the presentation times of the video: use those. Where a tool wants a formula, with
`fps` of that file and a video of constant rate that starts at 0:

    start  = (i * {spec.snippet_stride}{shift}) / fps
    centre = (i * {spec.snippet_stride} + {request.offset:g}) / fps

so the feature stride is {spec.snippet_stride} frames, the window {spec.snippet_len} frames, and the
offset of the first centre {request.offset:g} frames.

Backbone: {", ".join(s.backbone for s in store.specs)}. Everything else that made these rows is in
`store.json`, under `feature_specs`.
"""

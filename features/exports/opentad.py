"""Export for OpenTAD, and the detectors it bundles.

features/<prefix><video>.npy   float32 (S, D), C order, of two streams rgb before flow
annotations.json               {database: {video: {subset, duration, fps, frame, annotations}}}
category_idx.txt               class names, one a line
missing_files.txt              the block list of the tool's configurations; may be empty
opentad.py                     the dataset part of the tool's configuration

Source: sming256/OpenTAD, `opentad/datasets/{thumos,anet}.py`.
"""

import json
from typing import Any

import numpy as np

from .clock import RowSeconds, bin_centres, check_ends, measure_clock, require_formula
from .files import write_text
from .finish import finish_export
from .report import ExportReport
from .request import ExportRequest
from .segment_files import stated_frames, write_features_and_database

MISFITS = (
    "The THUMOS datasets of the tool round ground truth down to whole frames, so that a boundary "
    "moves by up to 1 / fps.",
    "`sample_stride=k` takes rows 0, k, 2 k, ...; the stride of the formula is then k times so.",
    "Folders given as a list are concatenated on channels; where lengths differ the shorter one is "
    "stretched, not cut. Here all streams lie in one file.",
    "The tool resizes for ActivityNet through float16: row counts above 2048 are then not exact.",
)
PIPELINE = """\
        pipeline=[
            dict(type="LoadFeats", feat_format="npy"{prefix}),
            dict(type="ConvertToTensor", keys=[{keys}]),
            dict(type="Rearrange", keys=["feats"], ops="t c -> c t"),
            dict(type="Collect", inputs="feats", keys=[{collected}]),
        ],
"""


def export_opentad(request: ExportRequest) -> ExportReport:
    """Write a folder that OpenTAD's datasets read.

    Raises:
        UsageError: The formula `(i * feature_stride + offset_frames) / fps` does not hold.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    clock = measure_clock(request, _row_seconds(request))
    if request.resize is None:
        require_formula(request, clock)
    write_features_and_database(request)
    write_text(request.out / "opentad.py", _config(request))
    _check(request)
    return finish_export(request, "Features for OpenTAD", _mapping(request), MISFITS, clock)


def _row_seconds(request: ExportRequest) -> RowSeconds:
    if request.resize is not None:
        return bin_centres(request)
    return lambda video: (
        (np.arange(video.num_rows) * request.stride + request.offset)
        * video.duration_seconds
        / stated_frames(video)
    )


def _timing(request: ExportRequest) -> dict[str, Any]:
    if request.resize is not None:
        return {"resize_length": request.resize}
    return {
        "feature_stride": request.stride,
        "sample_stride": 1,
        "offset_frames": int(request.offset) if request.offset % 1 == 0 else request.offset,
    }


def _config(request: ExportRequest) -> str:
    train, score = request.splits
    kind = "ThumosPaddingDataset" if request.resize is None else "AnetResizeDataset"
    rates = sorted({video.fps for video in request.videos})
    said = f"{rates[0]:g}" if len(rates) == 1 else "per video"
    return (
        "# Paths are relative to this folder; mmengine configurations are Python.\n"
        f"# snippets: {request.grid_in_words}\n"
        f"# fps = frame / duration of annotations.json: {said}.\n"
        f"# input channels of the model: {request.store.feature_dim}\n"
        'annotation_path = "annotations.json"\n'
        'class_map = "category_idx.txt"\n'
        'data_path = "features/"\n'
        'block_list = "missing_files.txt"\n\n'
        "dataset = dict(\n"
        f"{_part(request, 'train', kind, train)}"
        f"{_part(request, 'val', kind, score)}"
        f"{_part(request, 'test', kind, score)}"
        ")\n\n"
        "evaluation = dict(\n"
        '    type="mAP",\n'
        f'    subset="{score}",\n'
        "    tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7],\n"
        "    ground_truth_filename=annotation_path,\n"
        ")\n"
    )


def _part(request: ExportRequest, name: str, kind: str, subset: str) -> str:
    timing = "".join(f"        {key}={value},\n" for key, value in _timing(request).items())
    labels = [] if name == "test" else ["gt_segments", "gt_labels"]
    quoted = [f'"{word}"' for word in labels]
    pipeline = PIPELINE.format(
        prefix=f', prefix="{request.prefix}"' if request.prefix else "",
        keys=", ".join(['"feats"', *quoted]),
        collected=", ".join(['"masks"', *quoted]),
    )
    return (
        f"    {name}=dict(\n"
        f'        type="{kind}",\n'
        "        ann_file=annotation_path,\n"
        f'        subset_name="{subset}",\n'
        "        block_list=block_list,\n"
        "        class_map=class_map,\n"
        "        data_path=data_path,\n"
        "        filter_gt=False,\n"
        f"{'        test_mode=True,' + chr(10) if name == 'test' else ''}"
        f"{timing}{pipeline}"
        "    ),\n"
    )


def _mapping(request: ExportRequest) -> str:
    if request.resize is not None:
        return (
            f"Every video was resized to {request.resize} rows by linear interpolation\n"
            "(align_corners=False). OpenTAD takes grid position `g` to be at\n\n"
            f"    t = g * duration / {request.resize}\n\n"
            "so row `i`, from `g = i` to `i + 1`, has its middle at `(i + 0.5) * duration / "
            f"{request.resize}`."
        )
    return (
        "OpenTAD takes row `i` to be at\n\n"
        f"    t = (i * {request.stride} + {request.offset:g}) / fps\n\n"
        "with `feature_stride`, `offset_frames` (the middle of the first window) as `opentad.py`\n"
        "says, and `fps = frame / duration` of `annotations.json`, which counts the frames that\n"
        "snippets were cut from."
    )


def _check(request: ExportRequest) -> None:
    """Read everything again as the tool's datasets do, and compare rows and times."""
    database = {}
    if request.annotations is not None:
        database = json.loads((request.out / "annotations.json").read_text())["database"]
    for video in request.videos:
        path = request.out / "features" / f"{video.key}.npy"
        read_SD = np.load(path, mmap_mode="r", allow_pickle=False)
        last = len(read_SD) - 1
        stated = database.get(request.known_as(video.key))
        duration = stated["duration"] if stated else video.duration_seconds
        if request.resize is None:
            fps = stated["frame"] / duration if stated else video.fps
            ends = (request.offset / fps, (last * request.stride + request.offset) / fps)
        else:
            ends = (0.5 * duration / len(read_SD), (last + 0.5) * duration / len(read_SD))
        seconds_S = _row_seconds(request)(video)
        expected = (request.num_rows(video), seconds_S[0], seconds_S[-1])
        check_ends(request, video, (len(read_SD), *ends), expected)

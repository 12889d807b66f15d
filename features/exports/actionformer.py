"""Export for ActionFormer and what descends from it (TriDet, TemporalMaxer, DyFADet, ...).

features/<prefix><video>.npy   float32 (S, D), C order, of two streams rgb before flow
annotations.json               {database: {video: {subset, duration, fps, frame, annotations}}}
category_idx.txt               class names; a label's id is its line, from 0
actionformer.yaml              the dataset part of the tool's configuration

Source: happyharrycn/actionformer_release, `libs/datasets/{thumos14,anet}.py`.
"""

import json
from typing import Any

import numpy as np

from .clock import (
    RowSeconds,
    bin_centres,
    centres_by_formula,
    check_ends,
    measure_clock,
    require_formula,
)
from .files import write_text
from .finish import finish_export
from .report import ExportReport
from .request import ExportRequest
from .segment_files import occurring_classes, write_features_and_database

FPN_DIVISOR = 576  # 32 (coarsest level) * 18 (window of 19): max_seq_len must be a multiple of it
LONGEST_INPUT = 2304  # max_seq_len of the tool's THUMOS'14 configuration
MISFITS = (
    "The THUMOS loader skips annotated videos without a feature file; the ActivityNet and EPIC "
    "loaders fail on them.",
    "Two-stream models expect rgb before flow: streams of these names are in that order here, "
    "others in the order of the store.",
    "`downsample_rate: k` takes rows 0, k, 2 k, ...; the stride of the formula is then k times so.",
    "The tool removes annotations of one class whose ends lie within 0.001 s of another's.",
)


def export_actionformer(request: ExportRequest) -> ExportReport:
    """Write a folder that ActionFormer's loaders read.

    Raises:
        UsageError: The formula `(i * feat_stride + num_frames / 2) / fps` does not hold.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    clock = measure_clock(request, _row_seconds(request))
    if request.resize is None:
        require_formula(request, clock)
    write_features_and_database(request)
    config = dataset_config(request)
    write_text(request.out / "actionformer.yaml", _yaml(request, config))
    _check(request, config)
    return finish_export(request, "Features for ActionFormer", _mapping(request), MISFITS, clock)


def _row_seconds(request: ExportRequest) -> RowSeconds:
    return centres_by_formula(request) if request.resize is None else bin_centres(request)


def dataset_config(request: ExportRequest) -> dict[str, Any]:
    """Return the values of the tool's `dataset` section."""
    rates = {video.fps for video in request.videos}
    longest = max((request.num_rows(video) for video in request.videos), default=1)
    padded = -(-longest // FPN_DIVISOR) * FPN_DIVISOR
    is_resized = request.resize is not None
    return {
        "json_file": "annotations.json",
        "feat_folder": "features",
        "file_prefix": request.prefix or "",
        "file_ext": ".npy",
        "num_classes": len(occurring_classes(request)),
        "input_dim": request.store.feature_dim,
        "feat_stride": -1 if is_resized else request.stride,
        "num_frames": -1 if is_resized else int(2 * request.offset),
        "default_fps": rates.pop() if len(rates) == 1 else None,
        "downsample_rate": 1,
        "force_upsampling": False,
        "max_seq_len": request.resize or min(padded, LONGEST_INPUT),
    }


def _yaml(request: ExportRequest, config: dict[str, Any]) -> str:
    train, score = request.splits
    # JSON scalars are YAML scalars.
    lines = [f"  {name}: {json.dumps(value)}\n" for name, value in config.items()]
    return (
        "# Paths are relative to this folder. default_fps null: the fps of annotations.json.\n"
        f"# snippets: {request.grid_in_words}\n"
        f"dataset_name: {'thumos' if request.resize is None else 'anet'}\n"
        f"train_split: ['{train}']\n"
        f"val_split: ['{score}']\n"
        f"dataset:\n{''.join(lines)}"
    )


def _mapping(request: ExportRequest) -> str:
    if request.resize is not None:
        return (
            f"Every video was resized to {request.resize} rows by linear interpolation\n"
            "(align_corners=False). With `feat_stride: -1` the tool takes row `i` to be at\n\n"
            f"    t = (i + 0.5) * duration / {request.resize}"
        )
    return (
        "ActionFormer takes row `i` to be the middle of a window:\n\n"
        f"    t = (i * {request.stride} + 0.5 * {2 * request.offset:g}) / fps\n\n"
        "with `feat_stride`, `num_frames` and `default_fps` (null: the fps of `annotations.json`)\n"
        "as `actionformer.yaml` says. fps counts the frames that snippets were cut from."
    )


def _check(request: ExportRequest, config: dict[str, Any]) -> None:
    """Read everything again as the tool's loaders do, and compare rows and times."""
    database = {}
    if request.annotations is not None:
        database = json.loads((request.out / config["json_file"]).read_text())["database"]
    for video in request.videos:
        name = request.known_as(video.key)
        file = f"{config['file_prefix']}{name}{config['file_ext']}"
        path = request.out / config["feat_folder"] / file
        read_SD = np.load(path, mmap_mode="r", allow_pickle=False)
        stated = database.get(name, {"fps": video.fps, "duration": video.duration_seconds})
        fps = config["default_fps"] or stated["fps"]
        stride, window = config["feat_stride"], config["num_frames"]
        if stride <= 0:
            stride = window = stated["duration"] * fps / config["max_seq_len"]
        ends = (0.5 * window / fps, ((len(read_SD) - 1) * stride + 0.5 * window) / fps)
        seconds_S = _row_seconds(request)(video)
        expected = (request.num_rows(video), seconds_S[0], seconds_S[-1])
        check_ends(request, video, (len(read_SD), *ends), expected)

"""Exports for tools that read 100 equal bins of a video: G-TAD on ActivityNet, BMN, mmaction2.

gtad-anet   csv_mean_100.hdf5, a dataset (100, D) per video; opts.txt
bmn         csv_mean_100/<video>.csv, a header f0,f1,... and 100 rows; opts.txt
mmaction2   csv_mean_100/<video>.csv; mmaction2.py

The first two come with `video_info_new.csv`, `anet_anno_action.json` and the ground truth of the
ActivityNet evaluator, the last with `anet_anno_train.json` and `anet_anno_val.json`.

Sources: frostinassiky/gtad, branch `anet`, `gtad_lib/dataset.py`; JJBOY/BMN-Boundary-Matching-
Network `dataset.py`, `data_process.py`; open-mmlab/mmaction2 `ActivityNetDataset`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from manifests import UsageError

from .clock import check_ends, measure_clock
from .files import (
    num_csv_rows,
    open_hdf5,
    write_dataset,
    write_feature_csv,
    write_json,
    write_table,
    write_text,
)
from .finish import finish_export
from .report import ExportReport, claim_folder
from .request import ExportedVideo, ExportRequest
from .rescale import bsn_bins, mmaction2_bins

NUM_BINS = 100
RULES = ("jjboy", "mmaction2")
CONV_GROUPS = 4  # of the first convolution of BMN and G-TAD
INFO_COLUMNS = ("video", "numFrame", "seconds", "fps", "rfps", "subset", "featureFrame")
MMACTION2_CONFIG = """\
# Paths are relative to this folder.
# snippets: {snippets}
dataset_type = "ActivityNetDataset"
data_root = "csv_mean_100/"
ann_file_train = "anet_anno_train.json"
ann_file_val = "anet_anno_val.json"
ann_file_test = "anet_anno_val.json"
train_dataset = dict(
    type=dataset_type,
    ann_file=ann_file_train,
    data_prefix=dict(video=data_root),
)
model = dict(type="BMN", temporal_dim=100, feat_dim={feature_dim})
"""


@dataclass(frozen=True, slots=True)
class BinReader:
    """One of the three tools.

    Attributes:
        title: For the README.
        rule: How it rescales by habit.
        reported_seconds: The duration by which it turns its results into seconds.
        misfits: What it does otherwise.
    """

    title: str
    rule: str
    reported_seconds: Callable[[ExportedVideo], float]
    misfits: tuple[str, ...]


def _floored_seconds(video: ExportedVideo) -> float:
    return video.num_frames // 16 * 16 / video.num_frames * video.duration_seconds


ROUNDING = (
    "The tool turns its results into seconds with floor(frames / 16) * 16 / frames * duration, not "
    "with the duration it trained with."
)
CLASS_SCORES = (
    "Results are proposals: detection needs class scores of whole videos from another classifier."
)
READERS = {
    "gtad-anet": BinReader(
        "Features for G-TAD on ActivityNet (branch anet)",
        "jjboy",
        lambda video: video.duration_seconds,
        (
            "The loader resizes to 100 rows whatever comes; here that changes nothing.",
            f"{CLASS_SCORES} The tool takes them from `cuhk_val_simp_share.json`.",
        ),
    ),
    "bmn": BinReader(
        "Features for BMN (JJBOY) and BSN", "jjboy", _floored_seconds, (ROUNDING, CLASS_SCORES)
    ),
    "mmaction2": BinReader(
        "Features for BMN and BSN of mmaction2",
        "mmaction2",
        _floored_seconds,
        (
            ROUNDING,
            "The tool cuts the first two characters off every video name in its results.",
            "Numbers have the digits of float32; the tool's own script writes four decimals.",
        ),
    ),
}


def export_hundred_bins(request: ExportRequest) -> ExportReport:
    """Write 100 rows per video for the tool that `request.format` names.

    Raises:
        UsageError: The rule or the prefix is none the tool takes, or the channels do not divide by
            four.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    reader = READERS[request.format]
    request = replace(
        request,
        prefix="v_" if request.prefix is None else request.prefix,
        rule=request.rule or reader.rule,
    )
    _check_request(request)
    clock = measure_clock(request, _tool_seconds(request), _true_seconds(request))
    claim_folder(request.out)
    _write_features(request)
    if request.annotations is not None:
        if request.format == "mmaction2":
            _write_mmaction2_annotations(request)
        else:
            _write_bsn_annotations(request)
    _write_config(request)
    _check(request)
    return finish_export(
        request, reader.title, _mapping(request), (*reader.misfits, _words(request)), clock
    )


def _check_request(request: ExportRequest) -> None:
    if request.rule not in RULES:
        raise UsageError(f"--rule must be one of {', '.join(RULES)}, got {request.rule!r}")
    if len(request.prefix or "") != 2:
        raise UsageError(
            f"{request.format} cuts two characters off every video name, so --prefix must be two "
            f"characters, got {request.prefix!r}"
        )
    if request.store.feature_dim % CONV_GROUPS:
        raise UsageError(
            f"the first convolution of {request.format} has {CONV_GROUPS} groups, so the channels "
            f"must divide by {CONV_GROUPS}, got {request.store.feature_dim}; extract with another "
            "feature_dim, or lay stores side by side (--concat)"
        )


def _bins(
    request: ExportRequest, video: ExportedVideo, rows_SD: np.ndarray, centres_S: np.ndarray
) -> np.ndarray:
    if request.rule == "mmaction2":
        return mmaction2_bins(rows_SD, NUM_BINS)
    return bsn_bins(rows_SD, centres_S, request.covered_seconds(video), NUM_BINS)


def _tool_seconds(request: ExportRequest) -> Callable[[ExportedVideo], np.ndarray]:
    middles_B = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
    return lambda video: middles_B * request.covered_seconds(video)


def _true_seconds(request: ExportRequest) -> Callable[[ExportedVideo], np.ndarray]:
    """Return the mean time of the snippets that a bin averages; NaN for bins of zeros."""

    def seconds(video: ExportedVideo) -> np.ndarray:
        centres_S = request.centres(video)
        columns_S2 = np.stack([centres_S, np.ones_like(centres_S)], axis=1)
        bins_B2 = _bins(request, video, columns_S2, centres_S)
        return np.where(bins_B2[:, 1] > 0, bins_B2[:, 0], np.nan)

    return seconds


def _write_features(request: ExportRequest) -> None:
    def bins_of(video: ExportedVideo) -> np.ndarray:
        rows_SD, centres_S = request.store[video.video_id], request.centres(video)
        return _bins(request, video, rows_SD, centres_S).astype(np.float32)

    if request.format == "gtad-anet":
        with open_hdf5(request.out / "csv_mean_100.hdf5") as file:
            for video in request.videos:
                write_dataset(file, video.key, bins_of(video))
        return
    folder = request.out / "csv_mean_100"
    folder.mkdir()
    for video in request.videos:
        write_feature_csv(folder / f"{video.key}.csv", bins_of(video))


def _word(request: ExportRequest, video: ExportedVideo) -> str:
    """Return the subset as these tools call it: they train on training, score on validation."""
    words = dict(zip(request.splits, ("training", "validation"), strict=True))
    return words.get(video.subset or "", "testing")


def _words(request: ExportRequest) -> str:
    train, score = request.splits
    return f'In these files "training" means {train}, and "validation" means {score}.'


def _annotation(request: ExportRequest, video: ExportedVideo) -> dict[str, Any]:
    return {
        "duration_second": video.duration_seconds,
        "duration_frame": video.num_frames,
        "annotations": _segments(request, video),
        "feature_frame": request.covered_frames(video),
    }


def _segments(request: ExportRequest, video: ExportedVideo) -> list[dict[str, Any]]:
    return [
        {
            "segment": [segment.start_seconds, segment.end_seconds],
            "label": request.classes[segment.class_index],
        }
        for segment in video.segments
    ]


def _write_bsn_annotations(request: ExportRequest) -> None:
    """Write `video_info_new.csv`, `anet_anno_action.json` and the evaluator's ground truth."""
    rows = [
        (
            video.key,
            video.num_frames,
            video.duration_seconds,
            video.fps,
            video.num_frames / video.duration_seconds,
            _word(request, video),
            request.covered_frames(video),
        )
        for video in request.annotated
    ]
    write_table(request.out / "video_info_new.csv", INFO_COLUMNS, rows)
    write_json(
        request.out / "anet_anno_action.json",
        {video.key: _annotation(request, video) for video in request.annotated},
    )
    database = {
        video.key[2:]: {
            "subset": _word(request, video),
            "duration": video.duration_seconds,
            "annotations": _segments(request, video),
        }
        for video in request.annotated
    }
    (request.out / "evaluation").mkdir()
    write_json(
        request.out / "evaluation" / "activity_net_1_3_new.json",
        {"version": "VERSION 1.3", "taxonomy": [], "database": database},
    )


def _write_mmaction2_annotations(request: ExportRequest) -> None:
    for name, word in (("train", "training"), ("val", "validation")):
        stated = {
            video.key: {
                **_annotation(request, video),
                "fps": video.fps,
                "rfps": video.num_frames / video.duration_seconds,
            }
            for video in request.annotated
            if _word(request, video) == word
        }
        write_json(request.out / f"anet_anno_{name}.json", stated)


def _write_config(request: ExportRequest) -> None:
    if request.format == "mmaction2":
        text = MMACTION2_CONFIG.format(
            snippets=request.grid_in_words, feature_dim=request.store.feature_dim
        )
        write_text(request.out / "mmaction2.py", text)
        return
    is_bmn = request.format == "bmn"
    options = {
        "feature_path": "./" if is_bmn else "./csv_mean_100.hdf5",
        "video_info": "./video_info_new.csv",
        "video_anno": "./anet_anno_action.json",
        "temporal_scale": NUM_BINS,
        "feat_dim": request.store.feature_dim,
    }
    lines = "".join(f"--{name} {value}\n" for name, value in options.items())
    alias = "# --feat_dim is --base_feat_dim in older versions of the tool\n" if is_bmn else ""
    write_text(request.out / "opts.txt", f"# snippets: {request.grid_in_words}\n{alias}{lines}")


def _mapping(request: ExportRequest) -> str:
    reported = READERS[request.format].reported_seconds
    empties = (int(np.isnan(_true_seconds(request)(video)).sum()) for video in request.videos)
    empty = max(empties, default=0)
    gaps = [abs(reported(video) - request.covered_seconds(video)) for video in request.videos]
    formula = (
        "Bin `i` is the mean of the snippets, linearly interpolated between their centres, at\n"
        "both ends and the middle of `[i, i + 1] * covered / 100` seconds. Bins before the first\n"
        f"or after the last centre are zeros: up to {empty} of a video."
        if request.rule == "jjboy"
        else "Bin `i` is the mean of rows, linearly interpolated, at `1e-4 + (i + k / 3) * h`,\n"
        "k = 0, 1, 2, with `h = (S - 1 - 2e-4) / 100` for S rows of the store."
    )
    return (
        f'{formula} This is the rule "{request.rule}".\n\n'
        "The tool takes bin `i` to have its middle at\n\n"
        "    t = (i + 0.5) / 100 * covered\n"
        "    covered = feature_frame / duration_frame * duration_second\n\n"
        "where `feature_frame` is how many frames the snippets cover. The tool turns results into\n"
        f"seconds with a duration that is up to {max(gaps, default=0):.3f} s from `covered` here."
    )


def _check(request: ExportRequest) -> None:
    """Read everything again as the tool's loader does, and compare rows and times."""
    stated: dict[str, Any] = {}
    for path in sorted(request.out.glob("anet_anno_*.json")):
        stated |= json.loads(path.read_text())
    for video in request.videos:
        entry = stated.get(video.key) or _annotation(request, video)
        covered = entry["feature_frame"] / entry["duration_frame"] * entry["duration_second"]
        seconds_B = _tool_seconds(request)(video)
        check_ends(
            request,
            video,
            (_num_rows(request.out, video), 0.5 / NUM_BINS * covered, 99.5 / NUM_BINS * covered),
            (NUM_BINS, seconds_B[0], seconds_B[-1]),
        )


def _num_rows(out: Path, video: ExportedVideo) -> int:
    if (out / "csv_mean_100.hdf5").exists():
        with h5py.File(out / "csv_mean_100.hdf5", "r") as file:
            return len(file[video.key])
    return num_csv_rows(out / "csv_mean_100" / f"{video.key}.csv")

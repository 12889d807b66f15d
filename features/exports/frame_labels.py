"""Exports for tools that label every row: TGM, super-events, PDAN and MS-TCT.

<stream>/<video>.npy   float32 (S, 1, 1, D of the stream): a folder per stream, as the tools train
                       one model on each
charades.json          {video: {subset, duration, actions: [[class, start, end], ...]}}
multithumos.json       the same with classes from 1: TGM and super-events have a loader that shifts
                       them down
settings.py            names of the tool's training script, with what they must be

Sources: piergiaj/tgm-icml19 and piergiaj/super-events-cvpr18 `charades_i3d_per_video.py`,
`multithumos_i3d_per_video.py`; dairui01/PDAN and dairui01/MS-TCT, the same names.
"""

import json

import numpy as np

from manifests import UsageError

from .clock import check_ends, left_edges, measure_clock
from .files import write_json, write_npy, write_text
from .finish import finish_export
from .report import ExportReport, claim_folder, file_name
from .request import ExportRequest

TITLES = {
    "tgm": "Features for TGM",
    "super-events": "Features for super-events",
    "pdan": "Features for PDAN",
    "ms-tct": "Features for MS-TCT",
}
FIXED_DIM = 1024  # TGM and super-events: written into the loader and the first layer
MS_TCT_ROWS = 256
MODES = ("rgb", "flow")
WIDTH_NAMES = {"pdan": "input_channnel", "ms-tct": "in_feat_dim"}  # spelt so
SHARED_MISFITS = (
    "A row is labelled iff start < row / rate < end, with rate = S / duration: strict on both "
    "sides, and at the left edge of the row, not at its middle.",
    "Videos without a feature file are skipped silently.",
    "Each stream is a model of its own; their results are averaged afterwards.",
)


def export_frame_labels(request: ExportRequest) -> ExportReport:
    """Write rows `(S, 1, 1, D)` for the tool that `request.format` names.

    Raises:
        UsageError: A stream has another width than the tool can hold.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    folders = {name: file_name(name) for name in request.store.channel_ranges}
    _check_widths(request)
    clock = measure_clock(request, left_edges(request))
    claim_folder(request.out)
    for folder in folders.values():
        (request.out / folder).mkdir()
    for video in request.videos:
        feats_SD = request.feats(video)
        for name, (first, end) in request.store.channel_ranges.items():
            rows_S11D = np.ascontiguousarray(feats_SD[:, None, None, first:end])
            write_npy(request.out / folders[name] / f"{video.key}.npy", rows_S11D)
    if request.annotations is not None:
        _write_labels(request, "charades.json", 0)
        if _is_fixed(request):
            _write_labels(request, "multithumos.json", 1)
    write_text(request.out / "settings.py", _settings(request))
    _check(request, list(folders.values()))
    return finish_export(request, TITLES[request.format], MAPPING, _misfits(request), clock)


MAPPING = """The tool takes row `i` to be at

    t = i * duration / S

for S rows, and `duration` of the annotation file: the left edge of equal parts of the video. The
middle of a snippet is later, so labels come late by up to the difference stated below."""


def _is_fixed(request: ExportRequest) -> bool:
    return request.format in ("tgm", "super-events")


def _check_widths(request: ExportRequest) -> None:
    for name, (first, end) in request.store.channel_ranges.items():
        if _is_fixed(request) and end - first != FIXED_DIM:
            raise UsageError(
                f"{request.format} reads rows of {FIXED_DIM} channels only, got {end - first} of "
                f"stream {name!r}; extract with a backbone of feature_dim {FIXED_DIM}, or export "
                "pdan, whose loader takes any width"
            )


def _write_labels(request: ExportRequest, name: str, first_class: int) -> None:
    words = dict(zip(request.splits, ("training", "testing"), strict=True))
    write_json(
        request.out / name,
        {
            video.key: {
                "subset": words[video.subset],
                "duration": video.duration_seconds,
                "actions": [
                    [index + first_class, start, end] for start, end, index in video.segments
                ],
            }
            for video in request.annotated
            if video.subset in words
        },
    )


def _settings(request: ExportRequest) -> str:
    ranges = request.store.channel_ranges
    roots = {name: name for name in MODES if name in ranges} or {"rgb": next(iter(ranges))}
    lines = [
        f"# snippets: {request.grid_in_words}; rows per second: S / duration",
        "# streams, one model each: "
        + ", ".join(f"{name} ({end - first})" for name, (first, end) in ranges.items()),
        *(f'{mode}_root = "./{file_name(name)}"  # -mode {mode}' for mode, name in roots.items()),
        'train_split = "./charades.json"',
        "test_split = train_split",
        f"classes = {len(request.classes)}",
    ]
    if request.format in WIDTH_NAMES:
        mode, name = next(iter(roots.items()))
        first, end = ranges[name]
        lines.append(f"{WIDTH_NAMES[request.format]} = {end - first}  # -mode {mode}")
    else:
        lines += [
            '# -dataset multithumos: train_split = "./multithumos.json"',
            f"num_classes = {len(request.classes)}  # of make_dataset in the loader",
        ]
    return "".join(f"{line}\n" for line in lines)


def _misfits(request: ExportRequest) -> list[str]:
    misfits = list(SHARED_MISFITS)
    if unlabelled := _num_unlabelled(request):
        misfits.append(
            f"{unlabelled:,} segments lie between two row times, so the tool labels nothing with "
            "them; a smaller --snippet-stride lets them be seen."
        )
    if _is_fixed(request):
        misfits.append(
            "`-dataset multithumos` reads `multithumos.json`, where classes count from 1; "
            "`-dataset charades` reads `charades.json`, from 0."
        )
    if request.format == "pdan":
        misfits.append('The loader cuts arrays otherwise if "oversample" is in their path.')
    if request.format == "ms-tct":
        long = sum(video.num_rows > MS_TCT_ROWS for video in request.videos)
        bare = sum(not video.segments for video in request.annotated)
        misfits += [
            f"The tool scores the first {MS_TCT_ROWS} rows of a video and no more: "
            f"{long:,} videos here are longer (a larger --snippet-stride gives fewer rows). It "
            "trains on random runs of as many.",
            f"It skips videos without actions ({bare:,} annotated here) and actions that end "
            "before they start.",
        ]
    return misfits


def _num_unlabelled(request: ExportRequest) -> int:
    """Return how many segments hold no row's left edge strictly inside."""
    num, seconds = 0, left_edges(request)
    for video in request.annotated:
        edges_S = seconds(video)
        for start, end, _ in video.segments:
            num += not np.any((edges_S > start) & (edges_S < end))
    return num


def _check(request: ExportRequest, folders: list[str]) -> None:
    """Read everything again as the tool's loader does, and compare rows and times."""
    stated = {}
    if request.annotations is not None:
        stated = json.loads((request.out / "charades.json").read_text())
    tool = left_edges(request)
    for video in request.videos:
        duration = stated.get(video.key, {"duration": video.duration_seconds})["duration"]
        seconds_S = tool(video)
        for folder in folders:
            path = request.out / folder / f"{video.key}.npy"
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            rows = rows.reshape((rows.shape[0], 1, 1, rows.shape[-1]))
            rate = len(rows) / duration
            read = (len(rows), 0.0, (len(rows) - 1) / rate)
            check_ends(request, video, read, (video.num_rows, seconds_S[0], seconds_S[-1]))

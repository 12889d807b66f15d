"""Exports for tools that find a sentence in a video: LGI and 2D-TAN, as on Charades-STA.

lgi      features/i3d_finetuned/<video>.npy   float32 (S, D)
         annotations/charades_sta_{train,test}.txt, annotations/Charades_v1_{train,test}.csv
         LGI.yml   the part of its options that features decide
2d-tan   vgg_rgb_features.hdf5                a dataset (S, D) float32 per video
         charades_sta_{train,test}.txt, Charades_v1_{train,test}.csv
         2D-TAN.yaml

A line of the first text is `video start end##sentence.`; the sentence is the name of the class.

Sources: JonghwanMun/LGI4temporalgrounding `src/dataset/charades.py`; microsoft/2D-TAN
`lib/datasets/charades.py`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from .clock import bin_centres, check_ends, measure_clock
from .files import open_hdf5, read_columns, write_dataset, write_npy, write_table, write_text
from .finish import finish_export
from .report import ExportReport, claim_folder
from .request import ExportedVideo, ExportRequest

VIDEO_COLUMNS = (
    *("id", "subject", "scene", "quality", "relevance", "verified", "script", "objects"),
    *("descriptions", "actions", "length"),
)
LGI_ROWS, TAN_ROWS, TAN_CLIPS = 128, 256, 16
SENTENCES = (
    "Sentences are class names: the segments table has no others. Put your own in the text files.",
)
LGI_MISFITS = (
    *SENTENCES,
    f"Videos of more than {LGI_ROWS} rows are thinned to {LGI_ROWS}, in training from a random "
    "start.",
    "The loader squeezes arrays: a video of one row has that row twice here.",
    "The folder stands for `data/charades` of the tool.",
)
TAN_MISFITS = (
    *SENTENCES,
    f"Rows are averaged to {TAN_ROWS}, then to {TAN_CLIPS} clips; the last row is left out of the "
    "averages.",
    "Segments are cut at the end of the video, and dropped where nothing is left.",
    "The file has the name of the tool's VGG features: it is what `VIS_INPUT_TYPE: vgg_rgb` reads.",
)


def export_lgi(request: ExportRequest) -> ExportReport:
    """Write the folder that LGI reads as `data/charades`.

    Raises:
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    clock = measure_clock(request, bin_centres(request))
    claim_folder(request.out)
    folder = request.out / "features" / "i3d_finetuned"
    folder.mkdir(parents=True)
    for video in request.videos:
        feats_SD = request.feats(video)
        if len(feats_SD) == 1:
            feats_SD = np.repeat(feats_SD, 2, axis=0)
        write_npy(folder / f"{video.key}.npy", feats_SD)
    _write_annotations(request, request.out / "annotations")
    write_text(
        request.out / "LGI.yml",
        f"{_timing(request)}model:\n  video_enc_vemb_idim: {request.store.feature_dim}\n"
        f"{_loader('train')}{_loader('test')}",
    )

    def rows_of(video: ExportedVideo) -> int:
        path = folder / f"{video.key}.npy"
        read = np.load(path, mmap_mode="r", allow_pickle=False).squeeze()
        return min(len(read), video.num_rows)

    _check(request, request.out / "annotations", rows_of)
    mapping = _mapping(
        "LGI", f"a result is a share of the video; rows are parts of it, {LGI_ROWS} at most"
    )
    return finish_export(request, "Features for LGI", mapping, LGI_MISFITS, clock)


def export_2d_tan(request: ExportRequest) -> ExportReport:
    """Write the folder that 2D-TAN reads as its DATA_DIR.

    Raises:
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    clock = measure_clock(request, bin_centres(request))
    claim_folder(request.out)
    path = request.out / "vgg_rgb_features.hdf5"
    with open_hdf5(path) as file:
        for video in request.videos:
            write_dataset(file, video.key, request.feats(video))
    _write_annotations(request, request.out)
    write_text(
        request.out / "2D-TAN.yaml",
        f"{_timing(request)}DATA_DIR: ./\nDATASET:\n  NAME: Charades\n  VIS_INPUT_TYPE: vgg_rgb\n"
        f"  NUM_SAMPLE_CLIPS: {TAN_ROWS}\n  TARGET_STRIDE: {TAN_ROWS // TAN_CLIPS}\n"
        "  NORMALIZE: true\nTAN:\n  FRAME_MODULE:\n    PARAMS:\n"
        f"      INPUT_SIZE: {request.store.feature_dim}\n",
    )
    with h5py.File(path, "r") as file:
        _check(request, request.out, lambda video: len(file[video.key]))
    mapping = _mapping(
        "2D-TAN", f"clip `k` is `[k, k + 1] * duration / {TAN_CLIPS}`, whatever the feature stride"
    )
    return finish_export(request, "Features for 2D-TAN", mapping, TAN_MISFITS, clock)


def _loader(split: str) -> str:
    return (
        f"{split}_loader:\n  split: {split}\n  data_dir: data/charades\n"
        "  video_feature_path: data/charades/features/i3d_finetuned/{}.npy\n"
        f"  num_segment: {LGI_ROWS}\n"
    )


def _mapping(tool: str, grid: str) -> str:
    return (
        f"{tool} knows durations only: {grid}.\nSo it takes row `i` of S to have its middle at\n\n"
        "    t = (i + 0.5) * duration / S"
    )


def _timing(request: ExportRequest) -> str:
    spec = request.store.spec
    return (
        f"# snippets: every {request.stride} frames, window {spec.snippet_len}, offset "
        f"{request.offset:g}, fps {spec.fps or 'of the video'}; the tool uses none of them\n"
    )


def _write_annotations(request: ExportRequest, folder: Path) -> None:
    """Write the sentences and the lengths of both subsets, where segments are given."""
    if request.annotations is None:
        return
    folder.mkdir(exist_ok=True)
    for name, subset in zip(("train", "test"), request.splits, strict=True):
        videos = [video for video in request.annotated if video.subset == subset]
        lines = (line for video in videos for line in _sentences(request, video))
        write_text(folder / f"charades_sta_{name}.txt", "".join(lines))
        blank = [""] * (len(VIDEO_COLUMNS) - 2)
        rows = [(video.key, *blank, video.duration_seconds) for video in videos]
        write_table(folder / f"Charades_v1_{name}.csv", VIDEO_COLUMNS, rows)


def _sentences(request: ExportRequest, video: ExportedVideo) -> Iterator[str]:
    for start, end, index in video.segments:
        words = request.classes[index].replace("_", " ").replace("#", " ").split()
        yield f"{video.key} {start} {end}##{' '.join(words)}.\n"


def _check(request: ExportRequest, folder: Path, num_rows: Callable[[ExportedVideo], int]) -> None:
    """Read everything again as the tool's loader does, and compare rows and times."""
    lengths = {
        name: float(length)
        for path in folder.glob("Charades_v1_*.csv")
        for name, length in read_columns(path, "id", "length")
    }
    tool = bin_centres(request)
    for video in request.videos:
        duration, seconds_S = lengths.get(video.key, video.duration_seconds), tool(video)
        rows = num_rows(video)
        read = (rows, 0.5 * duration / rows, (rows - 0.5) * duration / rows)
        check_ends(request, video, read, (video.num_rows, seconds_S[0], seconds_S[-1]))

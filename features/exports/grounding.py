"""Exports for tools that find a sentence in a video: LGI and 2D-TAN, as on Charades-STA.

lgi      features/i3d_finetuned/<video>.npy   float32 (S, D)
         annotations/charades_sta_{train,test}.txt, annotations/Charades_v1_{train,test}.csv
         LGI.yml   the part of its options that features decide
2d-tan   vgg_rgb_features.hdf5                a dataset (S, D) float32 per video
         charades_sta_{train,test}.txt, Charades_v1_{train,test}.csv
         2D-TAN.yaml

A line of the first text is `video start end##sentence.`; the sentence is the words of the class.

Sources: JonghwanMun/LGI4temporalgrounding `src/dataset/charades.py`; microsoft/2D-TAN
`lib/datasets/charades.py`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from manifests import UsageError

from .clock import RowSeconds, check_ends, measure_clock
from .files import open_hdf5, read_columns, write_dataset, write_npy, write_table, write_text
from .finish import finish_export
from .report import ExportReport, claim_folder
from .request import ExportedVideo, ExportRequest

VIDEO_COLUMNS = (
    *("id", "subject", "scene", "quality", "relevance", "verified", "script", "objects"),
    *("descriptions", "actions", "length"),
)
LGI_ROWS, TAN_ROWS, TAN_CLIPS = 128, 256, 16
TAN_STRIDE = TAN_ROWS // TAN_CLIPS
LOSES_LAST_ROW = TAN_ROWS * 3 // 2  # from so many rows on, the averages leave out the last one
PlaceRows = Callable[[int, float], np.ndarray]  # rows, duration -> seconds of every row
LGI_MAPPING = f"""LGI knows durations only. It guides attention to the rows from
round(start / duration * n) to round(end / duration * n), both included, for n = min(S, {LGI_ROWS})
of S rows. So it takes row `i` to be at

    t = i * duration / S

and its results are shares of the duration."""
TAN_MAPPING = f"""2D-TAN knows durations only, whatever the feature stride. Of {TAN_ROWS} parts, `k`
is `[k, k + 1] * duration / {TAN_ROWS}` and averages the rows from round(k * S / {TAN_ROWS}) up to
round((k + 1) * S / {TAN_ROWS}) - 1, or takes the first of them if that is none. So row `i` stands
for the middle of the parts that it is in: of few rows, which are repeated, near

    t = i * duration / S

and of many near `(i + 0.5) * duration / S`."""
SENTENCES = (
    "Sentences are the words of class names, as segments have no others; write your own into "
    "`charades_sta_*.txt`."
)
WORD = re.compile(r"[^\W_]+")
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
CHARADES_CODE = re.compile(r"c\d{3} ")


def export_lgi(request: ExportRequest) -> ExportReport:
    """Write the folder that LGI reads as `data/charades`.

    Raises:
        UsageError: A class has no words.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    sentences = [_sentence(name) for name in request.classes]
    clock = measure_clock(request, _of_video(_lgi_seconds))
    claim_folder(request.out)
    folder = request.out / "features" / "i3d_finetuned"
    folder.mkdir(parents=True)
    for video in request.videos:
        feats_SD = request.feats(video)
        if len(feats_SD) == 1:
            feats_SD = np.repeat(feats_SD, 2, axis=0)
        write_npy(folder / f"{video.key}.npy", feats_SD)
    _write_annotations(request, request.out / "annotations", sentences)
    write_text(
        request.out / "LGI.yml",
        f"{_timing(request)}model:\n  video_enc_vemb_idim: {request.store.feature_dim}\n"
        f"{_loader('train')}{_loader('test')}",
    )

    def rows_of(video: ExportedVideo) -> int:
        path = folder / f"{video.key}.npy"
        read = np.load(path, mmap_mode="r", allow_pickle=False).squeeze()
        return min(len(read), video.num_rows)

    _check(request, request.out / "annotations", rows_of, _lgi_seconds)
    return finish_export(request, "Features for LGI", LGI_MAPPING, _lgi_misfits(request), clock)


def _lgi_misfits(request: ExportRequest) -> list[str]:
    long = sum(video.num_rows > LGI_ROWS for video in request.videos)
    return [
        SENTENCES,
        f"Of more than {LGI_ROWS} rows ({long:,} videos here) the tool takes {LGI_ROWS}, from a "
        "random start in training.",
        "Segments that end after the video stay as they are.",
        "The loader squeezes arrays: a video of one row has that row twice here.",
        "This folder stands for `data/charades` of the tool, which keeps labels in `preprocess` "
        "there and reads them again: delete that after exporting anew.",
    ]


def export_2d_tan(request: ExportRequest) -> ExportReport:
    """Write the folder that 2D-TAN reads as its DATA_DIR.

    Raises:
        UsageError: A class has no words.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    sentences = [_sentence(name) for name in request.classes]
    clock = measure_clock(request, _of_video(_tan_seconds))
    claim_folder(request.out)
    path = request.out / "vgg_rgb_features.hdf5"
    with open_hdf5(path) as file:
        for video in request.videos:
            write_dataset(file, video.key, request.feats(video))
    _write_annotations(request, request.out, sentences)
    write_text(
        request.out / "2D-TAN.yaml",
        f"{_timing(request)}DATA_DIR: ./\nDATASET:\n  NAME: Charades\n  VIS_INPUT_TYPE: vgg_rgb\n"
        f"  NO_VAL: true\n  NUM_SAMPLE_CLIPS: {TAN_ROWS}\n  TARGET_STRIDE: {TAN_STRIDE}\n"
        "  NORMALIZE: true\nTAN:\n  FRAME_MODULE:\n    NAME: FrameAvgPool\n    PARAMS:\n"
        f"      INPUT_SIZE: {request.store.feature_dim}\n      HIDDEN_SIZE: 512\n"
        f"      KERNEL_SIZE: {TAN_STRIDE}\n      STRIDE: {TAN_STRIDE}\n",
    )
    with h5py.File(path, "r") as file:
        _check(request, request.out, lambda video: len(file[video.key]), _tan_seconds)
    return finish_export(request, "Features for 2D-TAN", TAN_MAPPING, _tan_misfits(request), clock)


def _tan_misfits(request: ExportRequest) -> list[str]:
    long = sum(video.num_rows >= LOSES_LAST_ROW for video in request.videos)
    return [
        SENTENCES,
        f"The loader makes rows unit vectors, then averages them to {TAN_ROWS}, and the network to "
        f"{TAN_CLIPS} clips; of {LOSES_LAST_ROW} rows and more ({long:,} videos here) the last is "
        "left out.",
        "Segments are cut at the end of the video, and dropped where nothing is left.",
        "The file has the name of the tool's VGG features, which `VIS_INPUT_TYPE: vgg_rgb` reads; "
        "MS-2D-TAN reads it as `vgg_rgb.hdf5`.",
    ]


def _loader(split: str) -> str:
    return (
        f"{split}_loader:\n  dataset: charades\n  split: {split}\n  data_dir: data/charades\n"
        "  video_feature_path: data/charades/features/i3d_finetuned/{}.npy\n"
        f"  num_segment: {LGI_ROWS}\n"
    )


def _lgi_seconds(num_rows: int, duration: float) -> np.ndarray:
    return np.arange(num_rows) * duration / num_rows


def _tan_seconds(num_rows: int, duration: float) -> np.ndarray:
    """Return the mean middle of the parts that a row is averaged into, float64 `(S,)`.

    A row in no part is placed as if all rows were equal parts: where it is does not matter.
    """
    bounds = np.round(np.arange(TAN_ROWS + 1) / TAN_ROWS * num_rows).astype(int)
    bounds = np.minimum(bounds, num_rows - 1)
    first_K, end_K = bounds[:-1], np.maximum(bounds[1:], bounds[:-1] + 1)
    row_S = np.arange(num_rows)
    is_in_KS = (first_K[:, None] <= row_S) & (row_S < end_K[:, None])
    parts_S = is_in_KS.sum(axis=0)
    middles_S = (np.arange(TAN_ROWS) + 0.5) @ is_in_KS / np.maximum(parts_S, 1) / TAN_ROWS
    return np.where(parts_S > 0, middles_S, (row_S + 0.5) / num_rows) * duration


def _of_video(place_rows: PlaceRows) -> RowSeconds:
    return lambda video: place_rows(video.num_rows, video.duration_seconds)


def _timing(request: ExportRequest) -> str:
    return f"# snippets: {request.grid_in_words}; the tool uses none of them\n"


def _write_annotations(request: ExportRequest, folder: Path, sentences: list[str]) -> None:
    """Write the sentences and the lengths of both subsets, where segments are given."""
    if request.annotations is None:
        return
    folder.mkdir(exist_ok=True)
    for name, subset in zip(("train", "test"), request.splits, strict=True):
        videos = [video for video in request.annotated if video.subset == subset]
        lines = (line for video in videos for line in _lines(video, sentences))
        write_text(folder / f"charades_sta_{name}.txt", "".join(lines))
        blank = [""] * (len(VIDEO_COLUMNS) - 2)
        rows = [(video.key, *blank, video.duration_seconds) for video in videos]
        write_table(folder / f"Charades_v1_{name}.csv", VIDEO_COLUMNS, rows)


def _lines(video: ExportedVideo, sentences: list[str]) -> Iterator[str]:
    for start, end, index in video.segments:
        yield f"{video.key} {start} {end}##{sentences[index]}.\n"


def _sentence(class_name: str) -> str:
    """Return the words of a class name, as a word embedding knows them.

    # "zoom_in" -> "zoom in", "BaseballPitch" -> "Baseball Pitch",
    # "c008 Opening a door/window" -> "Opening a door window"
    """
    words = WORD.findall(HUMP.sub(" ", CHARADES_CODE.sub("", class_name)))
    if not words:
        raise UsageError(
            f"a class name must hold a letter or a digit to be a sentence, got {class_name!r}"
        )
    return " ".join(words)


def _check(
    request: ExportRequest,
    folder: Path,
    num_rows: Callable[[ExportedVideo], int],
    place_rows: PlaceRows,
) -> None:
    """Read everything again as the tool's loader does, and compare rows and times."""
    lengths = {
        name: float(length)
        for path in folder.glob("Charades_v1_*.csv")
        for name, length in read_columns(path, "id", "length")
    }
    for video in request.videos:
        rows = num_rows(video)
        read_S = place_rows(rows, lengths.get(video.key, video.duration_seconds))
        seconds_S = place_rows(video.num_rows, video.duration_seconds)
        expected = (video.num_rows, seconds_S[0], seconds_S[-1])
        check_ends(request, video, (rows, read_S[0], read_S[-1]), expected)

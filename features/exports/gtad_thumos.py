"""Export for G-TAD on THUMOS'14: a row per video frame, flow before rgb.

{flow,rgb}_{val,test}.h5          a dataset (N_frames, D of the stream) float32 per video
val_Annotation.csv, test_Annotation.csv    video,type,type_idx,start,end,startFrame,endFrame
thumos14_test_groundtruth.csv     frame rates of the scored videos, for the tool's results
evaluation/thumos_gt.json         ground truth of its evaluator, segments as strings
opts.txt                          its options

Source: frostinassiky/gtad, `gtad_lib/dataset.py`, `gtad_postprocess.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import h5py
import numpy as np

from manifests import UsageError

from .clock import check_ends, measure_clock
from .files import (
    check_same,
    open_hdf5,
    read_columns,
    write_json,
    write_repeated,
    write_table,
    write_text,
)
from .finish import finish_export
from .report import ExportReport, claim_folder
from .request import ExportedVideo, ExportRequest

STREAMS = ("flow", "rgb")  # in the order in which the loader concatenates them
SPLITS = ("val", "test")  # of the file names: what the tool trains on, what it scores on
TIE_SECONDS = 1e-9
SKIP_FRAMES = 5  # the loader takes every fifth row
OFFICIAL_NAME = re.compile(r"video_(validation|test)_\d{7}")
ANNOTATION_COLUMNS = ("video", "type", "type_idx", "start", "end", "startFrame", "endFrame")
# `type_idx` of the twenty classes in the original files: columns of the published `uNet_test.npy`.
# fmt: off
OFFICIAL_NUMBERS = {
    "BaseballPitch": 7, "BasketballDunk": 9, "Billiards": 12, "CleanAndJerk": 21,
    "CliffDiving": 22, "CricketBowling": 23, "CricketShot": 24, "Diving": 26, "FrisbeeCatch": 31,
    "GolfSwing": 33, "HammerThrow": 36, "HighJump": 40, "JavelinThrow": 45, "LongJump": 51,
    "PoleVault": 68, "Shotput": 79, "SoccerPenalty": 85, "TennisSwing": 92, "ThrowDiscus": 93,
    "VolleyballSpiking": 97,
}
# fmt: on
RATE_COLUMNS = (
    *("video-name", "t-init", "t-end", "f-init", "f-end"),
    *("video-duration", "frame-rate", "video-frames", "label-idx"),
)
MISFITS = (
    "The loader cuts windows of 256 of the rows it takes, and leaves out up to 51 of them (255 "
    "frames) at the end of a video.",
    "It keeps a cache `saved.*.pkl` beside the annotations and reads it again silently: delete it "
    "or use --override after exporting anew.",
    "The tool trains with an offset that differs from that of its results by 2 to 3 frames.",
    "Results are rounded to 0.1 s and need the class scores of whole videos (`uNet_test.npy`, row "
    "= the last four digits of the name - 1, column = type_idx - 1) from another classifier; the "
    "classes of THUMOS'14 have their official type_idx, others count from 1.",
    "The original files count Ambiguous segments as ground truth; segment tables have none.",
)


def export_gtad_thumos(request: ExportRequest) -> ExportReport:
    """Write the four feature files and the annotations of G-TAD's master branch.

    Rows are repeated: row `n` is the snippet whose middle is nearest to the middle of frame `n`.

    Raises:
        UsageError: The store has no streams "rgb" and "flow", their channels do not divide by
            four, or no annotated video is in it.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    _check_streams(request)
    request = replace(request, names=_names(request), store=request.store.select(STREAMS))
    clock = measure_clock(
        request,
        lambda video: np.arange(0, video.num_native_frames, SKIP_FRAMES) / video.native_fps,
        lambda video: request.centres(video)[_row_of_frame(request, video)[::SKIP_FRAMES]],
    )
    claim_folder(request.out)
    for split, subset in zip(SPLITS, request.splits, strict=True):
        _write_features(request, split, [v for v in request.videos if v.subset == subset])
    _write_annotations(request)
    _write_options(request)
    _check(request)
    return finish_export(
        request, "Features for G-TAD on THUMOS'14", _mapping(request), MISFITS, clock
    )


def _check_streams(request: ExportRequest) -> None:
    ranges = request.store.channel_ranges
    if not set(STREAMS) <= set(ranges):
        raise UsageError(
            "gtad-thumos reads two files per video, so the store must have streams named rgb and "
            f"flow, got {', '.join(map(repr, ranges))}; extract with --streams rgb=RUN,flow=RUN "
            "(the same run twice if there is but one), or export opentad, which reads one stream"
        )
    num_channels = sum(end - first for first, end in (ranges[name] for name in STREAMS))
    if num_channels % 4:
        raise UsageError(
            "the first convolution of G-TAD has 4 groups, so the channels of rgb and flow together "
            f"must divide by 4, got {num_channels}"
        )


def _names(request: ExportRequest) -> dict[str, str]:
    """Name the videos of both subsets as the loader expects: "val" or "test" selects the file."""
    named: dict[str, str] = {}
    for word, subset in zip(("validation", "test"), request.splits, strict=True):
        ids = [video.video_id for video in request.annotated if video.subset == subset]
        named |= {video_id: f"video_{word}_{i:07d}" for i, video_id in enumerate(ids, start=1)}
    if not named:
        raise UsageError("gtad-thumos writes annotated videos only, and the store has none")
    official = {video_id: OFFICIAL_NAME.fullmatch(video_id) for video_id in named}
    if all(match and match[1] in named[video_id] for video_id, match in official.items()):
        return {video_id: video_id for video_id in named}
    return named


def _row_of_frame(request: ExportRequest, video: ExportedVideo) -> np.ndarray:
    """Return for each native frame the row whose middle is nearest to the frame's, int64 `(N,)`."""
    centres_S = request.centres(video)
    middles_N = (np.arange(video.num_native_frames) + 0.5) / video.native_fps
    between_S = (centres_S[1:] + centres_S[:-1]) / 2
    # Middles of frames of a rate that has no exact double may fall on either side of a tie.
    return np.searchsorted(between_S, middles_N + TIE_SECONDS, side="right")


def _write_features(request: ExportRequest, split: str, videos: Sequence[ExportedVideo]) -> None:
    ranges = request.store.channel_ranges
    paths = [request.out / f"{name}_{split}.h5" for name in STREAMS]
    with open_hdf5(paths[0]) as flow, open_hdf5(paths[1]) as rgb:
        for video in videos:
            row_N, feats_SD = _row_of_frame(request, video), request.feats(video)
            for name, file in zip(STREAMS, (flow, rgb), strict=True):
                first, end = ranges[name]
                write_repeated(file, video.key, feats_SD[:, first:end], row_N)


def _write_annotations(request: ExportRequest) -> None:
    scored = [video for video in request.videos if video.subset == request.splits[1]]
    for split, subset in zip(SPLITS, request.splits, strict=True):
        videos = [video for video in request.videos if video.subset == subset]
        rows = [row for video in videos for row in _segment_rows(request, video)]
        write_table(request.out / f"{split}_Annotation.csv", ANNOTATION_COLUMNS, rows)
    write_table(
        request.out / "thumos14_test_groundtruth.csv",
        RATE_COLUMNS,
        [
            (
                key,
                start,
                end,
                first,
                last,
                video.duration_seconds,
                video.native_fps,
                video.num_native_frames,
                request.classes.index(label),
            )
            for video in scored
            for key, label, _, start, end, first, last in _segment_rows(request, video)
        ],
    )
    words = dict(zip(request.splits, ("train", "test"), strict=True))
    database = {
        video.key: {
            "subset": words[video.subset or ""],
            "annotations": [
                {"segment": [str(start), str(end)], "label": label}
                for _, label, _, start, end, _, _ in _segment_rows(request, video)
            ],
        }
        for video in request.videos
    }
    (request.out / "evaluation").mkdir()
    write_json(request.out / "evaluation" / "thumos_gt.json", {"database": database})


def _segment_rows(
    request: ExportRequest, video: ExportedVideo
) -> list[tuple[str, str, int, float, float, int, int]]:
    """Return a line of the annotation file per segment."""
    is_official = set(request.classes) <= set(OFFICIAL_NUMBERS)
    return [
        (
            video.key,
            request.classes[index],
            OFFICIAL_NUMBERS[request.classes[index]] if is_official else index + 1,
            start,
            end,
            round(start * video.native_fps),
            round(end * video.native_fps),
        )
        for start, end, index in video.segments
    ]


def _write_options(request: ExportRequest) -> None:
    write_text(
        request.out / "opts.txt",
        f"# snippets: {request.grid_in_words}\n"
        "--feature_path .\n--video_info ./\n--video_anno ./\n"
        f"--feat_dim {request.store.feature_dim}\n--skip_videoframes {SKIP_FRAMES}\n",
    )


def _mapping(request: ExportRequest) -> str:
    train, score = request.splits
    return (
        "Row `n` of a dataset is video frame `n`: the snippet of the store whose middle is\n"
        "nearest to the middle of that frame, so rows repeat. The loader takes rows 0, 5, 10 and\n"
        "so on; its snippet `k` is at\n\n"
        "    t = 5 * k / frame-rate\n\n"
        "with the native frame rate of the video (`thumos14_test_groundtruth.csv`). The files\n"
        f"`*_val.h5` hold the subset {train}, `*_test.h5` the subset {score}. The loader lays\n"
        "flow before rgb."
    )


def _check(request: ExportRequest) -> None:
    """Read everything again as the loader does: every fifth row, flow before rgb."""
    path = request.out / "thumos14_test_groundtruth.csv"
    rates = {name: float(rate) for name, rate in read_columns(path, "video-name", "frame-rate")}
    for video in request.videos:
        split = "val" if "val" in video.key else "test"
        parts = []
        for name in STREAMS:
            with h5py.File(request.out / f"{name}_{split}.h5", "r") as file:
                parts.append(file[video.key][::SKIP_FRAMES])
        read_KD = np.concatenate([part[: min(map(len, parts))] for part in parts], axis=1)
        row_K = _row_of_frame(request, video)[::SKIP_FRAMES]
        check_same(f"video {video.key!r}", request.feats(video)[row_K], read_KD)
        fps = rates.get(video.key, video.native_fps)
        last = SKIP_FRAMES * (len(row_K) - 1)
        expected = (-(-video.num_native_frames // SKIP_FRAMES), 0.0, last / video.native_fps)
        check_ends(request, video, (len(read_KD), 0.0, last / fps), expected)

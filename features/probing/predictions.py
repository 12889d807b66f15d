"""Files of what a head says of the test videos: scores per snippet, and detections made of them.

The rule that makes detections of scores is that of TGM's THUMOS script (`post_process.py` of
`piergiaj/tgm-icml19`): per class, runs of snippets above a threshold; runs shorter than half the
class's mean length are dropped, longer than twice are split; the score is that at the middle.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from manifests import UsageError, write_atomic

from ..metrics import CHARADES_FRAMES
from .detections import Detection, best_first, write_detections
from .probe_frames import ProbedVideo, ProbeReport

THRESHOLD = 0.2  # lower finds more; what is unsure stands last


def write_frame_scores(path: Path | str, report: ProbeReport) -> None:
    """Write the scores of every snippet: JSON, or the Charades submission if `path` ends in .txt.

    JSON: `{video id: [[score, ...], ...]}`, a row of class scores per snippet of the store.
    Charades: 25 lines a video, `id frame score ...`, frame `j` from 1 at `(j - 1) / 25` of the
    duration, with the scores of the snippet whose centre is nearest.

    Raises:
        UsageError: A Charades submission cannot hold a video id, or a video without snippets.
    """
    if Path(path).suffix == ".txt":
        lines = [line for video in report.videos for line in _charades_lines(video)]
        write_atomic(path, ("\n".join(lines) + "\n").encode())
        return
    content = {video.video_id: video.scores_SC.tolist() for video in report.videos}
    write_atomic(path, (json.dumps(content, allow_nan=False) + "\n").encode())


def write_frame_detections(
    path: Path | str, report: ProbeReport, threshold: float = THRESHOLD
) -> None:
    """Write detections made of the scores as the official JSON of ActivityNet."""
    write_detections(path, frame_detections(report, threshold))


def frame_detections(
    report: ProbeReport, threshold: float = THRESHOLD
) -> Mapping[str, tuple[Detection, ...]]:
    """Return the detections of every test video, best first.

    Args:
        report: Of a head that predicts frames; it knows the mean length of its training segments.
        threshold: Probability that a snippet must exceed.
    """
    lengths = report.trained.notes.get("mean_seconds", [None] * len(report.classes))
    return {
        video.video_id: best_first(
            [
                Detection(start, end, score, name)
                for index, name in enumerate(report.classes)
                for start, end, score in runs_of_scores(
                    video.times_S3, video.scores_SC[:, index], threshold, lengths[index]
                )
            ]
        )
        for video in report.videos
    }


def runs_of_scores(
    times_S3: np.ndarray, scores_S: np.ndarray, threshold: float, mean_seconds: float | None
) -> list[tuple[float, float, float]]:
    """Return `(start_seconds, end_seconds, score)` of every run of one class, in order of time.

    A snippet reaches half-way to the centres of its neighbours, the first and last one to their own
    start and end. A run of more than twice the mean length is cut into `round(length / mean)` equal
    parts.

    Args:
        times_S3: Start, centre and end of each row in seconds.
        scores_S: Probability on each row.
        threshold: That a row of a run exceeds.
        mean_seconds: Of the class's segments; None keeps all runs as they are.
    """
    if len(scores_S) == 0:
        return []
    centres_S = times_S3[:, 1]
    between = (centres_S[1:] + centres_S[:-1]) / 2
    edges = np.concatenate([times_S3[:1, 0], between, times_S3[-1:, 2]])
    above = np.concatenate([[False], scores_S > threshold, [False]])
    changes = np.flatnonzero(above[1:] != above[:-1])
    runs = []
    for first, end in zip(changes[::2], changes[1::2], strict=True):
        for start_seconds, end_seconds in _parts(edges[first], edges[end], mean_seconds):
            middle = (start_seconds + end_seconds) / 2
            nearest = first + np.abs(centres_S[first:end] - middle).argmin()
            runs.append((start_seconds, end_seconds, float(scores_S[nearest])))
    return runs


def _parts(
    start_seconds: float, end_seconds: float, mean_seconds: float | None
) -> Sequence[tuple[float, float]]:
    """Return the run itself, nothing if it is too short, or its equal parts if it is too long."""
    length = end_seconds - start_seconds
    if mean_seconds is None or mean_seconds <= 0:
        return [(float(start_seconds), float(end_seconds))]
    if length < 0.5 * mean_seconds:
        return []
    num_parts = round(length / mean_seconds) if length > 2 * mean_seconds else 1
    cuts = np.linspace(start_seconds, end_seconds, num_parts + 1).tolist()
    return list(pairwise(cuts))


def _charades_lines(video: ProbedVideo) -> list[str]:
    if len(video.times_S3) == 0 or video.video_id.split() != [video.video_id]:
        raise UsageError(
            f"a Charades submission needs snippets, and an id without spaces, of every video; "
            f"{video.video_id!r} has {len(video.times_S3)} snippets"
        )
    lines = []
    for frame in range(CHARADES_FRAMES):
        seconds = frame / CHARADES_FRAMES * video.duration_seconds
        nearest = np.abs(video.times_S3[:, 1] - seconds).argmin()
        scores = " ".join(f"{score:.6g}" for score in video.scores_SC[nearest])
        lines.append(f"{video.video_id} {frame + 1} {scores}")
    return lines

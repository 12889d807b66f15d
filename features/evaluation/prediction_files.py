"""Prediction files of the official evaluators, and ours where there is no official one.

- Detections and proposals: ActivityNet's `{results: {video: [{segment, score, label}]}}`
  (`read_detections`), or the text file of the THUMOS'14 kit, `video start end class score` with the
  kit's class numbers; `.mp4` behind the video is left out, as there.
- Scores per frame or second: `.npz` with an array `(T, C)` per video, or `{video: [[...], ...]}` in
  JSON. (The heads' own scripts pickle such a dict; a pickle runs what it holds, and is not read.)
- Charades: lines `id frame score score ...`, frames from 1 to 25.
- Sentences: a JSON list with an entry per sentence of the annotation, in its order, each a list of
  [start, end], best first.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from manifests import UsageError

from ..metrics import CHARADES_FRAMES
from ..probing.detections import read_detections
from .truth_files import THUMOS_CLASSES, plain_id, read_json_file, read_numbers, read_words

LARGEST_ROWS = 2**33  # bytes of an unpacked .npz
Predicted = dict[str, list[tuple[float, float, str, float]]]


def read_predicted_segments(path: Path, needs_labels: bool = True) -> Predicted:
    """Read detections, or proposals: video id -> (start_seconds, end_seconds, label, score).

    Args:
        path: The JSON of ActivityNet, or a `.txt` of the THUMOS'14 kit.
        needs_labels: A prediction without label is refused; else its label is "".

    Raises:
        UsageError: It cannot be read, is of another format, holds a number that is not finite, an
            unknown class number, or a segment that ends before it starts.
    """
    predicted: Predicted = {}
    if path.suffix == ".txt":
        for number, words in read_words(path):
            where = f"line {number} of {str(path)!r}"
            if len(words) != 5:
                raise UsageError(f"{where} must be 'video start end class score'")
            start, end, class_number, score = read_numbers(words[1:], where)
            if class_number not in THUMOS_CLASSES:
                raise UsageError(f"{where} must have a class number of THUMOS'14, got {words[3]}")
            row = (start, end, THUMOS_CLASSES[int(class_number)], score)
            predicted.setdefault(words[0].removesuffix(".mp4"), []).append(row)
    else:
        for video_id, found in read_detections(path).items():
            rows = predicted.setdefault(plain_id(video_id), [])
            rows += [
                (one.start_seconds, one.end_seconds, one.label or "", one.score) for one in found
            ]
    for video_id, rows in predicted.items():
        for number, (start, end, label, _) in enumerate(rows):
            where = f"prediction {number} of video {video_id!r} in {str(path)!r}"
            if end < start:
                raise UsageError(f"{where} must not end before it starts, got {start} to {end}")
            if needs_labels and not label:
                raise UsageError(f"{where} must have a label")
    return predicted


def read_predicted_rows(path: Path) -> dict[str, np.ndarray]:
    """Read scores per frame: video id -> float `(T, C)`.

    Raises:
        UsageError: It cannot be read, is of another format, or holds a NaN.
    """
    if path.suffix == ".json":
        content = read_json_file(path)
        if not isinstance(content, dict):
            raise UsageError(f"{str(path)!r} must be an object of videos")
        try:
            arrays = {key: np.array(rows, np.float64) for key, rows in content.items()}
        except (TypeError, ValueError) as err:
            raise UsageError(f"{str(path)!r} must hold rows of numbers per video: {err}") from err
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
                if size > LARGEST_ROWS:
                    raise ValueError(f"it unpacks to more than {LARGEST_ROWS} bytes")
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except OSError as err:
            raise UsageError(f"cannot read {str(path)!r}: {err.strerror or err}") from err
        except (ValueError, EOFError, MemoryError, AttributeError, zipfile.BadZipFile) as err:
            raise UsageError(
                f"scores per frame must be arrays in .npz, or .json, but {str(path)!r} is neither: "
                f"{err}"
            ) from err
    for video_id, scores_TC in arrays.items():
        is_rows = scores_TC.ndim == 2 and scores_TC.dtype.kind in "fiu"
        if not is_rows or np.isnan(scores_TC).any():
            raise UsageError(
                f"video {video_id!r} of {str(path)!r} must have scores (rows, classes), none NaN, "
                f"got {scores_TC.dtype} {scores_TC.shape}"
            )
    return {plain_id(video_id): scores_TC for video_id, scores_TC in arrays.items()}


def read_charades_submission(path: Path) -> dict[str, np.ndarray]:
    """Read a submission: video id -> float64 `(25, C)`, -infinity where a frame is missing.

    Raises:
        UsageError: It cannot be read, a line is of another form, or a frame comes twice.
    """
    frames: dict[tuple[str, int], list[float]] = {}
    num_classes = 0
    for number, (video_id, *words) in read_words(path):
        where = f"line {number} of {str(path)!r}"
        frame, *scores = read_numbers(words, where) or [math.nan]
        num_classes = num_classes or len(scores)
        if frame not in range(1, CHARADES_FRAMES + 1) or not scores or len(scores) != num_classes:
            raise UsageError(
                f"{where} must be 'id frame scores' with a frame of 1 to {CHARADES_FRAMES} and "
                f"{num_classes} scores, got frame {words[:1]} and {len(scores)} scores"
            )
        if (video_id, int(frame)) in frames:
            raise UsageError(f"{where} must be another frame, but {video_id} {words[0]} is twice")
        frames[video_id, int(frame)] = scores
    if not frames:
        raise UsageError(f"{str(path)!r} must hold lines 'id frame scores', got none")
    found: dict[str, np.ndarray] = {}
    for (video_id, frame), scores in frames.items():
        missing_JC = np.full((CHARADES_FRAMES, num_classes), -np.inf)
        found.setdefault(video_id, missing_JC)[frame - 1] = scores
    return found


def read_predicted_sentences(path: Path) -> np.ndarray:
    """Read ranked segments per sentence: float64 `(Q, K, 2)`, NaN where there are fewer than `K`.

    Raises:
        UsageError: It cannot be read, is of another format, or a segment ends before it starts.
    """
    content = read_json_file(path)
    if not isinstance(content, list) or not content:
        raise UsageError(f"{str(path)!r} must be a list with an entry per sentence")
    try:
        spans = [[read_numbers(span, f"sentence {q}") for span in s] for q, s in enumerate(content)]
    except TypeError as err:
        raise UsageError(f"{str(path)!r} must hold lists of [start, end]: {err}") from err
    found_QK2 = np.full((len(spans), max(1, *map(len, spans)), 2), np.nan)
    for q, ranked in enumerate(spans):
        if any(len(span) != 2 or span[1] < span[0] for span in ranked):
            raise UsageError(
                f"sentence {q} of {str(path)!r} must have segments [start, end] that do not end "
                f"before they start, got {ranked}"
            )
        found_QK2[q, : len(ranked)] = np.array(ranked).reshape(-1, 2)
    return found_QK2

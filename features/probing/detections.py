"""Detections in seconds, and the official JSON of ActivityNet that holds them.

    {"version": "VERSION 1.3", "external_data": {},
     "results": {"<video id>": [{"score": 0.9, "segment": [1.5, 4.0], "label": "Jump"}, ...]}}

Proposals are detections without a label: the same file without that key. Source: the result files
that `activitynet/ActivityNet/Evaluation/eval_detection.py` and `eval_proposal.py` read.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from manifests import UsageError, write_atomic

from ..annotations import AnnotatedSegment

VERSION = "VERSION 1.3"


class Detection(NamedTuple):
    """One predicted action instance: half-open in seconds; `label` is None for a proposal."""

    start_seconds: float
    end_seconds: float
    score: float
    label: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DetectedVideo:
    """What a head found in one video, beside the truth.

    Attributes:
        video_id: As in the store.
        detections: Best first.
        segments: Of the annotation.
        duration_seconds: Of the video.
    """

    video_id: str
    detections: tuple[Detection, ...]
    segments: tuple[AnnotatedSegment, ...]
    duration_seconds: float


def write_detections(
    path: Path | str,
    detections: Mapping[str, Iterable[Detection]],
    external_data: Mapping[str, Any] | None = None,
) -> None:
    """Write detections or proposals of many videos as the official JSON, in the order given.

    Args:
        path: Put in place whole.
        detections: Video id -> its detections; a video without any is written with an empty list.
        external_data: What the field of that name says; an empty object by default.

    Raises:
        ValueError: A time or a score is not finite.
    """
    results = {
        video_id: [_entry(video_id, detection) for detection in found]
        for video_id, found in detections.items()
    }
    content = {"version": VERSION, "results": results, "external_data": dict(external_data or {})}
    write_atomic(path, (json.dumps(content, allow_nan=False) + "\n").encode())


def read_detections(path: Path | str) -> dict[str, tuple[Detection, ...]]:
    """Read the official JSON of detections or proposals; labels are left as they are.

    Raises:
        UsageError: There is no such file, it is not of this format, or a number is not finite.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as err:
        raise UsageError(f"the detections {str(path)!r} cannot be read: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"the detections {str(path)!r} are not JSON: {err}") from err
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise UsageError(
            f"a file of detections must be an object with the key 'results', an object by video "
            f"id, but {str(path)!r} is not"
        )
    return {video_id: _detections(found, video_id, path) for video_id, found in results.items()}


def _entry(video_id: str, detection: Detection) -> dict[str, Any]:
    start, end, score = (float(value) for value in detection[:3])
    if not (math.isfinite(start) and math.isfinite(end) and math.isfinite(score)):
        raise ValueError(f"a detection must have finite numbers, got {detection} of {video_id!r}")
    entry: dict[str, Any] = {"score": score, "segment": [start, end]}
    return entry if detection.label is None else entry | {"label": detection.label}


def _detections(found: Any, video_id: str, path: Path | str) -> tuple[Detection, ...]:
    if not isinstance(found, list):
        raise UsageError(f"the results of {video_id!r} must be a list ({str(path)!r})")
    return tuple(_detection(entry, i, video_id, path) for i, entry in enumerate(found))


def _detection(entry: Any, i: int, video_id: str, path: Path | str) -> Detection:
    """Return one entry; times given as text are taken, as in G-TAD's THUMOS file."""
    try:
        start, end = (float(seconds) for seconds in entry["segment"])
        score, label = float(entry["score"]), entry.get("label")
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as err:
        raise UsageError(
            f"a detection must be an object with 'score' and 'segment' [start, end], but number "
            f"{i} of {video_id!r} is not ({str(path)!r})"
        ) from err
    if not all(map(math.isfinite, (start, end, score))) or not isinstance(label, str | None):
        raise UsageError(
            f"a detection must have finite numbers and a label that is text, but number {i} of "
            f"{video_id!r} has {entry} ({str(path)!r})"
        )
    return Detection(start, end, score, label)


def best_first(detections: Sequence[Detection]) -> tuple[Detection, ...]:
    """Return detections by descending score; equal ones keep their order."""
    return tuple(sorted(detections, key=lambda detection: -detection.score))

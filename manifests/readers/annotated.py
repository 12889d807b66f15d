"""What the readers of untrimmed datasets share: open the file, check times, find the videos.

A video has no label of its own here: its segments have. Its file is found under the folder of
videos, at any depth and with any video extension, as `ID`, `v_ID`, or `ID` without its `v_`.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .listing import Entry, Listing, Segment, index_videos

WITHOUT_SEGMENTS = "videos are listed without a segment, and kept"
BEGINNING = 4096  # characters by which a layout is guessed


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """A video of an annotation file, with its actions as (label, start_seconds, end_seconds)."""

    video_id: str
    subset: str | None
    segments: tuple[tuple[str, float, float], ...]
    duration_seconds: float | None = None


def list_annotated(
    annotated: Iterable[AnnotatedVideo],
    source: Path,
    videos: Path | None,
    classes: tuple[str, ...],
    oddities: Mapping[str, int],
) -> Listing:
    """List annotated videos whose files lie under `videos`.

    Args:
        annotated: The videos of the annotation files; the labels are among `classes`.
        source: The annotation file or folder, for messages.
        videos: Folder of the files.
        classes: Class names in id order.
        oddities: What the reader counted so far.

    Raises:
        UsageError: No videos are listed, one is listed twice, or no folder of videos.
    """
    by_id: dict[str, AnnotatedVideo] = {}
    for video in annotated:
        if by_id.setdefault(video.video_id, video) is not video:
            raise UsageError(
                f"a video must be listed once, but {video.video_id!r} is twice ({str(source)!r})"
            )
    if not by_id:
        raise UsageError(f"the annotations must name videos, got none in {str(source)!r}")
    found = index_videos(videos, source)
    entries, missing = [], []
    for video_id, video in sorted(by_id.items()):
        names = (video_id, f"v_{video_id}", video_id.removeprefix("v_"))
        path = next((found[name] for name in names if name in found), None)
        if path is None:
            missing.append(video_id)
        else:
            entries.append(Entry(video_id, path, subset=video.subset))
    without = sum(not video.segments for video in by_id.values())
    counts = {**oddities, WITHOUT_SEGMENTS: without}
    return Listing(
        entries=tuple(entries),
        classes=classes,
        missing=tuple(missing),
        segments=tuple(
            Segment(video_id, *segment)
            for video_id, video in sorted(by_id.items())
            for segment in video.segments
        ),
        durations={
            video.video_id: video.duration_seconds
            for video in by_id.values()
            if video.duration_seconds is not None
        },
        oddities={rule: count for rule, count in counts.items() if count},
    )


def seconds(value: Any, where: str, source: Path) -> float:
    """Return a time that the file gives as a number or as text.

    Raises:
        UsageError: It is neither, or not finite.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where} must have times in seconds, got {value!r} ({str(source)!r})")
    return number


def class_of(number: Any, first: int, classes: tuple[str, ...], where: str, source: Path) -> str:
    """Return the class of an official number, which counts from `first`.

    Raises:
        UsageError: It is no such number.
    """
    if not isinstance(number, int) or not 0 <= number - first < len(classes):
        raise UsageError(
            f"{where} must have a class number in {first}..{first + len(classes) - 1}, got "
            f"{number!r} ({str(source)!r})"
        )
    return classes[number - first]


def beginning(source: Path) -> str:
    """Return how a file begins, without any white space; "" for a folder."""
    if not source.is_file():
        return ""
    with open(source, encoding="utf-8-sig", errors="replace") as file:
        return "".join(file.read(BEGINNING).split())


def header_of(source: Path) -> set[str]:
    """Return the column names of a CSV file; none for any other file."""
    if not source.is_file() or source.suffix.lower() != ".csv":
        return set()
    with open(source, encoding="utf-8-sig", errors="replace", newline="") as file:
        return set(file.readline(BEGINNING).strip().split(","))


def read_object(source: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    try:
        found = json.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise UsageError(f"cannot read {str(source)!r}: {err.strerror}") from err
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as err:
        raise UsageError(f"not an annotation file: {str(source)!r} ({err})") from err
    if not isinstance(found, dict):
        raise UsageError(f"the annotations must be a JSON object of videos ({str(source)!r})")
    return found


def read_rows(source: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("line 12", cells by column) for every row of a CSV file.

    Raises:
        UsageError: It cannot be read, lacks one of `columns`, or a row lacks cells.
    """
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for column in columns:
                if column not in (reader.fieldnames or ()):
                    raise UsageError(f"column {column!r} is missing ({str(source)!r})")
            for row in reader:
                where = f"line {reader.line_num}"
                if any(row[column] is None for column in columns):
                    raise UsageError(f"{where} must have {len(row)} cells ({str(source)!r})")
                yield where, row
    except OSError as err:
        raise UsageError(f"cannot read {str(source)!r}: {err.strerror}") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise UsageError(f"not an annotation file: {str(source)!r} ({err})") from err


def read_lines(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield ("line 12", words) for every line of a text file that is not empty.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except OSError as err:
        raise UsageError(f"cannot read {str(source)!r}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"not an annotation file: {str(source)!r} ({err})") from err
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            yield f"line {number}", words

"""Read the official lists of Kinetics-400, -600, -700 and -700-2020.

- CSV: `label,youtube_id,time_start,time_end,split[,is_cc]`; a test list has no `label`.
- JSON: `{youtube_id: {annotations: {label, segment: [start, end]}, duration, subset, url}}`.

A clip is found under the folder of videos, at any depth and with any video extension, as
`ID_SSSSSS_EEEEEE` (the file is the clip: no times are kept) or else as `ID` (the whole YouTube
video: the times are kept). Of several such files the first by path is taken. `video_id` is always
`ID_SSSSSS_EEEEEE`, so that it does not depend on the layout; a row that repeats another one exactly
counts once.

Source: Kay et al., "The Kinetics Human Action Video Dataset", 2017, and the lists' own headers.
"""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .listing import Entry, Listing, index_videos, match_classes

COLUMNS = ("youtube_id", "time_start", "time_end")


@dataclass(frozen=True, slots=True)
class _Row:
    youtube_id: str
    start_seconds: float
    end_seconds: float
    label: str | None
    subset: str | None
    where: str  # "line 12", or the JSON key

    @property
    def clip_name(self) -> str:
        return f"{self.youtube_id}_{_digits(self.start_seconds)}_{_digits(self.end_seconds)}"


def is_kinetics(source: Path) -> bool:
    """Tell by its beginning whether `source` is a Kinetics list."""
    if not source.is_file() or source.suffix.lower() not in (".csv", ".json"):
        return False
    with open(source, encoding="utf-8-sig", errors="replace") as file:
        if source.suffix.lower() == ".csv":
            return set(COLUMNS) <= set(_header(file.readline(4096).split(",")))
        beginning = "".join(file.read(4096).split())
    return '"annotations":{' in beginning and '"segment":[' in beginning


def read_kinetics(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the clips of a Kinetics list whose files lie under `videos`.

    Args:
        source: The official CSV or JSON file.
        videos: Folder of the files.
        classes: Class names in id order; the sorted labels of the whole list if None.

    Raises:
        UsageError: No `videos`, a damaged list, a row without label that is not of the test set.
    """
    rows = _unique_rows(source)
    names, label_class = match_classes((row.label for row in rows.values() if row.label), classes)
    found = index_videos(videos, source)
    entries, missing = [], []
    for video_id, row in sorted(rows.items()):
        is_clip = video_id in found
        path = found.get(video_id) or found.get(row.youtube_id)
        if path is None:
            missing.append(video_id)
            continue
        label = label_class[row.label] if row.label else None
        times = (None, None) if is_clip else (row.start_seconds, row.end_seconds)
        entries.append(Entry(video_id, path, label, row.subset, *times))
    return Listing(tuple(entries), names, tuple(missing))


def _unique_rows(source: Path) -> dict[str, _Row]:
    try:
        rows: dict[str, _Row] = {}
        for row in _read_json(source) if source.suffix.lower() == ".json" else _read_csv(source):
            first = rows.setdefault(row.clip_name, row)
            if (first.label, first.subset) != (row.label, row.subset):
                raise UsageError(
                    f"a clip must have one label and one split, but {first.where} and {row.where} "
                    f"differ on {row.clip_name!r} ({str(source)!r})"
                )
    except OSError as err:
        raise UsageError(f"cannot read {str(source)!r}: {err.strerror}") from err
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as err:
        raise UsageError(f"not a Kinetics list: {str(source)!r} ({err})") from err
    if not rows:
        raise UsageError(f"the list must name clips, got none in {str(source)!r}")
    return rows


def _read_csv(source: Path) -> Iterator[_Row]:
    with open(source, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = _header(next(reader, []))
        for column in COLUMNS:
            if column not in header:
                raise UsageError(
                    f"column {column!r} is missing, the header is {','.join(header)!r} "
                    f"({str(source)!r})"
                )
        for cells in reader:
            if not cells:
                continue
            named = dict(zip(header, cells, strict=False))
            where = f"line {reader.line_num}"
            youtube_id = named.get("youtube_id", "")
            times = (named.get("time_start"), named.get("time_end"))
            yield _row(youtube_id, times, named.get("label"), named.get("split"), where, source)


def _header(cells: list[str]) -> list[str]:
    return [cell.strip().strip('"').lower().lstrip("#") for cell in cells]


def _read_json(source: Path) -> Iterator[_Row]:
    videos = json.loads(source.read_text(encoding="utf-8-sig"))
    if not isinstance(videos, dict):
        raise UsageError(f"not a Kinetics list: {str(source)!r} (no object of youtube_ids)")
    for youtube_id, video in videos.items():
        where = f"entry {youtube_id!r}"
        note = video.get("annotations") if isinstance(video, dict) else None
        segment = note.get("segment") if isinstance(note, dict) else None
        if note is None or not isinstance(segment, list) or len(segment) != 2:
            raise UsageError(
                f"{where} must have annotations with a segment [start, end] ({str(source)!r})"
            )
        yield _row(
            youtube_id, tuple(segment), note.get("label"), video.get("subset"), where, source
        )


def _row(
    youtube_id: str, times: tuple[Any, ...], label: Any, subset: Any, where: str, source: Path
) -> _Row:
    youtube_id = youtube_id.strip()
    if not youtube_id:
        raise UsageError(f"{where} has no youtube_id ({str(source)!r})")
    try:
        start_seconds, end_seconds = (float(seconds) for seconds in times)
    except (TypeError, ValueError):
        start_seconds = end_seconds = math.nan
    if not 0 <= start_seconds < end_seconds < math.inf:
        raise UsageError(
            f"{where} must have times 0 <= time_start < time_end in seconds, got {times[0]!r} and "
            f"{times[1]!r} ({str(source)!r})"
        )
    label = str(label).strip() if label is not None else ""
    subset = str(subset).strip() if subset is not None else ""
    if not label and not subset.lower().startswith("test"):
        raise UsageError(
            f"{where} has no label, which only clips of a test split may lack ({str(source)!r})"
        )
    return _Row(youtube_id, start_seconds, end_seconds, label or None, subset or None, where)


def _digits(seconds: float) -> str:
    # 417 -> "000417"; official times are whole seconds, others keep milliseconds
    return f"{int(seconds):06d}" if seconds == int(seconds) else f"{seconds:010.3f}"

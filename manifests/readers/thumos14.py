"""Read the temporal annotations of THUMOS'14.

- G-TAD's tables `val_Annotation.csv` and `test_Annotation.csv`
  (`video,type,type_idx,start,end,startFrame,endFrame`), and `thumos14_test_groundtruth.csv`
  (`video-name,t-init,t-end,...,video-duration,frame-rate,video-frames,label-idx`).
- The official text files, one per class: `BaseballPitch_val.txt`, `BaseballPitch_test.txt`, ...,
  whose lines are `video start end`.
- The ActivityNet-style `{database: {video: {subset, annotations}}}`; its segments may be texts.

SOURCE is one of the tables or the JSON file, or the folder of both G-TAD tables or of the text
files, which are all read. Names of tables may have something before them
(`thumos14_val_Annotation.csv`). A ground truth beside the tables gives the durations of the test
videos.

Rules: the subset is `validation` or `test`, as the video ids say, but JSON files keep their own
words (`train` and `test` in G-TAD's); label ids are those of the 20 sorted names, 0 to 19, not
`type_idx`; Ambiguous segments are left out, since only the THUMOS evaluation kit uses them, which
takes them from the official files; CliffDiving is annotated as Diving too, and both are kept; the
test videos 0000270, 0001292 and 0001496, which others leave out, are kept where they are listed.

Source: Jiang et al., "THUMOS Challenge", 2014; Idrees et al., 2017, and the files themselves.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .activitynet import read_database
from .annotated import (
    AnnotatedVideo,
    beginning,
    class_of,
    header_of,
    list_annotated,
    read_lines,
    read_rows,
    seconds,
)
from .listing import Listing, match_classes

# fmt: off
CLASSES = (
    "BaseballPitch", "BasketballDunk", "Billiards", "CleanAndJerk", "CliffDiving", "CricketBowling",
    "CricketShot", "Diving", "FrisbeeCatch", "GolfSwing", "HammerThrow", "HighJump", "JavelinThrow",
    "LongJump", "PoleVault", "Shotput", "SoccerPenalty", "TennisSwing", "ThrowDiscus",
    "VolleyballSpiking",
)
# fmt: on
AMBIGUOUS = "Ambiguous"
LEFT_OUT = "Ambiguous segments are left out: only the THUMOS evaluation kit uses them"
OTHER_NUMBERS = "classes have other numbers in the file; label_id counts the sorted names from 0"
DISPUTED = "test videos that others leave out (0000270, 0001292, 0001496) are kept"
DISPUTED_VIDEOS = frozenset(f"video_test_{number}" for number in ("0000270", "0001292", "0001496"))

TABLE_COLUMNS = ("video", "type", "type_idx", "start", "end")
TRUTH_COLUMNS = ("video-name", "t-init", "t-end", "video-duration", "label-idx")
TRUTH = "test_groundtruth.csv"
# What a folder may hold: the first kind that is there counts.
FOLDERS = (
    ("*val_Annotation.csv", "*test_Annotation.csv"),
    tuple(f"{name}_{part}.txt" for part in ("val", "test") for name in (*CLASSES, AMBIGUOUS)),
)


class Row(NamedTuple):
    """A segment as a line of its own."""

    video_id: str
    label: str
    start_seconds: float
    end_seconds: float


def is_thumos14(source: Path) -> bool:
    """Tell by its beginning, or by its files, whether `source` is annotated as THUMOS'14 is."""
    if source.is_dir():
        return bool(_files(source))
    if source.suffix.lower() == ".json":
        found = beginning(source)
        return '"database":{' in found and has_thumos_ids(found)
    header = header_of(source)
    return header >= set(TABLE_COLUMNS) or header >= set(TRUTH_COLUMNS)


def has_thumos_ids(text: str) -> bool:
    """Tell whether a text names videos of THUMOS'14."""
    return any(f'"video_{part}_' in text for part in ("validation", "test"))


def read_thumos14(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the videos and segments of THUMOS'14.

    Args:
        source: An annotation file, or the folder of such files.
        videos: Folder of the files, called `video_test_0000004`, ....
        classes: Class names in id order; the 20 sorted names if None.

    Raises:
        UsageError: A damaged file, or a label that is none of `classes`.
    """
    files = _files(source) if source.is_dir() else [source]
    if not files:
        raise UsageError(f"the folder must hold annotations of THUMOS'14, got {str(source)!r}")
    oddities: Counter[str] = Counter()
    if files[0].suffix.lower() == ".json":
        annotated = [video for path in files for video in read_database(path, oddities)]
    else:
        durations = _durations(files)
        rows = [row for path in files for row in _rows(path)]
        annotated = [
            replace(video, duration_seconds=durations.get(video.video_id))
            for video in group_by_video(rows)
        ]
    listed = [_without_ambiguous(video, oddities) for video in annotated]
    oddities[DISPUTED] = sum(video.video_id in DISPUTED_VIDEOS for video in listed)
    labels = {label for video in listed for label, _, _ in video.segments}
    if any("type_idx" in header_of(path) for path in files):
        oddities[OTHER_NUMBERS] = len(labels)
    names, _ = match_classes(labels, classes or (CLASSES if labels <= set(CLASSES) else None))
    return list_annotated(listed, source, videos, names, oddities)


def group_by_video(rows: Iterable[Row]) -> list[AnnotatedVideo]:
    """Return the videos of annotated rows; the subset is what the video's id says."""
    segments: dict[str, list[tuple[str, float, float]]] = {}
    for row in rows:
        segments.setdefault(row.video_id, []).append(row[1:])
    return [
        AnnotatedVideo(video_id, subset_of(video_id), tuple(found))
        for video_id, found in segments.items()
    ]


def subset_of(video_id: str) -> str | None:
    """Return `validation` or `test`, as the id of a THUMOS'14 video says."""
    parts = video_id.split("_")
    return parts[1] if len(parts) == 3 and parts[1] in ("validation", "test") else None


def read_class_file(path: Path, label: str) -> Iterator[Row]:
    """Yield the rows of an official text file, `video start end` per line.

    Raises:
        UsageError: A line is something else.
    """
    for where, words in read_lines(path):
        if len(words) != 3:
            raise UsageError(
                f"{where} must be 'video start end', got {' '.join(words)!r} ({str(path)!r})"
            )
        start, end = seconds(words[1], where, path), seconds(words[2], where, path)
        yield Row(words[0], label, start, end)


def _files(folder: Path) -> list[Path]:
    kinds = ([path for name in names for path in sorted(folder.glob(name))] for names in FOLDERS)
    return next((files for files in kinds if files), [])


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() == ".txt":
        yield from read_class_file(path, path.stem.partition("_")[0])
    elif header_of(path) >= set(TRUTH_COLUMNS):
        for where, row in read_rows(path, TRUTH_COLUMNS):
            start, end = seconds(row["t-init"], where, path), seconds(row["t-end"], where, path)
            yield Row(row["video-name"], _truth_label(row["label-idx"], where, path), start, end)
    else:
        for where, row in read_rows(path, TABLE_COLUMNS):
            start, end = seconds(row["start"], where, path), seconds(row["end"], where, path)
            yield Row(row["video"], row["type"], start, end)


def _truth_label(number: str, where: str, path: Path) -> str:
    if number == "-1":
        return AMBIGUOUS
    return class_of(int(number) if number.isdecimal() else number, 0, CLASSES, where, path)


def _durations(files: list[Path]) -> dict[str, float]:
    """Return the seconds that the ground truth states, if it is read or lies beside the tables."""
    beside = [path for file in files for path in sorted(file.parent.glob(f"*{TRUTH}"))]
    return {
        row["video-name"]: seconds(row["video-duration"], where, path)
        for path in dict.fromkeys(beside)
        for where, row in read_rows(path, TRUTH_COLUMNS)
    }


def _without_ambiguous(video: AnnotatedVideo, oddities: Counter[str]) -> AnnotatedVideo:
    kept = tuple(segment for segment in video.segments if segment[0] != AMBIGUOUS)
    oddities[LEFT_OUT] += len(video.segments) - len(kept)
    return replace(video, segments=kept)

"""Annotations as the official evaluators read them: what a prediction file is scored against.

- `segments.parquet` of this project; lengths, and videos without segments, are those of the
  `sources.parquet` beside it, where there is one;
- ActivityNet's `{database: {video: {subset, duration, annotations}}}`, and the same without
  `database` (BMN, mmaction2); times given as text are read as numbers (G-TAD's THUMOS file);
- `{video: {subset, duration, actions: [[class, start, end], ...]}}` of super-events and TGM, for
  MultiTHUMOS and Charades; labels are the class numbers, counted from 0;
- `Charades_v1_test.csv`: `id,...,actions,length`;
- THUMOS'14: the folder of `BaseballPitch_test.txt`, ..., `Ambiguous_test.txt`, whose lines are
  `video start end`, or one of G-TAD's tables, `test_Annotation.csv` and the ground truth;
- Charades-STA: `charades_sta_test.txt`, lines `video start end##sentence`;
- CrossTask: the folder of `TASK_VIDEO.csv`, lines `step,start,end`, steps counted from 1.

Ids of `v_` and 11 characters lose their `v_`, here and in prediction files: public files of one
dataset have it or not. Segments keep the order of the file, and are kept as they are: the
evaluators say what becomes of odd ones.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests import AnyPath, UsageError, read_segments, read_sources

from ..annotations import Annotations, sources_beside
from ..metrics import AMBIGUOUS

LARGEST_FILE = 2**29  # bytes; official prediction files have some 10**8
YOUTUBE_ID = 11  # characters
CHARADES_COLUMNS = ("id", "length", "actions")
THUMOS_COLUMNS = ("video", "type", "start", "end")
THUMOS_TRUTH_COLUMNS = ("video-name", "label-idx", "t-init", "t-end", "video-duration")

# Class numbers of the THUMOS'14 detection task (detclasslist.txt of its kit).
THUMOS_CLASSES = {
    7: "BaseballPitch",
    9: "BasketballDunk",
    12: "Billiards",
    21: "CleanAndJerk",
    22: "CliffDiving",
    23: "CricketBowling",
    24: "CricketShot",
    26: "Diving",
    31: "FrisbeeCatch",
    33: "GolfSwing",
    36: "HammerThrow",
    40: "HighJump",
    45: "JavelinThrow",
    51: "LongJump",
    68: "PoleVault",
    79: "Shotput",
    85: "SoccerPenalty",
    92: "TennisSwing",
    93: "ThrowDiscus",
    97: "VolleyballSpiking",
}


@dataclass
class TruthFile:
    """What an annotation file says.

    Attributes:
        segments: Video id -> (start_seconds, end_seconds, label), in the order of the file; videos
            without segments are here too, if the file names them.
        lengths: Video id -> length in seconds, of those that the file states.
        classes: Labels in id order, where the file states them.
    """

    segments: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    def num_backward(self) -> int:
        """Return how many segments end before they start."""
        return sum(end < start for found in self.segments.values() for start, end, _ in found)


def read_truth(path: Path, subset: str | None = None, first_class: int = 0) -> TruthFile:
    """Read an annotation file of any of the layouts.

    Args:
        path: File, or folder of THUMOS'14.
        subset: Take the videos of this subset only; all if None.
        first_class: Number of the first class in a file with class numbers.

    Raises:
        UsageError: It cannot be read, is of none of the layouts, or has no video of the subset.
    """
    if path.suffix == ".parquet":
        truth, subsets = _read_tables(path)
    elif path.is_dir():
        truth, subsets = _read_thumos(path)
    elif path.suffix == ".csv":
        truth, subsets = _read_csv(path)
    else:
        truth, subsets = _read_json(path, first_class)
    if subset is not None:
        if subset not in subsets.values():
            known = ", ".join(sorted({repr(name) for name in subsets.values() if name is not None}))
            raise UsageError(
                f"subset {subset!r} has no video in {str(path)!r}; known are {known or 'none'}"
            )
        wanted = {video_id for video_id, name in subsets.items() if name == subset}
        truth.segments = {key: rows for key, rows in truth.segments.items() if key in wanted}
    if not truth.segments:
        raise UsageError(f"the annotations must name videos, got none in {str(path)!r}")
    return truth


def read_lengths(path: AnyPath) -> dict[str, float]:
    """Return the lengths of videos that a sources table or an annotation file states.

    Raises:
        UsageError: As `read_truth`.
    """
    if path.suffix != ".parquet":
        return read_truth(Path(str(path))).lengths
    videos = read_sources(path).table.select(["video_id", "duration_seconds"]).to_pylist()
    return {
        v["video_id"]: v["duration_seconds"] for v in videos if v["duration_seconds"]
    }  # 0: rejected


def read_json_file(path: Path) -> Any:
    """Read a JSON file of half a gigabyte at most.

    Raises:
        UsageError: It cannot be read or is no JSON.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise UsageError(f"{str(path)!r} must have at most {LARGEST_FILE} bytes, got {size}")
        return json.loads(path.read_bytes())
    except OSError as err:
        raise UsageError(f"cannot read {str(path)!r}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{str(path)!r} must be JSON, but is not: {err}") from err


def read_words(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number, words) of every line of a text file that is not empty.

    Raises:
        UsageError: It cannot be read, or is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as err:
        raise UsageError(f"cannot read {str(path)!r}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"{str(path)!r} must be a text file, but is not: {err}") from err
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            yield number, words


def read_numbers(words: Sequence[Any], where: str) -> list[float]:
    """Return finite numbers.

    Raises:
        UsageError: One is none; `where` says where.
    """
    try:
        numbers = [float(word) for word in words if not isinstance(word, bool)]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"{where} must hold finite numbers, got {words!r}")
    return numbers


def plain_id(video_id: str) -> str:
    """Return a YouTube id without the `v_` of ActivityNet's files; other ids as they are."""
    has_prefix = video_id.startswith("v_") and len(video_id) == 2 + YOUTUBE_ID
    return video_id[2:] if has_prefix else video_id


def read_sentences(path: Path, subset: str | None = None) -> list[tuple[str, float, float]]:
    """Read the annotated segment of every sentence: (video id, start_seconds, end_seconds).

    Args:
        path: `charades_sta_test.txt`, or a `segments.parquet` with a row per sentence.
        subset: Of the table; a text file has none.

    Raises:
        UsageError: It cannot be read, or is of neither layout.
    """
    if path.suffix == ".parquet":
        rows = read_segments(path).to_pylist()
        found = [
            (row["video_id"], row["start_seconds"], row["end_seconds"])
            for row in rows
            if subset in (None, row["subset"])
        ]
    else:
        found = []
        for number, words in read_words(path):
            where = f"line {number} of {str(path)!r}"
            times = " ".join(words).partition("##")[0].split()
            if len(times) != 3:
                raise UsageError(f"{where} must be 'video start end##sentence'")
            start, end = read_numbers(times[1:], where)
            found.append((times[0], start, end))
    if not found:
        raise UsageError(f"the annotations must hold sentences, got none in {str(path)!r}")
    return found


def read_steps(folder: Path) -> dict[str, list[tuple[float, float, str]]]:
    """Read CrossTask: `TASK_VIDEO` -> (start_seconds, end_seconds, step number from 0 as text).

    Raises:
        UsageError: The folder holds no such file, or one is damaged.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted(folder.glob("*_*.csv")):
        rows = found.setdefault(path.stem, [])
        for number, words in read_words(path):
            where = f"line {number} of {str(path)!r}"
            cells = "".join(words).split(",")
            if len(cells) != 3:
                raise UsageError(f"{where} must be 'step,start,end'")
            start, end = read_numbers(cells[1:], where)
            rows.append((start, end, str(_class_number(cells[0], 1, where))))
    if not found:
        raise UsageError(f"the folder must hold TASK_VIDEO.csv files, got {str(folder)!r}")
    return found


def _read_tables(path: Path) -> tuple[TruthFile, dict[str, str | None]]:
    """Read `segments.parquet`, and the table of sources beside it."""
    table = read_segments(path)
    annotations = Annotations.of_table(table)
    truth = TruthFile(classes=annotations.classes)
    subsets: dict[str, str | None] = {}
    beside = sources_beside(table, path)
    if beside is not None:
        sources = read_sources(beside).table
        for video in sources.select(["video_id", "subset"]).to_pylist():
            subsets[video["video_id"]] = video["subset"]
            truth.segments[video["video_id"]] = []
        truth.lengths = read_lengths(beside)
    for video_id, found in annotations.segments.items():
        subsets[video_id] = annotations.subsets[video_id] or subsets.get(video_id)
        truth.segments[video_id] = [
            (start, end, annotations.classes[index]) for start, end, index in found
        ]
    return truth, subsets


def _read_thumos(folder: Path) -> tuple[TruthFile, dict[str, str | None]]:
    truth = TruthFile()
    subsets: dict[str, str | None] = {}
    for path in sorted([*folder.glob("*_val.txt"), *folder.glob("*_test.txt")]):
        label = path.stem.rsplit("_", 1)[0]
        for number, words in read_words(path):
            where = f"line {number} of {str(path)!r}"
            if len(words) != 3:
                raise UsageError(f"{where} must be 'video start end', got {' '.join(words)!r}")
            start, end = read_numbers(words[1:], where)
            truth.segments.setdefault(words[0], []).append((start, end, label))
            subsets[words[0]] = "test" if path.stem.endswith("_test") else "validation"
    if not subsets:
        raise UsageError(
            f"the folder must hold the text files of THUMOS'14 (BaseballPitch_test.txt, ...), "
            f"got {str(folder)!r}"
        )
    return truth, subsets


def _read_csv(path: Path) -> tuple[TruthFile, dict[str, str | None]]:
    """Read Charades or a table of THUMOS'14, as the columns say."""
    truth = TruthFile()
    subsets: dict[str, str | None] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            layouts = (CHARADES_COLUMNS, THUMOS_COLUMNS, THUMOS_TRUTH_COLUMNS)
            columns = set(reader.fieldnames or ())
            layout = next((layout for layout in layouts if columns >= set(layout)), None)
            if layout is None:
                raise UsageError(
                    f"{str(path)!r} must have the columns "
                    + ", or ".join(", ".join(layout) for layout in layouts)
                )
            for row in reader:
                where = f"line {reader.line_num} of {str(path)!r}"
                cells = [row[name] or "" for name in layout]
                if layout is CHARADES_COLUMNS:
                    _add_charades(truth, cells, where)
                else:
                    _add_thumos(truth, cells, where)
                    subsets[cells[0]] = next(iter(cells[0].split("_")[1:2]), None)
    except OSError as err:
        raise UsageError(f"cannot read {str(path)!r}: {err.strerror}") from err
    except (UnicodeDecodeError, csv.Error) as err:
        raise UsageError(f"{str(path)!r} must be a CSV file, but is not: {err}") from err
    return truth, subsets


def _add_charades(truth: TruthFile, cells: Sequence[str], where: str) -> None:
    video_id, length, text = cells
    actions = [action.split() for action in text.split(";") if action]
    if any(len(words) != 3 or words[0][:1] != "c" for words in actions):
        raise UsageError(f"{where} must have actions like 'c092 11.90 21.20'")
    (truth.lengths[video_id],) = read_numbers([length], where)
    truth.segments[video_id] = [
        _segment(times, str(_class_number(name[1:], 0, where)), where) for name, *times in actions
    ]


def _add_thumos(truth: TruthFile, cells: Sequence[str], where: str) -> None:
    video_id, label, start, end, *length = cells
    if length:  # the ground truth numbers the sorted names, and what is ambiguous -1
        names = [*THUMOS_CLASSES.values(), AMBIGUOUS]
        if label not in map(str, range(-1, len(THUMOS_CLASSES))):
            raise UsageError(f"{where} must have a class index of THUMOS'14, got {label!r}")
        label = names[int(label)]
        (truth.lengths[video_id],) = read_numbers(length, where)
    truth.segments.setdefault(video_id, []).append(_segment([start, end], label, where))


def _read_json(path: Path, first_class: int) -> tuple[TruthFile, dict[str, str | None]]:
    content = read_json_file(path)
    videos = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise UsageError(
            f"the annotations must be an object of videos, perhaps under 'database', but "
            f"{str(path)!r} is not"
        )
    if "results" in videos:
        raise UsageError(
            f"the annotations must be videos by id, but {str(path)!r} has 'results', as prediction "
            f"files do: predictions come first, then the truth"
        )
    truth = TruthFile()
    subsets: dict[str, str | None] = {}
    for given_id, video in videos.items():
        where = f"video {given_id!r} of {str(path)!r}"
        if not isinstance(video, dict) or not {"annotations", "actions"} & set(video):
            raise UsageError(f"{where} must be an object with 'annotations' or 'actions'")
        video_id = plain_id(given_id)
        truth.segments[video_id] = list(_segments(video, first_class, where))
        subsets[video_id] = video.get("subset")
        length = video.get("duration", video.get("duration_second"))
        if length is not None:
            (truth.lengths[video_id],) = read_numbers([length], where)
    return truth, subsets


def _segments(
    video: Mapping[str, Any], first_class: int, where: str
) -> Iterator[tuple[float, float, str]]:
    try:
        for note in video.get("annotations", ()):
            yield _segment(note["segment"], str(note["label"]), where)
        for number, *times in video.get("actions", ()):
            yield _segment(times, str(_class_number(number, first_class, where)), where)
    except (TypeError, ValueError, LookupError) as err:
        raise UsageError(
            f"{where} must have annotations {{segment: [start, end], label}} or actions "
            f"[class, start, end]"
        ) from err


def _segment(times: Sequence[Any], label: str, where: str) -> tuple[float, float, str]:
    start, end = read_numbers(times, where)
    return start, end, label


def _class_number(number: Any, first_class: int, where: str) -> int:
    """Return a class number counted from 0."""
    try:
        index = int(number) - first_class
    except (TypeError, ValueError, OverflowError):
        index = -1
    if index < 0:
        raise UsageError(f"{where} must have class numbers from {first_class}, got {number!r}")
    return index

"""Read Charades (and Charades-Ego).

- `Charades_v1_train.csv`, `Charades_v1_test.csv`: `id,...,actions,length` with actions like
  `c092 11.90 21.20;c147 0.00 12.60`. The subset is `train` or `test`, as the file's name says.
- `charades.json` of super-events and TGM (`action_json.py`), whose subsets are `training` and
  `testing`.

SOURCE is one of these files, or the folder that holds both CSV files.

Rules: label ids are the official numbers, 0 to 156; names are those of `Charades_v1_classes.txt`
(`c000 Holding some clothes`, ...), which is given with `--classes` or lies beside SOURCE, else the
codes `c000` to `c156`; a third of the segments ends after the stated length of the video: they are
cut to the end of the file, not to that length.

Source: Sigurdsson et al., "Hollywood in Homes", 2016, and the files themselves.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from .action_json import is_action_json, read_action_json
from .annotated import (
    AnnotatedVideo,
    class_of,
    header_of,
    list_annotated,
    read_rows,
    seconds,
)
from .listing import Listing, read_classes

NUM_CLASSES = 157
CLASS_LIST = "Charades*_classes.txt"
COLUMNS = ("id", "actions", "length")
UNNAMED = "classes have no names beside the file, and are called by their codes"


def is_charades(source: Path) -> bool:
    """Tell by its beginning, or by its files, whether `source` is annotated as Charades is."""
    if source.is_dir():
        return bool(_tables(source))
    return header_of(source) >= set(COLUMNS) or is_action_json(source)


def read_charades(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the videos and segments of Charades.

    Args:
        source: A CSV file, the folder of both, or `charades.json`.
        videos: Folder of the files, called `ID`.
        classes: Class names in id order; those of `Charades_v1_classes.txt` if None.

    Raises:
        UsageError: A damaged file, or a class number out of range.
    """
    tables = _tables(source) if source.is_dir() else [source]
    if not tables:
        raise UsageError(f"the folder must hold Charades_v1_*.csv, got {str(source)!r}")
    oddities: Counter[str] = Counter()
    beside = sorted(tables[0].parent.glob(CLASS_LIST))
    if classes is None and beside:
        classes = read_classes(beside[0])
    if classes is None:
        classes = tuple(f"c{number:03d}" for number in range(NUM_CLASSES))
        oddities[UNNAMED] = NUM_CLASSES
    if source.suffix.lower() == ".json":
        annotated = read_action_json(source, 0, classes)
    else:
        annotated = [video for table in tables for video in _read_table(table, classes)]
    return list_annotated(annotated, source, videos, classes, oddities)


def _tables(folder: Path) -> list[Path]:
    return [
        path for part in ("train", "test") for path in sorted(folder.glob(f"Charades*_{part}.csv"))
    ]


def _read_table(table: Path, classes: tuple[str, ...]) -> Iterator[AnnotatedVideo]:
    part = re.search(r"_(train|test)\b", table.stem)
    for where, row in read_rows(table, COLUMNS):
        yield AnnotatedVideo(
            row["id"],
            part[1] if part else None,
            tuple(
                _segment(action, classes, where, table)
                for action in row["actions"].split(";")
                if action.strip()
            ),
            seconds(row["length"], where, table),
        )


def _segment(
    action: str, classes: tuple[str, ...], where: str, table: Path
) -> tuple[str, float, float]:
    words = action.split()
    if len(words) != 3 or not re.fullmatch(r"c\d+", words[0]):
        raise UsageError(
            f"{where} must have actions like 'c092 11.90 21.20', got {action!r} ({str(table)!r})"
        )
    label = class_of(int(words[0][1:]), 0, classes, where, table)
    return label, seconds(words[1], where, table), seconds(words[2], where, table)

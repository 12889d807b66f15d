"""Read the action recognition splits of UCF101.

`trainlist01.txt` (`ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1`), `testlist01.txt` (without the
number) and `classInd.txt` (`1 ApplyEyeMakeup`), in one folder.

SOURCE is that folder, which means split 1, or a list, which means its split: both lists of the
split are read.

Rules: the subset is `train` or `test`, as the list's name says; classes are numbered from 1 in
`classInd.txt`, label ids from 0; `video_id` is the file's name without extension.

Source: Soomro et al., "UCF101", 2012, and the lists themselves.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from .annotated import read_lines
from .clips import ListedClip, list_clips
from .listing import Listing, read_classes

CLASS_LIST = "classInd.txt"
LIST_NAME = re.compile(r"(train|test)list(\d+)\.txt")
FROM_ONE = "classes are numbered from 1 in the file; label_id counts from 0"


def is_ucf101(source: Path) -> bool:
    """Tell by the names of files whether `source` is a split of UCF101."""
    if source.is_dir():
        return any((source / f"{part}list01.txt").is_file() for part in ("train", "test"))
    return LIST_NAME.fullmatch(source.name) is not None


def read_ucf101(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the clips of a split of UCF101.

    Args:
        source: The folder of the lists, or one of the lists.
        videos: Folder of the files.
        classes: Class names in id order; those of `classInd.txt` if None.

    Raises:
        UsageError: No list, no `classInd.txt`, a line or a class that does not fit.
    """
    folder, split = source, "01"
    if not source.is_dir():
        folder, name = source.parent, LIST_NAME.fullmatch(source.name)
        if name is None:
            raise UsageError(f"a list must be called like trainlist01.txt, got {str(source)!r}")
        split = name[2]
    if classes is None:
        classes = read_classes(folder / CLASS_LIST)
    lists = {part: folder / f"{part}list{split}.txt" for part in ("train", "test")}
    clips = [
        clip
        for part, path in lists.items()
        if path.exists()
        for clip in _read_list(path, part, classes)
    ]
    return list_clips(clips, source, videos, classes, {FROM_ONE: len(classes)})


def _read_list(path: Path, subset: str, classes: tuple[str, ...]) -> Iterator[ListedClip]:
    for where, words in read_lines(path):
        label, slash, name = words[0].partition("/")
        if not slash or len(words) > 2 or label not in classes:
            raise UsageError(
                f"{where} must be 'CLASS/NAME.avi' with one of the {len(classes)} classes, got "
                f"{' '.join(words)!r} ({str(path)!r})"
            )
        if len(words) == 2 and words[1] != str(classes.index(label) + 1):
            raise UsageError(
                f"{where} must have the number of {label!r} among the classes, "
                f"{classes.index(label) + 1}, got {words[1]!r} ({str(path)!r})"
            )
        yield ListedClip(Path(name).stem, label, subset)

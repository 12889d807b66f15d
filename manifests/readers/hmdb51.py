"""Read the splits of HMDB51.

One file per class and split, `brush_hair_test_split1.txt`, with lines `NAME.avi 1`: 1 is training,
2 is testing, 0 is not used in this split.

SOURCE is their folder, which means split 1, or one of the files, which means its split: the files
of all classes are read.

Rules: the subset is `train` or `test`; clips that the split does not use are left out; classes are
the sorted names of the files; `video_id` is the clip's name without extension.

Source: Kuehne et al., "HMDB", 2011, and the readme of the splits.
"""

import re
from collections import Counter
from pathlib import Path

from ..errors import UsageError
from .annotated import read_lines
from .clips import ListedClip, list_clips
from .listing import Listing, match_classes

FILE_NAME = re.compile(r"(.+)_test_split(\d)\.txt")
SUBSETS = {"1": "train", "2": "test"}
UNUSED = "0"
LEFT_OUT = "clips are not used in this split (marked 0), and left out"


def is_hmdb51(source: Path) -> bool:
    """Tell by the names of files whether `source` is a split of HMDB51."""
    if source.is_dir():
        return any(source.glob("*_test_split1.txt"))
    return FILE_NAME.fullmatch(source.name) is not None


def read_hmdb51(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the clips of a split of HMDB51.

    Args:
        source: The folder of the split files, or one of the files.
        videos: Folder of the files.
        classes: Class names in id order; the sorted names of the files if None.

    Raises:
        UsageError: No split file, or a line that does not fit.
    """
    folder, split = source, "1"
    if not source.is_dir():
        folder, name = source.parent, FILE_NAME.fullmatch(source.name)
        if name is None:
            raise UsageError(
                f"a split file must be called like brush_hair_test_split1.txt, got {str(source)!r}"
            )
        split = name[2]
    suffix = f"_test_split{split}.txt"
    paths = {path.name.removesuffix(suffix): path for path in sorted(folder.glob(f"*{suffix}"))}
    names, class_of_label = match_classes(paths, classes)
    oddities: Counter[str] = Counter()
    clips = []
    for label, path in paths.items():
        for where, words in read_lines(path):
            if len(words) != 2 or words[1] not in (*SUBSETS, UNUSED):
                raise UsageError(
                    f"{where} must be 'NAME.avi' and 0, 1 or 2, got {' '.join(words)!r} "
                    f"({str(path)!r})"
                )
            if words[1] == UNUSED:
                oddities[LEFT_OUT] += 1
            else:
                stem = words[0].rpartition(".")[0] or words[0]
                clips.append(ListedClip(stem, class_of_label[label], SUBSETS[words[1]]))
    return list_clips(clips, source, videos, names, oddities)

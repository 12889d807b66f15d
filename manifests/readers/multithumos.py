"""Read MultiTHUMOS, the 65 classes on the videos of THUMOS'14.

- The official folder: `class_list.txt` (`1 BaseballPitch`, ...) and `annotations/CLASS.txt`, whose
  lines are `video start end`. The subset is `validation` or `test`, as the video ids say.
- `multithumos.json` of super-events and TGM (`action_json.py`), whose subsets are `training` and
  `testing`.

Rules: classes are numbered from 1 in both, label ids from 0; the JSON file has no names, so classes
are called by their numbers, `1` to `65`, unless `--classes class_list.txt` or a `class_list.txt`
beside it names them.

Source: Yeung et al., "Every Moment Counts", IJCV 2017, and the files themselves.
"""

from collections import Counter
from pathlib import Path

from ..errors import UsageError
from .action_json import is_action_json, read_action_json
from .annotated import beginning, list_annotated
from .listing import Listing, read_classes
from .thumos14 import group_by_video, has_thumos_ids, read_class_file

NUM_CLASSES = 65
CLASS_LIST = "class_list.txt"
FROM_ONE = "classes are numbered from 1 in the file; label_id counts from 0"
UNNAMED = "classes have no names in the file, and are called by their numbers"


def is_multithumos(source: Path) -> bool:
    """Tell by its beginning, or by its files, whether `source` is MultiTHUMOS."""
    if source.is_dir():
        return (source / CLASS_LIST).is_file() and (source / "annotations").is_dir()
    return is_action_json(source) and has_thumos_ids(beginning(source))


def read_multithumos(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the videos and segments of MultiTHUMOS.

    Args:
        source: The official folder, or `multithumos.json`.
        videos: Folder of the files, called `video_test_0000004`, ....
        classes: Class names in id order; those of `class_list.txt` if None.

    Raises:
        UsageError: A damaged file, or other classes than the files have.
    """
    class_list = (source if source.is_dir() else source.parent) / CLASS_LIST
    oddities: Counter[str] = Counter()
    if classes is None and class_list.exists():
        classes = read_classes(class_list)
    if classes is None:
        classes = tuple(str(number) for number in range(1, NUM_CLASSES + 1))
        oddities[UNNAMED] = NUM_CLASSES
    oddities[FROM_ONE] = len(classes)
    if not source.is_dir():
        annotated = read_action_json(source, 1, classes)
        return list_annotated(annotated, source, videos, classes, oddities)
    paths = sorted((source / "annotations").glob("*.txt"))
    for path in paths:
        if path.stem not in classes:
            raise UsageError(
                f"every annotation file must be called by one of the {len(classes)} classes, got "
                f"{str(path)!r}"
            )
    annotated = group_by_video(row for path in paths for row in read_class_file(path, path.stem))
    return list_annotated(annotated, source, videos, classes, oddities)

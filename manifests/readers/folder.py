"""Read a folder tree: `class/video.ext`, `subset/class/video.ext`, or videos without classes.

- Top folders are subsets if every one that holds videos has such a name (`train`, `val`, `test`,
  ...); the next folder is the class; deeper folders only group the files of a class. A tree that
  has such a name itself is that subset.
- Videos directly in the tree (or in a subset) have no label, but then all of them have none.
- `video_id` is the file's name without extension where that is unique in the tree; else its
  relative path without extension; else (`a/x.mp4` beside `a/x.avi`) its relative path.
"""

import os
from collections import Counter
from pathlib import Path

from ..errors import UsageError
from .listing import Entry, Listing, find_videos, match_classes

# fmt: off
SUBSETS = frozenset([
    "train", "training", "val", "valid", "validate", "validation", "dev", "test", "testing",
    "eval", "holdout",
])
# fmt: on


def is_folder_tree(source: Path) -> bool:
    """Tell whether `source` is a folder."""
    return source.is_dir()


def read_folder(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the videos of a folder tree.

    Args:
        source: The tree.
        videos: Must be None: the tree itself says where its videos are.
        classes: Class names in id order; sorted folder names if None.

    Raises:
        UsageError: No folder, no videos in it, some videos with a class folder and some without.
    """
    if videos is not None:
        raise UsageError(
            f"--videos goes with an annotation file, but {str(source)!r} is a folder tree"
        )
    paths = sorted(find_videos(source))
    if not paths:
        raise UsageError(f"the folder must hold videos, got none in {str(source)!r}")
    split = _split(paths, source)
    _check_labels(paths, [label for _, label in split], source)
    names, label_class = match_classes((label for _, label in split if label), classes)
    root = os.path.abspath(source)
    entries = [
        Entry(video_id, os.path.join(root, path), label_class[label] if label else None, subset)
        for video_id, path, (subset, label) in zip(_unique_ids(paths), paths, split, strict=True)
    ]
    return Listing(tuple(sorted(entries, key=lambda entry: entry.video_id)), names)


def _split(paths: list[str], source: Path) -> list[tuple[str | None, str | None]]:
    """Return (subset, label) of every relative path below `source`."""
    parts = [path.split("/")[:-1] for path in paths]
    has_subsets = all(part and part[0].lower() in SUBSETS for part in parts)
    if has_subsets:
        return [(part[0], part[1] if len(part) > 1 else None) for part in parts]
    name = source.resolve().name
    subset = name if name.lower() in SUBSETS else None
    return [(subset, part[0] if part else None) for part in parts]


def _check_labels(paths: list[str], labels: list[str | None], source: Path) -> None:
    if None in labels and any(labels):
        raise UsageError(
            f"every video must lie in a class folder when some do, but "
            f"{paths[labels.index(None)]!r} does not ({str(source)!r})"
        )


def _unique_ids(paths: list[str]) -> list[str]:
    """Return an id for every path: the shortest of its three names that no other file could use."""
    names = [
        (os.path.basename(stem), stem, path)
        for path, stem in ((path, os.path.splitext(path)[0]) for path in paths)
    ]
    uses = Counter(name for three in names for name in set(three))
    return [next((name for name in three if uses[name] == 1), three[-1]) for three in names]

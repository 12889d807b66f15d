"""What every reader returns, and what they share: walk, find files, read classes, fix the ids."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError

# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".mxf", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv",
])
# fmt: on


@dataclass(frozen=True, slots=True)
class Entry:
    """One video that a dataset lists, before anybody has opened its file.

    `start_seconds` and `end_seconds` are the part of the file that is meant; None is all of it.
    """

    video_id: str
    path: str
    label: str | None = None
    subset: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One annotated action, as a dataset states it: nothing is clipped or left out yet."""

    video_id: str
    label: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Listing:
    """What a dataset lists.

    Attributes:
        entries: Videos whose file was found, sorted by `video_id`.
        classes: Class names in id order, also those of missing videos.
        missing: Ids of listed videos without a file, sorted.
        segments: Annotated actions, also of missing videos; None if the layout has no times.
        durations: Seconds that videos last by the annotation file, where it says so.
        oddities: How often a rule of the reader changed what the file says, by the rule's sentence.
    """

    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    missing: tuple[str, ...] = ()
    segments: tuple[Segment, ...] | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    oddities: Mapping[str, int] = field(default_factory=dict)


def find_videos(folder: Path | str) -> Iterator[str]:
    """Walk `folder` once and yield its video files, relative to it, in no particular order.

    Hidden files and folders are left out; links are followed, except back into a folder that is
    being walked.

    Raises:
        UsageError: Not a folder, a folder that cannot be listed, a name that is not UTF-8.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"the folder of videos must exist, got {str(folder)!r}")
    yield from _walk(os.fspath(folder), "", ())


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            children = [child for child in found if not child.name.startswith(".")]
    except OSError as err:
        raise UsageError(f"cannot list the folder {folder!r}: {err.strerror}") from err
    above = (*above, (status.st_dev, status.st_ino))
    for child in children:
        relative = prefix + child.name
        if child.is_dir():
            linked = child.stat() if child.is_symlink() else None
            if linked is None or (linked.st_dev, linked.st_ino) not in above:
                yield from _walk(child.path, relative + "/", above)
        elif is_video(child.name):
            if not _is_utf8(relative):
                raise UsageError(f"names of videos must be UTF-8, got {relative!a} in {folder!a}")
            yield relative


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # the system's stand-ins for bytes that are no UTF-8
        return False
    return True


def index_videos(videos: Path | None, source: Path) -> dict[str, str]:
    """Return the absolute path by file name without extension, from one walk of `videos`.

    Of several files of one name the first by path counts.

    Raises:
        UsageError: No `videos`, or as `find_videos`.
    """
    if videos is None:
        raise UsageError(f"--videos must say where the videos of {str(source)!r} are")
    root = os.path.abspath(videos)
    found: dict[str, str] = {}
    for relative in find_videos(videos):
        stem = os.path.splitext(os.path.basename(relative))[0]
        path = os.path.join(root, relative)
        if stem not in found or path < found[stem]:
            found[stem] = path
    return found


def is_video(name: str) -> bool:
    """Tell by its extension, in any case, whether a file is a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def read_classes(path: Path | str) -> tuple[str, ...]:
    """Read class names in id order: one per line, empty lines left out.

    The lines may be numbered in order, as official files do: `1 ApplyEyeMakeup` from 0 or 1,
    `c000 Holding some clothes` from c000. The numbers are no part of the names.

    Raises:
        UsageError: No such file, not UTF-8 text, no names, a name twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as err:
        raise UsageError(f"cannot read the classes file {str(path)!r}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"the classes file must be UTF-8 text, got {str(path)!r}") from err
    names = _without_numbers(tuple(name for line in lines if (name := line.strip())))
    if not names:
        raise UsageError(f"the classes file must name a class per line, got none ({str(path)!r})")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"class names must be unique, got {twice!r} twice ({str(path)!r})")
    return names


def _without_numbers(lines: tuple[str, ...]) -> tuple[str, ...]:
    parts = [re.fullmatch(r"(c?)(\d+)\s+(\S.*)", line) for line in lines]
    numbered = [(part[1], int(part[2]), part[3]) for part in parts if part]
    for mark, first in (("", 0), ("", 1), ("c", 0)):
        order = [(mark, number) for number in range(first, first + len(lines))]
        if [(found, number) for found, number, _ in numbered] == order:
            return tuple(name for _, _, name in numbered)
    return lines


def match_classes(
    labels: Iterable[str], classes: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the class names in id order, and the class of every label.

    Without `classes` they are the labels, sorted by code point. With them, a label is one of them,
    or one of them with its spaces written as underscores (as folders often are).

    Raises:
        UsageError: A label that is none of `classes`.
    """
    seen = sorted(set(labels))
    if classes is None:
        return tuple(seen), {label: label for label in seen}
    names = {name.replace(" ", "_"): name for name in classes} | {name: name for name in classes}
    for label in seen:
        if label not in names:
            raise UsageError(
                f"every label must be in the classes file, but {label!r} is none of its "
                f"{len(classes):,} classes"
            )
    return classes, {label: names[label] for label in seen}

"""Readers of dataset layouts: each lists videos, none opens one. One official layout per file."""

import difflib
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from .activitynet import is_activitynet, read_activitynet
from .charades import is_charades, read_charades
from .folder import is_folder_tree, read_folder
from .hmdb51 import is_hmdb51, read_hmdb51
from .kinetics import is_kinetics, read_kinetics
from .listing import Entry, Listing, Segment, find_videos, read_classes
from .multithumos import is_multithumos, read_multithumos
from .thumos14 import is_thumos14, read_thumos14
from .ucf101 import is_ucf101, read_ucf101

__all__ = ["FORMATS", "Entry", "Listing", "Segment", "find_videos", "list_sources", "read_classes"]

Guess = Callable[[Path], bool]
Read = Callable[[Path, Path | None, tuple[str, ...] | None], Listing]

# A new layout is one file and one line here; guesses are tried in this order.
FORMATS: dict[str, tuple[Guess, Read]] = {
    "kinetics": (is_kinetics, read_kinetics),
    "ucf101": (is_ucf101, read_ucf101),
    "hmdb51": (is_hmdb51, read_hmdb51),
    "thumos14": (is_thumos14, read_thumos14),
    "activitynet": (is_activitynet, read_activitynet),
    "multithumos": (is_multithumos, read_multithumos),
    "charades": (is_charades, read_charades),
    "folder": (is_folder_tree, read_folder),  # last: some official files come as a folder
}


def list_sources(
    source: Path,
    format: str | None = None,
    videos: Path | None = None,
    classes: Path | None = None,
) -> Listing:
    """List the videos of `source`, a folder tree or official annotations.

    Args:
        source: Folder or file.
        format: Key of `FORMATS`; guessed from names and the first bytes if None.
        videos: Folder of the files that an annotation file names.
        classes: File with a class name per line, which fixes the ids; sorted names if None.

    Raises:
        UsageError: No such source, an unknown format, or whatever the reader objects to.
    """
    if not source.exists():
        raise UsageError(f"no such folder or annotation file: {str(source)!r}")
    if format is None:
        format = _guess(source)
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"--format must be one of {', '.join(FORMATS)}, got {format!r}; nearest is {near!r}"
        )
    _, read = FORMATS[format]
    return read(source, videos, None if classes is None else read_classes(classes))


def _guess(source: Path) -> str:
    try:
        for name, (guess, _) in FORMATS.items():
            if guess(source):
                return name
    except OSError as err:
        raise UsageError(f"cannot read {str(source)!r}: {err.strerror}") from err
    raise UsageError(
        f"{str(source)!r} looks like none of the known layouts ({', '.join(FORMATS)}); "
        "name its layout with --format"
    )

"""What the readers of trimmed datasets with split lists share: UCF101 and HMDB51."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .listing import Entry, Listing, index_videos


class ListedClip(NamedTuple):
    """A line of a split list; `stem` is the file's name without extension."""

    stem: str
    label: str
    subset: str


def list_clips(
    clips: Sequence[ListedClip],
    source: Path,
    videos: Path | None,
    classes: tuple[str, ...],
    oddities: Mapping[str, int],
) -> Listing:
    """List the clips whose files lie under `videos`, at any depth.

    `video_id` is the file's name without extension.

    Raises:
        UsageError: No clips, one clip twice, or no folder of videos.
    """
    if not clips:
        raise UsageError(f"the list must name clips, got none in {str(source)!r}")
    uses = Counter(clip.stem for clip in clips)
    twice = next((stem for stem, count in uses.items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"a clip must be listed once in a split, but {twice!r} is {uses[twice]} times "
            f"({str(source)!r})"
        )
    found = index_videos(videos, source)
    ordered = sorted(clips)
    return Listing(
        entries=tuple(
            Entry(clip.stem, found[clip.stem], clip.label, clip.subset)
            for clip in ordered
            if clip.stem in found
        ),
        classes=classes,
        missing=tuple(clip.stem for clip in ordered if clip.stem not in found),
        oddities={rule: count for rule, count in oddities.items() if count},
    )

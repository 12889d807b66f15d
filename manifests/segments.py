"""Turn annotated actions into `segments.parquet`: what is left out, what is clipped, how often.

Rules that ask the annotation alone come first and count over the whole file, whichever videos are
there; then those that ask for the video. Every segment is kept, or left out by the first rule that
fits it:

1. ends before it starts: left out. 2. zero length: left out. 3. repeats an earlier one of its video
and class, both ends within `SAME_SECONDS`: left out. 4. its video has no file: left out, as the
sources table has no such row. 5. lies wholly outside of the file: left out.

Of the kept ones, a start before 0 or an end after the file is cut to it; the file's end is what the
probe found (`duration_seconds`), never what the annotation says. Of a video that the probe rejected
the end is unknown: its segments are kept as annotated.

Source: the tolerance of rule 3 is that of ActionFormer and OpenTAD.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import UsageError
from .readers import Listing, Segment
from .records import SourceVideo
from .storage import AnyPath
from .tables import read_segments

BACKWARDS = "segments that end before they start are left out"
EMPTY = "segments of zero length are left out"
REPEATED = "segments that repeat another of their class within 0.001 s are left out"
WITHOUT_FILE = "segments of videos without a file are left out"
OUTSIDE = "segments that lie wholly outside of their file are left out"
EARLY = "segments that start before 0 s are cut to 0 s"
LATE = "segments that end after their file are cut to its end"
UNPROBED = "segments of rejected videos are kept as annotated"
OTHER_DURATION = "files last over 1 s more or less than the annotations say; times are kept"

SAME_SECONDS = 0.001
SLACK_SECONDS = 1.0
NAME = "segments.parquet"


def clean_segments(
    listing: Listing, videos: Sequence[SourceVideo]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows of the segments table, and how often each rule was applied.

    Args:
        listing: What the dataset lists; its oddities are among the counts.
        videos: Rows of the sources table.

    Returns:
        Rows ordered by video, start, end and class; counts by the rule's sentence, none of them 0.
    """
    counts = Counter(listing.oddities)
    by_id = {video.video_id: video for video in videos}
    label_ids = {label: index for index, label in enumerate(listing.classes)}
    rows = []
    for segment in _consistent(listing.segments or (), counts):
        video = by_id.get(segment.video_id)
        if video is None:
            counts[WITHOUT_FILE] += 1
        elif (times := _clipped(segment, video, counts)) is not None:
            rows.append(
                {
                    "video_id": segment.video_id,
                    "label": segment.label,
                    "label_id": label_ids[segment.label],
                    "start_seconds": times[0],
                    "end_seconds": times[1],
                    "subset": video.subset,
                }
            )
    for video in videos:
        stated = listing.durations.get(video.video_id)
        if stated is not None and video.status == "ok":
            counts[OTHER_DURATION] += abs(video.duration_seconds - stated) > SLACK_SECONDS
    order = ("video_id", "start_seconds", "end_seconds", "label_id")
    rows.sort(key=lambda row: tuple(row[name] for name in order))
    return rows, {rule: count for rule, count in counts.items() if count}


def _consistent(segments: Sequence[Segment], counts: Counter[str]) -> Iterator[Segment]:
    """Yield the segments that rules 1 to 3 keep."""
    kept: dict[tuple[str, str], list[Segment]] = {}
    for segment in segments:
        same_class = kept.setdefault((segment.video_id, segment.label), [])
        if segment.end_seconds < segment.start_seconds:
            counts[BACKWARDS] += 1
        elif segment.end_seconds == segment.start_seconds:
            counts[EMPTY] += 1
        elif any(_is_same(segment, other) for other in same_class):
            counts[REPEATED] += 1
        else:
            same_class.append(segment)
            yield segment


def _is_same(one: Segment, other: Segment) -> bool:
    return (
        abs(one.start_seconds - other.start_seconds) <= SAME_SECONDS
        and abs(one.end_seconds - other.end_seconds) <= SAME_SECONDS
    )


def _clipped(
    segment: Segment, video: SourceVideo, counts: Counter[str]
) -> tuple[float, float] | None:
    """Return the times within the file, or None if there are none."""
    if video.status != "ok":
        counts[UNPROBED] += 1
        return segment.start_seconds, segment.end_seconds
    if segment.start_seconds >= video.duration_seconds or segment.end_seconds <= 0:
        counts[OUTSIDE] += 1
        return None
    counts[EARLY] += segment.start_seconds < 0
    counts[LATE] += segment.end_seconds > video.duration_seconds
    return max(segment.start_seconds, 0.0), min(segment.end_seconds, video.duration_seconds)


def segments_path(sources_path: AnyPath) -> AnyPath:
    """Return where the segments of a sources table go: beside it.

    Raises:
        UsageError: It is the table itself, or other segments stand there: of another sources table,
            or made by hand.
    """
    path = sources_path.with_name(NAME)
    if path == sources_path:
        raise UsageError(f"the sources table must not be called {NAME}, got {str(path)!r}")
    if path.exists():
        owner = (read_segments(path).schema.metadata or {}).get(b"sources", b"").decode()
        if owner != sources_path.name:
            whose = f"those of {owner!r}" if owner else "made elsewhere"
            raise UsageError(
                f"{str(path)!r} would be overwritten, but its segments are {whose}: write "
                f"{sources_path.name!r} to a folder of its own"
            )
    return path

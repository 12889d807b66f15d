"""Read ActivityNet-1.3, and other datasets that are annotated in its layout.

- `activity_net.v1-3.min.json`: `{database: {id: {subset, duration, annotations: [{segment: [start,
  end], label}]}}, taxonomy, version}`. The subset is that of the file: `training`, `validation`,
  `testing`.
- `anet_anno_action.json` of BSN and BMN: `{v_id: {duration_second, duration_frame, feature_frame,
  annotations}}`. The subset is that of `video_info_new.csv` beside it (`XXXanet_anno_action.json`
  belongs to `XXXvideo_info_new.csv`), in the same words.

Rules: an id of `v_` and 11 characters loses its `v_`, so that both layouts give the same ids;
classes are the sorted labels of the whole file, as those of most public checkpoints are; times
given as text are read as numbers; without `video_info_new.csv` the subset is null.

Source: Caba Heilbron et al., "ActivityNet", 2015; Lin et al., "BMN", 2019, and their files.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .annotated import (
    AnnotatedVideo,
    beginning,
    list_annotated,
    read_object,
    read_rows,
    seconds,
)
from .listing import Listing, match_classes

PREFIXED = "ids begin with v_, which is left out"
AS_TEXT = "segments are given as text, and read as numbers"
NO_SUBSET = "videos have no subset in the annotation files, and get none"

YOUTUBE_ID = 11  # characters
BMN_ANNOTATIONS, BMN_VIDEOS = "anet_anno_action.json", "video_info_new.csv"


def is_activitynet(source: Path) -> bool:
    """Tell by its beginning whether `source` is annotated as ActivityNet is."""
    if source.suffix.lower() != ".json":
        return False
    found = beginning(source)
    return any(key in found for key in ('"database":{', '"taxonomy":[', '"duration_second":'))


def read_activitynet(
    source: Path, videos: Path | None = None, classes: tuple[str, ...] | None = None
) -> Listing:
    """List the videos and segments of ActivityNet.

    Args:
        source: The JSON file.
        videos: Folder of the files, called `v_ID` or `ID`.
        classes: Class names in id order; the sorted labels of the whole file if None.

    Raises:
        UsageError: A damaged file, or a label that is none of `classes`.
    """
    oddities: Counter[str] = Counter()
    annotated = list(read_database(source, oddities))
    labels = (label for video in annotated for label, _, _ in video.segments)
    names, class_of_label = match_classes(labels, classes)
    return list_annotated(
        [_relabelled(video, class_of_label) for video in annotated],
        source,
        videos,
        names,
        oddities,
    )


def read_database(source: Path, oddities: Counter[str]) -> Iterator[AnnotatedVideo]:
    """Yield the videos of a JSON file of either layout, and count its oddities.

    Raises:
        UsageError: The file is damaged.
    """
    found = read_object(source)
    database = found.get("database", found)
    if not isinstance(database, dict):
        raise UsageError(f"'database' must be an object of videos ({str(source)!r})")
    subsets = None if "database" in found else _bmn_subsets(source)
    for given_id, video in database.items():
        if not isinstance(video, dict) or not isinstance(video.get("annotations"), list):
            raise UsageError(f"video {given_id!r} must have annotations ({str(source)!r})")
        video_id = given_id
        if given_id.startswith("v_") and len(given_id) == 2 + YOUTUBE_ID:
            video_id = given_id[2:]
            oddities[PREFIXED] += 1
        subset = video.get("subset") if subsets is None else subsets.get(given_id)
        oddities[NO_SUBSET] += subset is None
        duration = video.get("duration", video.get("duration_second"))
        yield AnnotatedVideo(
            video_id,
            None if subset is None else str(subset),
            tuple(
                _segment(note, f"video {given_id!r}", source, oddities)
                for note in video["annotations"]
            ),
            None if duration is None else seconds(duration, f"video {given_id!r}", source),
        )


def _segment(
    note: Any, where: str, source: Path, oddities: Counter[str]
) -> tuple[str, float, float]:
    times = note.get("segment") if isinstance(note, dict) else None
    label = note.get("label") if isinstance(note, dict) else None
    if not isinstance(times, list) or len(times) != 2 or not isinstance(label, str) or not label:
        raise UsageError(
            f"{where} must have annotations {{segment: [start, end], label}}, got {note!r} "
            f"({str(source)!r})"
        )
    oddities[AS_TEXT] += isinstance(times[0], str) or isinstance(times[1], str)
    return label, seconds(times[0], where, source), seconds(times[1], where, source)


def _bmn_subsets(source: Path) -> dict[str, str]:
    if not source.name.endswith(BMN_ANNOTATIONS):
        return {}
    beside = source.with_name(source.name.removesuffix(BMN_ANNOTATIONS) + BMN_VIDEOS)
    if not beside.exists():
        return {}
    return {row["video"]: row["subset"] for _, row in read_rows(beside, ("video", "subset"))}


def _relabelled(video: AnnotatedVideo, class_of_label: dict[str, str]) -> AnnotatedVideo:
    segments = tuple((class_of_label[label], start, end) for label, start, end in video.segments)
    return AnnotatedVideo(video.video_id, video.subset, segments, video.duration_seconds)

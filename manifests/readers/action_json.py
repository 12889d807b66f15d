"""Read `{video: {subset, duration, actions: [[class, start, end], ...]}}` of super-events and TGM.

It is the layout of `charades.json` (classes from 0) and of `multithumos.json` (classes from 1), and
of all heads that read these two.
"""

from pathlib import Path
from typing import Any

from ..errors import UsageError
from .annotated import AnnotatedVideo, beginning, class_of, read_object, seconds


def is_action_json(source: Path) -> bool:
    """Tell by its beginning whether `source` has this layout."""
    return source.suffix.lower() == ".json" and '"actions":[' in beginning(source)


def read_action_json(source: Path, first: int, classes: tuple[str, ...]) -> list[AnnotatedVideo]:
    """Return the videos of the file.

    Args:
        source: The JSON file.
        first: Number of the first class.
        classes: Class names in id order.

    Raises:
        UsageError: The file is damaged, or a class number out of range.
    """
    return [
        _video(video_id, video, source, first, classes)
        for video_id, video in read_object(source).items()
    ]


def _video(
    video_id: str, video: Any, source: Path, first: int, classes: tuple[str, ...]
) -> AnnotatedVideo:
    where = f"video {video_id!r}"
    if not isinstance(video, dict) or not isinstance(video.get("actions"), list):
        raise UsageError(f"{where} must have actions ({str(source)!r})")
    segments = []
    for action in video["actions"]:
        if not isinstance(action, list) or len(action) != 3:
            raise UsageError(
                f"{where} must have actions [class, start, end], got {action!r} ({str(source)!r})"
            )
        label = class_of(action[0], first, classes, where, source)
        start, end = (seconds(time, where, source) for time in action[1:])
        segments.append((label, start, end))
    subset, duration = video.get("subset"), video.get("duration")
    return AnnotatedVideo(
        video_id,
        None if subset is None else str(subset),
        tuple(segments),
        None if duration is None else seconds(duration, where, source),
    )

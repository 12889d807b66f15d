"""Take back shards whose rejected samples may be rendered now: their source files changed.

A shard is never edited: it loses its done record, and is rendered again as a whole.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import Any, cast

from manifests import AnyPath, SourceTable, SourceVideo, UsageError, VideoError, open_bytes

from .shards import done_records, shard_path


def source_digests(videos: Iterable[SourceVideo]) -> dict[str, str | None]:
    """Return the sha256 of each video's file by its id, sorted; None where it cannot be read.

    What is no regular file, a pipe for example, is not read: it may never end.
    """
    return {
        video.video_id: _content_digest(video.path)
        for video in sorted(videos, key=lambda video: video.video_id)
    }


def _content_digest(path: str) -> str | None:
    if "://" not in path and not os.path.isfile(path):
        return None
    try:
        with open_bytes(path) as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    except (VideoError, OSError):
        return None


def take_back(out: AnyPath, table: SourceTable, reason: str) -> tuple[int, int]:
    """Make the shards undone that rejected samples for `reason`, if one of their files is another.

    Args:
        out: The output folder.
        table: The sources of its plan.
        reason: As `synth status` gives it, or its beginning.

    Returns:
        Shards that were taken back, and shards whose files are what they were.

    Raises:
        UsageError: No sample was rejected for such a reason.
    """
    changed: list[int] = []
    num_same = 0
    for shard, record, _ in done_records(out):
        if not any(name.startswith(reason) for name in record.get("reasons", ())):
            continue
        before = record.get("rejected_sources", {})
        if source_digests(table.select(before).values()) == before:
            num_same += 1
        else:
            changed.append(shard)
    if not changed and not num_same:
        raise UsageError(f"no sample in {str(out)!r} was rejected for a reason like {reason!r}")
    if changed:
        (out / "dataset.json").unlink(missing_ok=True)  # the folder is not finished any more
    for shard in changed:
        shard_path(out, shard, "json").unlink()
    return len(changed), num_same

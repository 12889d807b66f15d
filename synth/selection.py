"""Choose the videos of a table that a recipe can use, and say what it cannot do with them."""

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import (
    AnyPath,
    Progress,
    SourceTable,
    UsageError,
    VideoError,
    read_json,
    read_segments,
    resolve_path,
    scan_packets,
)

from .annotated import frames_of_segments
from .boundary import longest_speed
from .candidates import Candidates
from .recipe import Recipe

CANDIDATE_COLUMNS = ("first_frame", "end_frame", "height", "width")


def select_candidates(
    recipe: Recipe, table: SourceTable, path: AnyPath | str, segments: pa.Table | None = None
) -> tuple[Candidates, dict[str, Any]]:
    """Return the videos that the recipe can use, and counts of the others.

    Args:
        recipe: What to draw.
        table: The sources.
        path: Where they stand, for messages.
        segments: The annotated segments, for kind `annotated`.

    Raises:
        UsageError: None is left; a label is missing; or there are too few videos or classes for a
            kind that is drawn.
    """
    rows = table.table
    usable = pc.equal(rows["status"], "ok").to_numpy(zero_copy_only=False)
    usable &= _of_subset(recipe, rows, segments)
    if not usable.any():
        subset = "" if recipe.subset is None else f" of subset {recipe.subset!r}"
        annotated = "" if segments is None else " with annotated segments"
        raise UsageError(
            f"the table has no readable video{subset}{annotated}{_say_subsets(recipe, rows)} "
            f"({str(path)!r})"
        )
    lengths = table.column("end_frame") - table.column("first_frame")
    short = usable & (lengths < recipe.span)
    if (short == usable).all():
        raise UsageError(
            f"no video is long enough for {_longest_need(recipe)} ({recipe.span} frames): the "
            f"longest of {usable.sum()} has {lengths[usable].max()} ({str(path)!r})"
        )
    counts: dict[str, Any] = {
        "videos": 0,
        "too_short": int(short.sum()),
        "rejected": int(pc.sum(pc.equal(rows["status"], "rejected")).as_py() or 0),
    }
    chosen = rows.filter(pa.array(usable & ~short))
    unlabelled = chosen.filter(pc.is_null(chosen["label_id"]))
    if recipe.needs_labels and unlabelled.num_rows:
        raise UsageError(
            f"every video needs a label, but {unlabelled.num_rows} have none, first "
            f"{unlabelled['video_id'][0].as_py()!r} ({str(path)!r})"
        )
    found: dict[int, np.ndarray] = {}
    if segments is not None:
        num_chosen = len(chosen)
        known = pc.is_in(segments["video_id"], value_set=rows["video_id"])
        counts["segments_of_unknown_videos"] = len(segments) - int(pc.sum(known).as_py() or 0)
        chosen, found, counts["segments_without_frames"] = _find_segments(
            chosen, segments, table.folder
        )
        counts["unreadable"] = num_chosen - len(chosen)
        if not len(chosen):
            raise UsageError(
                f"none of the {num_chosen} videos with annotated segments can be read "
                f"({str(path)!r})"
            )
    first, end, height, width = (chosen[name].to_numpy() for name in CANDIDATE_COLUMNS)
    video_ids = np.array(chosen["video_id"].to_pylist(), object)
    label_ids = pc.fill_null(chosen["label_id"], -1).to_numpy()
    videos = Candidates(video_ids, label_ids, first, end, height, width, found)
    counts["videos"] = len(videos)
    _check_geometry(videos, chosen, path)
    _check_classes(recipe, videos, table, path)
    if recipe.has_boundary("same_class"):
        counts["alone_in_class"] = len(videos) - len(videos.with_classmates)
    return videos, counts


def read_annotation(path: AnyPath) -> tuple[pa.Table, list[str]]:
    """Return annotated segments and their classes.

    Raises:
        UsageError: A table without classes, or with a segment that cannot be placed.
    """
    segments = read_segments(path)
    classes = _segment_classes(segments)
    label_ids = segments["label_id"]
    if not classes or label_ids.null_count or not len(segments):
        raise UsageError(
            f"annotated segments need a class list in the metadata and a label_id in every row "
            f"({str(path)!r})"
        )
    for name in ("start_seconds", "end_seconds"):
        if not pc.all(pc.fill_null(pc.is_finite(segments[name]), False)).as_py():
            raise UsageError(f"{name} must be a finite number in every row ({str(path)!r})")
    if not 0 <= pc.min(label_ids).as_py() <= pc.max(label_ids).as_py() < len(classes):
        raise UsageError(f"label_id must be within the {len(classes)} classes ({str(path)!r})")
    return segments, classes


def _segment_classes(segments: pa.Table) -> list[str]:
    """Return the class names in the metadata, or [] if they are no list of names."""
    try:
        classes = read_json((segments.schema.metadata or {}).get(b"classes", b"null"))
    except ValueError:
        return []
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return classes if is_list else []


def _of_subset(recipe: Recipe, rows: pa.Table, segments: pa.Table | None) -> np.ndarray:
    """Return which videos belong to the recipe's subset, and have segments if those matter.

    Annotations know subsets that a folder of videos does not: either table may name it.
    """
    belongs = np.ones(len(rows), bool)
    if segments is not None:
        belongs &= pc.is_in(rows["video_id"], value_set=segments["video_id"].unique()).to_numpy()
    if recipe.subset is None:
        return belongs
    of_table = pc.fill_null(pc.equal(rows["subset"], recipe.subset), False).to_numpy()
    if segments is not None:
        inside = segments.filter(pc.equal(segments["subset"], recipe.subset))
        of_table |= pc.is_in(rows["video_id"], value_set=inside["video_id"].unique()).to_numpy()
    return belongs & of_table


def _say_subsets(recipe: Recipe, rows: pa.Table) -> str:
    """Say which subsets there are, where the recipe wants one."""
    if recipe.subset is None:
        return ""
    names = sorted(name for name in pc.unique(rows["subset"]).to_pylist() if name)
    return f": its subsets are {', '.join(names)}" if names else ": it names no subsets"


def _longest_need(recipe: Recipe) -> str:
    """Name what needs the longest video."""
    if recipe.span > recipe.window_span and recipe.has_boundary("diff_speed"):
        tau, gammas = recipe.frames // 2, recipe.boundary.gammas
        return (
            f"diff_speed at gamma {max(gammas):g}, which reads {longest_speed(tau, gammas)} frames "
            f"x stride {recipe.frame_stride}"
        )
    if recipe.span > recipe.window_span:
        return f"a clip of {recipe.clip_len} frames"
    return f"{recipe.frames} frames x stride {recipe.frame_stride}"


def _find_segments(
    chosen: pa.Table, segments: pa.Table, folder: str
) -> tuple[pa.Table, dict[int, np.ndarray], int]:
    """Turn seconds into frames by the presentation times of each video.

    Returns:
        The readable ones of the `chosen` videos, the frames of their segments by position, and how
        many segments have no frame: beyond the video, shorter than a frame, or ending early.
    """
    segments = segments.take(pc.sort_indices(segments["video_id"]))
    names = segments["video_id"].to_pylist()
    ends = {name: row + 1 for row, name in enumerate(names)}
    starts = {name: row for row, name in reversed(list(enumerate(names)))}
    columns = [segments[name].to_numpy() for name in ("label_id", "start_seconds", "end_seconds")]
    found: dict[int, np.ndarray] = {}
    readable: list[int] = []
    num_empty = 0
    videos = zip(chosen["video_id"].to_pylist(), chosen["path"].to_pylist(), strict=True)
    with Progress("find segments", "videos", len(chosen)) as progress:
        for row, (video_id, path) in enumerate(videos):
            mine = slice(starts[video_id], ends[video_id])
            with suppress(VideoError):  # counted: the plan goes on without it
                times_N = scan_packets(resolve_path(path, folder)).times_N
                found[len(readable)] = frames_of_segments(
                    times_N, *(column[mine] for column in columns)
                )
                num_empty += mine.stop - mine.start - len(found[len(readable)])
                readable.append(row)
            progress.advance()
    return chosen.take(pa.array(readable, pa.int64())), found, num_empty


def _check_geometry(videos: Candidates, rows: pa.Table, path: AnyPath | str) -> None:
    """Raise UsageError if an ok row cannot be true: no pixels, or frames that do not exist."""
    wrong = {
        "width and height must be >= 1": np.minimum(videos.widths, videos.heights) < 1,
        "first_frame must be >= 0": videos.first_frames < 0,
        "end_frame must be at most num_frames": videos.end_frames > rows["num_frames"].to_numpy(),
    }
    for rule, is_wrong in wrong.items():
        if is_wrong.any():
            video_id = videos.video_ids[np.argmax(is_wrong)]
            raise UsageError(f"{rule}, but not those of video {video_id!r} ({str(path)!r})")


def _check_classes(
    recipe: Recipe, videos: Candidates, table: SourceTable, path: AnyPath | str
) -> None:
    """Raise UsageError unless there are the classes and videos that the kinds need."""
    classes = np.unique(videos.label_ids)
    if recipe.needs_labels and (classes.max() >= len(table.classes) or classes.min() < 0):
        raise UsageError(
            f"label_id must be below the number of classes {len(table.classes)}, got "
            f"{classes.max()} ({str(path)!r})"
        )
    if recipe.mixes and len(classes) < 2:
        raise UsageError(
            f"mixing needs videos of at least two classes, but all {len(videos)} usable ones are "
            f"{table.classes[classes[0]]!r} ({str(path)!r})"
        )
    if recipe.has_boundary("same_class") and not len(videos.with_classmates):
        raise UsageError(
            f"same_class needs two videos of a class, but each of the {len(classes)} classes has "
            f"one usable video ({str(path)!r})"
        )
    if len(videos) < recipe.num_videos:
        kind = "pal" if recipe.has("pal") and not recipe.has("joint") else "joint"
        raise UsageError(
            f"kind {kind!r} needs at least {recipe.num_videos} videos, got {len(videos)} "
            f"({str(path)!r})"
        )

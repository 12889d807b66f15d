"""The annotated segments of a dataset by video: what heads learn and metrics score against."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from manifests import AnyPath, UsageError, read_segments, read_sources, snippets_between, to_path


class AnnotatedSegment(NamedTuple):
    """One action instance: half-open in seconds, of the class at `class_index`."""

    start_seconds: float
    end_seconds: float
    class_index: int


MAX_NAMED = 5  # videos that a line of a report names


@dataclass(frozen=True)
class Annotations:
    """Segments of all videos that a segments table names.

    Attributes:
        classes: Class names in id order.
        segments: Video id -> its segments, in the order of the table; a video may have none.
        subsets: Video id -> its subset, or None.
    """

    classes: tuple[str, ...]
    segments: Mapping[str, tuple[AnnotatedSegment, ...]]
    subsets: Mapping[str, str | None]

    @classmethod
    def of(cls, segments: "pa.Table | Annotations") -> "Annotations":
        """Return annotations as they are, a table of segments read (`of_table`)."""
        return segments if isinstance(segments, Annotations) else cls.of_table(segments)

    @classmethod
    def of_table(
        cls, table: pa.Table, subset_of: Mapping[str, str | None] | None = None
    ) -> "Annotations":
        """Read a table of `segments.parquet`.

        Args:
            table: Of annotated segments.
            subset_of: Subsets of the videos of the dataset: those that have one, and no segment in
                the table, are annotated with none.

        Raises:
            UsageError: There is no class, or a label is none of the stated classes.
        """
        stated = (table.schema.metadata or {}).get(b"classes")
        classes = json.loads(stated) if stated else sorted(set(table["label"].to_pylist()))
        if not classes:
            raise UsageError("the segments table names no class")
        index_of = {name: index for index, name in enumerate(classes)}
        segments: dict[str, list[AnnotatedSegment]] = {}
        subsets: dict[str, str | None] = {}
        for row in table.to_pylist():
            if row["label"] not in index_of:
                raise UsageError(
                    f"label {row['label']!r} is not among the classes of the segments table"
                )
            segments.setdefault(row["video_id"], []).append(
                AnnotatedSegment(row["start_seconds"], row["end_seconds"], index_of[row["label"]])
            )
            subset = row["subset"] or (subset_of or {}).get(row["video_id"])
            subsets.setdefault(row["video_id"], subset)
        for video_id, subset in (subset_of or {}).items():
            if subset is not None and video_id not in segments:
                segments[video_id], subsets[video_id] = [], subset
        return cls(
            tuple(classes),
            {video_id: tuple(found) for video_id, found in segments.items()},
            subsets,
        )

    def video_ids(self, subset: str) -> list[str]:
        """Return the annotated videos of a subset, in the order of the table."""
        return [video_id for video_id, name in self.subsets.items() if name == subset]


def read_annotations(path: AnyPath | str) -> Annotations:
    """Read `segments.parquet`, and the videos without segments from its sources table beside it.

    Raises:
        UsageError: As `read_segments`, `read_sources` and `Annotations.of_table`.
    """
    table = read_segments(path)
    beside = sources_beside(table, path)
    if beside is None:
        return Annotations.of_table(table)
    videos = read_sources(beside).table.select(["video_id", "subset"]).to_pylist()
    return Annotations.of_table(table, {video["video_id"]: video["subset"] for video in videos})


def sources_beside(table: pa.Table, path: AnyPath | str) -> AnyPath | None:
    """Return the sources table that a segments table was made with, if it lies beside it."""
    stated = (table.schema.metadata or {}).get(b"sources", b"sources.parquet")
    beside = to_path(path).with_name(PurePosixPath(stated.decode(errors="replace")).name)
    return beside if beside.exists() else None


def snippet_labels(
    times_S3: np.ndarray, segments: Sequence[tuple[float, float, int]], num_classes: int
) -> np.ndarray:
    """Return bool `(S, C)`: the snippet's centre lies in a segment of the class."""
    labels_SC = np.zeros((len(times_S3), num_classes), bool)
    for start_seconds, end_seconds, class_index in segments:
        inside = snippets_between(times_S3, start_seconds, end_seconds)
        labels_SC[inside.start : inside.stop, class_index] = True
    return labels_SC


def say_absent(absent: Sequence[str]) -> list[str]:
    """Return a line of a report about annotated videos that a store has no rows of, if any."""
    if not absent:
        return []
    named, others = ", ".join(absent[:MAX_NAMED]), len(absent) - MAX_NAMED
    more = f" and {others:,} more" if others > 0 else ""
    return [f"not in the store: {len(absent):,} annotated videos ({named}{more})"]

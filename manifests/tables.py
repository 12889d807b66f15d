"""Read and write the two tables of what goes in: `sources.parquet` and `segments.parquet`."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .bounded import open_table, read_json, read_table
from .errors import UsageError
from .parts import find_parts
from .places import at_place, check_bucket, folder_of, resolve_path
from .records import SourceVideo
from .storage import AnyPath, to_path, write_atomic

SOURCES_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("label_id", pa.int32()),
        ("subset", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("num_frames", pa.int64()),
        ("fps_num", pa.int32()),
        ("fps_den", pa.int32()),
        ("duration_seconds", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int32()),
        ("codec", pa.string()),
        ("is_vfr", pa.bool_()),
        ("num_bytes", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        # Additions to the contract (docs/formats.md): found by the probe, optional when read.
        ("decoder", pa.string()),
        ("first_frame", pa.int64()),
        ("end_frame", pa.int64()),
    ]
)
REQUIRED_COLUMNS = ("video_id", "path", "num_frames", "status")
OPTIONAL_COLUMNS = ("decoder", "first_frame", "end_frame", "subset", "start_seconds", "end_seconds")

SEGMENTS_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("label", pa.string()),
        ("label_id", pa.int32()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("subset", pa.string()),
    ]
)


@dataclass(frozen=True)
class SourceTable:
    """The source videos, as columns: 650,000 rows stay small.

    Attributes:
        table: Arrow table of `SOURCES_SCHEMA`.
        classes: Class names in id order.
        folder: What relative paths are relative to.
        digest: sha256 of the table's file.
    """

    table: pa.Table
    classes: tuple[str, ...]
    folder: str
    digest: str = ""

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[SourceVideo]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> SourceVideo:
        return self.take([index])[0]

    def take(self, indices: Sequence[int]) -> list[SourceVideo]:
        """Return the videos at these positions."""
        return [
            SourceVideo(**(row | {"path": resolve_path(row["path"], self.folder)}))
            for row in self.table.take(pa.array(indices, pa.int64())).to_pylist()
        ]

    def column(self, name: str) -> np.ndarray:
        """Return one column as an array (nulls as NaN or None)."""
        return self.table.column(name).to_numpy()

    def select(self, video_ids: Iterable[str]) -> dict[str, SourceVideo]:
        """Return the rows of `video_ids`, by id.

        Raises:
            UsageError: An id is not in the table.
        """
        wanted = pa.array(sorted(set(video_ids)), pa.string())
        rows = np.flatnonzero(pc.is_in(self.table.column("video_id"), value_set=wanted).to_numpy())
        found = {video.video_id: video for video in self.take(rows.tolist())}
        for video_id in wanted.to_pylist():
            if video_id not in found:
                raise UsageError(f"video {video_id!r} of the plan is not in the sources table")
        return found


def write_sources(
    path: AnyPath | str, videos: Sequence[SourceVideo], classes: Sequence[str]
) -> None:
    """Write the sources table; `SourceVideo.path` is written as given."""
    names = [field.name for field in fields(SourceVideo)]
    assert names == SOURCES_SCHEMA.names
    columns = [
        pa.array([getattr(video, field.name) for video in videos], field.type)
        for field in SOURCES_SCHEMA
    ]
    table = pa.Table.from_arrays(columns, schema=SOURCES_SCHEMA)
    _write(path, table.replace_schema_metadata({"classes": json.dumps(list(classes))}))


def read_sources(path: AnyPath | str) -> SourceTable:
    """Read a sources table and check that it is one.

    A table made elsewhere may give parts of files in seconds without their frames: those files are
    scanned here.

    Raises:
        UsageError: No such file, not Parquet, a column missing or of another type, an id twice, an
            empty cell where a value is needed, no class list, a label_id outside of it.
    """
    content = _read_file(path)
    table, given = _parse(content, path, SOURCES_SCHEMA, optional=OPTIONAL_COLUMNS)
    for name in REQUIRED_COLUMNS:
        if table.column(name).null_count:
            raise UsageError(f"column {name!r} must have a value in every row ({str(path)!r})")
    ids = table.column("video_id")
    if len(ids.unique()) != len(ids):
        raise UsageError(f"video_id must be unique, but ids repeat ({str(path)!r})")
    classes = _classes(table, path)
    folder = folder_of(path)
    if not {"first_frame", "end_frame"} <= given:
        table = find_parts(table, folder)
    return SourceTable(table, classes, folder, hashlib.sha256(content).hexdigest())


def write_segments(
    path: AnyPath | str, rows: Sequence[dict], classes: Sequence[str], sources: str | None = None
) -> None:
    """Write annotated segments (dicts with the columns of `SEGMENTS_SCHEMA`).

    `sources` is the name of the sources table beside it whose segments they are, if there is one.
    """
    table = pa.Table.from_pylist(list(rows), schema=SEGMENTS_SCHEMA)
    metadata = {"classes": json.dumps(list(classes))}
    _write(
        path, table.replace_schema_metadata(metadata | ({"sources": sources} if sources else {}))
    )


def read_segments(path: AnyPath | str) -> pa.Table:
    """Read annotated segments; raises UsageError as `read_sources` does."""
    return _parse(_read_file(path), path, SEGMENTS_SCHEMA, optional=("subset", "label_id"))[0]


def _write(path: AnyPath | str, table: pa.Table) -> None:
    path = to_path(path)
    check_bucket(path)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    with at_place(path):
        write_atomic(path, sink.getvalue().to_pybytes())


def _read_file(path: AnyPath | str) -> bytes:
    path = to_path(path)
    try:
        if isinstance(path, Path) and not os.path.isfile(path):  # reading a pipe may never end
            raise FileNotFoundError(path)
        with at_place(path):
            return path.read_bytes()
    except (FileNotFoundError, ValueError) as err:  # ValueError: a bucket, not an object of it
        check_bucket(path)
        raise UsageError(f"no such table: {str(path)!r}") from err


def _parse(
    content: bytes, path: AnyPath | str, schema: pa.Schema, optional: Sequence[str]
) -> tuple[pa.Table, set[str]]:
    """Return the columns of `schema` in its types, and which of them the file has."""
    try:
        file = open_table(pa.BufferReader(content))
        given = set(file.schema_arrow.names)
        wanted = [field for field in schema if field.name in given or field.name not in optional]
        table = read_table(file, pa.schema(wanted))
    except ValueError as err:
        raise UsageError(f"{err} ({str(path)!r})") from err
    columns = [
        table.column(field.name) if field.name in given else _default(field, table)
        for field in schema
    ]
    full = pa.Table.from_arrays(columns, schema=schema.with_metadata(table.schema.metadata))
    return full, given


def _classes(table: pa.Table, path: AnyPath | str) -> tuple[str, ...]:
    try:
        classes = read_json((table.schema.metadata or {}).get(b"classes", b"null"))
    except ValueError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UsageError(
            f"the file's metadata must have the class list as JSON under 'classes' ({str(path)!r})"
        )
    label_ids = pc.min_max(table.column("label_id")).as_py()
    for label_id in filter(lambda found: found is not None, label_ids.values()):
        if not 0 <= label_id < len(classes):
            raise UsageError(
                f"label_id must be the position of one of the {len(classes):,} classes, got "
                f"{label_id} ({str(path)!r})"
            )
    return tuple(classes)


def _default(field: pa.Field, table: pa.Table) -> pa.Array:
    if field.name == "decoder":
        return pa.array(["pyav"] * table.num_rows, field.type)
    if field.name == "first_frame":
        return pa.array(np.zeros(table.num_rows, np.int64))
    if field.name == "end_frame":
        return table.column("num_frames").cast(field.type).combine_chunks()
    return pa.nulls(table.num_rows, field.type)

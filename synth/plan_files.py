"""Read and write a plan: `plan.parquet`, one row per sample in shard order, and `plan.json`."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import (
    AnyPath,
    Progress,
    SourceTable,
    UsageError,
    at_place,
    atomic_writer,
    check_bucket,
    conform,
    open_table,
    read_batches,
    read_sources,
    relative_path,
    resolve_path,
    to_path,
    write_atomic,
)

from .plan import PlannedShard, Row, draw_plan
from .recipe import Recipe, read_recipe
from .selection import read_annotation, select_candidates
from .shards import dump_json, read_record

VIEW_TYPE = pa.struct(
    [(name, pa.int32()) for name in ("short_side", "x", "y", "width", "height")]
    + [("flip", pa.bool_())]
)
AUGMENT_TYPE = pa.struct(
    [(name, pa.int32()) for name in ("height", "width")]
    + [
        (name, pa.float64())
        for name in ("blur_sigma", "brightness", "contrast", "saturation", "hue")
    ]
)
SOURCE_TYPE = pa.struct(
    [
        ("video_id", pa.string()),
        ("label_id", pa.int32()),
        ("start_frame", pa.int64()),
        ("frame_stride", pa.int32()),
        ("num_frames", pa.int32()),
        ("view", VIEW_TYPE),
        ("augment", AUGMENT_TYPE),  # null but for pairs; a plan made elsewhere may lack it
    ]
)
PLAN_SCHEMA = pa.schema(
    [
        ("sample_key", pa.string()),
        ("shard", pa.int32()),
        ("kind", pa.string()),
        ("sources", pa.list_(SOURCE_TYPE)),
        ("tree", pa.string()),
    ]
)
KEYS_SCHEMA = pa.schema([PLAN_SCHEMA.field(name) for name in ("sample_key", "shard")])
LARGEST_SHARD = 2**26  # bytes of the rows of a shard; as Python's objects they take 20 times that
ROW_GROUP_ROWS = 16_384
BOUNDARY = "boundary"  # the kind whose trees have one of four roots
KEY_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"  # a key names tar members: no dots, no slashes


@dataclass(frozen=True)
class PlanReport:
    """What was planned.

    Attributes:
        path: Folder of the plan.
        record: The content of its plan.json.
        replaced: Whether another plan stood there before.
    """

    path: AnyPath
    record: dict[str, Any]
    replaced: bool = False

    @property
    def rejected_share(self) -> float:
        """Share of the videos that are too short for the recipe, or can no longer be read."""
        counts = self.record["counts"]
        left_out = counts["too_short"] + counts.get("unreadable", 0)
        return left_out / max(left_out + counts["videos"], 1)


def write_plan(
    recipe_path: Path | str,
    sources_path: AnyPath | str,
    out: AnyPath | str,
    segments_path: AnyPath | str | None = None,
) -> PlanReport:
    """Draw the plan of a recipe over a sources table and write it to the folder `out`.

    Sources, segments and the folder may be URLs of objects (`s3://...`).

    Args:
        recipe_path: TOML file with a `[synth]` table.
        sources_path: The sources table.
        out: Folder of the plan.
        segments_path: Annotated segments for kind `annotated`; `segments.parquet` beside the
            sources if None.

    Raises:
        UsageError: A wrong recipe or table, no video that is long enough, a label missing, too few
            videos or classes for a kind, a bucket that cannot be written.
    """
    out = to_path(out)
    check_bucket(out)
    recipe, table = read_recipe(recipe_path), read_sources(sources_path)
    segments, classes = None, list(table.classes)
    annotation = _segments_path(recipe, sources_path, segments_path)
    if annotation is not None:
        segments, classes = read_annotation(annotation)
    videos, counts = select_candidates(recipe, table, sources_path, segments)
    shards = draw_plan(recipe, videos)
    total = len(videos) * recipe.samples_per_video
    with at_place(out), Progress("plan", "samples", total) as progress:
        digest = _write_rows(out / "plan.parquet", shards, counts, progress)
    counts["decodes_per_sample"] = round(counts["decodes"] / max(counts["samples"], 1), 4)
    resolved = json.loads(json.dumps(asdict(recipe)))
    record = {
        "recipe": resolved,
        "seed": recipe.seed,
        "sources": relative_path(sources_path, out),
        "classes": classes,
        "recipe_digest": hashlib.sha256(dump_json(resolved)).hexdigest(),
        "sources_digest": table.digest,
        "plan_digest": digest,
        "counts": counts,
    }
    if annotation is not None:
        record["segments"] = relative_path(annotation, out)
        record["segments_digest"] = file_digest(annotation)
    before = _plan_digest(out)
    with at_place(out):
        write_atomic(out / "plan.json", json.dumps(record, indent=1).encode() + b"\n")
    return PlanReport(out, record, replaced=before not in (None, digest))


def _plan_digest(out: AnyPath) -> str | None:
    """Return the digest of the plan in a folder, None if there is none or it says none."""
    try:
        return json.loads((out / "plan.json").read_bytes()).get("plan_digest")
    except (OSError, ValueError, AttributeError):
        return None


def _segments_path(
    recipe: Recipe, sources_path: AnyPath | str, segments_path: AnyPath | str | None
) -> AnyPath | None:
    """Return where the segments of kind `annotated` are, or None if it is not drawn."""
    if not recipe.has("annotated"):
        if segments_path is not None:
            raise UsageError("--segments belongs to kind 'annotated', which the recipe lacks")
        return None
    path = to_path(segments_path or to_path(sources_path).with_name("segments.parquet"))
    if not path.is_file():
        raise UsageError(
            f"kind 'annotated' needs annotated segments: there is no {str(path)!r}, name them with "
            f"--segments"
        )
    return path


def _write_rows(
    path: AnyPath, shards: Iterable[PlannedShard], counts: dict[str, Any], progress: Progress
) -> str:
    """Stream the rows of `shards` into `path`, add up `counts`, return the file's sha256."""
    kinds: Counter[str] = Counter()
    boundaries: Counter[str] = Counter()
    num_shards = decodes = num_waiting = 0
    waiting: list[pa.Table] = []
    with atomic_writer(path) as file:
        hashed = _HashedFile(file)
        with pq.ParquetWriter(hashed, PLAN_SCHEMA, compression="zstd") as writer:
            for planned in shards:
                kinds.update(row["kind"] for row in planned.rows)
                boundaries.update(
                    row["tree"]["op"] for row in planned.rows if row["kind"] == BOUNDARY
                )
                num_shards += 1
                decodes += planned.num_decodes
                waiting.append(_to_table(planned.rows))
                num_waiting += len(planned.rows)
                if num_waiting >= ROW_GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting, num_waiting = [], 0
                progress.advance(len(planned.rows))
            writer.write_table(pa.concat_tables([_to_table([]), *waiting]).combine_chunks())
    counts |= {"samples": sum(kinds.values()), "shards": num_shards, "decodes": decodes}
    counts["kinds"] = dict(sorted(kinds.items()))
    if boundaries:
        counts["boundary_classes"] = dict(sorted(boundaries.items()))
    return hashed.digest.hexdigest()


class _HashedFile(RawIOBase):
    """A file that is written, and the digest of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        """Return True: it is there to be written."""
        return True

    def write(self, block: Any) -> int:
        """Write a block of bytes as a whole."""
        self.digest.update(block)
        return self._file.write(block)


def _to_table(rows: list[Row]) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in PLAN_SCHEMA.names if name != "tree"}
    columns["tree"] = [dump_json(row["tree"]).decode() for row in rows]
    return pa.table(columns, schema=PLAN_SCHEMA)


def file_digest(path: AnyPath | str) -> str:
    """Return the sha256 of a file or an object, read in a stream."""
    path = to_path(path)
    with at_place(path), path.open("rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


@dataclass(frozen=True)
class Plan:
    """A plan on disk, read in a stream.

    Attributes:
        path: `plan.parquet`.
        record: plan.json, or {} for a plan made elsewhere.
        digest: sha256 of `plan.parquet`.
        num_samples: Rows.
    """

    path: AnyPath
    record: dict[str, Any]
    digest: str
    num_samples: int

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows of several whole shards at a time; raises as `shards` does."""
        waiting: list[pa.Table] = []
        num_waiting = 0
        for _, rows in self.shards():
            waiting.append(rows)
            num_waiting += len(rows)
            if num_waiting >= ROW_GROUP_ROWS:
                yield pa.concat_tables(waiting)
                waiting, num_waiting = [], 0
        if waiting:
            yield pa.concat_tables(waiting)

    def shards(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield each shard's number and rows, in order, holding only a few row groups.

        Raises:
            UsageError: Rows that are not in shard order, lack a value or have one too large.
        """
        waiting: list[pa.Table] = []
        current = -1
        for table in map(self._check, _read_batches(self.path, PLAN_SCHEMA)):
            numbers = table["shard"].to_numpy()
            starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
            for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
                shard = int(numbers[start])
                if shard < current:
                    raise UsageError(
                        f"the rows of a plan must be in shard order, but shard {shard} follows "
                        f"{current} ({str(self.path)!r})"
                    )
                if shard != current and waiting:
                    yield current, self._whole(current, waiting)
                    waiting = []
                current = shard
                waiting.append(table.slice(start, stop - start))
                if sum(part.nbytes for part in waiting) > LARGEST_SHARD:
                    raise UsageError(
                        f"the rows of a shard must take at most {LARGEST_SHARD} bytes, those of "
                        f"shard {shard} take more ({str(self.path)!r})"
                    )
        if waiting:
            yield current, self._whole(current, waiting)

    def _check(self, table: pa.Table) -> pa.Table:
        """Return rows that have a kind and sources each."""
        for name in ("kind", "sources"):
            if table[name].null_count:
                raise UsageError(f"{name} must have a value in every row ({str(self.path)!r})")
        return table

    def _whole(self, shard: int, parts: list[pa.Table]) -> pa.Table:
        """Join the rows of a shard; its keys name members of one tar, so they are unique there."""
        # the empty table makes it a copy: a mere view would drag its whole batch along to a worker
        rows = pa.concat_tables([*parts, parts[0].slice(0, 0)]).combine_chunks()
        if len(rows["sample_key"].unique()) != len(rows):
            raise UsageError(
                f"sample keys must be unique, but some repeat in shard {shard} ({str(self.path)!r})"
            )
        return rows


def read_plan(folder: AnyPath | str) -> Plan:
    """Open a plan, one of ours or one made elsewhere, and check its shape.

    Args:
        folder: Where it stands, on this machine or in an object store (`s3://...`).

    Raises:
        UsageError: No plan there, a column missing or of another type, sample keys that are not
            plain names, a plan.json of another plan.parquet.
    """
    path = to_path(folder) / "plan.parquet"
    with _open_plan(path) as file:
        num_samples = file.metadata.num_rows
        conform(file.schema_arrow.empty_table(), PLAN_SCHEMA)
    for table in _read_batches(path, KEYS_SCHEMA):
        _check_keys(table, path)
    digest = file_digest(path)
    with at_place(path):
        record = read_record(path.with_name("plan.json")) or {}
    if record.get("plan_digest", digest) != digest:
        raise UsageError(f"plan.json is of another plan.parquet ({str(folder)!r})")
    return Plan(path, record, digest, num_samples)


@contextmanager
def _open_plan(path: AnyPath) -> Iterator[pq.ParquetFile]:
    """Open a plan's table for reading; UsageError if there is none or it is not Parquet."""
    try:
        if isinstance(path, Path) and not path.is_file():  # reading a pipe may never end
            raise FileNotFoundError(path)
        with at_place(path), path.open("rb") as file:
            yield open_table(cast(Any, file))
    except FileNotFoundError as err:
        check_bucket(path)
        raise UsageError(f"no plan.parquet in {str(path.parent)!r}") from err
    except ValueError as err:
        raise UsageError(f"not a plan: {err} ({str(path)!r})") from err


def _read_batches(path: AnyPath, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield columns of a plan's table, a few thousand rows at a time."""
    with _open_plan(path) as file:
        yield from read_batches(file, schema)


def _check_keys(table: pa.Table, path: AnyPath) -> None:
    good = pc.match_substring_regex(table["sample_key"], KEY_PATTERN)
    if table["shard"].null_count or pc.min(table["shard"]).as_py() < 0:
        raise UsageError(f"shard must be >= 0 in every row ({str(path)!r})")
    if not pc.all(pc.fill_null(good, False)).as_py():
        bad = table["sample_key"].filter(pc.invert(pc.fill_null(good, False)))[0].as_py()
        raise UsageError(f"a sample_key must match {KEY_PATTERN}, got {bad!r} ({str(path)!r})")


def read_plan_sources(plan: Plan, sources_path: AnyPath | str | None) -> SourceTable:
    """Read the sources table of a plan: the one it names, or `sources_path`.

    Raises:
        UsageError: No table is known, or it is not the one that the plan was drawn from.
    """
    if sources_path is None:
        if "sources" not in plan.record:
            raise UsageError(
                f"a plan without plan.json needs --sources sources.parquet ({str(plan.path)!r})"
            )
        named = plan.record["sources"]
        if not isinstance(named, str):
            raise UsageError(f"plan.json must name its sources ({str(plan.path.parent)!r})")
        sources_path = resolve_path(named, str(plan.path.parent))
    table = read_sources(sources_path)
    if plan.record.get("sources_digest", table.digest) != table.digest:
        raise UsageError(
            f"the plan was drawn from another sources table than {str(sources_path)!r}: plan again"
        )
    return table

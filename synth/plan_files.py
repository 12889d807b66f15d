"""Read and write a plan: `plan.parquet`, one row per sample in shard order, and `plan.json`."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import Progress, SourceTable, UsageError, atomic_writer, read_sources, write_atomic

from .plan import Candidates, PlannedShard, Row, draw_plan
from .recipe import Recipe, read_recipe
from .shards import dump_json, read_record

VIEW_TYPE = pa.struct(
    [(name, pa.int32()) for name in ("short_side", "x", "y", "width", "height")]
    + [("flip", pa.bool_())]
)
SOURCE_TYPE = pa.struct(
    [
        ("video_id", pa.string()),
        ("label_id", pa.int32()),
        ("start_frame", pa.int64()),
        ("frame_stride", pa.int32()),
        ("num_frames", pa.int32()),
        ("view", VIEW_TYPE),
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
ROW_GROUP_ROWS = 16_384
KEY_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"  # a key names tar members: no dots, no slashes


@dataclass(frozen=True)
class PlanReport:
    """What was planned; `record` is the content of plan.json."""

    path: Path
    record: dict[str, Any]

    @property
    def rejected_share(self) -> float:
        """Share of the readable videos that are too short for the recipe."""
        counts = self.record["counts"]
        return counts["too_short"] / max(counts["too_short"] + counts["videos"], 1)


def write_plan(recipe_path: Path | str, sources_path: Path | str, out: Path | str) -> PlanReport:
    """Draw the plan of a recipe over a sources table and write it to the folder `out`.

    Raises:
        UsageError: A wrong recipe or table, no video that is long enough, a label missing, mixing
            with one class or one video.
    """
    recipe, table = read_recipe(recipe_path), read_sources(sources_path)
    videos, counts = select_candidates(recipe, table, sources_path)
    out = Path(out)
    shards = draw_plan(recipe, videos)
    total = len(videos) * recipe.samples_per_video
    with Progress("plan", "samples", total) as progress:
        digest = _write_rows(out / "plan.parquet", shards, counts, progress)
    counts["decodes_per_sample"] = round(counts["decodes"] / max(counts["samples"], 1), 4)
    resolved = json.loads(json.dumps(asdict(recipe)))
    record = {
        "recipe": resolved,
        "seed": recipe.seed,
        "sources": _relative(sources_path, out),
        "classes": list(table.classes),
        "recipe_digest": hashlib.sha256(dump_json(resolved)).hexdigest(),
        "sources_digest": table.digest,
        "plan_digest": digest,
        "counts": counts,
    }
    write_atomic(out / "plan.json", json.dumps(record, indent=1).encode() + b"\n")
    return PlanReport(out, record)


def select_candidates(
    recipe: Recipe, table: SourceTable, path: Path | str
) -> tuple[Candidates, dict[str, Any]]:
    """Return the videos that the recipe can use, and counts of the others.

    Raises:
        UsageError: None is left, or the recipe mixes and there is only one class or one video.
    """
    rows = table.table
    usable = pc.equal(rows["status"], "ok").to_numpy(zero_copy_only=False)
    if recipe.subset is not None:
        usable &= pc.fill_null(pc.equal(rows["subset"], recipe.subset), False).to_numpy()
    if not usable.any():
        subset = "" if recipe.subset is None else f" of subset {recipe.subset!r}"
        raise UsageError(f"the table has no readable video{subset} ({str(path)!r})")
    lengths = table.column("end_frame") - table.column("first_frame")
    short = usable & (lengths < recipe.span)
    if (short == usable).all():
        raise UsageError(
            f"no video is long enough for {recipe.frames} frames x stride {recipe.frame_stride} "
            f"({recipe.span} frames): the longest of {usable.sum()} has {lengths[usable].max()} "
            f"({str(path)!r})"
        )
    chosen = rows.filter(pa.array(usable & ~short))
    unlabelled = chosen.filter(pc.is_null(chosen["label_id"]))
    if unlabelled.num_rows:
        raise UsageError(
            f"every video needs a label, but {unlabelled.num_rows} have none, first "
            f"{unlabelled['video_id'][0].as_py()!r} ({str(path)!r})"
        )
    videos = Candidates(
        np.array(chosen["video_id"].to_pylist(), object),
        *(
            chosen[name].to_numpy()
            for name in ("label_id", "first_frame", "end_frame", "height", "width")
        ),
    )
    _check_geometry(videos, chosen, path)
    _check_mixing(recipe, videos, table, path)
    counts = {
        "videos": len(videos),
        "too_short": int(short.sum()),
        "rejected": int(pc.sum(pc.equal(rows["status"], "rejected")).as_py() or 0),
    }
    return videos, counts


def _check_geometry(videos: Candidates, rows: pa.Table, path: Path | str) -> None:
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


def _check_mixing(recipe: Recipe, videos: Candidates, table: SourceTable, path: Path | str) -> None:
    classes = np.unique(videos.label_ids)
    if classes.max(initial=0) >= len(table.classes) or classes.min(initial=0) < 0:
        raise UsageError(
            f"label_id must be below the number of classes {len(table.classes)}, got "
            f"{classes.max()} ({str(path)!r})"
        )
    if recipe.mixes and len(classes) < 2:
        raise UsageError(
            f"mixing needs videos of at least two classes, but all {len(videos)} usable ones are "
            f"{table.classes[classes[0]]!r} ({str(path)!r})"
        )


def _write_rows(
    path: Path, shards: Iterable[PlannedShard], counts: dict[str, Any], progress: Progress
) -> str:
    """Stream the rows of `shards` into `path`, add up `counts`, return the file's sha256."""
    kinds: Counter[str] = Counter()
    num_shards = decodes = 0
    waiting: list[Row] = []
    with atomic_writer(path) as file, pq.ParquetWriter(file, PLAN_SCHEMA, compression="zstd") as to:
        for planned in shards:
            kinds.update(row["kind"] for row in planned.rows)
            num_shards += 1
            decodes += planned.num_decodes
            waiting.extend(planned.rows)
            if len(waiting) >= ROW_GROUP_ROWS:
                to.write_table(_to_table(waiting))
                waiting = []
            progress.advance(len(planned.rows))
        to.write_table(_to_table(waiting))
    counts |= {"samples": sum(kinds.values()), "shards": num_shards, "decodes": decodes}
    counts["kinds"] = dict(sorted(kinds.items()))
    return file_digest(path)


def _to_table(rows: list[Row]) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in PLAN_SCHEMA.names if name != "tree"}
    columns["tree"] = [dump_json(row["tree"]).decode() for row in rows]
    return pa.table(columns, schema=PLAN_SCHEMA)


def file_digest(path: Path | str) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(path: Path | str, folder: Path) -> str:
    """Return `path` relative to `folder` when it stands beside it, so that both can move."""
    relative = os.path.relpath(path, folder)
    return os.path.abspath(path) if relative.startswith(os.path.join("..", "..")) else relative


@dataclass(frozen=True)
class Plan:
    """A plan on disk, read in a stream.

    Attributes:
        path: `plan.parquet`.
        record: plan.json, or {} for a plan made elsewhere.
        digest: sha256 of `plan.parquet`.
        num_samples: Rows.
    """

    path: Path
    record: dict[str, Any]
    digest: str
    num_samples: int

    def shards(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield each shard's number and rows, in order, holding only a few row groups.

        Raises:
            UsageError: Rows that are not in shard order, lack a value or have one too large.
        """
        waiting: list[pa.Table] = []
        current = -1
        for batch in pq.ParquetFile(self.path).iter_batches(ROW_GROUP_ROWS):
            table = self._cast(pa.Table.from_batches([batch]))
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
        if waiting:
            yield current, self._whole(current, waiting)

    def _cast(self, table: pa.Table) -> pa.Table:
        """Give rows of any integer types ours; every row needs a kind and its sources."""
        try:
            table = table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
        except pa.ArrowInvalid as err:
            raise UsageError(f"not a plan: {err} ({str(self.path)!r})") from err
        for name in ("kind", "sources"):
            if table[name].null_count:
                raise UsageError(f"{name} must have a value in every row ({str(self.path)!r})")
        return table

    def _whole(self, shard: int, parts: list[pa.Table]) -> pa.Table:
        """Join the rows of a shard; its keys name members of one tar, so they are unique there."""
        rows = pa.concat_tables(parts)
        if len(rows["sample_key"].unique()) != len(rows):
            raise UsageError(
                f"sample keys must be unique, but some repeat in shard {shard} ({str(self.path)!r})"
            )
        return rows


def read_plan(folder: Path | str) -> Plan:
    """Open a plan, one of ours or one made elsewhere, and check its shape.

    Raises:
        UsageError: No plan there, a column missing or of another type, sample keys that are not
            plain names, a plan.json of another plan.parquet.
    """
    path = Path(folder) / "plan.parquet"
    if not path.is_file():
        raise UsageError(f"no plan.parquet in {str(folder)!r}")
    try:
        file = pq.ParquetFile(path)
        file.schema_arrow.empty_table().select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, KeyError) as err:
        raise UsageError(f"not a plan: {err} ({str(path)!r})") from err
    for batch in file.iter_batches(ROW_GROUP_ROWS, columns=["sample_key", "shard"]):
        _check_keys(batch, path)
    digest = file_digest(path)
    record = read_record(Path(folder) / "plan.json") or {}
    if record.get("plan_digest", digest) != digest:
        raise UsageError(f"plan.json is of another plan.parquet ({str(folder)!r})")
    return Plan(path, record, digest, file.metadata.num_rows)


def _check_keys(batch: pa.RecordBatch, path: Path) -> None:
    good = pc.match_substring_regex(batch["sample_key"], KEY_PATTERN)
    if batch["shard"].null_count or pc.min(batch["shard"]).as_py() < 0:
        raise UsageError(f"shard must be >= 0 in every row ({str(path)!r})")
    if not pc.all(pc.fill_null(good, False)).as_py():
        bad = batch["sample_key"].filter(pc.invert(pc.fill_null(good, False)))[0].as_py()
        raise UsageError(f"a sample_key must match {KEY_PATTERN}, got {bad!r} ({str(path)!r})")


def read_plan_sources(plan: Plan, sources_path: Path | str | None) -> SourceTable:
    """Read the sources table of a plan: the one it names, or `sources_path`.

    Raises:
        UsageError: No table is known, or it is not the one that the plan was drawn from.
    """
    if sources_path is None:
        if "sources" not in plan.record:
            raise UsageError(
                f"a plan without plan.json needs --sources sources.parquet ({str(plan.path)!r})"
            )
        sources_path = os.path.join(plan.path.parent, plan.record["sources"])
    table = read_sources(sources_path)
    if plan.record.get("sources_digest", table.digest) != table.digest:
        raise UsageError(
            f"the plan was drawn from another sources table than {str(sources_path)!r}: plan again"
        )
    return table

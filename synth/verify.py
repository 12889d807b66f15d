"""Check an output folder: what is done, rejected, missing; whether every byte is what it says."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import Progress, ShardError, SourceTable, UsageError

from .dataset import read_shard_index
from .plan_files import Plan, file_digest, read_plan, read_plan_sources
from .planned import Rejected
from .render import render_samples, sample_meta
from .shards import (
    INDEX_SCHEMA,
    dump_json,
    read_done,
    read_record,
    read_sample,
    shard_path,
)

CODEC_TOLERANCE = {"filmstrip": 12.0, "h264": 16.0, "raw": 0.0}  # mean grey levels per sample
EXAMPLES = 3


@dataclass
class StatusReport:
    """What stands in an output folder.

    Attributes:
        done, planned: Finished shards; shards of the plan (None until every shard is done, or when
            no plan is given).
        samples: Planned, rendered and rejected samples of the finished shards.
        reasons: Rejected samples by reason.
        examples: A few sample keys by reason.
        is_complete: Whether dataset.json stands, and every shard it names.
    """

    done: int
    planned: int | None
    samples: Counter[str]
    reasons: Counter[str]
    examples: dict[str, list[str]]
    is_complete: bool


def read_status(out: Path | str, plan_folder: Path | str | None = None) -> StatusReport:
    """Count what is done, rejected and missing, from the records and the sizes of the tars.

    Raises:
        UsageError: No such folder, or shards of another plan than the one given.
    """
    out = _existing(out)
    plan = read_plan(plan_folder) if plan_folder is not None else None
    samples: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    done = 0
    for path in sorted(out.glob("shard-*.json")):
        record = read_done(out, int(path.stem.partition("-")[2]))
        if record is None:
            continue
        if plan is not None and record.get("plan_digest") != plan.digest:
            raise UsageError(
                f"{str(out)!r} holds shards of another plan ({path.name}) than {str(plan_folder)!r}"
            )
        done += 1
        samples.update({name: record[name] for name in ("planned", "rendered", "rejected")})
        reasons.update(record["reasons"])
        for reason in record["reasons"]:
            if len(examples.setdefault(reason, [])) < EXAMPLES:
                examples[reason].extend(_rejected_keys(path.with_suffix(".parquet"), reason))
    dataset = read_record(out / "dataset.json")
    planned = len(dataset["shards"]) if dataset else None
    if plan is not None:
        planned = sum(1 for _ in plan.shards())
    return StatusReport(
        done,
        planned,
        samples,
        reasons,
        {reason: keys[:EXAMPLES] for reason, keys in examples.items()},
        dataset is not None and done == planned,
    )


def _rejected_keys(path: Path, reason: str) -> list[str]:
    rows = pq.read_table(path, schema=INDEX_SCHEMA, filters=[("status", "=", "rejected")])
    pairs = zip(rows["key"].to_pylist(), rows["reason"].to_pylist(), strict=True)
    return [key for key, why in pairs if why.partition(": ")[0] == reason][:EXAMPLES]


@dataclass
class VerifyReport:
    """What `verify_output` found: no problems means that every byte is what the records say."""

    num_shards: int = 0
    num_samples: int = 0
    problems: list[str] = field(default_factory=list)


def verify_output(
    out: Path | str,
    plan_folder: Path | str | None = None,
    *,
    deep: bool = False,
    sources: Path | str | None = None,
) -> VerifyReport:
    """Check digests, indices and counts; against the plan if it is given.

    Args:
        out: The output folder.
        plan_folder: Check that exactly the planned samples are there, in order.
        deep: Also decode every sample; with a plan, render every sample again, compare the pixels
            within the codec's tolerance, and all that its `.json` says.
        sources: Sources table for that, if the plan does not name it.

    Raises:
        UsageError: No such folder, plan or sources table.
    """
    out = _existing(out)
    plan = read_plan(plan_folder) if plan_folder is not None else None
    table = read_plan_sources(plan, sources) if plan is not None and deep else None
    report = VerifyReport()
    found = {int(path.stem.partition("-")[2]) for path in out.glob("shard-[0-9]*.tar")}
    records = {int(path.stem.partition("-")[2]) for path in out.glob("shard-[0-9]*.json")}
    dataset = read_record(out / "dataset.json")
    if dataset is None:
        report.problems.append("dataset.json is missing: the rendering is not finished")
    planned = set(dataset["shards"]) if dataset else records
    if plan is not None:
        planned = {shard for shard, _ in plan.shards()}
    for shard in sorted(found - planned):
        report.problems.append(f"shard {shard} is not planned")
    with Progress("verify", "shards", len(planned)) as progress:
        for shard, rows in _planned_rows(plan, sorted(planned)):
            problems = _check_shard(out, shard, rows, plan, dataset, report)
            if deep and not problems:
                problems = _check_samples(out, shard, table, rows)
            report.problems.extend(f"shard {shard}: {problem}" for problem in problems)
            report.num_shards += 1
            progress.advance()
    return report


def _planned_rows(plan: Plan | None, shards: list[int]) -> Iterator[tuple[int, pa.Table | None]]:
    if plan is not None:
        yield from plan.shards()
    else:
        yield from ((shard, None) for shard in shards)


def _check_shard(
    out: Path,
    shard: int,
    rows: pa.Table | None,
    plan: Plan | None,
    dataset: dict[str, Any] | None,
    report: VerifyReport,
) -> list[str]:
    try:
        index = read_shard_index(out, shard, plan.digest if plan else None)
        record = read_record(shard_path(out, shard, "json")) or {}
    except ShardError as err:
        return [str(err)]
    report.num_samples += len(index)
    problems = []
    if file_digest(index.path) != record["sha256"]:
        problems.append("the tar's sha256 differs from its done record's: delete it, render again")
    if file_digest(shard_path(out, shard, "parquet")) != record["index_sha256"]:
        problems.append(
            "the index's sha256 differs from its done record's: delete it, render again"
        )
    if dataset is not None:
        digests = dict(zip(dataset["shards"], dataset["shard_digests"], strict=True))
        if digests.get(shard) != record["sha256"]:
            problems.append("its sha256 is not that in dataset.json")
    if rows is not None:
        keys = pq.read_table(shard_path(out, shard, "parquet"), columns=["key"])["key"]
        if keys.to_pylist() != rows["sample_key"].to_pylist():
            problems.append("its samples are not those of the plan")
    return problems


def _check_samples(
    out: Path, shard: int, table: SourceTable | None, rows: pa.Table | None
) -> list[str]:
    """Decode every sample; compare with a fresh rendering if the plan is known."""
    index = read_shard_index(out, shard)
    record = read_record(shard_path(out, shard, "json")) or {}
    fresh = {}
    if table is not None and rows is not None:
        ids = {source["video_id"] for row in rows["sources"].to_pylist() for source in row}
        for result in render_samples(rows.to_pylist(), table.select(ids), record["codec"]):
            if not isinstance(result, Rejected):
                fresh[result.sample.row["sample_key"]] = result
    problems = []
    for key, offset, size in zip(index.keys, index.offsets, index.sizes, strict=True):
        try:
            sample = read_sample(index.path, int(offset), int(size))
            frames = sample.frames()
        except (ShardError, ValueError, KeyError) as err:
            problems.append(f"sample {key}: {err}")
            continue
        if sample.key != key or sample.track().num_frames != frames.shape[-4]:
            problems.append(f"sample {key}: members, labels and index disagree")
        elif table is not None and key not in fresh:
            problems.append(f"sample {key}: its source no longer renders")
        elif table is not None:
            expected = fresh[key]
            difference = np.abs(frames.astype(np.int16) - expected.frames).mean()
            if dump_json(dict(sample.meta)) != dump_json(sample_meta(expected.sample)):
                problems.append(f"sample {key}: its labels are not those of its plan row")
            elif difference > CODEC_TOLERANCE[record["codec"]]:
                problems.append(f"sample {key}: pixels differ by {difference:.1f} grey levels")
    return problems


def _existing(out: Path | str) -> Path:
    if not Path(out).is_dir():
        raise UsageError(f"no such folder of shards: {str(out)!r}")
    if (Path(out) / "plan.json").exists():
        raise UsageError(f"{str(out)!r} holds a plan, not shards: name the folder they are in")
    return Path(out)

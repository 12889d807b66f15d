"""Say what stands in an output folder: shards done and missing, samples rejected and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from manifests import AnyPath, ShardError, UsageError, open_table, read_batches, to_path

from .plan_files import KEYS_SCHEMA, Plan, read_plan
from .shards import done_records, parse_index, read_record, shard_path

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


def read_status(
    out: AnyPath | str, plan_folder: AnyPath | str | None = None, num_examples: int = EXAMPLES
) -> StatusReport:
    """Count what is done, rejected and missing, from the records and the sizes of the tars.

    Raises:
        UsageError: No such folder, or shards of another plan than the one given.
        ShardError: A record that is not one.
    """
    out = folder_of_shards(out)
    plan = read_plan(plan_folder) if plan_folder is not None else None
    dataset = read_record(out / "dataset.json")
    named = _numbers(dataset, out) if plan is None else planned_shards(plan)
    samples: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    done = 0
    for shard, record, stands in done_records(out):
        if plan is not None and record.get("plan_digest") != plan.digest:
            raise UsageError(
                f"{str(out)!r} holds shards of another plan "
                f"({shard_path('', shard, 'json').name}) than {str(plan_folder)!r}"
            )
        if not stands or (named is not None and shard not in named):
            continue
        done += 1
        samples.update({name: record[name] for name in ("planned", "rendered", "rejected")})
        reasons.update(record["reasons"])
        for reason in record["reasons"]:
            keys = examples.setdefault(reason, [])
            if len(keys) < num_examples:
                keys.extend(_rejected_keys(shard_path(out, shard, "parquet"), reason))
    return StatusReport(
        done,
        None if named is None else len(named),
        samples,
        reasons,
        {reason: keys[:num_examples] for reason, keys in examples.items()},
        dataset is not None and named is not None and done == len(named),
    )


def planned_shards(plan: Plan) -> set[int]:
    """Return the numbers of the shards of a plan, without reading its rows."""
    shards: set[int] = set()
    with plan.path.open("rb") as file:
        for table in read_batches(open_table(cast(Any, file)), KEYS_SCHEMA):
            shards.update(table["shard"].unique().to_pylist())
    return shards


def folder_of_shards(out: AnyPath | str) -> AnyPath:
    """Return the path of an output folder.

    Raises:
        UsageError: No such folder, or one with a plan in it.
    """
    path = to_path(out)
    if not path.is_dir():
        raise UsageError(f"no such folder of shards: {str(out)!r}")
    if (path / "plan.json").exists():
        raise UsageError(f"{str(out)!r} holds a plan, not shards: name the folder they are in")
    return path


def _numbers(dataset: Mapping[str, Any] | None, path: AnyPath) -> set[int] | None:
    """Return the shards that dataset.json names, None if it does not stand."""
    if dataset is None:
        return None
    shards = dataset.get("shards")
    if not isinstance(shards, list) or any(type(shard) is not int for shard in shards):
        raise ShardError(f"dataset.json must have a list of shard numbers ({str(path)!r})")
    return set(shards)


def _rejected_keys(path: AnyPath, reason: str) -> list[str]:
    rows = parse_index(path.read_bytes(), path.with_suffix(".tar"))
    rejected = (row for row in rows if row["status"] == "rejected")
    return [row["key"] for row in rejected if str(row["reason"]).partition(": ")[0] == reason]

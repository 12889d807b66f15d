"""Check a whole output folder: whether every byte is what its records and its plan say."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from reprlib import repr as brief
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from manifests import (
    AnyPath,
    Progress,
    ShardError,
    SourceTable,
    SourceVideo,
    UsageError,
    file_sizes,
    first_line,
    ray_cluster,
)

from .plan_files import Plan, read_plan, read_plan_sources
from .shards import read_record, shard_number, shard_path
from .status import folder_of_shards, planned_shards
from .verify_shard import ShardCheck, ShardFindings, check_shard, same

MAX_ATTEMPTS = 3  # of a worker that dies; Ray itself would try for ever where memory is short
IN_FLIGHT_PER_CPU = 2
FEW_SAMPLES = 100  # rendered again sooner than Ray starts
SUFFIXES = ("tar", "parquet", "json")


@dataclass
class VerifyReport:
    """What `verify_output` found: no problems means that every byte is what the records say.

    Attributes:
        num_shards, num_samples: Shards looked at; samples that their indices say are rendered.
        problems: One sentence each, in the order of the shards.
        notes: What could not be checked, or only more loosely.
    """

    num_shards: int = 0
    num_samples: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_output(
    out: AnyPath | str,
    plan_folder: AnyPath | str | None = None,
    *,
    deep: bool = False,
    sources: AnyPath | str | None = None,
    workers: int | None = None,
    address: str | None = None,
) -> VerifyReport:
    """Check digests, indices, counts and tar members; against the plan if it is given.

    Args:
        out: The output folder.
        plan_folder: Check that exactly the planned samples are there, in order.
        deep: Also decode every sample and derive its labels from its tree; with a plan, render
            every sample again and compare all that its `.json` says, and the pixels: byte for byte
            where the same package versions rendered them, else within the codec's tolerance.
        sources: Sources table for that, if the plan does not name it.
        workers: Processes; 0: this one, without Ray. None: all cores of the machine or cluster to
            render more than a few samples again, else 0.
        address: A running Ray cluster to join.

    Raises:
        UsageError: No such folder, plan, sources table or cluster.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be >= 0, got {workers}")
    out = folder_of_shards(out)
    plan = read_plan(plan_folder) if plan_folder is not None else None
    table = None
    if plan is not None and (deep or sources is not None):
        table = read_plan_sources(plan, sources)
    folder = _Folder(out, plan, table, deep)
    report = VerifyReport(problems=list(folder.check_names()))
    found: dict[int, list[str]] = {}
    with Progress("verify", "shards", len(folder.planned)) as progress:
        for findings in _run(folder.checks(), _choose_workers(workers, address, folder), address):
            folder.add(findings)
            found[findings.shard] = findings.problems
            progress.advance()
    report.num_shards = len(found)
    report.num_samples = sum(folder.kinds.values())
    report.problems += folder.check_dataset()
    for shard in sorted(found):
        report.problems += [f"shard {shard}: {problem}" for problem in found[shard]]
    report.notes = list(folder.notes())
    return report


class _Folder:
    """An output folder, what it must hold, and the sums over the shards that were checked."""

    def __init__(
        self, out: AnyPath, plan: Plan | None, table: SourceTable | None, is_deep: bool
    ) -> None:
        self.out, self.plan, self.table, self.is_deep = out, plan, table, is_deep
        self.unreadable = ""
        self.record: Mapping[str, Any] = {}
        try:
            self.record = read_record(out / "dataset.json") or {}
        except ShardError as err:
            self.unreadable = str(err)
        shards, digests = self._list_of(int, "shards"), self._list_of(str, "shard_digests")
        self.digests: dict[int, str] = {}
        if shards and digests and len(shards) == len(digests):
            self.digests = dict(zip(shards, digests, strict=True))
        self.classes = _classes(plan, table)
        self.files = [
            name for suffix in SUFFIXES for name in file_sizes(out, "shard-", f".{suffix}")
        ]
        if plan is not None:
            self.planned = planned_shards(plan)
        else:
            numbers = set(self.digests) or [shard_number(name) for name in self.files]
            self.planned = {number for number in numbers if number is not None}
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.num_uncounted = self.num_inexact = self.num_untried = 0

    def _list_of(self, kind: type, name: str) -> list[Any] | None:
        value = self.record.get(name)
        if isinstance(value, list) and all(type(item) is kind for item in value):
            return value
        return None

    def check_names(self) -> Iterator[str]:
        """Find files of shards that are not planned."""
        extra: dict[int, list[str]] = {}
        for name in sorted(self.files):
            shard = shard_number(name)
            if shard is None or name != shard_path("", shard, name.rpartition(".")[2]).name:
                yield f"{name} is no file of a shard: delete it"
            elif shard not in self.planned:
                extra.setdefault(shard, []).append(name)
        for shard, names in sorted(extra.items()):
            yield f"shard {shard} is not planned: delete {', '.join(names)}"

    def checks(self) -> Iterator[ShardCheck]:
        """Yield what is to be checked, shard by shard."""
        plan_digest, codec = (_text(self.record.get(name)) for name in ("plan_digest", "codec"))
        classes = self.classes or self._list_of(str, "classes")
        for shard, rows in self.plan.shards() if self.plan else _without_rows(self.planned):
            yield ShardCheck(
                shard,
                str(self.out),
                plan_digest=self.plan.digest if self.plan else plan_digest,
                codec=codec,
                rows=rows,
                videos=_videos(rows, self.table) if self.is_deep and rows is not None else None,
                is_deep=self.is_deep,
                sha256=self.digests.get(shard),
                num_classes=None if classes is None else len(classes),
            )

    def add(self, found: ShardFindings) -> None:
        """Add up what was found in a shard."""
        self.num_uncounted += not found.is_counted
        self.num_inexact += not found.is_exact
        self.num_untried += found.num_untried
        self.kinds.update(found.kinds)
        rendered = sum(found.kinds.values())
        self.counts.update(
            planned=found.planned, rendered=rendered, rejected=found.planned - rendered
        )

    def check_dataset(self) -> Iterator[str]:
        """Compare dataset.json with the plan and with the sums over its shards."""
        if not self.record:
            yield self.unreadable or "dataset.json is missing: the rendering is not finished"
            return
        expected: dict[str, Any] = {"shards": sorted(self.planned)}
        if self.plan is not None:
            expected["plan_digest"] = self.plan.digest
            expected["recipe_digest"] = self.plan.record.get("recipe_digest")
        if self.classes is not None:
            expected["classes"] = self.classes
        if not self.num_uncounted:
            expected["num_samples"] = self.counts["rendered"]
            expected["counts"] = {
                name: self.counts[name] for name in ("planned", "rendered", "rejected")
            }
            expected["kinds"] = dict(sorted(self.kinds.items()))
        for name, value in expected.items():
            if not same(self.record.get(name), value):
                says = brief(self.record.get(name))
                yield f"dataset.json says {name} {says}, but it must be {brief(value)}"
        if not self.digests and self.planned:
            yield "dataset.json must have a sha256 for every shard"
        if self._list_of(str, "classes") is None:
            yield "dataset.json must have a list of classes"
        for name in ("plan_digest", "codec"):
            if _text(self.record.get(name)) is None:
                yield f"dataset.json must have a {name}, got {brief(self.record.get(name))}"

    def notes(self) -> Iterator[str]:
        """Say what could not be checked to the byte."""
        if self.is_deep and self.plan is not None and self.num_inexact:
            yield (
                f"{self.num_inexact:,} shards were rendered by other package versions than those "
                f"here: their pixels are compared within a tolerance"
            )
        if self.is_deep and self.plan is not None and self.num_untried:
            yield (
                f"{self.num_untried:,} rejected samples were not tried again: a decoder hung or "
                f"crashed on one of their videos"
            )


def _classes(plan: Plan | None, table: SourceTable | None) -> list[str] | None:
    """Return the classes that the dataset must have, None if that is not known."""
    if plan is not None and "classes" in plan.record:
        return plan.record["classes"]
    return None if table is None else list(table.classes)


def _without_rows(shards: Iterable[int]) -> Iterator[tuple[int, None]]:
    return ((shard, None) for shard in sorted(shards))


def _videos(rows: pa.Table, table: SourceTable | None) -> dict[str, SourceVideo]:
    assert table is not None
    return table.select(pc.struct_field(pc.list_flatten(rows["sources"]), "video_id").to_pylist())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _choose_workers(workers: int | None, address: str | None, folder: _Folder) -> int | None:
    if workers is not None or address is not None:
        return workers
    is_much = folder.is_deep and folder.plan is not None and folder.plan.num_samples > FEW_SAMPLES
    return None if is_much else 0


def _run(
    checks: Iterator[ShardCheck], workers: int | None, address: str | None
) -> Iterator[ShardFindings]:
    """Check shards, in any order; a bounded number of them is in flight."""
    if workers == 0:
        yield from map(check_shard, checks)
        return
    with ray_cluster(workers, address):
        remote = ray.remote(num_cpus=1, max_retries=0)(check_shard)
        window = max(1, int(ray.cluster_resources().get("CPU", 1))) * IN_FLIGHT_PER_CPU
        running: dict[Any, tuple[ShardCheck, int]] = {}
        while True:
            for check in islice(checks, window - len(running)):
                running[remote.remote(check)] = check, 1
            if not running:
                return
            (ready,), _ = ray.wait(list(running), num_returns=1)
            check, attempt = running.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayTaskError:
                raise  # of the kind that the check raised
            except ray.exceptions.RayError as err:  # the worker or its node is gone
                if attempt < MAX_ATTEMPTS:
                    running[remote.remote(check)] = check, attempt + 1
                else:
                    why = f"it could not be checked: {first_line(err)}"
                    yield ShardFindings(check.shard, problems=[why])

"""The render job: what is planned, what is done, and what is missing is rendered.

Running the same command again is the recovery: finished shards are left untouched. The done records
are the ledger; of each finished shard only its number is held in memory.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import (
    AnyPath,
    Progress,
    SourceTable,
    SourceVideo,
    UsageError,
    file_sizes,
    stop_on_signal,
    to_path,
    write_atomic,
)

from .attempt import Limits, ShardResult
from .codecs import ENCODERS, check_size
from .dispatch import dispatch
from .plan_files import Plan, read_plan, read_plan_sources
from .planned import Rejected, check_row
from .render import ShardTask
from .retry import take_back
from .shards import done_records, dump_json

DECODE_SECONDS = 600.0
MEMORY_GB = 1.0


@dataclass
class RenderReport:
    """What a run of the job did.

    Attributes:
        planned, rendered, rejected: Samples of the whole plan, over all runs.
        reasons: Rejected samples by reason.
        num_shards, done_before: Shards of the plan; those that were finished before this run.
        failed: Reason by shard number for shards that could not be made.
        taken_back, unchanged: Finished shards with the rejections to try again: those whose source
            files changed, and those whose did not.
        is_dry_run: Nothing was rendered.
        is_interrupted: A signal came before all shards were begun.
    """

    planned: int = 0
    rendered: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    num_shards: int = 0
    done_before: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    taken_back: int = 0
    unchanged: int = 0
    is_dry_run: bool = False
    is_interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the plan is done."""
        return not (self.failed or self.is_dry_run or self.is_interrupted)

    @property
    def num_done(self) -> int:
        """Samples that are rendered or rejected."""
        return self.rendered + self.rejected

    def start_again(self) -> None:
        """Count from nothing."""
        self.rendered = self.rejected = 0
        self.reasons.clear()

    def note(self) -> str:
        """Say what a progress line should."""
        return f"{self.rejected:,} rejected" if self.rejected else ""

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a finished shard."""
        self.rendered += record["rendered"]
        self.rejected += record["rejected"]
        self.reasons.update(record["reasons"])


def render_plan(
    plan_folder: Path | str,
    out: Path | str,
    *,
    sources: Path | str | None = None,
    codec: str = "filmstrip",
    workers: int | None = None,
    address: str | None = None,
    dry_run: bool = False,
    decode_seconds: float = DECODE_SECONDS,
    memory_gb: float = MEMORY_GB,
    retry_rejected: str | None = None,
) -> RenderReport:
    """Render what is missing of a plan into the folder `out`.

    At SIGINT or SIGTERM no new shard is begun; a second one abandons those that are.

    Args:
        plan_folder, out: Local folders or URLs of an object store.
        sources: Sources table, if the plan does not name it.
        codec: "filmstrip", "h264" or "raw".
        workers: Render processes; all cores of the machine or cluster if None; 0 renders in this
            process, without Ray and without limits of time and memory.
        address: A running Ray cluster to join.
        dry_run: Check everything and count, but render nothing.
        decode_seconds: A process that decodes one video for longer is ended, and the samples of
            that video are rejected.
        memory_gb: What a render process may take; Ray gives a node no more of them than fit. One
            that takes more is ended, and its shard tried again when nothing else runs.
        retry_rejected: Render those shards again that rejected samples for this reason, if their
            source files changed since.

    Raises:
        UsageError: The plan, its sources and the output do not belong together, the codec cannot
            hold the planned sizes, `workers` is negative or `decode_seconds` not positive.
    """
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be >= 0, got {workers}")
    if not decode_seconds > 0:
        raise UsageError(f"the decoding of a video needs more than {decode_seconds:g} s")
    if not memory_gb > 0:
        raise UsageError(f"a render process needs more than {memory_gb:g} GB")
    if retry_rejected is not None and dry_run:
        raise UsageError("--retry-rejected removes done records: not with --dry-run")
    plan = read_plan(plan_folder)
    table = read_plan_sources(plan, sources)
    output = to_path(out)
    _check_output(output, codec)
    _check_rows(plan, table, codec)
    report = RenderReport(planned=plan.num_samples, is_dry_run=dry_run)
    done = _count_done(plan, output, codec, report)
    if retry_rejected is not None:
        report.taken_back, report.unchanged = take_back(output, table, retry_rejected)
        done = _count_done(plan, output, codec, report)
    with Progress(
        "check" if dry_run else "render", "samples", plan.num_samples, done=report.num_done
    ) as progress:
        tasks = _missing_shards(plan, table, done, str(output), codec, report)
        if dry_run:
            for task in tasks:
                _check_task(task, report)
                progress.advance(len(task.rows))
            return report
        _check_writable(output)
        limits = Limits(decode_seconds, int(memory_gb * 2**30))
        with stop_on_signal() as stop:
            for task, outcome in dispatch(_until(stop, tasks, report), limits, workers, address):
                if isinstance(outcome, ShardResult):
                    report.add(vars(outcome.report))
                    progress.advance(len(task.rows), report.note())
                else:
                    report.failed[task.shard] = outcome.reason
                    if outcome.cause == "disk":
                        stop.set()  # the next shard would not fit either
    if report.is_complete:
        _finish(plan, table, output, codec, unplanned=done)
    return report


def _count_done(plan: Plan, out: AnyPath, codec: str, report: RenderReport) -> set[int]:
    """Return the numbers of the finished shards and count them; leftovers are rendered again.

    Raises:
        UsageError: A shard of another plan or codec.
    """
    report.start_again()
    done = set()
    for shard, record, stands in done_records(out):
        if record.get("plan_digest") != plan.digest:
            raise UsageError(
                f"{str(out)!r} holds shards of another plan (shard {shard}): choose another folder"
            )
        if record.get("codec") != codec:
            raise UsageError(
                f"{str(out)!r} holds shards of codec {record.get('codec')!r}, got --codec {codec}"
            )
        if stands:
            done.add(shard)
            report.add(record)
    report.done_before = len(done)
    return done


def _missing_shards(
    plan: Plan,
    table: SourceTable,
    done: set[int],
    out: str,
    codec: str,
    report: RenderReport,
) -> Iterator[ShardTask]:
    """Yield the tasks that are not done yet, counting the shards of the plan.

    In the end `done` has only shards that are not planned.
    """
    rows_of = {video_id: i for i, video_id in enumerate(table.table["video_id"].to_pylist())}
    for shard, rows in plan.shards():
        report.num_shards += 1
        if shard in done:
            done.discard(shard)
        else:
            videos = _shard_videos(rows, table, rows_of)
            yield ShardTask(shard, rows, videos, out, codec, plan.digest)


def _until(
    stop: threading.Event, tasks: Iterator[ShardTask], report: RenderReport
) -> Iterator[ShardTask]:
    """Hand out tasks until a signal asks to stop; what is begun then is finished."""
    for task in tasks:
        if stop.is_set():
            report.is_interrupted = True
            return
        yield task


def _check_task(task: ShardTask, report: RenderReport) -> None:
    """Count the rows that could not be rendered, with the whole reason of each."""
    for row in task.rows.to_pylist():
        checked = check_row(row, task.videos, task.codec)
        if isinstance(checked, Rejected):
            report.rejected += 1
            report.reasons[f"{checked.reason} (sample {row['sample_key']})"] += 1


def _shard_videos(
    rows: pa.Table, table: SourceTable, rows_of: Mapping[str, int]
) -> dict[str, SourceVideo]:
    ids = pc.struct_field(pc.list_flatten(rows["sources"]), "video_id").unique().to_pylist()
    return {video_id: table[rows_of[video_id]] for video_id in ids}


def _check_output(out: AnyPath, codec: str) -> None:
    """Refuse an unknown codec, and an output that is no folder."""
    if codec not in ENCODERS:
        raise UsageError(f"codec must be one of {list(ENCODERS)}, got {codec!r}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"the output must be a folder, got the file {str(out)!r}")


def _check_writable(out: AnyPath) -> None:
    """Write and remove a file, so that a wrong output shows before anything is rendered."""
    probe = out / f".shard-{secrets.token_hex(6)}.part"
    write_atomic(probe, b"")
    probe.unlink()


def _check_rows(plan: Plan, table: SourceTable, codec: str) -> None:
    """Refuse videos and classes that the table lacks, and sizes that the codec cannot hold."""
    known = frozenset(table.table["video_id"].to_pylist())
    for _, rows in plan.shards():
        sources = pc.list_flatten(rows["sources"])
        for video_id in pc.struct_field(sources, "video_id").unique().to_pylist():
            if video_id not in known:
                raise UsageError(
                    f"the plan shows video {video_id!r}, which is not in the sources table "
                    f"({str(plan.path)!r})"
                )
        label_id = pc.max(pc.struct_field(sources, "label_id")).as_py()
        if label_id is not None and label_id >= len(table.classes):
            raise UsageError(
                f"label_id must be the position of one of the {len(table.classes):,} classes of "
                f"the sources table, got {label_id} ({str(plan.path)!r})"
            )
        views, augments = (pc.struct_field(sources, name) for name in ("view", "augment"))
        sizes = pa.table(  # of what is shown: an augmentation gives its crop another size
            {
                name: pc.coalesce(pc.struct_field(augments, name), pc.struct_field(views, name))
                for name in ("height", "width")
            }
        ).group_by(["height", "width"])
        for size in sizes.aggregate([]).to_pylist():
            try:
                check_size(codec, 1, size["height"] or 0, size["width"] or 0)
            except ValueError as err:
                raise UsageError(f"{err} ({str(plan.path)!r})") from err


def _finish(plan: Plan, table: SourceTable, out: AnyPath, codec: str, unplanned: set[int]) -> None:
    """Write dataset.json, the record of a finished folder, and sweep leftovers of killed runs."""
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    digests = {}
    for shard, record, _ in done_records(out):
        if shard in unplanned:
            continue
        kinds.update(record["kinds"])
        counts.update({name: record[name] for name in ("planned", "rendered", "rejected")})
        digests[shard] = record["sha256"]
    dataset = {
        "classes": plan.record.get("classes", list(table.classes)),
        "plan_digest": plan.digest,
        "recipe_digest": plan.record.get("recipe_digest"),
        "codec": codec,
        "num_samples": counts["rendered"],
        "counts": dict(counts),
        "kinds": dict(sorted(kinds.items())),
        "shards": sorted(digests),
        "shard_digests": [digests[shard] for shard in sorted(digests)],
    }
    for name in file_sizes(out, ".shard-", ".part"):
        (out / name).unlink(missing_ok=True)
    write_atomic(out / "dataset.json", dump_json(dataset) + b"\n")

"""The render job: what is planned, what is done, and what is missing is rendered.

Running the same command again is the recovery: finished shards are left untouched. The done records
are the ledger; of each finished shard only its number is held in memory.
"""

import math
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
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
    storage_errors,
    to_path,
    write_atomic,
)

from .attempt import Limits, ShardResult
from .codecs import ENCODERS, check_size
from .dispatch import Ended, dispatch
from .plan_files import Plan, read_plan, read_plan_sources
from .planned import Rejected, check_row
from .render import ShardTask
from .render_log import RenderLog
from .render_page import write_render_page
from .retry import take_back
from .shards import done_records, dump_json, read_done

DECODE_SECONDS = 600.0
MEMORY_GB = 1.0
LOST = "was made, but is not in the output: all nodes must see the same folder"


@dataclass
class RenderReport:
    """What a run of the job did.

    Attributes:
        planned, rendered, rejected: Samples of the whole plan, over all runs.
        reasons: Rejected samples by reason.
        num_shards, num_done: Shards of the plan, and those of them that are finished.
        done_before: Shards that were finished before this run.
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
    num_done: int = 0
    done_before: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    taken_back: int = 0
    unchanged: int = 0
    is_dry_run: bool = False
    is_interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the plan is done."""
        is_cut_short = self.failed or self.is_dry_run or self.is_interrupted
        return not is_cut_short and self.num_done == self.num_shards

    def count(self, log: RenderLog) -> None:
        """Take over what is done."""
        self.num_done = log.found_shards + log.done_shards
        self.rendered, self.rejected = log.rendered, log.rejected
        self.reasons = log.reasons.copy()


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
    if not 0 < memory_gb < math.inf:
        raise UsageError(f"--memory-gb must be a number above 0, got {memory_gb:g}")
    if retry_rejected is not None and dry_run:
        raise UsageError("--retry-rejected removes done records: not with --dry-run")
    plan = read_plan(plan_folder)
    table = read_plan_sources(plan, sources)
    output = to_path(out)
    _check_output(output, codec)
    planned = _check_rows(plan, table, codec)
    report = RenderReport(plan.num_samples, num_shards=len(planned), is_dry_run=dry_run)
    log, done = _find_done(plan, planned, output, codec)
    if retry_rejected is not None:
        report.taken_back, report.unchanged = take_back(output, table, retry_rejected)
        log, done = _find_done(plan, planned, output, codec)
    report.done_before = len(done)
    tasks = _missing_shards(plan, table, planned - done, str(output), codec)
    limits = Limits(decode_seconds, int(memory_gb * 2**30))
    parts = ("shards", len(planned), log.found_shards)
    verb = "check" if dry_run else "render"
    with Progress(verb, "samples", plan.num_samples, log.found_samples, parts=parts) as progress:
        if dry_run:
            report.count(log)
            for task in tasks:
                _check_task(task, report)
                progress.advance(len(task.rows), parts=1)
            return report
        _check_writable(output)
        try:
            with stop_on_signal() as stop:
                wanted = _until(stop, tasks, report)
                for ended in dispatch(wanted, limits, workers, address, log):
                    _take_in(ended, log, report, progress, stop)
            report.count(log)
            if report.is_complete:
                for shard in _finish(plan, table, output, codec, planned):
                    report.failed[shard] = LOST
                    log.fail(shard, LOST)
        finally:
            report.count(log)
            with suppress(*(storage_errors() if report.failed else ())):  # a full disk was said
                write_render_page(log, output)
    return report


def _take_in(
    ended: Ended | None,
    log: RenderLog,
    report: RenderReport,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Count a task that has ended, well or not, and show it; None: time passes."""
    if ended is None:
        progress.advance(0)
    elif isinstance(ended.outcome, ShardResult):
        log.finish(ended.outcome)
        progress.advance(len(ended.task.rows), log.note(), parts=1)
    elif record := _made_by_another(ended.task):
        log.found(record)
        progress.advance(len(ended.task.rows), log.note(), parts=1)
    else:
        log.fail(ended.task.shard, ended.outcome.reason)
        report.failed[ended.task.shard] = ended.outcome.reason
        progress.advance(0, log.note())
        if ended.outcome.cause == "disk":
            stop.set()  # the next shard would not fit either


def _made_by_another(task: ShardTask) -> dict[str, Any] | None:
    """Return the done record of a shard that failed here, if another driver has made it."""
    with suppress(*storage_errors()):
        record = read_done(to_path(task.out), task.shard)
        if record and (record.get("plan_digest"), record.get("codec")) == (
            task.plan_digest,
            task.codec,
        ):
            return record
    return None


def _find_done(
    plan: Plan, planned: set[int], out: AnyPath, codec: str
) -> tuple[RenderLog, set[int]]:
    """Count what is done, and return the numbers of the finished shards.

    Raises:
        UsageError: A shard of another plan or codec.
    """
    log, done = RenderLog(len(planned), plan.num_samples), set()
    for shard, record, stands in done_records(out):
        if record.get("plan_digest") != plan.digest:
            raise UsageError(
                f"{str(out)!r} holds shards of another plan (shard {shard}): choose another folder"
            )
        if record.get("codec") != codec:
            raise UsageError(
                f"{str(out)!r} holds shards of codec {record.get('codec')!r}, got --codec {codec}"
            )
        if stands and shard in planned:
            done.add(shard)
            log.found(record)
    return log, done


def _missing_shards(
    plan: Plan,
    table: SourceTable,
    missing: set[int],
    out: str,
    codec: str,
) -> Iterator[ShardTask]:
    """Yield the tasks that are not done yet."""
    if not missing:
        return  # to read a plan of ten million rows once more takes a while
    rows_of = {video_id: i for i, video_id in enumerate(table.table["video_id"].to_pylist())}
    for shard, rows in plan.shards():
        if shard in missing:
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
    return dict(zip(ids, table.take([rows_of[video_id] for video_id in ids]), strict=True))


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


def _check_rows(plan: Plan, table: SourceTable, codec: str) -> set[int]:
    """Refuse videos and classes that the table lacks, and sizes that the codec cannot hold.

    Returns:
        The numbers of the planned shards.
    """
    known = frozenset(table.table["video_id"].to_pylist())
    planned: set[int] = set()
    for rows in plan.batches():
        planned.update(rows["shard"].unique().to_pylist())
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
    return planned


def _finish(
    plan: Plan, table: SourceTable, out: AnyPath, codec: str, planned: set[int]
) -> list[int]:
    """Write dataset.json, the record of a finished folder, and sweep leftovers of killed runs.

    Returns:
        Shards that were said to be done and are not there; there is no dataset.json then.
    """
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    digests = {}
    for shard, record, stands in done_records(out):
        if stands and shard in planned:
            kinds.update(record["kinds"])
            counts.update({name: record[name] for name in ("planned", "rendered", "rejected")})
            digests[shard] = record["sha256"]
    if len(digests) < len(planned):
        (out / "dataset.json").unlink(missing_ok=True)
        return sorted(planned - digests.keys())
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
    for prefix in (".shard-", "..shard-"):  # the second: an attempt at the probe of the output
        for name in file_sizes(out, prefix, ".part"):
            (out / name).unlink(missing_ok=True)
    write_atomic(out / "dataset.json", dump_json(dataset) + b"\n")
    return []

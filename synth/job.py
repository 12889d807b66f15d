"""The render job: Ray tasks that each make one shard, and the ledger of what is done.

A task gets plan rows and paths; no pixel passes through Ray's object store. Attempts are counted
here. Running the same command again is the recovery: finished shards are left untouched.
"""

import contextlib
import errno
import logging
import os
import secrets
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from manifests import (
    Progress,
    SourceTable,
    SourceVideo,
    UsageError,
    stop_on_signal,
    write_atomic,
)

from .codecs import ENCODERS, check_size
from .plan_files import Plan, read_plan, read_plan_sources
from .planned import Rejected, check_row
from .render import ShardReport, ShardTask, render_shard
from .retry import take_back
from .shards import dump_json, read_done, read_record, shard_path
from .watchdog import expired_video

MAX_ATTEMPTS = 3
IN_FLIGHT_PER_CPU = 2
DECODE_SECONDS = 600.0
CONNECT_SECONDS = 10.0


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
    retry_rejected: str | None = None,
) -> RenderReport:
    """Render what is missing of a plan into the folder `out`.

    At SIGINT or SIGTERM no new shard is begun; a second one abandons those that are.

    Args:
        sources: Sources table, if the plan does not name it.
        codec: "filmstrip", "h264" or "raw".
        workers: Render processes; all cores of the machine or cluster if None; 0 renders in this
            process, without Ray.
        address: A running Ray cluster to join.
        dry_run: Check everything and count, but render nothing.
        decode_seconds: A worker that decodes one video for longer is ended, and the samples of that
            video are rejected; not where `workers` is 0.
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
    plan = read_plan(plan_folder)
    table = read_plan_sources(plan, sources)
    out = Path(out)
    _check_output(plan, out, codec)
    _check_rows(plan, table, codec)
    report = RenderReport(planned=plan.num_samples, is_dry_run=dry_run)
    if retry_rejected is not None and dry_run:
        raise UsageError("--retry-rejected removes done records: not with --dry-run")
    if retry_rejected is not None:
        report.taken_back, report.unchanged = take_back(out, table, retry_rejected)
    with Progress("check" if dry_run else "render", "samples", plan.num_samples) as progress:
        tasks = _missing_shards(plan, table, out, codec, report, progress)
        if dry_run:
            for task in tasks:
                _check_task(task, report)
                progress.advance(len(task.rows))
            return report
        out.mkdir(parents=True, exist_ok=True)
        if workers != 0:
            tasks = (_watch(task, decode_seconds) for task in tasks)
        with stop_on_signal() as stop:
            _run(_until(stop, tasks, report), report, progress, workers, address)
    if report.is_complete:
        _finish(plan, table, out, codec)
    return report


def _missing_shards(
    plan: Plan,
    table: SourceTable,
    out: Path,
    codec: str,
    report: RenderReport,
    progress: Progress,
) -> Iterator[ShardTask]:
    """Yield the tasks that are not done yet; finished shards are counted in `report`."""
    rows_of = {video_id: i for i, video_id in enumerate(table.table["video_id"].to_pylist())}
    for shard, rows in plan.shards():
        report.num_shards += 1
        record = read_done(out, shard)
        if record is not None:
            report.done_before += 1
            report.add(record)
            progress.skip(record["planned"])
            continue
        yield ShardTask(
            shard,
            rows.to_pylist(),
            _shard_videos(rows, table, rows_of),
            str(out),
            codec,
            plan.digest,
        )


def _until(
    stop: threading.Event, tasks: Iterator[ShardTask], report: RenderReport
) -> Iterator[ShardTask]:
    """Hand out tasks until a signal asks to stop; what is begun then is finished."""
    for task in tasks:
        if stop.is_set():
            report.is_interrupted = True
            return
        yield task


def _watch(task: ShardTask, decode_seconds: float) -> ShardTask:
    """Give a task what ends its worker if a decoder hangs."""
    name = f".{shard_path('', task.shard, 'json').stem}.{secrets.token_hex(6)}.watch.part"
    record = str(Path(task.out) / name)
    return replace(task, decode_seconds=decode_seconds, watch_record=record)


def _check_task(task: ShardTask, report: RenderReport) -> None:
    """Count the rows that could not be rendered, with the whole reason of each."""
    for row in task.rows:
        checked = check_row(row, task.videos, task.codec)
        if isinstance(checked, Rejected):
            report.rejected += 1
            report.reasons[f"{checked.reason} (sample {row['sample_key']})"] += 1


def _shard_videos(
    rows: pa.Table, table: SourceTable, rows_of: Mapping[str, int]
) -> dict[str, SourceVideo]:
    ids = pc.struct_field(pc.list_flatten(rows["sources"]), "video_id").unique().to_pylist()
    return {video_id: table[rows_of[video_id]] for video_id in ids}


def _check_output(plan: Plan, out: Path, codec: str) -> None:
    """Refuse an output folder of another plan or codec."""
    if codec not in ENCODERS:
        raise UsageError(f"codec must be one of {list(ENCODERS)}, got {codec!r}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"the output must be a folder, got the file {str(out)!r}")
    for path in sorted(out.glob("shard-*.json")):
        record = read_record(path) or {}
        if record.get("plan_digest") != plan.digest:
            raise UsageError(
                f"{str(out)!r} holds shards of another plan ({path.name}): choose another folder"
            )
        if record.get("codec") != codec:
            raise UsageError(
                f"{str(out)!r} holds shards of codec {record.get('codec')!r}, got --codec {codec}"
            )


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


def _run(
    tasks: Iterator[ShardTask],
    report: RenderReport,
    progress: Progress,
    workers: int | None,
    address: str | None,
) -> None:
    def finish(done: ShardReport) -> None:
        report.add(vars(done))
        progress.advance(done.planned, f"{report.rejected} rejected" if report.rejected else "")

    if workers == 0:
        _run_here(tasks, report, finish)
    else:
        with _ray_cluster(workers, address):
            _run_on_ray(tasks, report, finish)


def _run_here(
    tasks: Iterator[ShardTask], report: RenderReport, finish: Callable[[ShardReport], None]
) -> None:
    for task in tasks:
        try:
            finish(render_shard(task))
        except OSError as err:
            report.failed[task.shard] = _say(err)


@contextlib.contextmanager
def _ray_cluster(workers: int | None, address: str | None) -> Iterator[None]:
    """Start a local Ray, or join one; an already connected Ray is used and left as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        ray.init(
            num_cpus=workers or os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    """Join a running cluster, or say that there is none; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as err:
        raise UsageError(f"no Ray cluster answers at {address!r}") from err


def _run_on_ray(
    tasks: Iterator[ShardTask], report: RenderReport, finish: Callable[[ShardReport], None]
) -> None:
    """Keep a bounded number of shards in flight; try a failed one again, up to MAX_ATTEMPTS."""
    remote = ray.remote(num_cpus=1, max_retries=0)(render_shard)
    window = max(1, int(ray.cluster_resources().get("CPU", 1))) * IN_FLIGHT_PER_CPU
    running: dict[Any, tuple[ShardTask, int]] = {}
    again: deque[tuple[ShardTask, int]] = deque()
    while True:
        while len(running) < window:
            task, attempt = again.popleft() if again else (next(tasks, None), 1)
            if task is None:
                break
            running[remote.remote(task)] = (task, attempt)
        if not running:
            return
        (ready,), _ = ray.wait(list(running), num_returns=1)
        task, attempt = running.pop(ready)
        try:
            finish(ray.get(ready))
        except (ray.exceptions.RayError, OSError) as err:
            stopped = expired_video(Path(task.watch_record))
            if stopped is not None and stopped not in task.failed:
                why = f"decoding was stopped: it did not end in {task.decode_seconds:g} s"
                again.append((replace(task, failed={**task.failed, stopped: why}), attempt))
            elif attempt < MAX_ATTEMPTS and not _is_disk_full(err):
                again.append((task, attempt + 1))
            else:
                report.failed[task.shard] = _say(err)


def _is_disk_full(err: BaseException) -> bool:
    cause = err.cause if isinstance(err, ray.exceptions.RayTaskError) else err
    return isinstance(cause, OSError) and cause.errno == errno.ENOSPC


def _say(err: BaseException) -> str:
    cause = err.cause if isinstance(err, ray.exceptions.RayTaskError) else err
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    return (str(cause).strip().splitlines() or [type(cause).__name__])[-1]


def _finish(plan: Plan, table: SourceTable, out: Path, codec: str) -> None:
    """Write dataset.json, the record of a finished folder, and sweep leftovers of killed runs."""
    records = [read_record(shard_path(out, shard, "json")) or {} for shard, _ in plan.shards()]
    kinds: Counter[str] = Counter()
    for record in records:
        kinds.update(record["kinds"])
    dataset = {
        "classes": plan.record.get("classes", list(table.classes)),
        "plan_digest": plan.digest,
        "recipe_digest": plan.record.get("recipe_digest"),
        "codec": codec,
        "num_samples": sum(record["rendered"] for record in records),
        "counts": {
            name: sum(record[name] for record in records)
            for name in ("planned", "rendered", "rejected")
        },
        "kinds": dict(sorted(kinds.items())),
        "shards": [record["shard"] for record in records],
        "shard_digests": [record["sha256"] for record in records],
    }
    for leftover in out.glob(".shard-*.part"):
        leftover.unlink(missing_ok=True)
    write_atomic(out / "dataset.json", dump_json(dataset) + b"\n")

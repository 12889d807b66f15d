"""One attempt at a shard, in a child process that may hang, crash or grow too large.

The worker that Ray started only watches: whatever a decoder does to its process, the worker lives
to say what happened. A child serves one attempt after the other until it dies or is ended.
"""

import errno
import os
import platform
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from manifests import ChildProcess, Crash, SourceVideo, first_line, storage_errors, to_path

from .plan_files import PLAN_SCHEMA
from .render import ShardReport, ShardTask, render_shard

POLL_SECONDS = 0.25
START_SECONDS = 120.0
KILLED = (-signal.SIGKILL, -signal.SIGTERM)  # from outside, mostly because memory is short
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LONGEST_NOTE = 65_536


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes:
        decode_seconds: For the decoding of one video.
        memory_bytes: Resident bytes; watched where the system has /proc.
    """

    decode_seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class ShardResult:
    """A shard that was made, and what the attempt took: that depends on the machine.

    Attributes:
        report: The done record.
        seconds: From the task's arrival at the worker to the done record.
        peak_bytes: Largest resident size of the child so far.
        node: Name of the machine.
    """

    report: ShardReport
    seconds: float
    peak_bytes: int = 0
    node: str = ""


@dataclass(frozen=True)
class FailedAttempt:
    """Why an attempt made no shard.

    Attributes:
        cause: "hang": a decoder passed its deadline; "crash": the child died; "memory": it grew too
            large, or was killed; "disk": the output takes no more; "error": anything else.
        reason: In words.
        video_id: What was being decoded then, "" if nothing was.
    """

    cause: Literal["hang", "crash", "memory", "disk", "error"]
    reason: str
    video_id: str = ""


def attempt_shard(task: ShardTask, limits: Limits) -> ShardResult | FailedAttempt:
    """Render one shard in a child, which is ended if it goes beyond its limits."""
    start = time.monotonic()
    renderer = _IDLE.pop() if _IDLE else _Renderer()
    outcome = renderer.render(task, limits)
    if isinstance(outcome, FailedAttempt):
        renderer.close()
        return outcome
    report, peak_bytes = outcome
    if peak_bytes > limits.memory_bytes:
        renderer.close()  # it grew faster than it was looked at; the next shard gets a new child
    else:
        _IDLE.append(renderer)
    return ShardResult(report, time.monotonic() - start, peak_bytes, platform.node())


class _Renderer:
    """A child that renders, and the note in which it says what it decodes."""

    def __init__(self) -> None:
        self.note = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child lives
        self.child = ChildProcess(render_in_child, pass_fds=[self.note.fileno()])

    def render(self, task: ShardTask, limits: Limits) -> tuple[ShardReport, int] | FailedAttempt:
        if not self.child.is_ready:
            if not self.child.has_replied(START_SECONDS):
                why = f"a render process did not start in {START_SECONDS:g} s"
                return FailedAttempt("error", why)
            started = self.child.receive()
            if isinstance(started, Crash):
                return FailedAttempt("error", f"a render process could not start: {started.cause}")
        self.child.send({"note": self.note.fileno(), "task": _to_json(task)})
        note, seconds = self.decoding(), 0.0
        while not self.child.has_replied(POLL_SECONDS):
            before, note = note, self.decoding()
            # looks are counted, not time: a machine that slept accuses no video
            seconds = seconds + POLL_SECONDS if note == before else 0.0
            video_id, _ = note
            if video_id and seconds > limits.decode_seconds:
                why = f"decoding was stopped: it did not end in {limits.decode_seconds:g} s"
                return FailedAttempt("hang", why, video_id)
            resident = memory_of(self.child.process.pid, "VmRSS")
            if resident > limits.memory_bytes:
                return FailedAttempt(
                    "memory",
                    f"a render process must stay below {_gb(limits.memory_bytes)}, but grew to "
                    f"{_gb(resident)}",
                    video_id,
                )
        reply = self.child.receive()
        if isinstance(reply, Crash):
            why = f"a render process died: {reply.cause}"
            if reply.exit_code in KILLED:
                return FailedAttempt("memory", why)
            return FailedAttempt("crash", why, self.decoding()[0])
        if "failed" in reply:
            return FailedAttempt(**reply["failed"])
        return ShardReport(**reply["report"]), reply["peak_bytes"]

    def decoding(self) -> tuple[str, int]:
        """Return the video that the child decodes ("" if none), and the time stamp of its note."""
        video_id = os.pread(self.note.fileno(), LONGEST_NOTE, 0).decode(errors="replace")
        return video_id, os.fstat(self.note.fileno()).st_mtime_ns

    def close(self) -> None:
        self.child.close()
        self.note.close()


_IDLE: list[_Renderer] = []  # of this worker: Ray runs one task at a time in it


def render_in_child(note: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """Render a shard; the reply of the child.

    Args:
        note: Open file that says what is being decoded.
        task: A shard task, as JSON has it.
    """

    @contextmanager
    def noted(video_id: str) -> Iterator[None]:
        os.pwrite(note, video_id.encode(errors="replace")[:LONGEST_NOTE], 0)
        try:
            yield
        finally:
            os.ftruncate(note, 0)

    os.ftruncate(note, 0)
    out = to_path(task["out"])
    if isinstance(out, Path) and not out.is_dir():
        why = f"{task['out']!r} is not there on {platform.node()}: all nodes must see it"
        return {"failed": asdict(FailedAttempt("error", why))}
    try:
        report = render_shard(_from_json(task), noted)
    except storage_errors() as err:
        return {"failed": asdict(failure_of(err, task["out"]))}
    return {"report": vars(report), "peak_bytes": memory_of(os.getpid(), "VmHWM")}


def failure_of(err: Exception, out: str) -> FailedAttempt:
    """Say what a disk, a store or a system that does not do its part means for the attempt."""
    number, name = getattr(err, "errno", None), getattr(err, "filename", None)
    reason = f"{first_line(err)} ({name})" if name else first_line(err)
    is_full = number in FULL_DISK and "://" not in out  # else it is a disk of this node alone
    return FailedAttempt("disk" if is_full else "error", reason)


def memory_of(pid: int, field: str) -> int:
    """Return bytes that Linux states of a process (VmRSS: now, VmHWM: at most); else 0."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _to_json(task: ShardTask) -> dict[str, Any]:
    videos = {video_id: asdict(video) for video_id, video in task.videos.items()}
    return {**vars(task), "rows": task.rows.to_pylist(), "videos": videos}


def _from_json(task: Mapping[str, Any]) -> ShardTask:
    rows = pa.Table.from_pylist(task["rows"], PLAN_SCHEMA)
    videos = {video_id: SourceVideo(**video) for video_id, video in task["videos"].items()}
    return ShardTask(**{**task, "rows": rows, "videos": videos})


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GB"

"""Build the sources table: list the videos, probe every file in parallel, write one Parquet file.

While it works, finished probes are appended to `OUT.partial.jsonl` (in the current folder if OUT is
a URL), so that a killed run goes on where it was: a probe is used again only if the file's path,
size and modification time, the part of it that is meant and the kind of check are the same.
Rejected files are always tried again. The side file goes away when the table is complete; building
a complete table again probes everything again, so no row is ever stale.

With `transcode_to` every good video is also re-encoded into that folder (`transcode.py`), and the
table names the new files, which know by themselves what they were made from.
"""

import errno
import json
import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import UsageError, VideoError
from .places import check_bucket, folder_of
from .probe import probe_video
from .progress import Progress
from .readers import Entry, list_sources
from .records import SourceVideo
from .segments import clean_segments, segments_path
from .storage import AnyPath, to_path, write_atomic
from .tables import write_segments, write_sources
from .transcode import choose_targets, plan_transcode, swept, transcode
from .workers import Crash, map_in_children

PARTIAL_FORMAT = 1  # raise it whenever the probe's columns or their meaning change
DEADLINE_SECONDS = 120
DEADLINE_SECONDS_PER_MB = 10  # far slower than any decoder: only a hang meets it
DEADLINE_SECONDS_PER_FRAME = 0.2  # besides, of a transcoded video
NUM_SHOWN = 5

# What the probe finds out; the other columns of a row come from the listing.
# fmt: off
PROBED = (
    "num_frames", "fps_num", "fps_den", "duration_seconds", "width", "height", "rotation", "codec",
    "is_vfr", "decoder", "first_frame", "end_frame",
)
# fmt: on

Check = Literal["decode", "packets"]
ProbeFile = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class SourcesReport:
    """What `build_sources` did.

    Attributes:
        path: The sources table.
        total: Videos that were listed and found, one row each.
        ok: Rows with status "ok".
        rejected: Rows with status "rejected".
        reasons: Number of rejected rows by reason, the commonest first.
        missing: Videos that were listed but have no file.
        missing_examples: The first few of them.
        missing_path: Text file that names all of them, or None.
        resumed: Rows that an earlier, killed run had finished.
        num_classes: Classes of the table.
        seconds: Wall time.
        segments: Rows of the segments table, or None if the layout has no temporal annotations.
        segments_path: The segments table, or None.
        oddities: How often each rule changed what the annotations say, by the rule's sentence.
    """

    path: str
    total: int
    ok: int
    rejected: int
    reasons: dict[str, int]
    missing: int
    missing_examples: tuple[str, ...]
    missing_path: str | None
    resumed: int
    num_classes: int
    seconds: float
    segments: int | None
    segments_path: str | None
    oddities: dict[str, int]


def build_sources(
    source: Path,
    out: AnyPath | str,
    *,
    format: str | None = None,
    videos: Path | None = None,
    classes: Path | None = None,
    workers: int | None = None,
    check: Check = "decode",
    transcode_to: Path | None = None,
    probe_file: ProbeFile | None = None,
) -> SourcesReport:
    """Make the table of source videos from a folder tree or official annotations.

    The bytes of the table depend on the files alone, not on `workers` or on how often the run was
    killed. Missing videos are named in `OUT.missing.txt`. Temporal annotations become
    `segments.parquet` beside the table, by the rules of `segments.py`.

    Args:
        source: Folder tree, annotation file or folder of annotation files.
        out: The Parquet file to write; may be a URL in an object store.
        format: Layout of `source`, a key of `manifests.readers.FORMATS`; guessed if None.
        videos: Folder of the files that an annotation file names.
        classes: File with a class name per line, which fixes the ids; sorted names if None.
        workers: Processes that probe; one per core if None.
        check: How closely a file is looked at (`probe_video`).
        transcode_to: Folder for re-encoded copies of the good videos, in the places that the
            videos have below `source` or `videos`; None leaves the videos as they are.
        probe_file: What a child calls for each file; `probe_one` if None.

    Raises:
        UsageError: Whatever is wrong with the arguments or the listing; nothing was written then.
        OSError: The table or a transcoded video cannot be written (a full disk); the same call goes
            on from there.
    """
    began = time.monotonic()
    num_workers = _num_workers(workers)
    if check not in get_args(Check):
        raise UsageError(f"--check must be one of {', '.join(get_args(Check))}, got {check!r}")
    out = to_path(out)
    _check_out(out, source)
    listing = list_sources(source, format, videos, classes)
    if not listing.entries:
        raise UsageError(
            f"none of the {len(listing.missing):,} listed videos was found in {str(videos)!r}, "
            f"first {listing.missing[0]!r}"
        )
    segments_at = None if listing.segments is None else segments_path(out)
    targets = choose_targets(listing.entries, videos or source, transcode_to)
    partial_path = _partial_path(out)
    rows = _Rows(listing.entries, listing.classes, folder_of(out), check, targets)
    resumed = rows.resume(partial_path)
    with swept(transcode_to):
        _probe_rest(rows, partial_path, resumed, num_workers, probe_file or probe_one)
    segment_rows, oddities = clean_segments(listing, rows.in_order())
    if segments_at is not None:
        write_segments(segments_at, segment_rows, listing.classes, out.name)
    write_sources(out, rows.in_order(), listing.classes)
    missing_path = _write_missing(out, listing.missing)
    partial_path.unlink(missing_ok=True)
    reasons = Counter(row.reason for row in rows.in_order() if row.reason is not None)
    rejected = reasons.total()
    return SourcesReport(
        path=str(out),
        total=len(listing.entries),
        ok=len(listing.entries) - rejected,
        rejected=rejected,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        missing=len(listing.missing),
        missing_examples=listing.missing[:NUM_SHOWN],
        missing_path=missing_path,
        resumed=resumed,
        num_classes=len(listing.classes),
        seconds=time.monotonic() - began,
        segments=None if segments_at is None else len(segment_rows),
        segments_path=None if segments_at is None else str(segments_at),
        oddities=oddities,
    )


def probe_one(
    path: str,
    start_seconds: float | None,
    end_seconds: float | None,
    check: Check,
    target: str | None = None,
) -> dict[str, Any]:
    """Probe one file, or transcode it to `target` and probe that, in a child process.

    The deadline is an alarm that nobody catches: it ends the process even inside a decoder that
    never comes back.

    Returns:
        `num_bytes`, and either `columns` and the `stamp` of the file, taken before it was read, or
        the `reason` why there are none. If no video is to blame (a full disk), `errno` and `path`.
    """
    try:
        status = os.stat(path)
    except OSError as err:
        return {"num_bytes": 0, "reason": f"cannot be opened: {err.strerror}"}
    if not stat.S_ISREG(status.st_mode):
        return {"num_bytes": 0, "reason": "is not a file"}
    size = {"num_bytes": status.st_size}
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    deadline = DEADLINE_SECONDS + DEADLINE_SECONDS_PER_MB * status.st_size / 1e6
    signal.setitimer(signal.ITIMER_REAL, deadline)
    part = {"start_seconds": start_seconds, "end_seconds": end_seconds}
    try:
        if target is None:
            found = probe_video(path, **part, check=check)
        else:
            planned = plan_transcode(path, target, **part)
            deadline += DEADLINE_SECONDS_PER_FRAME * planned.end_frame
            signal.setitimer(signal.ITIMER_REAL, deadline)
            try:
                found = transcode(planned, check)
            except OSError as err:
                return {"errno": err.errno or errno.EIO, "path": target}
            size = {"num_bytes": found.num_bytes}
    except VideoError as err:
        return size | {"reason": err.reason}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return size | {"stamp": stamp, "columns": {name: getattr(found, name) for name in PROBED}}


class _Rows:
    """The rows of the table as they get finished, in the order of the listing.

    Args:
        entries: The listing.
        classes: Class names in id order.
        folder: Absolute folder or URL of the table, from which paths below it are written.
        check: Kind of check, part of what a finished probe is known by.
        targets: Where the transcoded files go; none if nothing is transcoded.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        classes: Sequence[str],
        folder: str,
        check: str,
        targets: Sequence[str] = (),
    ) -> None:
        self.entries, self.check, self.targets = entries, check, targets
        self.prefix = folder.rstrip("/") + "/"
        self.label_ids = {label: index for index, label in enumerate(classes)}
        self.videos: list[SourceVideo | None] = [None] * len(entries)

    def request(self, index: int) -> dict[str, Any]:
        """Return what a child is asked for a row; also what a finished probe is known by."""
        entry = self.entries[index]
        request: dict[str, Any] = {
            "path": entry.path,
            "start_seconds": entry.start_seconds,
            "end_seconds": entry.end_seconds,
            "check": self.check,
        }
        return request | ({"target": self.targets[index]} if self.targets else {})

    def finish(self, index: int, reply: dict[str, Any]) -> None:
        """Turn the reply of a probe into a row."""
        entry = self.entries[index]
        reason = reply.get("reason")
        is_new = bool(self.targets) and reason is None  # and holds just the part that is meant
        path = self.targets[index] if is_new else entry.path
        self.videos[index] = SourceVideo(
            video_id=entry.video_id,
            path=path.removeprefix(self.prefix),
            label=entry.label,
            label_id=None if entry.label is None else self.label_ids[entry.label],
            subset=entry.subset,
            start_seconds=None if is_new else entry.start_seconds,
            end_seconds=None if is_new else entry.end_seconds,
            num_bytes=reply["num_bytes"],
            status="ok" if reason is None else "rejected",
            reason=reason,
            **reply.get("columns", {}),
        )

    def unfinished(self) -> list[int]:
        """Return the positions of the rows that need a probe."""
        return [index for index, video in enumerate(self.videos) if video is None]

    def in_order(self) -> list[SourceVideo]:
        """Return all rows; readers sort them by `video_id`."""
        return [video for video in self.videos if video is not None]

    def resume(self, partial_path: Path) -> int:
        """Finish rows from the side file of a killed run, and return how many."""
        if not partial_path.exists():
            return 0
        position = {_key(self.request(index)): index for index in range(len(self.entries))}
        with open(partial_path, encoding="utf-8") as file:
            for line in file:
                found = _parse(line)
                index = None if found is None else position.get(_key(found["request"]))
                if found is None or index is None:
                    continue
                is_same = found["stamp"] == _stamp(found["request"]["path"])
                if is_same and self._is_target_there(index, found["reply"]):
                    self.finish(index, found["reply"])
        return len(self.entries) - len(self.unfinished())

    def _is_target_there(self, index: int, reply: dict[str, Any]) -> bool:
        if not self.targets:
            return True
        stamp = _stamp(self.targets[index])
        return stamp is not None and stamp["size"] == reply["num_bytes"]


def _key(request: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(request.values())


def _parse(line: str) -> dict[str, Any] | None:
    """Return a finished probe, or None for a line that was torn, or that older code wrote."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("format") != PARTIAL_FORMAT:
        return None
    return found


def _stamp(path: str) -> dict[str, int] | None:
    """Return what tells that a file changed, or None if it cannot be told."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _probe_rest(
    rows: _Rows, partial_path: Path, resumed: int, num_workers: int, probe_file: ProbeFile
) -> None:
    todo = rows.unfinished()
    requests = [rows.request(index) for index in todo]
    verb = "transcode" if rows.targets else "probe"
    with (
        open(partial_path, "a", encoding="utf-8", buffering=1) as partial,  # by line
        Progress(verb, "videos", len(rows.entries), done=resumed) as progress,
        closing(map_in_children(probe_file, requests, num_workers)) as replies,
    ):
        partial.write("\n")  # a killed run may have left half a line
        for position, reply in replies:
            request = requests[position]
            if isinstance(reply, Crash):
                reply = _crash_reply(request, reply)
            elif "errno" in reply:
                raise OSError(reply["errno"], os.strerror(reply["errno"]), reply["path"])
            elif "columns" in reply:
                stamp = reply.pop("stamp")
                record = {"format": PARTIAL_FORMAT, "request": request, "stamp": stamp}
                partial.write(json.dumps(record | {"reply": reply}) + "\n")
            rows.finish(todo[position], reply)
            progress.advance()


def _crash_reply(request: dict[str, Any], crash: Crash) -> dict[str, Any]:
    what = "transcoding" if "target" in request else "the decoder"
    if crash.exit_code == -signal.SIGALRM:
        reason = f"{what} ran past {DEADLINE_SECONDS} s and {DEADLINE_SECONDS_PER_MB} s per MB"
        if "target" in request:
            reason += f" and {DEADLINE_SECONDS_PER_FRAME} s per frame"
    else:
        reason = f"{what} crashed ({crash.cause})"
    return {"num_bytes": (_stamp(request["path"]) or {"size": 0})["size"], "reason": reason}


def _num_workers(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0))
    if workers < 1:
        raise UsageError(f"--workers must be >= 1, got {workers}")
    return workers


def _partial_path(out: AnyPath) -> Path:
    """Return where finished probes are appended: beside a local table, else in this folder."""
    name = out.name + ".partial.jsonl"
    if not isinstance(out, Path):
        return Path(name)  # objects cannot grow
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(name)


def _check_out(out: AnyPath, source: Path) -> None:
    check_bucket(out)  # before hours of probing
    if out.is_dir():
        raise UsageError(f"the sources table must be a file, but {str(out)!r} is a folder")
    if isinstance(out, Path) and out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"the table must not overwrite the list it is made from, {str(out)!r}")


def _write_missing(out: AnyPath, missing: Sequence[str]) -> str | None:
    path = out.with_name(out.name + ".missing.txt")
    if not missing:
        path.unlink(missing_ok=True)
        return None
    write_atomic(path, "".join(f"{video_id}\n" for video_id in missing).encode())
    return str(path)

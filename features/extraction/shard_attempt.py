"""Attempts at shards in a child process that may hang, crash or be killed.

The Ray actor only watches: whatever a decoder does to its process, the actor lives to say what
happened, and which videos were being decoded then.
"""

import json
import os
import platform
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from manifests import ChildProcess, Crash, SeamlineError, SnippetGrid, SourceVideo

from ..store.feature_store import StoredVideo
from ..store.layout import StoreLayout
from ..store.writer import ShardWriter
from .decoding import SnippetCut
from .pipeline import Pipeline, ShardWork
from .streams import Streams, open_streams

POLL_SECONDS = 0.25
START_SECONDS = 120.0
KILLED = (-signal.SIGKILL, -signal.SIGTERM)  # from outside, mostly because memory is short
LONGEST_NOTE = 65_536


@dataclass(frozen=True)
class FailedAttempt:
    """Why an attempt did not fill its shards.

    Attributes:
        cause: "hang": a decoder passed its deadline; "crash": the child died; "lost": the child was
            killed from outside, or the actor or its node is gone.
        reason: In words.
        video_ids: What was being decoded then: of a hang, what made no progress.
    """

    cause: Literal["hang", "crash", "lost"]
    reason: str
    video_ids: tuple[str, ...] = ()

    @property
    def rejection(self) -> str:
        """Return the reason for which the one video is rejected."""
        return self.reason if self.cause == "hang" else f"the decoder crashed: {self.reason}"


class ShardAttempts:
    """What an actor does: it has a child fill shards, and watches it.

    Args:
        common: What is the same for all shards, as JSON has it.
        decode_seconds: A decoder that gives no frame for so long is ended.
    """

    def __init__(self, common: Mapping[str, Any], decode_seconds: float) -> None:
        self.common, self.decode_seconds = common, decode_seconds
        self.note = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the actor lives
        self.child = self._start()

    def _start(self) -> ChildProcess:
        return ChildProcess(fill_in_child, pass_fds=[self.note.fileno()])

    def extract(self, work: Mapping[str, Any]) -> FailedAttempt | None:
        """Fill shards; return None, or why not all of them were.

        Raises:
            SeamlineError: An error that another attempt would meet again.
        """
        try:
            failure = self._attempt(work)
        finally:
            os.ftruncate(self.note.fileno(), 0)
        if failure is not None:
            self.child.close()
            self.child = self._start()
        return failure

    def num_computed(self) -> int:
        """Return how many clips of the shards in work have been computed."""
        return int(self._read_note().get("computed", 0))

    def _attempt(self, work: Mapping[str, Any]) -> FailedAttempt | None:
        if not self.child.is_ready:
            if not self.child.has_replied(START_SECONDS):
                return FailedAttempt("lost", f"a process did not start in {START_SECONDS:g} s")
            if isinstance(started := self.child.receive(), Crash):
                return FailedAttempt("lost", f"a process could not start: {started.cause}")
        task = {**self.common, **work, "note": self.note.fileno()}
        self.child.send({"task": task})
        note: Mapping[str, Any] = {}
        seconds: dict[str, float] = {}
        while not self.child.has_replied(POLL_SECONDS):
            before, note = note, self._read_note()
            # looks are counted, not time: a machine that slept accuses no video
            stuck = before.get("decoding", {}).items() & note.get("decoding", {}).items()
            seconds = {name: seconds.get(name, 0.0) + POLL_SECONDS for name, _ in stuck}
            hung = tuple(name for name, s in seconds.items() if s > self.decode_seconds)
            if hung:
                why = f"decoding was stopped: no frame came for {self.decode_seconds:g} s"
                return FailedAttempt("hang", why, hung)
        reply = self.child.receive()
        if isinstance(reply, Crash):
            if reply.raised:
                raise SeamlineError(f"extraction met an error: {reply.raised}")
            why = f"a process died: {reply.cause}"
            if reply.exit_code in KILLED:
                return FailedAttempt("lost", why)
            return FailedAttempt("crash", why, tuple(self._read_note().get("decoding", {})))
        if "stopped" in reply:
            raise SeamlineError(reply["stopped"])
        return None

    def _read_note(self) -> dict[str, Any]:
        """Return what the child does; nothing while it is writing that down."""
        text = os.pread(self.note.fileno(), LONGEST_NOTE, 0).decode(errors="replace")
        try:
            note: dict[str, Any] = json.loads(text)
        except ValueError:
            return {}
        return note


class _Note:
    """Where the child writes what it decodes and has computed, again at every step."""

    def __init__(self, file: int) -> None:
        self.file, self.lock = file, threading.Lock()
        self.num_steps, self.num_computed = 0, 0
        self.decoding: dict[str, int] = {}
        self.length = 0

    @contextmanager
    def noted(self, video_id: str) -> Iterator[None]:
        self._step({video_id: self.num_steps})
        try:
            yield
        finally:
            self._step({}, video_id)

    def advance(self, num_clips: int) -> None:
        self.num_computed += num_clips
        self._step({})

    def _step(self, begun: Mapping[str, int], ended: str = "") -> None:
        with self.lock:
            self.num_steps += 1
            self.decoding |= begun
            self.decoding.pop(ended, None)
            note = {"computed": self.num_computed, "decoding": self.decoding}
            text = json.dumps(note).encode().ljust(self.length)  # blanks over what was longer
            self.length = len(text)
            os.pwrite(self.file, text, 0)


_OPEN: dict[str, Streams] = {}  # in the child, which opens its encoders once


def fill_in_child(task: Mapping[str, Any]) -> dict[str, Any]:
    """Fill shards; the reply of the child.

    Args:
        task: What an actor was given, and the open file `note`.
    """
    store = Path(task["store"])
    if not (store / "zarr.json").exists():
        node = platform.node()
        return {"stopped": f"{task['store']!r} is not there on {node}: all nodes must see it"}
    try:
        if not _OPEN:
            torch.set_num_threads(task["cores"])
            _OPEN["streams"] = _open(task)
        streams = _OPEN["streams"]
        cut = SnippetCut(
            SnippetGrid(**task["grid"]),
            None if task["fps"] is None else Fraction(task["fps"]),
            streams.distinct_framings,
        )
        note = _Note(task["note"])
        writer = ShardWriter(store, task["feature_dim"])
        pipeline = Pipeline(_work(task), writer, streams, cut, task["batch"], note.noted)
        pipeline.run(task["workers"], note.advance)
    except SeamlineError as err:
        return {"stopped": str(err)}
    return {}


def _open(task: Mapping[str, Any]) -> Streams:
    """Open the encoders; SeamlineError if they are not here what they were for the plan."""
    paths = task["checkpoints"]
    streams = open_streams(paths.get("", paths), task["device"], **task["opening"])
    here = {
        "precision": streams.first.precision,
        "weights_digest": streams.spec_fields()["weights_digest"],
        "versions": {name: version(name) for name in task["versions"]},
    }
    for name, value in here.items():
        if value != task[name]:
            raise SeamlineError(
                f"all nodes must have the same {name}, but {platform.node()} has {value!r} where "
                f"{task[name]!r} was planned"
            )
    return streams


def _work(task: Mapping[str, Any]) -> ShardWork:
    stored = [StoredVideo(**row) for row in task["stored"]]
    layout = StoreLayout(
        np.array([row.row_start for row in stored], np.int64),
        np.array([row.num_snippets for row in stored], np.int64),
        np.array(task["shard_of"], np.int64),
        task["shard_rows"],
        task["num_shards"],
    )
    videos = [SourceVideo(**row) for row in task["videos"]]
    return ShardWork(videos, stored, layout, task["shards"], task["failed"])

"""Hand out shards to workers: a bounded number in flight, attempts counted here.

Ray would try a task that ran out of memory for ever; here a shard is tried MAX_ATTEMPTS times.
Tasks get plan rows and paths; no pixel passes through Ray's object store.
"""

import os
import platform
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import ray

from manifests import UsageError, first_line, ray_cluster, storage_errors

from .attempt import FailedAttempt, Limits, ShardResult, attempt_shard, failure_of, memory_of
from .render import ShardTask, render_shard
from .render_log import RenderLog
from .render_metrics import RenderMetrics

MAX_ATTEMPTS = 3
MAX_HANGS = 8  # videos of a shard that may hang or crash before the shard is given up
WATCHER_BYTES = 200 * 2**20  # what a worker takes itself, beside the child that renders
IN_FLIGHT_PER_WORKER = 2  # so that no worker waits for its next shard
LOOK_SECONDS = 10.0  # between two signs of life

Outcome = ShardResult | FailedAttempt


@dataclass(frozen=True)
class Ended:
    """A task, and its result or why its last attempt failed."""

    task: ShardTask
    outcome: Outcome


@dataclass(frozen=True)
class Attempt:
    """A task and how it fared so far.

    Attributes:
        task: What to render.
        number: Counted from 1.
        suspect: The video that was being decoded when a process died.
        alone: Run it when nothing else runs: memory was short.
    """

    task: ShardTask
    number: int = 1
    suspect: str = ""
    alone: bool = False

    def after(self, failure: FailedAttempt) -> "Attempt | None":
        """Return the next attempt, or None if there shall be none.

        A video whose decoder hangs, or crashes twice in a row, is rejected; that costs no attempt.
        """
        is_culprit = failure.video_id and failure.video_id not in self.task.failed
        if is_culprit and (
            failure.cause == "hang"
            or (failure.cause == "crash" and failure.video_id == self.suspect)
        ):
            if len(self.task.failed) == MAX_HANGS:
                return None  # rather the store of the videos than the videos
            failed = {**self.task.failed, failure.video_id: _rejection(failure)}
            return Attempt(replace(self.task, failed=failed), self.number, alone=self.alone)
        if failure.cause == "disk" or self.number == MAX_ATTEMPTS:
            return None
        suspect = failure.video_id if failure.cause == "crash" else ""
        alone = self.alone or failure.cause == "memory"
        return Attempt(self.task, self.number + 1, suspect, alone)


def _rejection(failure: FailedAttempt) -> str:
    return failure.reason if failure.cause == "hang" else f"the decoder crashed: {failure.reason}"


def dispatch(
    tasks: Iterator[ShardTask],
    limits: Limits,
    workers: int | None,
    address: str | None,
    log: RenderLog,
) -> Iterator[Ended | None]:
    """Yield every task when it has ended; None when none did for a while.

    Args:
        tasks: Taken one by one, as workers become free.
        limits: Of each render process.
        workers: Render processes; all that fit if None; 0 renders in this process, without Ray and
            without limits.
        address: A running Ray cluster to join.
        log: Hears of attempts that are followed by another, and shows Ray's metrics.

    Raises:
        UsageError: No cluster answers, or none of its nodes has the memory for a task.
    """
    if workers == 0:
        yield from (Ended(task, _attempt_here(task)) for task in tasks)
        return
    first = next(tasks, None)
    if first is None:
        return  # nothing is missing: Ray need not be started
    tasks = chain([first], tasks)
    with ray_cluster(workers, address):
        _check_slots(limits)
        log.export(RenderMetrics())
        most = workers if address else None
        yield from _dispatch_on_ray(tasks, limits, most, log)


def _attempt_here(task: ShardTask) -> Outcome:
    start = time.monotonic()
    try:
        report = render_shard(task)
    except storage_errors() as err:
        return failure_of(err, task.out)
    seconds = time.monotonic() - start
    return ShardResult(report, seconds, memory_of(os.getpid(), "VmHWM"), platform.node())


def _count_slots(limits: Limits) -> int:
    """Return how many tasks the nodes can run at a time."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    memory = limits.memory_bytes + WATCHER_BYTES
    return int(sum(min(node.get("CPU", 0), node.get("memory", 0) // memory) for node in nodes))


def _check_slots(limits: Limits) -> None:
    """Raise UsageError if no node can run a task."""
    if _count_slots(limits) < 1:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = max((node.get("memory", 0) for node in nodes if node.get("CPU", 0) >= 1), default=0)
        raise UsageError(
            f"a worker needs a CPU and {limits.memory_bytes / 2**30:g} GB, but the largest node "
            f"with a CPU has {most / 2**30:.1f} GB: lower --memory-gb, or add nodes"
        )


def _dispatch_on_ray(
    tasks: Iterator[ShardTask], limits: Limits, most: int | None, log: RenderLog
) -> Iterator[Ended | None]:
    memory = limits.memory_bytes + WATCHER_BYTES
    remote = ray.remote(num_cpus=1, memory=memory, max_retries=0)(attempt_shard)
    running: dict[Any, Attempt] = {}
    again: deque[Attempt] = deque()
    alone: deque[Attempt] = deque()
    window, looked = 0, -LOOK_SECONDS
    while True:
        if time.monotonic() - looked >= LOOK_SECONDS:  # nodes come and go
            looked, slots = time.monotonic(), max(_count_slots(limits), 1)
            window = min(slots, most) if most else slots * IN_FLIGHT_PER_WORKER
        while len(running) < window:
            attempt = again.popleft() if again else next(map(Attempt, tasks), None)
            if attempt is None:
                break
            running[remote.remote(attempt.task, limits)] = attempt
        if not running and alone:
            attempt = alone.popleft()
            running[remote.remote(attempt.task, limits)] = attempt
        if not running:
            return
        ready, waiting = ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)
        if not ready:
            yield None
        elif waiting:  # each look costs as much as there is in flight
            ready += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        for reference in ready:
            attempt, outcome = running.pop(reference), _outcome(reference)
            if isinstance(outcome, FailedAttempt) and (following := attempt.after(outcome)):
                log.retry(attempt.task.shard, outcome.reason)
                (alone if following.alone else again).append(following)
            else:
                yield Ended(attempt.task, outcome)


def _outcome(ready: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ready)
    except ray.exceptions.OutOfMemoryError as err:
        return FailedAttempt("memory", f"the node ran out of memory ({first_line(err)})")
    except ray.exceptions.RayTaskError as err:
        return FailedAttempt("error", _last_line(err))
    except ray.exceptions.RayError as err:  # the worker or its node is gone
        return FailedAttempt("error", f"a worker was lost ({first_line(err)})")
    return outcome


def _last_line(err: Exception) -> str:
    return str(err).strip().splitlines()[-1][:200]

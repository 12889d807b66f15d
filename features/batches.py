"""Gather snippets of many videos, decoded at the same time, into batches that a plan has fixed.

Which snippets share a batch depends on the list of videos alone, never on which thread was faster:
so the same extraction gives the same digits whatever the number of threads. Decoders write frames
straight into the batches; a batch is handed on when its last frame is there.
"""

import threading
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """The snippets of a list of videos, numbered; snippet `n` is in batch `n // batch`.

    Attributes:
        first_V: int64, number of the first snippet of each video.
        size_B: int64, snippets of each batch: `batch`, or fewer at the end of a shard.
        shard_B: int64, the shard of the store that a batch belongs to.
        batch: Snippets of a full batch.
    """

    first_V: np.ndarray
    size_B: np.ndarray
    shard_B: np.ndarray
    batch: int


def plan_batches(num_snippets_V: np.ndarray, shard_V: np.ndarray, batch: int) -> BatchPlan:
    """Number the snippets of videos end to end, each shard's beginning with a batch of its own.

    So the batches of a shard are the same whether or not other shards are extracted with it.

    # batch 4, videos of 3, 2, 5 snippets in shards 0, 0, 1: first 0 3 8, sizes 4 1 4 1

    Args:
        num_snippets_V: int64, at least 1 each.
        shard_V: int64, ascending.
        batch: Snippets of a full batch.
    """
    first: list[int] = []
    sizes: list[int] = []
    shards: list[int] = []
    number = 0
    for shard in np.unique(shard_V).tolist():
        counts = num_snippets_V[shard_V == shard].tolist()
        for count in counts:
            first.append(number)
            number += count
        total = sum(counts)
        full, rest = divmod(total, batch)
        sizes += [batch] * full + [rest] * bool(rest)
        shards += [shard] * (len(sizes) - len(shards))
        number = len(sizes) * batch
    return BatchPlan(
        np.array(first, np.int64), np.array(sizes, np.int64), np.array(shards, np.int64), batch
    )


@dataclass(eq=False)
class Batch:
    """One batch while it fills.

    Attributes:
        number: Its place in the plan.
        frames_NTHWC: uint8.
        missing: Snippets that are not complete yet.
        lost: Snippets whose video turned out to be bad, by place in the batch.
    """

    number: int
    frames_NTHWC: np.ndarray
    missing: int
    lost: set[int] = field(default_factory=set)


class Cancelled(Exception):
    """Raised inside a decoding thread when the extraction has ended without it."""


class BatchAssembler:
    """Hand batches from the threads that decode to those that run the network.

    A decoder waits before it opens another batch while `max_ready` complete ones are unread, so
    memory stays bounded: the ready ones, and those that the videos in work share.

    Args:
        plan: What belongs where.
        clip_shape: `(T, H, W, 3)` of a snippet.
        max_ready: Complete batches that may wait.
    """

    def __init__(self, plan: BatchPlan, clip_shape: tuple[int, ...], max_ready: int = 2) -> None:
        self.plan, self._clip_shape, self._max_ready = plan, clip_shape, max_ready
        self._open: dict[int, Batch] = {}
        self._ready: list[Batch] = []
        self._changed = threading.Condition()
        self._num_left = len(plan.size_B)  # batches that nobody has taken yet
        self._closed = False

    def slot(self, snippet: int) -> np.ndarray:
        """Return where the frames of `snippet` go, uint8 `(T, H, W, 3)`; may wait.

        Raises:
            Cancelled: The reader has gone.
        """
        number, place = divmod(snippet, self.plan.batch)
        with self._changed:
            self._changed.wait_for(
                lambda: number in self._open or len(self._ready) < self._max_ready or self._closed
            )
            if self._closed:
                raise Cancelled
            if number not in self._open:
                size = int(self.plan.size_B[number])
                frames = np.zeros((size, *self._clip_shape), np.uint8)
                self._open[number] = Batch(number, frames, missing=size)
            return self._open[number].frames_NTHWC[place]

    def complete(self, snippet: int, lost: bool = False) -> None:
        """Say that all frames of `snippet` are in its slot, or that they never will be."""
        number, place = divmod(snippet, self.plan.batch)
        if lost:
            self.slot(snippet)[:] = 0  # what else a bad video left would depend on its damage
        with self._changed:
            batch = self._open[number]
            batch.missing -= 1
            if lost:
                batch.lost.add(place)
            if batch.missing == 0:
                self._ready.append(self._open.pop(number))
                self._changed.notify_all()

    def take(self) -> Batch | None:
        """Return a complete batch, waiting for one; None when all are taken, or after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed or not self._num_left)
            if self._closed or not self._num_left:
                return None
            self._num_left -= 1
            batch = self._ready.pop(0)
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Let go of everybody who waits: nothing is read or decoded any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

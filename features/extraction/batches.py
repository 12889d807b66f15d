"""Gather snippets of many videos, decoded at the same time, into batches that a plan has fixed.

Which snippets share a batch depends on the list of videos alone, never on which thread was faster:
so the same extraction gives the same digits whatever the number of threads. Decoders write frames
straight into the batches; a batch is handed on when its last frame is there.
"""

import threading
from collections.abc import Callable, Sequence
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
        frames: uint8 `(P, N, T, H, W, 3)` for every framing, `P` pictures of each frame.
        missing: Snippets that are not complete yet.
        lost: Snippets whose video turned out to be bad, by place in the batch.
    """

    number: int
    frames: tuple[np.ndarray, ...]
    missing: int
    lost: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return self.frames[0].shape[1]


class Cancelled(Exception):
    """Raised inside a decoding thread when the extraction has ended without it."""


class BatchAssembler:
    """Hand batches from the threads that decode to those that run the network.

    A decoder waits before it opens another batch while `max_ready` complete ones are unread, so
    memory stays bounded: the ready ones, and those that the videos in work share.

    Args:
        plan: What belongs where.
        clip_shapes: `(P, T, H, W, 3)` of a snippet for every framing.
        max_ready: Complete batches that may wait.
        empty: Makes uint8 arrays of zeros.
    """

    def __init__(
        self,
        plan: BatchPlan,
        clip_shapes: Sequence[tuple[int, ...]],
        max_ready: int = 2,
        empty: Callable[[tuple[int, ...]], np.ndarray] = lambda shape: np.zeros(shape, np.uint8),
    ) -> None:
        self.plan, self._clip_shapes, self._max_ready = plan, clip_shapes, max_ready
        self._empty = empty
        self._open: dict[int, Batch] = {}
        self._ready: list[Batch] = []
        self._changed = threading.Condition()
        self._num_left = len(plan.size_B)  # batches that nobody has taken yet
        self._closed = False

    def slot(self, snippet: int) -> list[np.ndarray]:
        """Return where the frames of `snippet` go, `(P, T, H, W, 3)` per framing; may wait.

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
                frames = tuple(
                    self._empty((pictures, size, *clip)) for pictures, *clip in self._clip_shapes
                )
                self._open[number] = Batch(number, frames, missing=size)
            return [frames[:, place] for frames in self._open[number].frames]

    def complete(self, snippet: int, lost: bool = False) -> None:
        """Say that all frames of `snippet` are in its slot, or that they never will be."""
        number, place = divmod(snippet, self.plan.batch)
        if lost:
            for slot_PTHWC in self.slot(snippet):
                slot_PTHWC[:] = 0  # what else a bad video left would depend on its damage
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

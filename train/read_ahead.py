"""Download the shards of the batches to come while those before them are decoded."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from synth import ShardIndex

from .shard_cache import ShardCache

NUM_DOWNLOADS = 4  # at a time
MOST_BATCHES = 256  # ahead: all that a disk could hold is more than anyone waits for


class ReadAhead:
    """Fetches remote shards in the order of their first use, as far as all in use fit.

    Args:
        cache: Where they go.
        shards: The shards of the dataset.
        batches: Positions in `shards` that each batch reads, once each.
    """

    def __init__(
        self, cache: ShardCache, shards: Sequence[ShardIndex], batches: Iterable[np.ndarray]
    ) -> None:
        self._cache, self._shards, self._batches = cache, shards, iter(batches)
        self._next = self._remote(next(self._batches, None))
        self._ahead: deque[list[int]] = deque()  # the batches in [present, next)
        self._uses: Counter[int] = Counter()  # of each shard by these
        self._num_bytes = 0
        self._pool = ThreadPoolExecutor(NUM_DOWNLOADS, thread_name_prefix="download")
        self._look()

    @property
    def num_batches(self) -> int:
        """Batches from the present one on whose shards fit: to decode more would fetch twice."""
        return len(self._ahead)

    def advance(self) -> None:
        """Say that the present batch has been read."""
        for shard in self._ahead.popleft() if self._ahead else ():
            self._uses[shard] -= 1
            if not self._uses[shard]:
                del self._uses[shard]
                self._num_bytes -= self._shards[shard].num_bytes
        self._look()

    def close(self) -> None:
        """Start no further download, and wait for those in progress."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> None:
        """Take in batches as long as their shards and those in use fit."""
        coming: list[int] = []
        while self._next is not None and len(self._ahead) < MOST_BATCHES:
            new = [shard for shard in self._next if shard not in self._uses]
            num_bytes = sum(self._shards[shard].num_bytes for shard in new)
            if self._ahead and self._num_bytes + num_bytes > self._cache.max_bytes:
                break
            coming += new
            self._num_bytes += num_bytes
            self._uses.update(self._next)
            self._ahead.append(self._next)
            self._next = self._remote(next(self._batches, None))
        # What is not in use any longer makes room, never what is still to come.
        for shard in self._uses if coming else ():
            self._cache.touch(self._shards[shard])
        for shard in coming:
            self._pool.submit(self._fetch, self._shards[shard])

    def _remote(self, batch: np.ndarray | None) -> list[int] | None:
        if batch is None:
            return None
        return [n for n in batch.tolist() if not isinstance(self._shards[n].path, Path)]

    def _fetch(self, shard: ShardIndex) -> None:
        """Download a shard; an error is not lost, whoever reads the shard meets it again."""
        self._cache.open(shard).close()

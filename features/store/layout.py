"""Plan where every video's rows lie in a feature store, before anything is written.

Pure: the number of snippets is a function of the number of frames, so the whole layout is known
first, and each shard of it can be written by one writer, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK_ROWS = 64  # rows under one checksum; a video is padded to whole chunks
SHARD_ROWS = 4096  # rows of one file, and what a crash costs at most


@dataclass(frozen=True, slots=True, eq=False)
class StoreLayout:
    """Rows of the videos `V`, laid end to end.

    Attributes:
        row_start_V: int64, first row of each video, on a chunk boundary.
        num_snippets_V: int64, rows of each video; 0 for a video that has none.
        shard_V: int64, the one shard that holds the video; ascending.
        shard_rows: Rows of a shard, a multiple of `CHUNK_ROWS`.
        num_shards: Shards of the array.
    """

    row_start_V: np.ndarray
    num_snippets_V: np.ndarray
    shard_V: np.ndarray
    shard_rows: int
    num_shards: int

    @property
    def num_rows(self) -> int:
        """Return the rows of the array, padding included."""
        return self.shard_rows * self.num_shards

    def videos_of(self, shard: int) -> range:
        """Return the positions of the videos that `shard` holds."""
        first, end = np.searchsorted(self.shard_V, [shard, shard + 1])
        return range(int(first), int(end))


def plan_layout(num_snippets: Sequence[int], shard_rows: int = SHARD_ROWS) -> StoreLayout:
    """Lay videos end to end: each on a chunk boundary, none across a shard.

    A shard has `shard_rows` rows, more when one video is larger than that (the largest video then
    sets the size), fewer when everything fits into one.

    # shards of 128, videos of 70, 60, 0, 10 rows: row_start 0 128 192 192, in shards 0 1 1 1

    Args:
        num_snippets: Rows of each video, in order.
        shard_rows: Wanted rows of a shard, a multiple of `CHUNK_ROWS`.
    """
    assert shard_rows % CHUNK_ROWS == 0
    num_V = np.asarray(num_snippets, np.int64)
    padded_V = -(-num_V // CHUNK_ROWS) * CHUNK_ROWS
    shard_rows = max([shard_rows, *padded_V.tolist()])
    starts, shards, cursor = [], [], 0
    for padded in padded_V.tolist():
        if cursor % shard_rows + padded > shard_rows:
            cursor = (cursor // shard_rows + 1) * shard_rows  # the rest of this shard stays empty
        starts.append(cursor)
        # A video without rows has no shard of its own: it is reported with the one before it.
        shards.append((cursor if padded else max(cursor - 1, 0)) // shard_rows)
        cursor += padded
    used_rows = max(cursor, CHUNK_ROWS)
    num_shards = -(-used_rows // shard_rows)
    if num_shards == 1:
        shard_rows = used_rows
    return StoreLayout(
        np.array(starts, np.int64), num_V, np.array(shards, np.int64), shard_rows, num_shards
    )

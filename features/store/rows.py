"""Read rows of one array of a store straight from its shards, every checksum verified.

A shard is a file of chunks, each followed by its crc32c; at its end stands, for every chunk, where
it begins and how many bytes it has (uint64 each), with a crc32c of their own. A chunk of zeros, or
a whole shard of them, need not be there. `arrays.py` has made sure that the array is of this kind.

Zarr reads the same rows, but spends a millisecond on each request; this takes a twentieth of it.

Source: Zarr v3, codecs `sharding_indexed` and `crc32c`.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from .layout import CHUNK_ROWS

LARGEST_READ = 2**30  # bytes, or as much as the array has on disk
CHECKSUM_BYTES = 4
ABSENT = 2**64 - 1  # where a chunk begins that is not there
SPANS_AHEAD = 64  # that the operating system is asked for before the first is read


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array on disk.

    Attributes:
        folder: Where its shards lie.
        num_rows: Rows, padding included.
        num_columns: Columns.
        dtype: Of the values, little endian.
        shard_rows: Rows of a shard.
    """

    folder: Path
    num_rows: int
    num_columns: int
    dtype: np.dtype
    shard_rows: int

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row."""
        return self.num_columns * self.dtype.itemsize

    def read(self, first: int, end: int) -> np.ndarray:
        """Return the rows from `first` to before `end`; raises as `read_many`."""
        return self.read_many([(first, end)])[0]

    def read_many(self, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return several spans of rows, each within one shard; ascending spans are read fastest.

        Raises:
            ValueError: A checksum fails, a file is cut short, a span leaves its shard or would
                take more memory than it can have on disk.
            OSError: A file cannot be read.
        """
        found: list[np.ndarray] = []
        for start in range(0, len(spans), SPANS_AHEAD):
            found += self._read_ahead(spans[start : start + SPANS_AHEAD])
        return found

    def _read_ahead(self, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Open every shard once and ask for all the spans, then read them in order.

        A disk that is asked for everything at once answers several requests at a time.
        """
        with ExitStack() as opened:
            shards: dict[int, _Shard | None] = {}
            for first, end in spans:
                number = first // self.shard_rows
                if end > first and number not in shards:
                    shards[number] = self._open(number, opened)
                if shard := shards.get(number):
                    chunks = self._chunks(first, end)
                    shard.expect(chunks.start, len(chunks))
            return [
                self._read(shards[first // self.shard_rows], first, end)
                if end > first
                else np.empty((0, self.num_columns), self.dtype)
                for first, end in spans
            ]

    def _open(self, number: int, opened: ExitStack) -> "_Shard | None":
        path = self.folder / "c" / str(number) / "0"
        if not path.exists():
            return None
        file = opened.enter_context(path.open("rb", buffering=0))
        return _Shard(file, self.shard_rows // CHUNK_ROWS, CHUNK_ROWS * self.row_bytes)

    def _chunks(self, first: int, end: int) -> range:
        """Return the chunks, by their numbers in the shard, that hold a span of rows."""
        start = first // self.shard_rows * self.shard_rows
        return range((first - start) // CHUNK_ROWS, -(-(end - start) // CHUNK_ROWS))

    def _read(self, shard: "_Shard | None", first: int, end: int) -> np.ndarray:
        chunks = self._chunks(first, end)
        if not 0 <= first < end <= self.num_rows or chunks.stop > self.shard_rows // CHUNK_ROWS:
            raise ValueError(f"rows {first} to {end} do not lie in one shard")
        self._check_size(end - first)
        rows = np.zeros((len(chunks) * CHUNK_ROWS, self.num_columns), self.dtype)
        if shard is not None:
            bytes_KB = rows.view(np.uint8).reshape(len(chunks), -1)
            for chunk, bytes_B in zip(chunks, bytes_KB, strict=True):
                shard.read_chunk(chunk, bytes_B)
        offset = first % CHUNK_ROWS
        return rows[offset : offset + end - first]

    def _check_size(self, num_rows: int) -> None:
        """Raise ValueError if rows take more than `LARGEST_READ` and more than there is on disk.

        Rows of zeros need not be on disk, so few bytes can stand for any number of them.
        """
        wanted = num_rows * self.row_bytes
        if wanted > LARGEST_READ:
            stored = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
            if wanted > stored:
                raise ValueError(
                    f"{num_rows} rows take {wanted} bytes, but {str(self.folder)!r} has {stored}"
                )


class _Shard:
    """One open file of chunks."""

    def __init__(self, file: BinaryIO, num_chunks: int, chunk_bytes: int) -> None:
        self._file, self._num_chunks, self._chunk_bytes = file, num_chunks, chunk_bytes
        self._num_bytes = os.fstat(file.fileno()).st_size
        self._places: np.ndarray | None = None

    def expect(self, first_chunk: int, num_chunks: int) -> None:
        """Have the operating system fetch chunks, which mostly lie in order, and where they are."""
        if hasattr(os, "posix_fadvise"):
            stride = self._chunk_bytes + CHECKSUM_BYTES
            file, willing = self._file.fileno(), os.POSIX_FADV_WILLNEED
            os.posix_fadvise(file, first_chunk * stride, num_chunks * stride, willing)

    def read_chunk(self, chunk: int, out_B: np.ndarray) -> None:
        """Read the bytes of a chunk, uint8 `(B,)`, into `out_B`; absent ones stay as they are."""
        if self._places is None:
            self._places = self._read_places()
        offset, length = self._places[chunk].tolist()
        if offset == length == ABSENT:
            return
        checksum_B = np.empty(CHECKSUM_BYTES, np.uint8)
        if length != len(out_B) + CHECKSUM_BYTES or offset + length > self._num_bytes:
            raise ValueError(f"chunk {chunk} of {self._file.name!r} lies elsewhere")
        if os.preadv(self._file.fileno(), [out_B.data, checksum_B.data], offset) != length:
            raise ValueError(f"{self._file.name!r} is cut short")
        self._check(out_B, checksum_B.tobytes(), f"chunk {chunk}")

    def _read_places(self) -> np.ndarray:
        """Return offset and bytes of every chunk, uint64 `(K, 2)`."""
        length = self._num_chunks * 16
        start = self._num_bytes - length - CHECKSUM_BYTES
        content = os.pread(self._file.fileno(), length + CHECKSUM_BYTES, max(start, 0))
        if start < 0 or len(content) != length + CHECKSUM_BYTES:
            raise ValueError(f"{self._file.name!r} is cut short")
        places_B = np.frombuffer(content, np.uint8, length)
        self._check(places_B, content[length:], "the table of its chunks")
        return places_B.view("<u8").reshape(-1, 2)

    def _check(self, content_B: np.ndarray, checksum: bytes, part: str) -> None:
        if google_crc32c.value(content_B).to_bytes(CHECKSUM_BYTES, "little") != checksum:
            raise ValueError(f"the checksum of {part} of {self._file.name!r} does not match")

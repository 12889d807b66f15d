"""Read snippet features of videos from one store, or from several side by side."""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests import StoreError, snippets_between

from .spec import FeatureSpec, canonical_digest
from .stored import StoredFeatures, StoredVideo

MAX_READERS = 8
VIDEOS_COMPARED = 4096  # whose times are in memory at once
VIDEOS_PER_READER = 16  # a thread for fewer takes longer to start than it saves


@dataclass(frozen=True, eq=False)
class _Stream:
    """Some columns of a store on disk, those from `first` to before `end`, under a name."""

    name: str
    stored: StoredFeatures
    first: int
    end: int


class FeatureStore:
    """Read snippet features of videos, by video id; several stores may lie side by side.

    `store[video_id]` is float16 `(S, D)`, C-contiguous; `store.times(video_id)` float64 `(S, 3)`.
    """

    def __init__(self, streams: Sequence[_Stream], video_ids: Sequence[str]) -> None:
        self._streams, self._video_ids = tuple(streams), tuple(video_ids)
        self._stored = tuple(dict.fromkeys(stream.stored for stream in streams))

    @classmethod
    def open(cls, path: Path | str, *beside: Path | str) -> "FeatureStore":
        """Open a finished store, the channels of those `beside` it laid after its own (`concat`).

        Raises:
            StoreError: No store there, one that is not finished, damaged, or of a newer version;
                stores that `concat` refuses.
        """
        opened = cls._open(Path(path))
        for other in beside:
            opened = opened.concat(cls._open(Path(other)))
        return opened

    @classmethod
    def _open(cls, path: Path) -> "FeatureStore":
        stored = StoredFeatures.open(path)
        ranges = stored.spec.channel_ranges.items()
        streams = [_Stream(name, stored, first, end) for name, (first, end) in ranges]
        return cls(streams, list(stored.position_of))

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Return the ids of the videos that can be read, in order of the sources table."""
        return self._video_ids

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Return the FeatureSpec of every store that lies here, in channel order."""
        return tuple(stored.spec for stored in self._stored)

    @property
    def spec(self) -> FeatureSpec:
        """Return the FeatureSpec of the first stream; all share its time grid."""
        return self._stored[0].spec

    @property
    def feature_dim(self) -> int:
        """Return the length of a row, all streams together."""
        return sum(stream.end - stream.first for stream in self._streams)

    @property
    def channel_ranges(self) -> dict[str, tuple[int, int]]:
        """Return `name: (first, end)` of every stream: its channels in a row, in order.

        Streams have the names that their FeatureSpecs give them; of equal names the later ones get
        "-2", "-3".
        """
        ranges, first = {}, 0
        for stream in self._streams:
            ranges[stream.name] = (first, first + stream.end - stream.first)
            first = ranges[stream.name][1]
        return ranges

    @property
    def num_rows(self) -> int:
        """Return the rows of the array of the first stream, padding included."""
        return self._stored[0].features.num_rows

    @property
    def index(self) -> pa.Table:
        """Return the index table of the first stream, rejected videos included."""
        return self._stored[0].index

    @property
    def path(self) -> Path:
        """Return where the first stream lies."""
        return self._stored[0].path

    @property
    def digest(self) -> str:
        """Return sha256 of what the store says: spec, ids and row digests of every stream."""
        said: list[object] = [
            [
                stored.spec.digest,
                stored.index["video_id"].to_pylist(),
                stored.index["digest"].to_pylist(),
            ]
            for stored in self._stored
        ]
        channels = [(s.stored, c) for s in self._streams for c in range(s.first, s.end)]
        if channels != [(s, c) for s in self._stored for c in range(s.spec.feature_dim)]:
            said.append([[self._stored.index(stored), c] for stored, c in channels])
        return canonical_digest(said)

    def __len__(self) -> int:
        return len(self._video_ids)

    def __contains__(self, video_id: object) -> bool:
        return all(video_id in stored.position_of for stored in self._stored)

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return all rows of a video, float16 `(S, D)`.

        Raises:
            StoreError: The video is not in the store, was rejected, or its rows are damaged.
        """
        return self.read_many([video_id])[0]

    def read_many(self, video_ids: Sequence[str]) -> list[np.ndarray]:
        """Return all rows of each video, as `[]` does, in the order asked for.

        They are read in order of their places, each file opened once, by a few threads.
        """
        in_order = sorted(video_ids, key=lambda video_id: self._stored[0].rows(video_id)[0])
        num_parts = min(len(in_order) // VIDEOS_PER_READER, os.cpu_count() or 1, MAX_READERS) or 1
        size = -(-len(in_order) // num_parts) or 1
        parts = [in_order[i : i + size] for i in range(0, len(in_order), size)]
        if len(parts) > 1:
            with ThreadPoolExecutor(len(parts)) as pool:
                read = list(pool.map(self._read_in_order, parts))
        else:
            read = [self._read_in_order(part) for part in parts]
        found = dict(zip(in_order, itertools.chain.from_iterable(read), strict=True))
        return [found[video_id] for video_id in video_ids]

    def video(self, video_id: str) -> StoredVideo:
        """Return the index row of a video (of the first stream); raises StoreError as `[]` does."""
        return self._stored[0].video(video_id)

    def times(self, video_id: str) -> np.ndarray:
        """Return start, centre and end of each snippet in seconds, float64 `(S, 3)`."""
        return self._stored[0].read_times(video_id)

    def between(self, video_id: str, t0: float, t1: float) -> np.ndarray:
        """Return the rows whose centre lies in `[t0, t1)` seconds, float16 `(S, D)`.

        Of the features, only the chunks that hold them are read.
        """
        found = snippets_between(self.times(video_id), t0, t1)
        return self.snippets(video_id, found.start, found.stop)

    def snippets(self, video_id: str, first: int, end: int) -> np.ndarray:
        """Return the rows from `first` to before `end` of a video, float16 `(S, D)`.

        Raises:
            StoreError: As `[]`.
        """
        return self._side_by_side([s.read_features(video_id, first, end) for s in self._stored])

    def concat(self, other: "FeatureStore") -> "FeatureStore":
        """Lay another store's channels after these, over the videos that both hold (two-stream).

        Raises:
            StoreError: The time grids differ, a video has other times, or no video is in both.
        """
        here, there = self.spec, other.spec
        if (here.grid, here.fps) != (there.grid, there.fps):
            raise StoreError(
                "stores side by side must have one time grid, but differ in "
                + here.explain(there, ("snippet_len", "snippet_stride", "tail", "alignment", "fps"))
            )
        shared = [video_id for video_id in self.video_ids if video_id in other]
        if not shared:
            raise StoreError(f"no video is both in {str(self.path)!r} and in {str(other.path)!r}")
        for start in range(0, len(shared), VIDEOS_COMPARED):
            some = shared[start : start + VIDEOS_COMPARED]
            ours, theirs = (store._stored[0].read_many_times(some) for store in (self, other))
            for video_id, times_S3, other_S3 in zip(some, ours, theirs, strict=True):
                if not np.array_equal(times_S3, other_S3):
                    raise StoreError(
                        f"video {video_id!r} has other snippet times in {str(other.path)!r}"
                    )
        return FeatureStore(_told_apart(self._streams + other._streams), shared)

    def select(self, names: Sequence[str]) -> "FeatureStore":
        """Return the same videos with these streams only, in this order (`("flow", "rgb")`).

        Raises:
            StoreError: There is no stream of that name, or none is named.
        """
        known = {stream.name: stream for stream in self._streams}
        absent = [name for name in names if name not in known]
        if absent or not names:
            raise StoreError(
                f"streams must be among {', '.join(map(repr, known))}, got "
                f"{', '.join(map(repr, absent)) or 'none'} ({str(self.path)!r})"
            )
        return FeatureStore(_told_apart([known[name] for name in names]), self.video_ids)

    def _read_in_order(self, video_ids: Sequence[str]) -> list[np.ndarray]:
        read = [stored.read_many_features(video_ids) for stored in self._stored]
        return [self._side_by_side(rows) for rows in zip(*read, strict=True)]

    def _side_by_side(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Lay the channels of the streams, found in the rows of each store, beside each other."""
        of = dict(zip(self._stored, rows, strict=True))
        parts = [of[stream.stored][:, stream.first : stream.end] for stream in self._streams]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def _told_apart(streams: Sequence[_Stream]) -> list[_Stream]:
    """Return streams with names of their own: the second "rgb" is "rgb-2"."""
    named: dict[str, _Stream] = {}
    for stream in streams:
        numbered = (f"{stream.name}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stream.name], numbered) if name not in named)
        named[name] = replace(stream, name=name)
    return list(named.values())

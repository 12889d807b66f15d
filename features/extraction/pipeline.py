"""Decode, compute and commit side by side.

Some threads decode, one video each; others run the network on the batches that these fill; the
caller's thread commits every shard of the store as it becomes complete. Only the order in which
things happen depends on the threads, never what is computed with what.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch

from manifests import SourceVideo, VideoError, VideoUnavailable

from ..store.layout import StoreLayout
from ..store.stored import StoredVideo, rows_digest
from ..store.writer import ShardWriter
from .batches import Batch, BatchAssembler, Cancelled, plan_batches
from .decoding import Noted, SnippetCut, fill_snippets, sampled_frames
from .encoder import empty_clips, forward_threads
from .streams import Streams
from .windows import average_windows

FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class ShardWork:
    """Shards of a store to fill, and the videos that lie in them.

    Attributes:
        videos: Rows of the sources table, in order.
        stored: Their index rows as planned, one each.
        layout: Where their rows lie; it has these videos only, with the numbers of the whole store.
        shards: What to fill.
        failed: Videos that are known to end their process, by id, with the reason.
    """

    videos: Sequence[SourceVideo]
    stored: Sequence[StoredVideo]
    layout: StoreLayout
    shards: Sequence[int]
    failed: Mapping[str, str] = field(default_factory=dict)


class Pipeline:
    """Fill some shards of a store.

    Args:
        work: What to fill.
        writer: Of the store.
        streams: The networks.
        cut: How the clips are cut that enter them; the rows lie on the `row_grid` of the streams.
        batch: Clips per forward pass.
        noted: Entered with a video's id whenever a decoder works on it.
    """

    def __init__(
        self,
        work: ShardWork,
        writer: ShardWriter,
        streams: Streams,
        cut: SnippetCut,
        batch: int,
        noted: Noted = lambda video_id: nullcontext(),
    ) -> None:
        self.videos, self.stored, self.layout = work.videos, work.stored, work.layout
        self.missing, self.failed = work.shards, work.failed
        self.writer, self.streams, self.cut, self.noted = writer, streams, cut, noted
        stored = self.stored
        planned = [
            v for k in self.missing for v in self.layout.videos_of(k) if stored[v].num_snippets
        ]
        self.position_W = np.array(planned, np.int64)  # of the videos to decode, in `videos`
        num_clips = [
            cut.num_snippets(video) if row.num_snippets else 0
            for video, row in zip(self.videos, stored, strict=True)
        ]
        self.num_clips_V = np.array(num_clips, np.int64)
        self.plan = plan_batches(
            self.num_clips_V[self.position_W], self.layout.shard_V[self.position_W], batch
        )
        self.threads = forward_threads(streams.device)
        self.assembler = BatchAssembler(
            self.plan,
            [(f.num_pictures, cut.grid.snippet_len, f.height, f.width, 3) for f in cut.framings],
            self.threads.num_workers + 1,
            partial(empty_clips, streams.device),
        )
        # What the threads leave for the commit: numbers of computed batches, or an error; vectors
        # of the shards in work; times, or the reason for having none, by position in `videos`.
        self.computed: SimpleQueue[int | BaseException] = SimpleQueue()
        self.lock = Lock()
        self.vectors: dict[int, np.ndarray] = {}
        self.times: dict[int, np.ndarray] = {}
        self.reasons: dict[int, str] = {}

    def run(self, workers: int, advance: Callable[[int], None]) -> int:
        """Fill every shard; return the rows computed.

        Args:
            workers: Videos that are decoded at the same time.
            advance: Told how many clips have been computed since it was told last.
        """
        cores = torch.get_num_threads()
        decoders = ThreadPoolExecutor(workers, "decode")
        networks = ThreadPoolExecutor(
            self.threads.num_workers, "forward", torch.set_num_threads, (self.threads.cores_each,)
        )
        try:
            for _ in range(self.threads.num_workers):
                networks.submit(self._forward).add_done_callback(self._watch)
            for w in range(len(self.position_W)):
                decoders.submit(self._decode, w).add_done_callback(self._watch)
            self._commit_all(advance)
        finally:
            self.assembler.close()
            decoders.shutdown(cancel_futures=True)
            networks.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)
        return int(self.layout.num_snippets_V[self.position_W].sum())

    def _commit_all(self, advance: Callable[[int], None]) -> None:
        """Commit every shard as soon as its last batch is computed."""
        left = {shard: int((self.plan.shard_B == shard).sum()) for shard in self.missing}
        for shard in [shard for shard, batches in left.items() if not batches]:
            self._commit(shard)
        for _ in range(len(self.plan.size_B)):
            done = self.computed.get()
            if isinstance(done, BaseException):
                raise done
            shard = int(self.plan.shard_B[done])
            left[shard] -= 1
            if not left[shard]:
                self._commit(shard)
            advance(int(self.plan.size_B[done]))

    def _decode(self, w: int) -> None:
        """Decode one video into its clips; a bad one gives them up, with the reason."""
        position, first = int(self.position_W[w]), int(self.plan.first_V[w])
        video, count, done = self.videos[position], int(self.num_clips_V[position]), 0

        def complete(snippet: int) -> None:
            nonlocal done
            self.assembler.complete(first + snippet)
            done += 1

        try:
            if video.video_id in self.failed:
                raise VideoError(video.path, self.failed[video.video_id])
            with self.noted(video.video_id):
                frames = sampled_frames(video, self.cut.fps)
            self.times[position] = self.streams.row_grid(self.cut.grid).times(frames)
            assert len(self.times[position]) == self.stored[position].num_snippets
            fill_snippets(
                video,
                frames,
                self.cut,
                lambda i: self.assembler.slot(first + i),
                complete,
                self.noted,
            )
        except VideoUnavailable:
            raise  # its disk is away: the video is not to blame, and another run will find it
        except VideoError as err:
            self.reasons[position] = err.reason
            for snippet in range(done, count):
                self.assembler.complete(first + snippet, lost=True)

    def _forward(self) -> None:
        """Run the network on batch after batch until none is left."""
        while batch := self.assembler.take():
            if len(batch.lost) < len(batch):
                self._encode(batch)
            self.computed.put(batch.number)

    def _watch(self, future: Future[None]) -> None:
        """Pass an error of a thread on to the caller's thread."""
        if not future.cancelled():
            error = future.exception()
            if error is not None and not isinstance(error, Cancelled):
                self.computed.put(error)

    def _encode(self, batch: Batch) -> None:
        """Keep the vectors of a batch for the commit of its shard."""
        size, shard = len(batch), int(self.plan.shard_B[batch.number])
        vectors = self.streams.encode(batch.frames)
        first = batch.number * self.plan.batch - self._first_clip(shard)
        with np.errstate(over="ignore"):  # beyond float16: infinite, and rejected at the commit
            self._vectors_of(shard)[first : first + size] = vectors

    def _first_clip(self, shard: int) -> int:
        """Return the number of the first clip of a shard in the plan."""
        return int(np.argmax(self.plan.shard_B == shard)) * self.plan.batch

    def _vectors_of(self, shard: int) -> np.ndarray:
        """Return the vectors of a shard that is being filled, `(clips, D)` or `(clips, T, D)`.

        Vectors that are rows as they are take no more memory than these.
        """
        with self.lock:
            if shard not in self.vectors:
                num_clips = int(self.plan.size_B[self.plan.shard_B == shard].sum())
                frames = (self.cut.grid.snippet_len,) if self.streams.per_frame else ()
                dtype = np.float32 if self.streams.per_frame else np.float16
                size = (num_clips, *frames, self.streams.feature_dim)
                self.vectors[shard] = np.zeros(size, dtype)
            return self.vectors[shard]

    def _rows(self, shard: int, position: int) -> np.ndarray:
        """Return the rows of a video whose vectors are all there, float16 `(S, D)`."""
        w = int(np.searchsorted(self.position_W, position))
        first = int(self.plan.first_V[w]) - self._first_clip(shard)
        vectors = self._vectors_of(shard)[first : first + int(self.num_clips_V[position])]
        if not self.streams.per_frame:
            return vectors
        num_rows = self.stored[position].num_snippets
        return average_windows(vectors, self.cut.grid.snippet_stride, num_rows).astype(np.float16)

    def _commit(self, shard: int) -> None:
        """Write a shard: the rows of good videos, and why the others have none."""
        layout = self.layout
        feats_RD = np.zeros((layout.shard_rows, self.streams.feature_dim), np.float16)
        times_R3 = np.zeros((layout.shard_rows, 3))
        done = []
        for position in layout.videos_of(shard):
            video = self.stored[position]
            first = video.row_start - shard * layout.shard_rows
            rows = slice(first, first + video.num_snippets)
            reason = video.reason or self.reasons.get(position)
            if reason is None:
                feats_RD[rows] = self._rows(shard, position)
            if reason is None:
                reason = _unfit(feats_RD[rows])
            if reason is None:
                times_R3[rows] = self.times.pop(position)
                digest = rows_digest(feats_RD[rows], times_R3[rows])
                done.append(replace(video, digest=digest))
            else:
                feats_RD[rows] = 0
                done.append(replace(video, num_snippets=0, status="rejected", reason=reason))
        self.writer.commit(shard, feats_RD, times_R3, done)
        with self.lock:
            self.vectors.pop(shard, None)


def _unfit(feats_SD: np.ndarray) -> str | None:
    """Return why rows cannot be stored, or None."""
    for is_bad_SD, what in (
        (np.isnan(feats_SD), "are not finite numbers (NaN)"),
        (np.isinf(feats_SD), f"do not fit into float16 (at most {FLOAT16_MAX:g})"),
    ):
        if is_bad_SD.any():
            bad_S = is_bad_SD.any(axis=1)
            return f"{bad_S.sum():,} of its rows, first row {np.argmax(bad_S)}, {what}"
    return None

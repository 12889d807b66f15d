"""Extract snippet features of whole videos into a store: decode once, batch across videos, resume.

Threads decode, one video each; this thread runs the network on the batches that they fill and
commits every shard of the store as it becomes complete.
"""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np

from manifests import Progress, SnippetGrid, SourceVideo, UsageError, VideoError, num_sampled_frames

from .batches import Batch, BatchAssembler, BatchPlan, Cancelled, plan_batches
from .decoding import SnippetCut, fill_snippets, sampled_frames
from .encoder import Encoder, encoder_of_run
from .layout import StoreLayout, plan_layout
from .spec import FeatureSpec
from .store import FeatureStore, StoredVideo, rows_digest
from .writer import StoreWriter

# What decides pixels and sums, beside our own code.
VERSIONED = ("av", "decord", "numpy", "opencv-python-headless", "torch")
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        store: Where it wrote.
        num_videos: Rows of the sources table.
        num_snippets: Rows of the store that belong to videos.
        num_extracted: Those of them that this run computed; the others were there before.
        rejected: (video_id, reason) of every video without rows.
        seconds: Wall time of this run.
        max_rejected: Share of the videos that may be rejected.
        digest: Of the store.
    """

    store: Path
    num_videos: int
    num_snippets: int
    num_extracted: int
    rejected: tuple[tuple[str, str], ...]
    seconds: float
    max_rejected: float
    digest: str

    @property
    def ok(self) -> bool:
        """Return whether no more videos were rejected than may be."""
        return len(self.rejected) <= self.max_rejected * self.num_videos


def extract_features(
    sources: Iterable[SourceVideo],
    checkpoint: Path | str | Encoder,
    store: Path | str,
    *,
    snippet_len: int | None = None,
    snippet_stride: int | None = None,
    fps: Fraction | None = None,
    tail: str = "pad",
    batch: int = 8,
    device: str | None = None,
    workers: int | None = None,
    max_rejected: float = 0.01,
) -> ExtractReport:
    """Extract one feature vector per snippet of every video; run again to finish what is missing.

    Args:
        sources: The sources table, or its rows. A rejected row becomes a row without features.
        checkpoint: Folder of a training run, or an `Encoder`.
        store: Folder of the feature store; made, resumed, or left as it is when complete.
        snippet_len: Sampled frames of a snippet; the run's own number by default.
        snippet_stride: Sampled frames between snippets; half of `snippet_len` by default.
        fps: Sampling rate; None takes the video's own frames.
        tail: "pad" or "drop" (`SnippetGrid`).
        batch: Snippets per forward pass.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        workers: Decoding threads; the number of processors, at most 8, by default.
        max_rejected: Share of the videos that may be rejected before the report is not `ok`.

    Raises:
        UsageError: Numbers out of range, or no video.
        CheckpointError: The folder holds no run.
        StoreError: The path holds something else, another spec, or other videos.
    """
    started, videos = time.monotonic(), list(sources)
    workers = workers or min(os.cpu_count() or 1, 8)
    if not videos or batch < 1 or workers < 1:
        raise UsageError(
            f"extraction needs a video, batch >= 1 and workers >= 1, got {len(videos)} videos, "
            f"{batch} and {workers}"
        )
    encoder = checkpoint if isinstance(checkpoint, Encoder) else encoder_of_run(checkpoint, device)
    cut = _plan_cut(encoder, snippet_len, snippet_stride, fps, tail)
    stored, layout = _plan_store(videos, cut)
    writer = StoreWriter(store, _spec(encoder, cut, batch), stored, layout)
    num_extracted = _Extraction(videos, stored, writer, encoder, cut, batch).run(workers)
    writer.finish()
    finished = FeatureStore.open(store)
    rows = finished.index.to_pylist()
    return ExtractReport(
        store=Path(store),
        num_videos=len(videos),
        num_snippets=sum(row["num_snippets"] for row in rows),
        num_extracted=num_extracted,
        rejected=tuple((row["video_id"], row["reason"]) for row in rows if row["status"] != "ok"),
        seconds=time.monotonic() - started,
        max_rejected=max_rejected,
        digest=finished.digest,
    )


def _plan_cut(
    encoder: Encoder,
    snippet_len: int | None,
    snippet_stride: int | None,
    fps: Fraction | None,
    tail: str,
) -> SnippetCut:
    length = encoder.num_frames if snippet_len is None else snippet_len
    stride = max(length // 2, 1) if snippet_stride is None else snippet_stride
    try:
        if fps is not None:
            num_sampled_frames(1.0, fps)
        grid = SnippetGrid(length, stride, tail)
    except ValueError as err:
        raise UsageError(str(err)) from err
    short_side = min(encoder.height, encoder.width)
    return SnippetCut(grid, fps, encoder.height, encoder.width, short_side)


def _spec(encoder: Encoder, cut: SnippetCut, batch: int) -> FeatureSpec:
    return FeatureSpec(
        backbone=encoder.name,
        backbone_arguments=encoder.arguments,
        weights_digest=encoder.weights_digest,
        feature_dim=encoder.feature_dim,
        snippet_len=cut.grid.snippet_len,
        snippet_stride=cut.grid.snippet_stride,
        tail=cut.grid.tail,
        fps=None if cut.fps is None else str(cut.fps),
        height=cut.height,
        width=cut.width,
        short_side=cut.short_side,
        mean=encoder.mean,
        std=encoder.std,
        precision=encoder.precision,
        device=encoder.device.type,
        batch=batch,
        versions={name: version(name) for name in VERSIONED},
    )


def _plan_store(
    videos: Sequence[SourceVideo], cut: SnippetCut
) -> tuple[list[StoredVideo], StoreLayout]:
    """Plan the index and the layout from the sources table alone."""
    counts = [cut.num_snippets(video) if video.status == "ok" else 0 for video in videos]
    layout = plan_layout(counts)
    stored = []
    for video, row_start, count in zip(videos, layout.row_start_V.tolist(), counts, strict=True):
        reason = video.reason or "rejected by the probe"
        if video.status == "ok":
            reason = f"it is shorter than one snippet of {cut.grid.snippet_len} frames"
        stored.append(
            StoredVideo(
                video_id=video.video_id,
                row_start=row_start,
                num_snippets=count,
                duration_seconds=video.duration_seconds,
                fps_num=video.fps_num,
                fps_den=video.fps_den,
                num_frames=video.end_frame - video.first_frame,
                status="ok" if count else "rejected",
                reason=None if count else reason,
            )
        )
    return stored, layout


class _Extraction:
    """One run over the shards that are missing."""

    def __init__(
        self,
        videos: Sequence[SourceVideo],
        stored: Sequence[StoredVideo],
        writer: StoreWriter,
        encoder: Encoder,
        cut: SnippetCut,
        batch: int,
    ) -> None:
        self.videos, self.stored, self.writer = videos, stored, writer
        self.encoder, self.cut = encoder, cut
        layout, self.missing = writer.layout, writer.missing_shards()
        # Positions, in `videos`, of the videos to decode: `W`.
        self.position_W = np.array(
            [v for k in self.missing for v in layout.videos_of(k) if stored[v].num_snippets],
            np.int64,
        )
        self.plan: BatchPlan = plan_batches(
            layout.num_snippets_V[self.position_W], layout.shard_V[self.position_W], batch
        )
        clip_shape = (cut.grid.snippet_len, cut.height, cut.width, 3)
        self.assembler = BatchAssembler(self.plan, clip_shape)
        self.times: dict[int, np.ndarray] = {}  # by position
        self.reasons: dict[int, str] = {}

    def run(self, workers: int) -> int:
        """Fill every missing shard; return how many snippets were computed."""
        left = {shard: int((self.plan.shard_B == shard).sum()) for shard in self.missing}
        feats: dict[int, np.ndarray] = {}
        total = int(self.writer.layout.num_snippets_V.sum())
        todo = int(self.plan.size_B.sum())
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            for w in range(len(self.position_W)):
                pool.submit(self._decode, w).add_done_callback(self._watch)
            with Progress("extract", "snippets", total, done=total - todo) as progress:
                for shard in [shard for shard, batches in left.items() if not batches]:
                    self._commit(shard, self._empty_rows())
                for batch in self.assembler:
                    shard = int(self.plan.shard_B[batch.number])
                    self._encode(batch, shard, feats.setdefault(shard, self._empty_rows()))
                    left[shard] -= 1
                    if not left[shard]:
                        self._commit(shard, feats.pop(shard))
                    progress.advance(len(batch.frames_NTHWC))
        finally:
            self.assembler.close()
            pool.shutdown(cancel_futures=True)
        return todo

    def _decode(self, w: int) -> None:
        """Decode one video into its snippets; a bad one gives them up, with the reason."""
        position, first = int(self.position_W[w]), int(self.plan.first_V[w])
        video, count, done = self.videos[position], self.stored[position].num_snippets, 0

        def complete(snippet: int) -> None:
            nonlocal done
            self.assembler.complete(first + snippet)
            done += 1

        try:
            frames = sampled_frames(video, self.cut.fps)
            self.times[position] = self.cut.grid.times(frames)
            fill_snippets(
                video, frames, self.cut, lambda i: self.assembler.slot(first + i), complete
            )
        except VideoError as err:
            self.reasons[position] = err.reason
            for snippet in range(done, count):
                self.assembler.complete(first + snippet, lost=True)

    def _watch(self, future: Future[None]) -> None:
        try:
            error = future.exception()
        except CancelledError:
            return
        if error is not None and not isinstance(error, Cancelled):
            self.assembler.fail(error)

    def _encode(self, batch: Batch, shard: int, feats_RD: np.ndarray) -> None:
        """Run the network on a batch and put its vectors into their rows of the shard."""
        size = len(batch.frames_NTHWC)
        if len(batch.lost) == size:
            return
        vectors_ND = self.encoder.encode(batch.frames_NTHWC)
        numbers_N = batch.number * self.plan.batch + np.arange(size)
        w_N = np.searchsorted(self.plan.first_V, numbers_N, side="right") - 1
        starts_N = self.writer.layout.row_start_V[self.position_W[w_N]]
        rows_N = starts_N + numbers_N - self.plan.first_V[w_N]
        with np.errstate(over="ignore"):  # beyond float16: infinite, and rejected at the commit
            feats_RD[rows_N - shard * self.writer.layout.shard_rows] = vectors_ND

    def _empty_rows(self) -> np.ndarray:
        return np.zeros((self.writer.layout.shard_rows, self.encoder.feature_dim), np.float16)

    def _commit(self, shard: int, feats_RD: np.ndarray) -> None:
        """Write a shard: the rows of good videos, and why the others have none."""
        layout = self.writer.layout
        times_R3 = np.zeros((layout.shard_rows, 3))
        done = []
        for position in layout.videos_of(shard):
            video = self.stored[position]
            first = video.row_start - shard * layout.shard_rows
            rows = slice(first, first + video.num_snippets)
            reason = video.reason or self.reasons.get(position)
            if reason is None and not np.isfinite(feats_RD[rows]).all():
                reason = f"its features are not finite numbers of float16 (at most {FLOAT16_MAX:g})"
            if reason is None:
                times_R3[rows] = self.times.pop(position)
                digest = rows_digest(feats_RD[rows], times_R3[rows])
                done.append(replace(video, digest=digest))
            else:
                feats_RD[rows] = 0
                done.append(replace(video, num_snippets=0, status="rejected", reason=reason))
        self.writer.commit(shard, feats_RD, times_R3, done)

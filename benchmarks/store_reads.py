"""Read from a feature store of 20,000 videos: `python -m benchmarks.store_reads`.

Takes about two minutes; needs 4 GB in FOLDER, if one is named, or else in the temporary folder.
The store has 20 to 100 snippets a video (60 on average) of 1024 channels, and one long video.
"""

import dataclasses
import os
import statistics
from pathlib import Path

import numpy as np

from features import FeatureSpec, FeatureStore, StoredVideo, rows_digest
from features.store.layout import StoreLayout, plan_layout
from features.store.writer import StoreWriter

from . import clips
from .measure import HEADER, Row, seconds_of

NUM_VIDEOS, FEATURE_DIM = 20_000, 1024
FEWEST, MOST, LONG = 20, 100, 4000  # snippets of a video, and of the long one at the end
BATCH, REPEATS = 256, 21
SNIPPET_SECONDS = 0.5
SPEC = FeatureSpec(
    backbone="noise",
    backbone_arguments={},
    weights_digest="0" * 64,
    feature_dim=FEATURE_DIM,
    snippet_len=16,
    snippet_stride=8,
    height=112,
    width=112,
    short_side=128,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def make_store(path: Path) -> None:
    """Write a store of noise, each video's marked with its number."""
    counts = np.random.default_rng(0).integers(FEWEST, MOST + 1, NUM_VIDEOS).tolist()
    layout = plan_layout([*counts, LONG])
    videos = [
        StoredVideo(f"v_{i:011d}", start, count, count * SNIPPET_SECONDS, 16, 1, count * 8)
        for i, (start, count) in enumerate(
            zip(layout.row_start_V.tolist(), [*counts, LONG], strict=True)
        )
    ]
    writer = StoreWriter(path, SPEC, videos, layout)
    noise_RD = np.random.default_rng(1).normal(size=(LONG, FEATURE_DIM)).astype(np.float16)
    for shard in writer.missing_shards():
        _write_shard(writer, layout, shard, videos, noise_RD)
    writer.finish()


def _write_shard(
    writer: StoreWriter,
    layout: StoreLayout,
    shard: int,
    videos: list[StoredVideo],
    noise_RD: np.ndarray,
) -> None:
    feats_RD = np.zeros((layout.shard_rows, FEATURE_DIM), np.float16)
    times_R3 = np.zeros((layout.shard_rows, 3))
    done = []
    for i in layout.videos_of(shard):
        first = videos[i].row_start - shard * layout.shard_rows
        rows = slice(first, first + videos[i].num_snippets)
        feats_RD[rows] = noise_RD[: videos[i].num_snippets]
        feats_RD[rows, 0] = i % 1000
        starts_S1 = np.arange(videos[i].num_snippets)[:, None] * SNIPPET_SECONDS
        times_R3[rows] = starts_S1 + np.array([0.0, SNIPPET_SECONDS, 2 * SNIPPET_SECONDS])
        digest = rows_digest(feats_RD[rows], times_R3[rows])
        done.append(dataclasses.replace(videos[i], digest=digest))
    writer.commit(shard, feats_RD, times_R3, done)


def forget(path: Path) -> None:
    """Have the operating system drop what it remembers of the files of a store."""
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def single_rows(path: Path) -> list[Row]:
    """Measure opening, a whole video, and two seconds of a long one; all warm."""
    store = FeatureStore.open(path)
    rng, ids = np.random.default_rng(2), store.video_ids
    chosen = [ids[i] for i in rng.integers(NUM_VIDEOS, size=REPEATS)]
    store.read_many(chosen)
    opened = _milliseconds([seconds_of(lambda: FeatureStore.open(path)) for _ in range(REPEATS)])
    whole = _milliseconds([seconds_of(lambda v=v: store[v]) for v in chosen])
    long = ids[-1]
    part = _milliseconds([seconds_of(lambda: store.between(long, 9, 11)) for _ in range(REPEATS)])
    all_of_it = _milliseconds([seconds_of(lambda: store[long]) for _ in range(REPEATS)])
    return [
        _row("open a store of 20,000 videos", opened, 20),
        _row("read a video of it (60 x 1024), warm", whole, 3),
        _row(f"read 2 s of a video of {LONG:,} snippets; limit: all of it", part, all_of_it),
    ]


def batch_row(path: Path, is_warm: bool) -> Row:
    """Measure many videos read together against the same read one by one, taking turns."""
    store = FeatureStore.open(path)
    times: dict[str, list[float]] = {"together": [], "one by one": []}
    for repeat in range(REPEATS // 3):
        order = np.random.default_rng(repeat).permutation(NUM_VIDEOS)[:BATCH]
        chosen = [store.video_ids[i] for i in order]
        for name, work in (
            ("one by one", lambda chosen=chosen: [store[video_id] for video_id in chosen]),
            ("together", lambda chosen=chosen: store.read_many(chosen)),
        ):
            if is_warm:
                work()
            else:
                forget(path)
            times[name].append(seconds_of(work))
    ours, limit = (statistics.median(times[name]) for name in ("together", "one by one"))
    state = "warm" if is_warm else "not in memory"
    name = f"read {BATCH} videos together; limit: one by one ({state})"
    ratio = limit / ours
    rates = [f"{BATCH / seconds:,.0f} videos/s" for seconds in (ours, limit)]
    return Row(name, *rates, ratio, "> 1.00", ratio > 1)


def _milliseconds(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _row(name: str, ours: float, limit: float) -> Row:
    return Row(
        name, f"{ours:.2f} ms", f"{limit:.2f} ms", limit / ours, "below the limit", ours < limit
    )


def main(folder: Path) -> None:
    """Make the store, unless FOLDER has it, and print row by row."""
    path = folder / "reads.zarr"
    make_store(path)
    print(HEADER)
    for row in (*single_rows(path), batch_row(path, True), batch_row(path, False)):
        print(row, flush=True)


if __name__ == "__main__":
    clips.run_in_folder(main)

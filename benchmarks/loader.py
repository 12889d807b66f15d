"""Loader throughput against "read bytes + decode JPEG" alone, on as many threads.

The loader verifies what it reads: each time, a first epoch is measured, with every shard hashed.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from synth import ShardDataset, ShardIndex, read_dataset, read_sample
from train import OBJECTIVES, load_batches, sample_table

from .measure import Row, interleaved, rate_row

BATCH_SIZE = 16
NUM_SAMPLES = 64 * BATCH_SIZE


def measure(shards: Path, threads: int) -> Row:
    """Read about a thousand samples, copies of those of a finished folder, in shuffled order."""
    dataset = copy_shards(read_dataset(shards), shards.with_name(f"{shards.name}-copies"))
    samples = sample_table(dataset)
    order = np.random.default_rng(0).permutation(len(samples))[:NUM_SAMPLES]
    objective = OBJECTIVES["detection"](len(dataset.classes))
    clip_shape = samples.read(0).frames().shape

    def ours() -> None:
        batches = list(order.reshape(-1, BATCH_SIZE))
        fresh = sample_table(dataset)  # has verified nothing yet
        for batch in load_batches(fresh, batches, objective.target, clip_shape, threads):
            if len(batch.frames_NTHWC) != BATCH_SIZE:
                raise RuntimeError("a batch is not full")

    def read_and_decode(index: int) -> None:
        shard = dataset.shards[samples.shard_N[index]]
        row = samples.row_N[index]
        sample = read_sample(shard.path, int(shard.offsets[row]), int(shard.sizes[row]))
        simplejpeg.decode_jpeg(sample.members["jpg"], fastupsample=True)

    def limit() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read_and_decode, order.tolist()))

    ours_seconds, limit_seconds = interleaved(5, ours, limit)
    return rate_row(
        f"loader, {threads} threads", "samples", len(order), ours_seconds, limit_seconds, 0.80
    )


def copy_shards(dataset: ShardDataset, folder: Path) -> ShardDataset:
    """Copy the shards until they hold what is measured, whole shards in one epoch."""
    folder.mkdir(exist_ok=True)
    shards: list[ShardIndex] = []
    num_samples = 0
    while num_samples < NUM_SAMPLES:
        shard = dataset.shards[len(shards) % len(dataset.shards)]
        path = folder / f"{len(shards):06d}.tar"
        path.write_bytes(shard.path.read_bytes())
        shards.append(dataclasses.replace(shard, path=path))
        num_samples += len(shard)
    return dataclasses.replace(dataset, shards=tuple(shards))

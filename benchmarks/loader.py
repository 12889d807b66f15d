"""Loader throughput against "read bytes + decode JPEG" alone, on as many threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from synth import read_dataset, read_sample
from train import OBJECTIVES, load_batches, sample_table

from .measure import Row, interleaved, rate_row

BATCH_SIZE = 16
NUM_SAMPLES = 64 * BATCH_SIZE


def measure(shards: Path, threads: int) -> Row:
    """Read about a thousand samples of a finished folder, in shuffled order."""
    dataset = read_dataset(shards)
    samples = sample_table(dataset)
    order = np.random.default_rng(0).integers(len(samples), size=NUM_SAMPLES)
    objective = OBJECTIVES["detection"](len(dataset.classes))
    clip_shape = samples.read(0).frames().shape

    def ours() -> None:
        batches = order.reshape(-1, BATCH_SIZE)
        for batch in load_batches(samples, batches, objective.target, clip_shape, threads):
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

"""Read batches of clips and targets from shards, by offset, in an order that only a seed decides.

Decoding runs in threads: the JPEG and video decoders release Python's lock, and a thread writes its
clip straight into the batch, so nothing is copied between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from manifests import ShardError, UsageError
from synth import ShardDataset, ShardSample, read_sample

from .read_ahead import ReadAhead
from .shard_cache import ShardCache

BATCHES_AHEAD = 3  # decoded before they are asked for


@dataclass(frozen=True)
class Batch:
    """Clips of equal size with their targets.

    Attributes:
        frames_NTHWC: uint8 `(N, T, H, W, 3)`, of pairs `(N, 2, T, H, W, 3)`; its memory is used
            again for a later batch once the next one is asked for, so copy what you keep.
        targets: float32 `(N, ...)`, as the objective makes them.
    """

    frames_NTHWC: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class SampleTable:
    """Some of the samples of a dataset.

    Attributes:
        dataset: The finished shards.
        shard_N: Shard of each sample, as a position in `dataset.shards`.
        row_N: Row of each sample in the index of its shard.
        cache: What opens the shards, verified.
    """

    dataset: ShardDataset
    shard_N: np.ndarray
    row_N: np.ndarray
    cache: ShardCache

    def __len__(self) -> int:
        return len(self.row_N)

    def take(self, rows: np.ndarray) -> "SampleTable":
        """Return the samples at these positions."""
        return replace(self, shard_N=self.shard_N[rows], row_N=self.row_N[rows])

    def kinds(self) -> list[str]:
        """Return the kind of each sample."""
        shards = self.dataset.shards
        pairs = zip(self.shard_N, self.row_N, strict=True)
        return [shards[shard].kinds[row] for shard, row in pairs]

    def video_ids(self) -> list[tuple[str, ...]]:
        """Return the source videos of each sample."""
        shards = self.dataset.shards
        pairs = zip(self.shard_N, self.row_N, strict=True)
        return [shards[shard].video_ids[row] for shard, row in pairs]

    def read(self, index: int) -> ShardSample:
        """Read one sample of a verified shard; ShardError names the shard, and the sample."""
        shard = self.dataset.shards[self.shard_N[index]]
        row = self.row_N[index]
        with self.cache.open(shard) as file:
            try:
                sample = read_sample(file.fileno(), int(shard.offsets[row]), int(shard.sizes[row]))
                sample.check_classes(len(self.dataset.classes))
            except (ShardError, OSError) as err:
                raise ShardError(f"{err} (sample {shard.keys[row]} of {shard.path})") from err
        return sample


def sample_table(
    dataset: ShardDataset, kinds: Sequence[str] = (), cache: ShardCache | None = None
) -> SampleTable:
    """List the samples of the given `kinds` (of all kinds if empty), in shard order.

    `cache` says where the shards of a URL are kept while they are read.

    Raises:
        UsageError: There are none.
    """
    known = sorted({kind for shard in dataset.shards for kind in shard.kinds})
    for kind in kinds:
        if kind not in known:
            raise UsageError(
                f"the shards in {str(dataset.path)!r} have no samples of kind {kind!r}, only "
                f"{', '.join(known)}"
            )
    places = [
        (shard, row)
        for shard, index in enumerate(dataset.shards)
        for row, kind in enumerate(index.kinds)
        if not kinds or kind in kinds
    ]
    if not places:
        raise UsageError(f"the shards in {str(dataset.path)!r} hold no samples")
    shard_N, row_N = np.array(places, np.int64).T
    return SampleTable(dataset, shard_N, row_N, cache or ShardCache())


def split_by_video(
    samples: SampleTable, fraction: float, seed: int
) -> tuple[SampleTable, SampleTable]:
    """Hold out a share of the source videos: no video is behind both parts.

    The videos are drawn by walking from a random video to its mixing partners, so that few samples
    have one foot in each part; those are in neither.

    Args:
        samples: What to split.
        fraction: Share of the videos, at least one unless it is 0.
        seed: Seed of the draw.

    Returns:
        Training samples and held-out samples.
    """
    sources = samples.video_ids()
    partners: dict[str, set[str]] = {video: set() for videos in sources for video in videos}
    for videos in sources:
        for video in videos:
            partners[video].update(videos)
    num_held = max(round(fraction * len(partners)), 1) if fraction else 0
    held = set(islice(_walk(partners, seed), num_held))
    num_inside = np.array([sum(video in held for video in videos) for videos in sources])
    whole = num_inside == [len(videos) for videos in sources]
    return samples.take(np.flatnonzero(num_inside == 0)), samples.take(np.flatnonzero(whole))


def _walk(partners: dict[str, set[str]], seed: int) -> Iterator[str]:
    """Yield every video once, breadth first from a random one, then from the next."""
    names = sorted(partners)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    seen: set[str] = set()
    for start in rng.permutation(len(names)):
        queue = deque([names[start]])
        while queue:
            video = queue.popleft()
            if video not in seen:
                seen.add(video)
                yield video
                queue.extend(sorted(partners[video] - seen))


def epoch_order(samples: SampleTable, seed: int, epoch: int, shuffle_shards: int) -> np.ndarray:
    """Return the order of one epoch: shards shuffled, then samples within neighbouring shards.

    Args:
        samples: The training samples.
        seed: Seed of the run.
        epoch: Counted from 0; every epoch has its own stream of random numbers.
        shuffle_shards: Shards in one window of shuffled samples: reads stay inside so many files.

    Returns:
        int64 permutation of the samples' positions.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    shards = rng.permutation(np.unique(samples.shard_N))
    rank_of_shard = np.zeros(len(samples.dataset.shards), np.int64)
    rank_of_shard[shards] = np.arange(len(shards))
    window_N = rank_of_shard[samples.shard_N] // shuffle_shards
    shuffled = rng.permutation(len(samples))
    return shuffled[np.argsort(window_N[shuffled], kind="stable")]


def epoch_batches(
    order: np.ndarray, batch_size: int, rank: int = 0, num_workers: int = 1
) -> list[np.ndarray]:
    """Cut an order into whole batches and return one worker's equal part of each.

    The last, partial batch is left out. Batch `b` is the same set of samples however many workers
    share it.  # order 0..7, batches of 4, two workers: worker 1 gets [2, 3], [6, 7]

    Raises:
        UsageError: The workers cannot share a batch equally.
    """
    if batch_size % num_workers:
        raise UsageError(f"workers must divide batch_size, got {num_workers} for {batch_size}")
    num_batches, share = len(order) // batch_size, batch_size // num_workers
    batches = order[: num_batches * batch_size].reshape(num_batches, batch_size)
    return list(batches[:, rank * share : (rank + 1) * share])


def load_batches(
    samples: SampleTable,
    batches: Sequence[np.ndarray],
    target: Callable[[ShardSample], np.ndarray],
    clip_shape: tuple[int, ...],
    num_threads: int,
    pin_memory: bool = False,
) -> Generator[Batch]:
    """Yield the batches in order while threads decode the next ones.

    Args:
        samples: The table that the positions in `batches` refer to.
        batches: Positions of the samples of each batch.
        target: The objective's target of a sample.
        clip_shape: `(T, H, W, 3)` that every clip must have, or `(2, T, H, W, 3)` every pair.
        num_threads: Threads that read and decode.
        pin_memory: Allocate for fast copies to a GPU.

    Raises:
        ShardError: A sample that cannot be read or decoded, or of another size.
    """

    def decode(index: int, frames_THWC: np.ndarray) -> np.ndarray:
        sample = samples.read(index)
        clip_THWC = sample.frames(out=frames_THWC)
        if clip_THWC.shape != clip_shape:
            raise ShardError(
                f"all clips of a training must be {_size(clip_shape)}, sample {sample.key} of "
                f"{samples.dataset.shards[samples.shard_N[index]].path} is {_size(clip_THWC.shape)}"
            )
        if not np.shares_memory(clip_THWC, frames_THWC):
            frames_THWC[:] = clip_THWC
        return target(sample)

    def submit(batch: np.ndarray) -> tuple[torch.Tensor, list[Future[np.ndarray]]]:
        if spare and len(spare[-1]) == len(batch):
            frames = spare.pop()
        else:
            shape = (len(batch), *clip_shape)
            frames = torch.empty(shape, dtype=torch.uint8, pin_memory=pin_memory)
        slots = frames.numpy()
        return frames, [pool.submit(decode, index, slots[n]) for n, index in enumerate(batch)]

    def num_ahead() -> int:
        return min(BATCHES_AHEAD, downloads.num_batches)

    spare: list[torch.Tensor] = []  # fresh pages are dear
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="loader")
    shards = (np.unique(samples.shard_N[batch]) for batch in batches)
    downloads = ReadAhead(samples.cache, samples.dataset.shards, shards)
    try:
        waiting = iter(batches)
        ahead = deque(submit(batch) for batch in islice(waiting, num_ahead()))
        while ahead:
            frames, targets = ahead.popleft()
            stacked = torch.from_numpy(np.stack([future.result() for future in targets]))
            downloads.advance()
            ahead.extend(submit(batch) for batch in islice(waiting, num_ahead() - len(ahead)))
            yield Batch(frames, stacked)
            if not pin_memory:  # torch recycles pinned memory itself, once the copy has ended
                spare.append(frames)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        downloads.close()


def _size(shape: Sequence[int]) -> str:
    num_frames, height, width = shape[-4:-1]
    pair = "pairs of " if len(shape) == 5 else ""
    return f"{pair}{num_frames} frames of {width}x{height}"

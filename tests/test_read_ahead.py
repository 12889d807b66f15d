"""Downloads of the shards of coming batches: in order, bounded, each once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
from hypothesis import given
from hypothesis import strategies as st
from made_shards import write_moving_shards
from upath import UPath

from manifests import ShardError
from synth import ShardDataset, ShardIndex, ShardSample, read_dataset
from train import read_ahead, shard_cache
from train.loader import SampleTable, epoch_batches, epoch_order, load_batches, sample_table
from train.read_ahead import ReadAhead
from train.shard_cache import ShardCache, locked_folder

pytestmark = pytest.mark.slow

SHAPE = (4, 32, 32, 3)


class Ledger(ShardCache):
    """A cache that keeps books and no files: what was used longest ago makes room."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(None, max_bytes)
        self.held: dict[str, int] = {}
        self.downloads: list[str] = []

    def open(self, shard: ShardIndex) -> Any:
        name = shard.path.name
        if name not in self.held:
            self.downloads.append(name)
            while sum(self.held.values()) + shard.num_bytes > self.max_bytes:
                del self.held[next(iter(self.held))]
        self.held[name] = self.held.pop(name, shard.num_bytes)
        return open("/dev/null", "rb")

    def touch(self, shard: ShardIndex) -> None:
        if shard.path.name in self.held:
            self.open(shard).close()


class AtOnce:
    """A pool that does what it is given in this thread."""

    def __init__(self, num_threads: int, **names: str) -> None:
        assert num_threads >= 1

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


def remote_table(num_bytes: list[int], samples_per_shard: int) -> SampleTable:
    places = np.arange(samples_per_shard, dtype=np.int64)
    names = ("",) * samples_per_shard
    shards = tuple(
        ShardIndex(
            UPath(f"memory://made/shard-{n:06d}.tar"),
            size,
            "0" * 64,
            names,
            names,
            (),
            places,
            places,
        )
        for n, size in enumerate(num_bytes)
    )
    return sample_table(ShardDataset(UPath("memory://made"), (), shards, ""))


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_each_shard_comes_once_an_epoch_and_in_time(
    num_bytes: list[int], samples_per_shard: int, batch_size: int, window: int, epoch: int
) -> None:
    batch_size = min(batch_size, window * samples_per_shard)  # a batch may touch two windows
    samples = remote_table(num_bytes, samples_per_shard)
    cache = Ledger(sum(sorted(num_bytes)[-2 * window :]))
    cache.check_room(samples.dataset.shards, window)
    order = epoch_order(samples, 0, epoch, window)
    used = [samples.shard_N[batch] for batch in epoch_batches(order, batch_size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_ahead, "ThreadPoolExecutor", AtOnce)
        ahead = ReadAhead(cache, samples.dataset.shards, [np.unique(shards) for shards in used])
        for shards in used:
            for shard in shards:
                assert samples.dataset.shards[shard].path.name in cache.held
                cache.touch(samples.dataset.shards[shard])
            ahead.advance()
    names = [
        samples.dataset.shards[shard].path.name for shards in used for shard in np.unique(shards)
    ]
    assert cache.downloads == list(dict.fromkeys(names))


def label(sample: ShardSample) -> np.ndarray:
    return np.array([int(sample.key)], np.float32)


@pytest.fixture
def folders(tmp_path: Path, bucket: str) -> tuple[Path, str]:
    out = write_moving_shards(tmp_path / "out", 24)
    s3fs.S3FileSystem().put(f"{out}/", f"{bucket}/out/", recursive=True)
    return out, f"{bucket}/out"


@pytest.mark.parametrize("num_threads", [1, 3])
def test_six_remote_shards_are_read_through_a_cache_of_two(
    folders: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    local, remote = (read_dataset(folder) for folder in folders)
    downloads: list[str] = []
    read = shard_cache.read_blocks

    def counted(shard: ShardIndex) -> Iterator[bytes]:
        downloads.append(shard.path.name)
        return read(shard)

    monkeypatch.setattr(shard_cache, "read_blocks", counted)
    cache = ShardCache(tmp_path / "cache", 2 * max(shard.num_bytes for shard in remote.shards))
    cache.check_room(remote.shards, 1)
    tables = sample_table(local), sample_table(remote, cache=cache)
    batches = epoch_batches(epoch_order(tables[0], 0, 0, 1), 3)
    num_bytes = []
    for here, there in zip(
        *(load_batches(table, batches, label, SHAPE, num_threads) for table in tables), strict=True
    ):
        np.testing.assert_array_equal(here.frames_NTHWC, there.frames_NTHWC)
        assert here.targets.tolist() == there.targets.tolist()
        with locked_folder(cache.folder()):
            num_bytes.append(sum(path.stat().st_size for path in cache.folder().glob("*.tar")))
    assert len(num_bytes) == 8
    assert 0 < max(num_bytes) <= cache.max_bytes
    assert sorted(downloads) == [f"shard-{n:06d}.tar" for n in range(6)]


def test_a_shard_that_cannot_be_fetched_ends_the_batches_that_need_it(
    folders: tuple[Path, str], tmp_path: Path
) -> None:
    remote = read_dataset(folders[1])
    s3fs.S3FileSystem().rm(f"{folders[1]}/shard-000003.tar")
    table = sample_table(remote, cache=ShardCache(tmp_path / "cache"))
    loaded = load_batches(table, list(np.arange(24).reshape(6, 4)), label, SHAPE, 2)
    for _ in range(3):
        next(loaded)
    with pytest.raises(ShardError, match=r"shard-000003\.tar cannot be fetched: "):
        next(loaded)


def test_local_shards_are_left_alone(folders: tuple[Path, str]) -> None:
    cache = Ledger(1)
    shards = read_dataset(folders[0]).shards
    ahead = ReadAhead(cache, shards, [np.arange(6)] * 3)
    for _ in range(4):
        ahead.advance()
    ahead.close()
    assert not cache.downloads

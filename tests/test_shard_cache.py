"""Shards that are verified before they are read, and the bounded cache of remote ones."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import s3fs
from made_runs import write_small_recipe
from made_shards import write_moving_shards

from manifests import ShardError, UsageError
from synth import ShardDataset, ShardIndex, read_dataset
from train import shard_cache, train_model
from train.shard_cache import ShardCache, locked_folder

pytestmark = pytest.mark.slow

NUM_SHARDS = 6


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return write_moving_shards(tmp_path / "out", 4 * NUM_SHARDS)


@pytest.fixture
def remote(local: Path, bucket: str) -> str:
    s3fs.S3FileSystem().put(f"{local}/", f"{bucket}/out/", recursive=True)
    return f"{bucket}/out"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the shards that are downloaded from now on."""
    names: list[str] = []
    read = shard_cache.read_blocks

    def counted(shard: ShardIndex) -> Iterator[bytes]:
        names.append(shard.path.name)
        return read(shard)

    monkeypatch.setattr(shard_cache, "read_blocks", counted)
    return names


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file, algorithm):
        names.append(file.name)
        time.sleep(0.02)  # long enough for other threads to come along
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def content(cache: ShardCache, shard: ShardIndex) -> bytes:
    with cache.open(shard) as file:
        return os.pread(file.fileno(), 2**30, 0)


def digest_of(cache: ShardCache, shard: ShardIndex) -> str:
    return hashlib.sha256(content(cache, shard)).hexdigest()


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files, at one moment: a look between two changes sees too many."""
    if not folder.exists():
        return 0
    with locked_folder(folder), suppress(FileNotFoundError):  # a download has just ended
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def room_for(dataset: ShardDataset, num_shards: int) -> int:
    return num_shards * max(shard.num_bytes for shard in dataset.shards)


def flip(path: Path, position: int) -> None:
    flipped = bytearray(path.read_bytes())
    flipped[position] ^= 1
    path.write_bytes(flipped)


def test_local_shards_are_read_where_they_are(local: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", max_bytes=1)
    for shard in read_dataset(local).shards:
        with cache.open(shard) as file:
            assert file.name == str(shard.path)
            assert os.pread(file.fileno(), 2**30, 0) == shard.path.read_bytes()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_bit_is_named(local: Path, place: float) -> None:
    dataset = read_dataset(local)
    flip(dataset.shards[2].path, int(place * (dataset.shards[2].num_bytes - 1)))
    cache = ShardCache()
    for number in (2, 2):  # also when it is asked for again
        with pytest.raises(ShardError, match=r"shard-000002\.tar must have sha256 .* is damaged"):
            cache.open(dataset.shards[number])
    assert digest_of(cache, dataset.shards[3]) == dataset.shards[3].sha256


def test_shards_cut_or_gone_after_the_dataset_was_opened_are_named(local: Path) -> None:
    dataset = read_dataset(local)
    path = dataset.shards[1].path
    path.write_bytes(path.read_bytes()[:-10240])
    with pytest.raises(ShardError, match=r"shard-000001\.tar must have sha256"):
        ShardCache().open(dataset.shards[1])
    path.unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar cannot be read: No such file"):
        ShardCache().open(dataset.shards[1])


def test_a_shard_is_hashed_once_however_many_threads_want_it(
    local: Path, hashed: list[str]
) -> None:
    shards, cache = read_dataset(local).shards[:2], ShardCache()
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda shard: digest_of(cache, shard), shards * 20))
    assert digests == [shard.sha256 for shard in shards] * 20
    assert sorted(hashed) == [str(shard.path) for shard in shards]


def test_another_file_under_the_name_is_verified_again(local: Path) -> None:
    shard, cache = read_dataset(local).shards[0], ShardCache()
    assert digest_of(cache, shard) == shard.sha256
    flip(shard.path, 700)
    with pytest.raises(ShardError, match="is damaged"):
        cache.open(shard)


def test_another_process_verifies_for_itself(local: Path, hashed: list[str]) -> None:
    shard, cache = read_dataset(local).shards[0], ShardCache()
    cache.open(shard).close()
    copy = ForkingPickler.loads(ForkingPickler.dumps(cache))
    copy.open(shard).close()
    assert len(hashed) == 2


def test_remote_shards_pass_through_a_bounded_folder(
    remote: str, tmp_path: Path, downloads: list[str]
) -> None:
    dataset = read_dataset(remote)
    cache = ShardCache(tmp_path / "cache", room_for(dataset, 2))
    for shard in (*dataset.shards, *dataset.shards[-2:], dataset.shards[0]):
        assert digest_of(cache, shard) == shard.sha256
        assert folder_bytes(tmp_path / "cache") <= cache.max_bytes
    names = [shard.path.name for shard in dataset.shards]
    assert downloads == [*names, names[0]]  # the last two were there still


def test_what_was_used_longest_ago_goes_first(
    remote: str, tmp_path: Path, downloads: list[str]
) -> None:
    dataset = read_dataset(remote)
    cache = ShardCache(tmp_path / "cache", room_for(dataset, 2))
    for number in (0, 1, 0, 2, 0, 1):
        cache.open(dataset.shards[number]).close()
    assert downloads == [f"shard-00000{number}.tar" for number in (0, 1, 2, 1)]


def test_the_bound_holds_while_threads_read_at_random(remote: str, tmp_path: Path) -> None:
    dataset = read_dataset(remote)
    cache = ShardCache(tmp_path / "cache", room_for(dataset, 2))
    cache.folder()
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.0005):
            most[0] = max(most[0], folder_bytes(tmp_path / "cache"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    order = np.random.default_rng(0).integers(NUM_SHARDS, size=60)
    with ThreadPoolExecutor(5) as pool:
        digests = list(pool.map(lambda n: digest_of(cache, dataset.shards[n]), order))
    ended.set()
    watcher.join()
    assert digests == [dataset.shards[n].sha256 for n in order]
    assert 0 < most[0] <= cache.max_bytes


def test_a_download_never_ends_while_another_counts(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, folder = read_dataset(remote).shards[0], tmp_path / "cache"
    read, counting, came = shard_cache.read_blocks, ExitStack(), threading.Event()

    def slow(shard: ShardIndex) -> Iterator[bytes]:
        yield from read(shard)
        counting.enter_context(locked_folder(folder))
        came.set()

    monkeypatch.setattr(shard_cache, "read_blocks", slow)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(digest_of, ShardCache(folder), shard)
        assert came.wait(20)
        time.sleep(0.05)
        assert [path.suffix for path in folder.iterdir()] == [".part"]
        counting.close()
        assert ended.result(20) == shard.sha256
    assert [path.suffix for path in folder.iterdir()] == [".tar"]


def test_threads_wait_for_one_download(
    remote: str, tmp_path: Path, downloads: list[str], hashed: list[str]
) -> None:
    dataset = read_dataset(remote)
    cache = ShardCache(tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: digest_of(cache, dataset.shards[0]), range(16)))
    assert digests == {dataset.shards[0].sha256}
    assert downloads == ["shard-000000.tar"]
    assert not hashed  # it was hashed while it came in
    assert len(list((tmp_path / "cache").iterdir())) == 1


def _read_all(folder: Path, max_bytes: int, remote: str, seed: int, found) -> None:
    cache, dataset = ShardCache(folder, max_bytes), read_dataset(remote)
    order = np.random.default_rng(seed).integers(NUM_SHARDS, size=20)
    good = [digest_of(cache, dataset.shards[n]) == dataset.shards[n].sha256 for n in order]
    found.put(all(good))


@pytest.mark.slow
def test_processes_share_a_folder(remote: str, tmp_path: Path) -> None:
    context = get_context("spawn")
    found = context.Queue()
    max_bytes = room_for(read_dataset(remote), 3)
    children = [
        context.Process(target=_read_all, args=(tmp_path / "cache", max_bytes, remote, n, found))
        for n in range(2)
    ]
    for child in children:
        child.start()
    most = 0
    while any(child.is_alive() for child in children):
        most = max(most, folder_bytes(tmp_path / "cache"))
        time.sleep(0.001)
    assert [found.get(timeout=1) for _ in children] == [True] * 2
    assert 0 < most <= max_bytes


def test_a_bad_remote_shard_is_named_and_leaves_nothing(
    local: Path, remote: str, tmp_path: Path
) -> None:
    dataset = read_dataset(remote)
    flip(local / "shard-000004.tar", 1000)
    s3fs.S3FileSystem().put(str(local / "shard-000004.tar"), f"{remote}/shard-000004.tar")
    cache = ShardCache(tmp_path / "cache")
    with pytest.raises(ShardError, match=r"s3://.*shard-000004\.tar must have sha256"):
        cache.open(dataset.shards[4])
    assert list((tmp_path / "cache").iterdir()) == []
    (local / "shard-000004.tar").write_bytes(b"short")
    s3fs.S3FileSystem().put(str(local / "shard-000004.tar"), f"{remote}/shard-000004.tar")
    with pytest.raises(ShardError, match=r"shard-000004\.tar"):
        cache.open(dataset.shards[4])
    s3fs.S3FileSystem().rm(f"{remote}/shard-000004.tar")
    with pytest.raises(ShardError, match=r"s3://.*shard-000004\.tar cannot be fetched: "):
        cache.open(dataset.shards[4])
    assert list((tmp_path / "cache").iterdir()) == []
    assert digest_of(cache, dataset.shards[5]) == dataset.shards[5].sha256


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_tried_again(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = read_dataset(remote).shards[0]
    cache = ShardCache(tmp_path / "cache")
    seen: list[str] = []

    def broken(shard: ShardIndex) -> Iterator[bytes]:
        yield b"the first bytes"
        seen.extend(path.suffix for path in (tmp_path / "cache").iterdir())
        raise ShardError(f"shard {shard.path} cannot be fetched: connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(shard_cache, "read_blocks", broken)
        with pytest.raises(ShardError, match="connection reset"):
            cache.open(shard)
    assert seen == [".part"]
    assert list((tmp_path / "cache").iterdir()) == []
    assert digest_of(cache, shard) == shard.sha256


def test_what_a_killed_process_left_is_overwritten_or_removed(remote: str, tmp_path: Path) -> None:
    dataset, folder = read_dataset(remote), tmp_path / "cache"
    cache = ShardCache(folder, room_for(dataset, 2))
    folder.mkdir()
    for shard in dataset.shards[:2]:
        (folder / f"{shard.sha256}.part").write_bytes(bytes(shard.num_bytes))
    (folder / "not-ours.tar").write_bytes(b"precious")
    assert digest_of(cache, dataset.shards[0]) == dataset.shards[0].sha256
    assert digest_of(cache, dataset.shards[2]) == dataset.shards[2].sha256
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{dataset.shards[n].sha256}.tar" for n in (0, 2)] + ["not-ours.tar"]
    )


def test_a_copy_that_was_damaged_is_downloaded_again(
    remote: str, tmp_path: Path, downloads: list[str]
) -> None:
    shard = read_dataset(remote).shards[0]
    cache = ShardCache(tmp_path / "cache")
    cache.open(shard).close()
    flip(tmp_path / "cache" / f"{shard.sha256}.tar", 3)
    assert digest_of(cache, shard) == shard.sha256
    assert len(downloads) == 2


def test_a_folder_serves_the_next_run(
    remote: str, tmp_path: Path, downloads: list[str], hashed: list[str]
) -> None:
    shard = read_dataset(remote).shards[0]
    for _ in range(3):
        assert digest_of(ShardCache(tmp_path / "cache"), shard) == shard.sha256
    assert len(downloads) == 1
    assert len(hashed) == 2  # an older download is verified by whoever opens it


@pytest.mark.slow
def test_the_temporary_folder_goes_when_its_process_ends(remote: str) -> None:
    code = (
        "import sys; from synth import read_dataset; from train.shard_cache import ShardCache; "
        "shard = read_dataset(sys.argv[1]).shards[0]; cache = ShardCache(); "
        "cache.open(shard).close(); "
        "print(cache.folder(), len(list(cache.folder().iterdir())))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, remote], capture_output=True, text=True, check=True
    )
    folder, count = result.stdout.split()
    assert count == "1"
    assert not Path(folder).exists()


def test_the_temporary_folder_is_shared_and_goes_with_its_maker(remote: str) -> None:
    shard, cache = read_dataset(remote).shards[0], ShardCache()
    cache.open(shard).close()
    sent, folder = ForkingPickler.dumps(cache), cache.folder()
    copy = ForkingPickler.loads(sent)
    copy.open(shard).close()
    assert copy.folder() == folder
    del copy
    assert folder.exists()
    del cache
    assert not folder.exists()
    elsewhere = ForkingPickler.loads(sent)  # on a machine that has no such folder
    assert digest_of(elsewhere, shard) == shard.sha256
    assert elsewhere.folder() != folder


def test_the_cache_must_hold_two_windows(local: Path, remote: str) -> None:
    dataset = read_dataset(remote)
    sizes = sorted(shard.num_bytes for shard in dataset.shards)
    ShardCache(None, sum(sizes[-4:])).check_room(dataset.shards, 2)
    with pytest.raises(UsageError, match=r"--cache-gb must hold two shuffle windows of 2 shards"):
        ShardCache(None, sum(sizes[-4:]) - 1).check_room(dataset.shards, 2)
    ShardCache(None, sum(sizes)).check_room(dataset.shards, 1000)
    ShardCache(None, 1).check_room(read_dataset(local).shards, 8)
    with pytest.raises(UsageError, match=r"--cache-gb must hold shard s3://.*shard-000000\.tar"):
        ShardCache(None, 100).open(dataset.shards[0])


def test_a_cache_that_cannot_be_written_is_wrong_use(remote: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the cache of shards must be writable, got .*file"):
        ShardCache(tmp_path / "file" / "cache").open(read_dataset(remote).shards[0])


@pytest.mark.slow
def test_training_from_a_bucket_ends_with_the_same_weights(
    local: Path, remote: str, tmp_path: Path
) -> None:
    recipe = write_small_recipe(tmp_path, "detection", shuffle_shards=1, steps=7)
    train_model(recipe, local, tmp_path / "near", device="cpu")
    cache, cache_gb = tmp_path / "cache", room_for(read_dataset(remote), 2) / 1e9
    with pytest.raises(UsageError, match="--cache-gb must hold two shuffle windows of 1 shards"):
        train_model(recipe, remote, tmp_path / "far", cache=cache, cache_gb=cache_gb / 2.1)
    assert not (tmp_path / "far").exists()
    train_model(recipe, remote, tmp_path / "far", device="cpu", cache=cache, cache_gb=cache_gb)
    near, far = (tmp_path / run / "model.safetensors" for run in ("near", "far"))
    assert near.read_bytes() == far.read_bytes()
    assert 0 < folder_bytes(cache) <= cache_gb * 1e9

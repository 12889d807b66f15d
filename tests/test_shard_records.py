"""Records and indexes beside the shards that are damaged, or written to harm."""

import json
from pathlib import Path

import pytest
from bounds import memory_bound
from made_shards import write_moving_shards

from manifests import SeamlineError, ShardError
from synth import read_dataset, read_sample
from synth.shards import ShardSample, read_record, shard_path, write_index


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_records_that_are_no_json_object_are_shard_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    assert read_record(path) is None
    path.write_bytes(content)
    with pytest.raises(ShardError, match="not a JSON record"):
        read_record(path)


@pytest.mark.parametrize(
    "change",
    [
        {"shards": None},
        {"shards": ["../../other"]},
        {"shards": [7]},
        {"shards": [1.5]},
        {"shards": [-1]},
        {"shards": [10**30]},
        {"classes": None},
        {"classes": 3},
        {"plan_digest": None},
        {"plan_digest": "other"},
        {"shard_digests": [None]},
        {"shard_digests": 5},
    ],
    ids=str,
)
def test_hostile_dataset_record_is_one_clear_error(tmp_path: Path, change: dict) -> None:
    out = write_moving_shards(tmp_path / "out", 4)
    record = json.loads((out / "dataset.json").read_bytes())
    (out / "dataset.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(SeamlineError, match=r"\w+ \w+"):
        read_dataset(out)
    missing = {name: value for name, value in record.items() if name not in change}
    (out / "dataset.json").write_text(json.dumps(missing))
    with pytest.raises(SeamlineError, match=r"\w+ \w+"):
        read_dataset(out)


def write_first_index(out: Path, *rows: dict) -> None:
    """Write the index of the first shard, and make its done record name it."""
    index_sha256 = write_index(shard_path(out, 0, "parquet"), rows)
    path = shard_path(out, 0, "json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "index_sha256": index_sha256}))


def read_first_sample(out: Path) -> ShardSample:
    index = read_dataset(out).shards[0]
    return read_sample(index.path, int(index.offsets[0]), int(index.sizes[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"offset": None},
        {"offset": -512},
        {"offset": 512},
        {"offset": 2**62},
        {"bytes": None},
        {"bytes": -1},
        {"bytes": 0},
        {"bytes": 2**62},
        {"video_ids": None},
    ],
    ids=str,
)
def test_hostile_index_is_one_clear_error(tmp_path: Path, change: dict) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    row = {
        "key": "00000000",
        "status": "rendered",
        "reason": None,
        "offset": 0,
        "bytes": int(read_dataset(out).shards[0].sizes[0]),
        "kind": "clip",
        "video_ids": ["v0"],
    }
    write_first_index(out, row)
    assert read_first_sample(out).key == "00000000"
    write_first_index(out, {**row, **change})
    with pytest.raises(SeamlineError, match=r"\w+ \w+"):
        read_first_sample(out)


@pytest.mark.parametrize("sha256", [None, 7, "", "../../evil", "A" * 64, "a" * 65])
def test_done_record_without_a_sha256_is_a_shard_error(tmp_path: Path, sha256: object) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    path = shard_path(out, 0, "json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": sha256}))
    with pytest.raises(ShardError, match=r"shard-000000\.tar must have a sha256, got"):
        read_dataset(out)


def test_shards_that_changed_places_are_a_shard_error(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 4, samples_per_shard=2)
    for suffix in ("tar", "parquet", "json"):
        first, second = (shard_path(out, shard, suffix) for shard in (0, 1))
        first.rename(out / "other")
        second.rename(first)
        (out / "other").rename(second)
    with pytest.raises(ShardError, match=r"is another than dataset\.json names"):
        read_dataset(out)


def test_an_index_that_its_record_does_not_name_is_a_shard_error(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    path = shard_path(out, 0, "parquet")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ShardError, match="not the one that its done record names"):
        read_dataset(out)


def test_index_that_is_no_parquet_is_a_shard_error(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    shard_path(out, 0, "parquet").write_bytes(b"PAR1 or so")
    with pytest.raises(ShardError, match="index of shard"):
        read_dataset(out)


def test_index_that_would_fill_the_memory_is_a_shard_error(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    row = {"key": "k", "status": "rejected", "reason": "r" * 1000, "kind": "clip", "video_ids": []}
    write_first_index(out, *[row] * 50_000)
    assert shard_path(out, 0, "parquet").stat().st_size < 2**20
    with memory_bound(2**28), pytest.raises(ShardError, match="must take at most"):
        read_dataset(out)

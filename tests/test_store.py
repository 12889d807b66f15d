"""The feature store: layout, round trip, resume, damage, and other people's folders."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from bounds import memory_bound
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import FeatureSpec, FeatureStore, StoredVideo, rows_digest, verify_store
from features.store.layout import CHUNK_ROWS, StoreLayout, plan_layout
from features.store.stored import INDEX_SCHEMA
from features.store.writer import StoreWriter
from manifests import StoreError

SPEC = FeatureSpec(
    backbone="toy",
    backbone_arguments={"width": 4},
    weights_digest="0" * 64,
    feature_dim=5,
    snippet_len=8,
    snippet_stride=4,
    height=16,
    width=16,
    short_side=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
)


def rows_of(video_id: str, num: int, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return features and times that depend on the id alone."""
    rng = np.random.default_rng(list(video_id.encode()))
    start_S = np.arange(num) * 0.4
    times_S3 = np.stack([start_S, start_S + 0.4, start_S + 0.8], axis=1)
    return rng.normal(size=(num, dim)).astype(np.float16), times_S3


def planned(counts: dict[str, int], layout: StoreLayout) -> list[StoredVideo]:
    return [
        StoredVideo(video_id, int(layout.row_start_V[i]), num, num * 0.4, 10, 1, num * 4 + 4)
        for i, (video_id, num) in enumerate(counts.items())
    ]


def write_shard(writer: StoreWriter, shard: int, counts: dict[str, int], dim: int) -> None:
    layout, ids = writer.layout, list(counts)
    feats_RD = np.zeros((layout.shard_rows, dim), np.float16)
    times_R3 = np.zeros((layout.shard_rows, 3))
    done = []
    for position in layout.videos_of(shard):
        video = planned(counts, layout)[position]
        feats_SD, times_S3 = rows_of(ids[position], video.num_snippets, dim)
        first = video.row_start - shard * layout.shard_rows
        feats_RD[first : first + len(feats_SD)] = feats_SD
        times_R3[first : first + len(feats_SD)] = times_S3
        done.append(replace(video, digest=rows_digest(feats_SD, times_S3)))
    writer.commit(shard, feats_RD, times_R3, done)


def make_store(
    path: Path, counts: dict[str, int], spec: FeatureSpec = SPEC, shard_rows: int = 128
) -> FeatureStore:
    layout = plan_layout(list(counts.values()), shard_rows)
    writer = StoreWriter(path, spec, planned(counts, layout), layout)
    for shard in writer.missing_shards():
        write_shard(writer, shard, counts, spec.feature_dim)
    writer.finish()
    return FeatureStore.open(path)


COUNTS = {"a/b": 70, "c": 60, "d": 1, "e": 130, "f": 64}


def test_layout_by_hand():
    layout = plan_layout([70, 60, 0, 10], shard_rows=128)
    assert layout.row_start_V.tolist() == [0, 128, 192, 192]
    assert layout.shard_V.tolist() == [0, 1, 1, 1]
    assert (layout.shard_rows, layout.num_shards, layout.num_rows) == (128, 2, 256)


@given(st.lists(st.integers(0, 700), max_size=30), st.sampled_from([CHUNK_ROWS, 128, 256, 4096]))
def test_layout_holds_its_promises(counts, shard_rows):
    layout = plan_layout(counts, shard_rows)
    assert layout.shard_rows % CHUNK_ROWS == 0
    end = 0
    for start, num, shard in zip(layout.row_start_V, counts, layout.shard_V, strict=True):
        assert start % CHUNK_ROWS == 0
        assert start >= end
        if num:
            assert start // layout.shard_rows == shard == (start + num - 1) // layout.shard_rows
        end = start + num
    assert end <= layout.num_rows
    found = [i for k in range(layout.num_shards) for i in layout.videos_of(k)]
    assert found == list(range(len(counts)))


def test_a_video_larger_than_a_shard_sets_the_size():
    layout = plan_layout([10, 5000, 10], shard_rows=128)
    assert layout.shard_rows == 5056
    assert layout.shard_V.tolist() == [0, 1, 2]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 200), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_round_trip(tmp_path_factory, counts, dim):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    store = make_store(path, counts, replace(SPEC, feature_dim=dim))
    assert store.video_ids == tuple(counts)
    for video_id, num in counts.items():
        feats_SD, times_S3 = rows_of(video_id, num, dim)
        np.testing.assert_array_equal(store[video_id], feats_SD)
        np.testing.assert_array_equal(store.times(video_id), times_S3)
        assert store[video_id].dtype == np.float16
        assert store[video_id].flags.c_contiguous
    assert verify_store(path).damaged == ()


def test_any_zarr_reader_sees_the_rows_and_the_spec(tmp_path):
    make_store(tmp_path / "s.zarr", COUNTS)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert group.attrs["feature_spec_digest"] == SPEC.digest
    assert FeatureSpec.from_dict(group.attrs["feature_spec"]) == SPEC
    np.testing.assert_array_equal(group["features"][128:188], rows_of("c", 60)[0])
    assert json.dumps(group["features"].metadata.to_dict(), default=str).count("crc32c") == 2


def test_between_takes_rows_by_their_centre(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    np.testing.assert_array_equal(store.between("e", 0.8, 2.0), rows_of("e", 130)[0][1:4])
    assert store.between("e", 500.0, 900.0).shape == (0, 5)


def test_concat_lays_channels_side_by_side(tmp_path):
    first = make_store(tmp_path / "a.zarr", COUNTS)
    other = make_store(
        tmp_path / "b.zarr", {"x": 9, "e": 130, "c": 60}, replace(SPEC, feature_dim=3)
    )
    both = first.concat(other)
    assert both.video_ids == ("c", "e")
    assert both.feature_dim == 8
    expected = np.concatenate([rows_of("e", 130)[0], rows_of("e", 130, 3)[0]], axis=1)
    np.testing.assert_array_equal(both["e"], expected)
    np.testing.assert_array_equal(both.between("e", 0.8, 2.0), expected[1:4])
    assert both.concat(first).feature_dim == 13
    assert "a/b" not in both


def test_streams_are_named_ranges_and_can_be_chosen_and_ordered(tmp_path):
    first = make_store(tmp_path / "a.zarr", COUNTS)
    make_store(tmp_path / "b.zarr", COUNTS, replace(SPEC, feature_dim=3, backbone="flow"))
    both = FeatureStore.open(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert first.channel_ranges == {"toy": (0, 5)}
    assert both.channel_ranges == {"toy": (0, 5), "flow": (5, 8)}
    assert both.concat(first).concat(first).channel_ranges == {
        "toy": (0, 5),
        "flow": (5, 8),
        "toy-2": (8, 13),
        "toy-3": (13, 18),
    }
    swapped = both.select(["flow", "toy"])
    assert swapped.channel_ranges == {"flow": (0, 3), "toy": (3, 8)}
    np.testing.assert_array_equal(swapped["c"], np.roll(both["c"], 3, axis=1))
    assert swapped["c"].flags.c_contiguous
    assert both.select(["toy"]).feature_dim == 5
    np.testing.assert_array_equal(both.select(["toy"])["e"], first["e"])
    assert both.select(["toy", "flow"]).digest == both.digest != swapped.digest
    assert [spec.backbone for spec in swapped.specs] == ["flow", "toy"]
    for names, said in ((["rgb"], "got 'rgb'"), ([], "got none")):
        with pytest.raises(StoreError, match=f"streams must be among 'toy', 'flow', {said}"):
            both.select(names)


def test_concat_refuses_other_grids_and_other_times(tmp_path):
    first = make_store(tmp_path / "a.zarr", COUNTS)
    other = make_store(tmp_path / "b.zarr", COUNTS, replace(SPEC, snippet_stride=8))
    with pytest.raises(StoreError, match="snippet_stride: 4 here, 8 there"):
        first.concat(other)
    with pytest.raises(StoreError, match="'c' has other snippet times"):
        first.concat(make_store(tmp_path / "c.zarr", {"c": 61}))
    with pytest.raises(StoreError, match="no video is both in"):
        first.concat(make_store(tmp_path / "d.zarr", {"z": 61}))


def test_a_killed_writer_costs_one_shard(tmp_path):
    whole = make_store(tmp_path / "whole.zarr", COUNTS)
    layout = plan_layout(list(COUNTS.values()), 128)
    path = tmp_path / "s.zarr"
    writer = StoreWriter(path, SPEC, planned(COUNTS, layout), layout)
    write_shard(writer, 1, COUNTS, 5)
    with pytest.raises(StoreError, match="not finished"):
        FeatureStore.open(path)
    # What the killed writer left: rows without a record, a half-written file.
    writer.shards._features[0:128] = np.ones((128, 5), np.float16)
    (path / "features" / "0.partial").write_bytes(b"half")

    again = StoreWriter(path, SPEC, planned(COUNTS, layout), layout)
    assert again.missing_shards() == [k for k in range(layout.num_shards) if k != 1]
    assert (path / "features" / "0.partial").exists()  # it may be of a run that goes on
    with pytest.raises(StoreError, match="are not written yet"):
        again.finish()
    for shard in again.missing_shards():
        write_shard(again, shard, COUNTS, 5)
    again.finish()
    assert FeatureStore.open(path).digest == whole.digest
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()} == {
        p.relative_to(whole.path): p.read_bytes() for p in whole.path.rglob("*") if p.is_file()
    }
    assert StoreWriter(path, SPEC, planned(COUNTS, layout), layout).missing_shards() == []


def test_another_spec_and_other_videos_are_refused(tmp_path):
    make_store(tmp_path / "s.zarr", COUNTS)
    with pytest.raises(StoreError, match=r"another spec \(snippet_stride: 8 here, 4 there\)"):
        make_store(tmp_path / "s.zarr", COUNTS, replace(SPEC, snippet_stride=8))
    with pytest.raises(StoreError, match="planned for other videos"):
        make_store(tmp_path / "s.zarr", COUNTS | {"g": 3})


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(tmp_path / "folder")
    with pytest.raises(StoreError, match="is not a feature store"):
        make_store(tmp_path / "folder", COUNTS)
    assert (tmp_path / "folder" / "file.txt").read_text() == "mine"
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="a Zarr group, but not a feature store"):
        FeatureStore.open(tmp_path / "other.zarr")


def test_runs_that_make_a_store_at_once_share_it(tmp_path, monkeypatch):
    made = make_store(tmp_path / "made.zarr", COUNTS)
    replaced = os.replace

    def replace_after_another(source: Path, target: Path) -> None:
        if Path(target).name == "s.zarr":
            shutil.copytree(source, target)
        replaced(source, target)

    monkeypatch.setattr(os, "replace", replace_after_another)
    assert make_store(tmp_path / "s.zarr", COUNTS).digest == made.digest
    assert {path.name for path in tmp_path.iterdir()} == {"made.zarr", "s.zarr"}


def test_a_store_needs_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="a store must have a name of its own"):
        make_store(Path(), COUNTS)


def test_a_newer_format_is_refused(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    meta = json.loads((store.path / "zarr.json").read_text())
    meta["attributes"]["format_version"] = 99
    (store.path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="format version 99"):
        FeatureStore.open(store.path)


def test_unknown_and_rejected_videos_are_named(tmp_path):
    layout = plan_layout([3, 0])
    videos = [StoredVideo("good", 0, 3, 1.0, 10, 1, 16), StoredVideo("bad", 64, 0, 0.0, 0, 1, 0)]
    writer = StoreWriter(tmp_path / "s.zarr", SPEC, videos, layout)
    feats_SD, times_S3 = np.zeros((64, 5), np.float16), np.zeros((64, 3))
    digest = rows_digest(feats_SD[:3], times_S3[:3])
    rejected = replace(videos[1], status="rejected", reason="it holds no frame")
    writer.commit(0, feats_SD, times_S3, [replace(videos[0], digest=digest), rejected])
    writer.finish()
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.video_ids == ("good",)
    assert store.index["status"].to_pylist() == ["ok", "rejected"]
    with pytest.raises(StoreError, match=r"'bad' was rejected .* it holds no frame"):
        store["bad"]
    with pytest.raises(StoreError, match="'other' is not in the store"):
        store.times("other")
    assert verify_store(store.path).damaged == ()


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "remove", "swap"])
def test_verify_finds_damage_and_reads_refuse_it(tmp_path, how):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    shard = store.path / "features" / "c" / "1" / "0"  # holds only "d"
    content = bytearray(shard.read_bytes())
    if how == "flip":
        content[5] ^= 1
        shard.write_bytes(content)
    elif how == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        shard.write_bytes(b"")
    elif how == "remove":
        shard.unlink()  # Zarr would read zeros
    else:
        shard.write_bytes((store.path / "features" / "c" / "0" / "0").read_bytes())
    damaged = dict(verify_store(store.path).damaged)
    assert set(damaged) == {"d"}
    if how != "swap":
        with pytest.raises(StoreError, match=r"rows of video 'd' .* are damaged"):
            FeatureStore.open(store.path)["d"]


def test_verify_names_rows_that_are_not_finite(tmp_path):
    layout = plan_layout([2])
    video = StoredVideo("v", 0, 2, 1.0, 10, 1, 12)
    feats_RD, times_R3 = np.zeros((64, 5), np.float16), np.zeros((64, 3))
    feats_RD[1, 2] = np.inf
    writer = StoreWriter(tmp_path / "s.zarr", SPEC, [video], layout)
    writer.commit(
        0, feats_RD, times_R3, [replace(video, digest=rows_digest(feats_RD[:2], times_R3[:2]))]
    )
    writer.finish()
    assert dict(verify_store(tmp_path / "s.zarr").damaged) == {"v": "1 of 2 rows are not finite"}


def test_a_damaged_index_is_said_to_be(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    (store.path / "index.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match="index of the store"):
        FeatureStore.open(store.path)


def test_spec_digest_is_stable_and_names_what_differs():
    assert SPEC.digest == FeatureSpec.from_dict(SPEC.to_dict()).digest
    other = replace(SPEC, mean=(0.4, 0.5, 0.5), fps="15")
    assert set(SPEC.differences(other)) == {"mean", "fps"}
    assert other.digest != SPEC.digest
    with pytest.raises(StoreError, match="differs in 'extra'"):
        FeatureSpec.from_dict(SPEC.to_dict() | {"extra": 1})
    with pytest.raises(StoreError, match="tail must be"):
        FeatureSpec.from_dict(SPEC.to_dict() | {"tail": "cut"})


def rewrite(path: Path, *keys: str | int, value: object) -> None:
    """Set one value of a JSON file."""
    record = json.loads(path.read_text())
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(record))


SHARDING = ("codecs", 0, "configuration")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("shape", 0), 2**60),
        (("shape", 0), 700),
        (("shape", 0), True),
        (("shape", 0), None),
        (("shape",), [64]),
        (("shape", 1), 6),
        (("chunk_grid", "configuration", "chunk_shape", 0), 2**40),
        (("chunk_grid", "configuration", "chunk_shape"), [192, 5, 1]),
        (("chunk_grid",), None),
        (("data_type",), "float64"),
        (("data_type",), {"name": "string"}),
        (("fill_value",), 1),
        (("node_type",), "group"),
        (("codecs",), []),
        ((*SHARDING, "chunk_shape", 0), 2**40),
        ((*SHARDING, "codecs", 1), {"name": "zstd"}),
        ((*SHARDING, "codecs", 1), {"name": "numcodecs.pickle"}),
        (("storage_transformers",), [{"name": "anything"}]),
    ],
)
def test_arrays_that_no_store_has_are_refused(tmp_path, keys, value):
    path = make_store(tmp_path / "s.zarr", COUNTS).path
    rewrite(path / "features" / "zarr.json", *keys, value=value)
    with pytest.raises(StoreError, match=r"the array 'features' of the store .* is not as stores"):
        FeatureStore.open(path)


def test_a_copy_of_the_arrays_records_in_the_group_is_not_believed(tmp_path):
    path = make_store(tmp_path / "s.zarr", COUNTS).path
    record = json.loads((path / "features" / "zarr.json").read_text())
    record["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    copy = {"kind": "inline", "must_understand": False, "metadata": {"features": record}}
    rewrite(path / "zarr.json", "consolidated_metadata", value=copy)
    np.testing.assert_array_equal(FeatureStore.open(path)["c"], rows_of("c", 60)[0])


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("format_version",), "1", "has format version '1'"),
        (("format_version",), None, "has format version None"),
        (("feature_spec",), [], "lack its FeatureSpec"),
        (("feature_spec_digest",), 5, "lack its FeatureSpec"),
        (("feature_spec", "feature_dim"), "5", "impossible: feature_dim"),
        (("feature_spec", "feature_dim"), 2**40, "impossible: feature_dim"),
        (("feature_spec", "snippet_len"), 1.5, "impossible: snippet_len"),
        (("feature_spec", "fps"), "1e999999999", "impossible: fps"),
        (("feature_spec", "fps"), 25, "impossible"),
        (("feature_spec", "mean"), 0.5, "impossible"),
        (("feature_spec", "mean"), ["1e5x"], "impossible"),
        (("feature_spec", "tail"), [], "impossible"),
        (("feature_spec", "versions"), 3, "impossible"),
        (("feature_spec", "versions"), {"torch": float("nan")}, "impossible"),
        (("feature_spec", "height"), float("inf"), "impossible: height"),
        (("feature_spec", "fps"), "25", "is not the one of its digest"),
    ],
)
def test_attributes_that_no_store_has_are_refused(tmp_path, keys, value, words):
    path = make_store(tmp_path / "s.zarr", COUNTS).path
    rewrite(path / "zarr.json", "attributes", *keys, value=value)
    with pytest.raises(StoreError, match=words):
        FeatureStore.open(path)


def test_attributes_nested_too_deep_are_refused(tmp_path):
    path = make_store(tmp_path / "s.zarr", COUNTS).path
    (path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_start": -64}, "outside its rows"),
        ({"row_start": 768}, "outside its rows"),
        ({"row_start": 2**63 - 1}, "outside its rows"),
        ({"num_snippets": -1}, "outside its rows"),
        ({"num_snippets": 2**62}, "outside its rows"),
        ({"num_snippets": None}, "lacks values"),
        ({"video_id": None}, "lacks values"),
        ({"status": None}, "lacks values"),
    ],
)
def test_an_index_that_leaves_the_arrays_is_refused(tmp_path, change, words):
    path = make_store(tmp_path / "s.zarr", COUNTS).path
    rows = pq.read_table(path / "index.parquet").to_pylist()
    rows[0] |= change
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), path / "index.parquet")
    with pytest.raises(StoreError, match=words):
        FeatureStore.open(path)


@pytest.mark.parametrize(
    ("shard_rows", "words"),
    [(2**28, r"rows take .* bytes, but .* has"), (64, "do not lie in one shard")],
)
def test_rows_that_are_not_on_disk_take_no_memory(tmp_path, shard_rows, words):
    path = make_store(tmp_path / "s.zarr", {"v": 2}).path
    for name in ("features", "times"):
        record = path / name / "zarr.json"
        rewrite(record, "shape", 0, value=2**38)
        rewrite(record, "chunk_grid", "configuration", "chunk_shape", 0, value=shard_rows)
    rows = pq.read_table(path / "index.parquet").to_pylist()
    rows[0] |= {"num_snippets": 2**28}
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), path / "index.parquet")
    store = FeatureStore.open(path)
    with memory_bound(2**28):
        for read in (store.__getitem__, store.times):
            with pytest.raises(StoreError, match=words):
                read("v")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.randoms())
def test_many_videos_read_as_one_by_one_whatever_their_order(tmp_path_factory, counts, random):
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    store = make_store(path, {f"v{i}": count for i, count in enumerate(counts)})
    ids = random.choices(store.video_ids, k=50)
    rows = store.read_many(ids)
    assert len(rows) == 50
    for video_id, feats_SD in zip(ids, rows, strict=True):
        np.testing.assert_array_equal(feats_SD, rows_of(video_id, len(feats_SD))[0])
        np.testing.assert_array_equal(feats_SD, store[video_id])
    assert store.read_many([]) == []


def test_many_videos_of_several_stores_lie_side_by_side(tmp_path):
    first = make_store(tmp_path / "a.zarr", COUNTS)
    make_store(tmp_path / "b.zarr", COUNTS, replace(SPEC, feature_dim=3, backbone="flow"))
    both = FeatureStore.open(tmp_path / "a.zarr", tmp_path / "b.zarr").select(["flow", "toy"])
    for video_id, rows in zip(("f", "a/b"), both.read_many(["f", "a/b"]), strict=True):
        np.testing.assert_array_equal(rows, both[video_id])
        np.testing.assert_array_equal(rows[:, 3:], first[video_id])


def test_a_part_of_a_video_reads_its_own_chunks_only(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    shard = store.path / "features" / "c" / "2" / "0"  # holds only "e", three chunks of it
    content = bytearray(shard.read_bytes())
    content[2 * (64 * 5 * 2 + 4) + 3] ^= 1
    shard.write_bytes(content)
    np.testing.assert_array_equal(store.snippets("e", 60, 128), rows_of("e", 130)[0][60:128])
    np.testing.assert_array_equal(store.between("e", 0.8, 2.0), rows_of("e", 130)[0][1:4])
    for read in (lambda: store.between("e", 51.2, 90.0), lambda: store.read_many(["c", "e"])):
        with pytest.raises(StoreError, match=r"rows of video 'e' .* checksum of chunk 2 of .*/2/0"):
            read()


def test_rows_of_zeros_need_no_file_where_the_index_says_so(tmp_path):
    layout = plan_layout([3, 2])
    feats_RD, times_R3 = np.zeros((128, 5), np.float16), np.ones((128, 3))
    digests = [rows_digest(feats_RD[:num], times_R3[:num]) for num in (3, 2)]
    videos = [StoredVideo("a", 0, 3, 1.0, 10, 1, 16), StoredVideo("b", 64, 2, 1.0, 10, 1, 12)]
    writer = StoreWriter(tmp_path / "s.zarr", SPEC, videos, layout)
    digests[1] = digests[1][::-1]
    done = [replace(video, digest=digest) for video, digest in zip(videos, digests, strict=True)]
    writer.commit(0, feats_RD, times_R3, done)
    writer.finish()
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert not (store.path / "features" / "c").exists()
    np.testing.assert_array_equal(store["a"], feats_RD[:3])
    with pytest.raises(StoreError, match=r"rows of video 'b' .* are zeros, as where a file"):
        store["b"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((2**64 - 1, 644), "lies elsewhere"),
        ((2**63, 644), "lies elsewhere"),
        ((0, 643), "lies elsewhere"),
        ((20, 644), "checksum of chunk 0"),
    ],
)
def test_a_table_of_chunks_that_leads_astray_is_refused(tmp_path, place, words):
    store = make_store(tmp_path / "s.zarr", {"v": 20})
    shard = store.path / "features" / "c" / "0" / "0"
    places = np.array(place, "<u8").tobytes()
    checksum = google_crc32c.value(places).to_bytes(4, "little")
    shard.write_bytes(shard.read_bytes()[:-20] + places + checksum)
    with pytest.raises(StoreError, match=rf"rows of video 'v' .* damaged: .*{words}"):
        store["v"]

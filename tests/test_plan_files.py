"""Plans on disk: streams over row groups, plans made elsewhere, and hostile ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounds import memory_bound
from made_plans import made_plan, made_sources, made_video, rows_on_disk

from manifests import SeamlineError, SourceVideo, UsageError
from synth.augment import Augment
from synth.plan_files import (
    PLAN_SCHEMA,
    ROW_GROUP_ROWS,
    Plan,
    read_plan,
    read_plan_sources,
)
from synth.planned import PlannedSample, Rejected, check_row

VIEW = {"short_side": 48, "x": 0, "y": 0, "width": 32, "height": 32, "flip": False}
SOURCE = {
    "video_id": "v000",
    "label_id": 0,
    "start_frame": 0,
    "frame_stride": 3,
    "num_frames": 4,
    "view": VIEW,
}
PARTNER = {**SOURCE, "video_id": "v001", "label_id": 1}
TREE = {
    "op": "mixup",
    "n1": 4,
    "n2": 2,
    "r": 2,
    "inputs": [{"op": "clip", "source": 0}, {"op": "clip", "source": 1}],
}
ROW: dict[str, Any] = {
    "sample_key": "00000000",
    "shard": 0,
    "kind": "mixup",
    "sources": [SOURCE, PARTNER],
    "tree": json.dumps(TREE),
}


def foreign_plan(
    folder: Path, rows: list[dict], schema: pa.Schema = PLAN_SCHEMA, **options: Any
) -> Plan:
    """Write a folder with only a plan.parquet, as somebody else would, and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, folder / "plan.parquet", **options)
    return read_plan(folder)


def keyed(shards: list[int]) -> list[dict]:
    return [
        {**ROW, "sample_key": f"k-{number}", "shard": shard} for number, shard in enumerate(shards)
    ]


@pytest.mark.parametrize("row_group_size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "shards",
    [[0], [0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1, 1, 5, 5], [3, 3, 3, 3, 9, 9, 10, 10, 10]],
)
def test_shards_are_whole_whatever_the_row_groups(
    tmp_path: Path, shards: list[int], row_group_size: int
) -> None:
    plan = foreign_plan(tmp_path, keyed(shards), row_group_size=row_group_size)
    read = [(shard, table.column("sample_key").to_pylist()) for shard, table in plan.shards()]
    expected = {
        shard: [f"k-{number}" for number, place in enumerate(shards) if place == shard]
        for shard in sorted(set(shards))
    }
    assert read == list(expected.items())
    assert plan.num_samples == len(shards)


def test_shards_run_across_the_batches_that_are_read(tmp_path: Path) -> None:
    ends = (10, ROW_GROUP_ROWS - 1, ROW_GROUP_ROWS + 1, 2 * ROW_GROUP_ROWS, 2 * ROW_GROUP_ROWS + 3)
    sizes = np.diff((0, *ends))
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    clip = {**ROW, "kind": "clip", "sources": [SOURCE], "tree": json.dumps(TREE["inputs"][0])}
    table = pa.Table.from_pylist([clip], PLAN_SCHEMA).take([0] * len(numbers))
    keys = pa.array([f"{number:08d}" for number in range(len(numbers))])
    table = table.set_column(0, PLAN_SCHEMA.field(0), keys)
    table = table.set_column(1, PLAN_SCHEMA.field(1), pa.array(numbers, pa.int32()))
    pq.write_table(table, tmp_path / "plan.parquet", row_group_size=5000)
    read = list(read_plan(tmp_path).shards())
    assert [(shard, len(rows)) for shard, rows in read] == list(enumerate(sizes.tolist()))
    assert [key for _, rows in read for key in rows["sample_key"].to_pylist()] == keys.to_pylist()
    batches = list(read_plan(tmp_path).batches())
    assert pa.concat_tables(batches).equals(pa.concat_tables([rows for _, rows in read]))
    assert [len(set(batch["shard"].to_pylist())) for batch in batches] == [3, 2]


def test_a_shard_takes_along_only_its_own_rows(tmp_path: Path) -> None:
    plan = foreign_plan(tmp_path, keyed([0] * 2000 + [1]))
    sizes = [rows.get_total_buffer_size() for _, rows in plan.shards()]
    assert sizes[1] < sizes[0] / 100


@pytest.mark.parametrize("change", [{"tree": "x" * 10**6}, {"sources": [None] * 10**4}])
def test_rows_of_one_shard_that_would_fill_the_memory_are_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    rows = [row | change for row in keyed([0] * 150)]
    path = foreign_plan(tmp_path, rows).path
    assert path.stat().st_size < 2**20
    plan = read_plan(tmp_path)
    with memory_bound(), pytest.raises(UsageError, match="must take at most"):
        list(plan.shards())


def test_plan_out_of_shard_order_is_refused(tmp_path: Path) -> None:
    for shards in ([1, 0], [0, 1, 0], [0, 0, 2, 2, 1]):
        plan = foreign_plan(tmp_path, keyed(shards), row_group_size=2)
        with pytest.raises(UsageError, match="shard order"):
            list(plan.shards())


def as_read(row: dict[str, Any]) -> dict[str, Any]:
    """Return a foreign row as it is read: the column that only our pairs fill is null."""
    return row | {"sources": [{**source, "augment": None} for source in row["sources"]]}


def test_foreign_plan_needs_sources_and_takes_any(tmp_path: Path) -> None:
    plan = foreign_plan(tmp_path / "PLAN", [ROW])
    assert plan.record == {}
    assert rows_on_disk(plan) == [{**as_read(ROW), "tree": TREE}]
    with pytest.raises(UsageError, match="--sources"):
        read_plan_sources(plan, None)
    assert len(read_plan_sources(plan, made_sources(tmp_path, 3))) == 3


def test_foreign_plan_may_use_other_integer_types_and_column_order(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW]).select(["tree", "kind", "sources", "shard", "sample_key"])
    pq.write_table(table, tmp_path / "plan.parquet")
    plan = read_plan(tmp_path)
    ((shard, rows),) = plan.shards()
    assert shard == 0
    assert rows.schema == PLAN_SCHEMA
    assert rows.to_pylist() == [as_read(ROW)]


def test_json_of_another_plan_is_refused(tmp_path: Path) -> None:
    made_plan(tmp_path / "a", seed=1)
    made_plan(tmp_path / "b", seed=2)
    other = (tmp_path / "b" / "PLAN" / "plan.json").read_bytes()
    (tmp_path / "a" / "PLAN" / "plan.json").write_bytes(other)
    with pytest.raises(UsageError, match=r"plan\.json is of another plan\.parquet"):
        read_plan(tmp_path / "a" / "PLAN")


@pytest.mark.parametrize("named", ["x" * 5000, "a\0b", 5, None, ["s.parquet"], {}, "\ud800"])
def test_sources_that_no_table_can_be_are_refused(tmp_path: Path, named: Any) -> None:
    folder = made_plan(tmp_path, 6).path.parent
    record = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(record | {"sources": named}))
    with pytest.raises(UsageError, match=r"no such table|must name its sources"):
        read_plan_sources(read_plan(folder), None)


def test_absent_or_unreadable_plans_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no plan\.parquet"):
        read_plan(tmp_path)
    (tmp_path / "plan.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="not a plan"):
        read_plan(tmp_path)
    pq.write_table(pa.table({"sample_key": ["a"]}), tmp_path / "plan.parquet")
    with pytest.raises(UsageError, match="not a plan"):
        read_plan(tmp_path)
    shards = pa.table({**{name: ["0"] for name in PLAN_SCHEMA.names}, "shard": ["first"]})
    pq.write_table(shards, tmp_path / "plan.parquet")
    with pytest.raises(UsageError, match="not a plan"):
        read_plan(tmp_path)


def test_truncated_plan_is_a_usage_error(tmp_path: Path) -> None:
    path = made_plan(tmp_path).path
    content = path.read_bytes()
    for length in (0, 4, len(content) // 2, len(content) - 4):
        path.write_bytes(content[:length])
        with pytest.raises(SeamlineError, match="plan"):
            read_plan(path.parent)


@pytest.mark.parametrize(
    "key",
    ["", "a.b", "../a", "/etc/passwd", "a/b", "a b", "a\n", "\n", "ä", "a" * 65, "a\0", None],
)
def test_keys_that_are_no_plain_names_are_refused(tmp_path: Path, key: str | None) -> None:
    with pytest.raises(UsageError, match="sample_key"):
        foreign_plan(tmp_path, [{**ROW, "sample_key": "good"}, {**ROW, "sample_key": key}])


def test_repeated_keys_are_refused(tmp_path: Path) -> None:
    # Two samples of one key would be one sample to every WebDataset reader.
    with pytest.raises(UsageError, match=r"sample_key|unique"):
        list(foreign_plan(tmp_path, [ROW, ROW]).shards())


@pytest.mark.parametrize("shard", [None, -1])
def test_shard_numbers_that_are_no_numbers_are_refused(tmp_path: Path, shard: int | None) -> None:
    with pytest.raises(UsageError, match="shard must be >= 0"):
        foreign_plan(tmp_path, [{**ROW, "shard": shard}])


def test_plan_without_rows_has_no_shards(tmp_path: Path) -> None:
    plan = foreign_plan(tmp_path, [])
    assert plan.num_samples == 0
    assert list(plan.shards()) == []


@pytest.fixture
def videos() -> dict[str, SourceVideo]:
    rejected = made_video(2, status="rejected", reason="truncated")
    return {video.video_id: video for video in (made_video(0), made_video(1), rejected)}


def test_the_good_row_behind_the_bad_ones_is_planned(videos: dict[str, SourceVideo]) -> None:
    sample = check_row(ROW, videos, "filmstrip")
    assert isinstance(sample, PlannedSample)
    assert sample.track.class_ids.tolist() == [0, 1]
    # The formula by hand, scenario 1: n1=4, n2=2, r=2 -> a = 1 1 1/2 0.
    np.testing.assert_allclose(sample.track.weights_CT[0], [1, 1, 0.5, 0], atol=1e-12)


def with_source(**changes: Any) -> dict[str, Any]:
    return {**ROW, "sources": [{**SOURCE, **changes}, PARTNER]}


def with_view(**changes: Any) -> dict[str, Any]:
    return with_source(view={**VIEW, **changes})


def with_tree(tree: Any) -> dict[str, Any]:
    return {**ROW, "tree": tree if isinstance(tree, str) else json.dumps(tree)}


AUGMENT = {
    "height": 32,
    "width": 32,
    "blur_sigma": 0.5,
    "brightness": 1.2,
    "contrast": 0.9,
    "saturation": 1.1,
    "hue": -0.05,
}


def with_augment(**changes: Any) -> dict[str, Any]:
    row = with_source(augment={**AUGMENT, **changes})
    return {**row, "kind": "clip", "tree": json.dumps({"op": "clip", "source": 0})}


DEEP = '{"op":"freeze","r":1,"m":2,"inputs":[' * 50_000 + '{"op":"clip"}' + "]}" * 50_000
BAD_ROWS: dict[str, dict[str, Any]] = {
    "no sources": {**ROW, "sources": None},
    "empty sources": {**ROW, "sources": []},
    "source null": {**ROW, "sources": [None, PARTNER]},
    "unknown video": with_source(video_id="v999"),
    "path as video": with_source(video_id="../../etc/passwd"),
    "null video": with_source(video_id=None),
    "rejected video": with_source(video_id="v002"),
    "start negative": with_source(start_frame=-1),
    "start null": with_source(start_frame=None),
    "start beyond": with_source(start_frame=58),
    "start huge": with_source(start_frame=2**62),
    "stride zero": with_source(frame_stride=0),
    "stride huge": with_source(frame_stride=2**31 - 1),
    "frames zero": with_source(num_frames=0),
    "frames huge": with_source(num_frames=2**31 - 1),
    "label negative": with_source(label_id=-5),
    "view null": with_source(view=None),
    "view empty": with_source(view={}),
    "view side zero": with_view(short_side=0),
    "view side null": with_view(short_side=None),
    "view side huge": with_view(short_side=2**31 - 1),
    "view side large": with_view(short_side=60_000),
    "view crop outside": with_view(x=40),
    "view crop huge": with_view(width=2**31 - 1),
    "view origin negative": with_view(y=-1),
    "tree null": {**ROW, "tree": None},
    "tree empty": with_tree(""),
    "tree not JSON": with_tree("{"),
    "tree number": with_tree("3"),
    "tree NaN": with_tree("NaN"),
    "tree deep": with_tree(DEEP),
    "tree deep list": with_tree("[" * 100_000),
    "tree delta infinite": with_tree({**TREE, "op": "cutmix_window", "delta": float("inf")}),
    "tree delta 1e999": with_tree(
        json.dumps({**TREE, "op": "cutmix_view"})[:-1] + ',"delta":1e999}'
    ),
    "tree n1 infinite": with_tree({**TREE, "n1": float("inf")}),
    "tree n2 huge": with_tree({**TREE, "n2": 10**13}),
    "tree n2 long": with_tree(json.dumps(TREE)[:-1] + ',"n2":' + "9" * 5000 + "}"),
    "tree source beyond": with_tree({"op": "clip", "source": 2}),
    "tree NaN that nothing reads": with_tree({**TREE, "note": float("nan")}),
    "tree infinity that nothing reads": with_tree(json.dumps(TREE)[:-1] + ',"note":1e999}'),
    "tree gamma beyond float": with_tree(
        {"op": "diff_speed", "tau": 2, "t": 2, "gamma": 10**400, "inputs": TREE["inputs"][:1]}
    ),
    "tree tau 10^9": with_tree({"op": "same_class", "tau": 10**9, "inputs": TREE["inputs"]}),
    "tree of 5,000": with_tree({"op": "concat", "inputs": TREE["inputs"][:1] * 5000}),
    "tree op long": with_tree({"op": "x" * 100_000, "inputs": []}),
    "annotate of another kind": with_tree(
        {"op": "annotate", "segments": [[0, 1, 2]], "inputs": TREE["inputs"][:1]}
    ),
    "augment NaN": with_augment(brightness=float("nan")),
    "augment infinite": with_augment(contrast=float("inf")),
    "augment hue NaN": with_augment(hue=float("nan")),
    "augment 10^6 pixels wide": with_augment(width=10**6),
    "augment height zero": with_augment(height=0),
    "augment blur wide": with_augment(blur_sigma=1e6),
    "augment null hue": with_augment(hue=None),
    "augment all null": with_augment(**dict.fromkeys(AUGMENT)),
    "augment empty": with_source(augment={}),
    "augment unknown": with_augment(rotation=3),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_hostile_row_is_rejected_with_a_reason(name: str, videos: dict[str, SourceVideo]) -> None:
    result = check_row(BAD_ROWS[name], videos, "filmstrip")
    assert isinstance(result, Rejected)
    assert len(result.reason.split()) >= 4
    assert len(result.reason) < 1000
    assert "\n" not in result.reason


def test_the_good_augment_behind_the_bad_ones_is_planned(videos: dict[str, SourceVideo]) -> None:
    sample = check_row(with_augment(), videos, "filmstrip")
    assert isinstance(sample, PlannedSample)
    assert sample.sources[0].augment == Augment(**AUGMENT)


def test_a_foreign_augment_that_lacks_a_number_is_rejected(
    tmp_path: Path, videos: dict[str, SourceVideo]
) -> None:
    lacking = {name: value for name, value in AUGMENT.items() if name != "hue"}
    row = with_augment()
    row["sources"] = [{**source, "augment": lacking} for source in row["sources"]]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "plan.parquet")
    ((_, rows),) = read_plan(tmp_path).shards()
    result = check_row(rows.to_pylist()[0], videos, "filmstrip")
    assert isinstance(result, Rejected)
    assert "augment must have all its numbers, but lacks ['hue']" in result.reason


def test_rows_that_the_codec_cannot_hold_are_rejected(videos: dict[str, SourceVideo]) -> None:
    row = {**ROW, "sources": [{**s, "view": {**VIEW, "height": 30}} for s in ROW["sources"]]}
    assert isinstance(check_row(row, videos, "filmstrip"), Rejected)
    assert isinstance(check_row(row, videos, "raw"), PlannedSample)

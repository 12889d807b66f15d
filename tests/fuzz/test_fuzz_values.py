"""Put values that nobody can mean into records, samples, plans, tables and stores."""

import io
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounds import GIB
from hostile import edited, numbers, scalars, texts, values
from hypothesis import given
from hypothesis import strategies as st
from made_plans import CLASSES, made_plan, made_video
from material import Target, read_whole_plan
from sandbox import COUNTS, attempt, fuzzed, replaced

from manifests import SourceVideo, UsageError, read_segments, read_sources
from manifests.tables import SEGMENTS_SCHEMA, SOURCES_SCHEMA
from synth.codecs import EXTENSIONS, encode_raw
from synth.plan_files import PLAN_SCHEMA, SOURCE_TYPE
from synth.planned import PlannedSample, check_row
from synth.recipe import KINDS
from synth.shards import TarWriter, parse_sample
from synth.tree import (
    LARGEST_SAMPLE,
    OPERATIONS,
    clips_of,
    describe_sample,
    evaluate_frames,
)
from train.loader import ShardSample

pytestmark = pytest.mark.slow

JSON_FILES = {  # share of the examples
    "done record": 0.5,
    "dataset.json": 0.5,
    "plan.json": 0.5,
    "model.json": 0.2,
    "attributes of a store": 0.5,
    "record of an array": 0.5,
}


def dumped(value: Any) -> bytes:
    """Write JSON as Python does: NaN, infinities and lone surrogates included."""
    return json.dumps(value).encode()


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.timeout(1800)
def test_records(name: str, targets: dict[str, Target]) -> None:
    target = targets[name]
    record = json.loads(target.path.read_bytes())

    @fuzzed(JSON_FILES[name])
    @given(edited(record))
    def change(made: Any) -> None:
        with replaced(target.path, dumped(made)):
            attempt(f"values of {name}", target.read)

    change()


# ---------------------------------------------------------------- samples

META = {
    "kind": "mixup",
    "num_frames": 2,
    "class_ids": [0, 3],
    "weights": [[0.5, 0.25], [0.5, 0.5]],
    "tree": {"op": "mixup", "n1": 1, "n2": 1, "r": 1, "inputs": [{"op": "clip", "source": 0}] * 2},
    "sources": [{"video_id": "v", "start_frame": 0}],
}
CLIP = encode_raw(np.zeros((2, 2, 2, 3), np.uint8))


def read_all_of(sample: ShardSample) -> None:
    """Read whatever a sample offers."""
    sample.check_classes(4)
    sample.frames()
    sample.track()


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    tar = TarWriter(file)
    for name, content in members:
        tar.add(name, content)
    return file.getvalue()


@fuzzed()
@given(edited(META))
@pytest.mark.timeout(1800)
def test_labels_of_samples(meta: Any) -> None:
    content = tar_of([("a.npy", CLIP), ("a.json", dumped(meta))])
    attempt("values of a sample", lambda: read_all_of(parse_sample(content, len(content))))


EXTENSIONS_OF_OTHERS = ("json", "npy", "jpg", "mp4", "pkl", "pyd", "query.npy", "key.npy", "x.npy")
keys = st.sampled_from(
    ["a"] * 9 + ["b", "/etc/a", "..", "../../a", "a/b", "C:a", "", "\0", "\ud800"]
)
names = st.tuples(keys, st.sampled_from(EXTENSIONS_OF_OTHERS)).map(".".join)
kinds = st.sampled_from([b"0"] * 4 + [b"\0", b"1", b"2", b"3", b"L", b"S", b"x", b"g"])
contents = st.sampled_from([CLIP, dumped(META), b"", b"\x80\x04cposix\nsystem\n", b"{}"])


strangers = st.lists(st.tuples(names, contents, kinds), max_size=1)


@fuzzed()
@given(strangers, keys, kinds, strangers)
@pytest.mark.timeout(1800)
def test_members_of_samples(
    before: list[tuple[str, bytes, bytes]],
    key: str,
    kind: bytes,
    after: list[tuple[str, bytes, bytes]],
) -> None:
    ours = [(f"{key}.npy", CLIP, kind), (f"{key}.json", dumped(META), b"0")]
    parts = []
    for name, content, kind_of in [*before, *ours, *after]:
        try:
            member = bytearray(tar_of([(name, content)]))
        except ValueError:
            return  # a lone surrogate is no name
        member[156:157] = kind_of  # a link, a device, a header of GNU's or pax
        member[148:156] = b" " * 8
        member[148:156] = b"%06o\0 " % sum(member[:512])
        parts.append(bytes(member))
    content = b"".join(parts)
    attempt("members of a sample", lambda: read_all_of(parse_sample(content, len(content))))


# ---------------------------------------------------------------- plans

VIDEOS = {video.video_id: video for video in map(made_video, range(4))}
DRAWN_VIDEOS = {video.video_id: video for video in map(made_video, range(12))}
whole = st.integers(-2, 70) | st.sampled_from([2**15, 2**24, 2**31 - 1, -(2**31)])
SOURCE_NUMBERS = st.sampled_from(["start_frame", "frame_stride", "num_frames", "label_id"])
VIEW_NUMBERS = st.sampled_from(["short_side", "x", "y", "width", "height"])
TREE_NUMBERS = ("r", "m", "n1", "n2", "delta", "tau", "eps", "t", "gamma", "s", "e", "beta")
few = st.integers(-1, 12) | st.floats(-1, 5) | numbers
nodes = st.recursive(
    st.fixed_dictionaries({"op": st.just("clip"), "source": st.integers(0, 2)}),
    lambda inner: st.fixed_dictionaries(
        {
            "op": st.sampled_from([*OPERATIONS, "pair"]),
            "inputs": st.lists(inner, min_size=1, max_size=3),
        },
        optional={
            **dict.fromkeys(TREE_NUMBERS, few),
            "boundary": st.sampled_from(["smooth", "hard"]) | scalars,
            "segments": st.lists(st.lists(few, max_size=3), max_size=3) | values,
        },
    ),
    max_leaves=5,
)
deep = st.integers(1, 3000).map(
    lambda depth: (
        '{"op":"freeze","r":1,"m":2,"inputs":[' * depth + '{"op":"clip","source":0}' + "]}" * depth
    )
)
trees = nodes.map(json.dumps) | values.map(json.dumps) | deep | texts
frames = st.integers(1, 16) | st.sampled_from([0, -1, 10**6, 2**31 - 1])
sides = st.sampled_from([16, 32, 48]) | st.sampled_from([0, -1, 17, 10**4, 2**31 - 1])
views = st.fixed_dictionaries(
    {
        "short_side": st.sampled_from([48]) | sides,
        "x": st.integers(0, 2),
        "y": st.integers(0, 2),
        "width": sides,
        "height": sides,
        "flip": st.booleans(),
    }
)
sources = st.fixed_dictionaries(
    {
        "video_id": st.sampled_from([*VIDEOS, "absent"]),
        "label_id": st.integers(0, 2) | st.sampled_from([None, -1, 2**31 - 1]),
        "start_frame": st.integers(0, 20) | st.sampled_from([-1, 2**62]),
        "frame_stride": st.integers(1, 3) | st.sampled_from([0, -1, 2**31 - 1]),
        "num_frames": frames,
        "view": views,
        "augment": st.none(),
    }
)
rows = st.fixed_dictionaries(
    {
        "sample_key": st.just("00000000"),
        "shard": st.just(0),
        "kind": st.sampled_from(["clip", "mixup", "annotated", "pal"]) | texts,
        "sources": st.lists(sources, max_size=3),
        "tree": trees,
    }
)


def check_planned(row: dict[str, Any], videos: dict[str, SourceVideo]) -> None:
    """Check a row; what passes is within the bound, and small ones can be made."""
    for codec in EXTENSIONS:
        sample = check_row(row, videos, codec)
        if isinstance(sample, PlannedSample):
            assert sample.num_bytes <= LARGEST_SAMPLE
            if sample.num_bytes < 2**20:
                clips = [np.zeros((s.num_frames, *s.size, 3), np.uint8) for s in sample.sources]
                for tree in clips_of(sample.tree).values():
                    made = evaluate_frames(tree, clips)
                    assert made.nbytes <= LARGEST_SAMPLE
                    assert len(made) == sample.track.num_frames
                describe_sample(sample.tree, [source.labelled_size for source in sample.sources])


@pytest.fixture(scope="module")
def drawn_rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return rows of a plan of every kind."""
    kinds = "{" + ", ".join(f"{kind} = 1" for kind in KINDS if kind != "annotated") + "}"
    plan = made_plan(tmp_path_factory.mktemp("kinds"), 12, kinds=kinds, frame_stride=1)
    return [row for _, table in plan.shards() for row in table.to_pylist()]


@fuzzed(2.0)
@given(st.data())
@pytest.mark.timeout(1800)
def test_rows_that_were_edited(drawn_rows: list[dict[str, Any]], drawn: st.DataObject) -> None:
    row = dict(drawn.draw(st.sampled_from(drawn_rows)))
    row["tree"] = json.dumps(drawn.draw(edited(json.loads(row["tree"]))))
    row["sources"] = [dict(source) for source in row["sources"]]
    if drawn.draw(st.booleans()):
        source = drawn.draw(st.sampled_from(row["sources"]))
        source |= {name: drawn.draw(whole) for name in drawn.draw(st.lists(SOURCE_NUMBERS))}
        source["view"] = source["view"] | drawn.draw(st.dictionaries(VIEW_NUMBERS, whole))
        if source["augment"]:
            numbers_of = st.dictionaries(st.sampled_from([*source["augment"]]), few)
            source["augment"] = source["augment"] | drawn.draw(numbers_of)
    attempt("edited rows of a plan", lambda: check_planned(row, DRAWN_VIDEOS))


@fuzzed(2.0)
@given(rows)
@pytest.mark.timeout(1800)
def test_rows_of_plans(row: dict[str, Any]) -> None:
    attempt("rows of a plan", lambda: check_planned(row, VIDEOS))


@fuzzed(0.3)
@given(st.lists(rows, min_size=1, max_size=4), st.data())
@pytest.mark.timeout(1800)
def test_tables_of_plans(
    targets: dict[str, Target], made: list[dict[str, Any]], drawn: st.DataObject
) -> None:
    path = targets["plan.parquet"].path
    for number, row in enumerate(made):
        row["sample_key"] = drawn.draw(st.just(f"{number}") | texts.filter(is_unicode))
        row["kind"] = row["kind"] if is_unicode(row["kind"]) else ""
        row["tree"] = row["tree"] if is_unicode(row["tree"]) else ""
        row["shard"] = drawn.draw(st.integers(-1, 2))
    content = drawn.draw(st.sampled_from(["as it is", "a column less", "other types"]))
    table = pa.Table.from_pylist(made, PLAN_SCHEMA)
    if content == "a column less":
        table = table.drop_columns(drawn.draw(st.sampled_from(table.column_names)))
    elif content == "other types":
        name = drawn.draw(st.sampled_from(table.column_names))
        table = with_column(table, name, drawn.draw(st.sampled_from(OTHER_COLUMNS)))
    with replaced(path, parquet(table)):
        attempt("tables of plans", lambda: read_whole_plan(path.parent))


# ---------------------------------------------------------------- tables

SOURCE_LIST = pa.list_(SOURCE_TYPE)
OTHER_COLUMNS = (
    *(pa.bool_(), pa.int8(), pa.uint64(), pa.float32(), pa.binary(), pa.binary(3), pa.date32()),
    *(pa.timestamp("ns"), pa.decimal128(38, 3), pa.list_(pa.int8()), pa.large_string()),
    *(pa.struct([("a", pa.string())]), pa.map_(pa.string(), pa.int8()), SOURCE_LIST, pa.null()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.list_(pa.string())), pa.time64("us")),
)


def is_unicode(text: str) -> bool:
    """Return whether a text can be UTF-8: it has no lone surrogates."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def with_column(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """Return the table with a column of another type: nulls, and one value where that is easy."""
    array = pa.nulls(len(table), kind)
    if pa.types.is_binary(kind):
        array = pa.array([b"\xff\xfe"] * len(table), kind)
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        array = pa.array([100] * len(table), pa.int8()).cast(kind)
    return table.set_column(table.column_names.index(name), name, array)


@st.composite
def tables(draw: st.DrawFn, schema: pa.Schema, row: dict[str, Any]) -> bytes:
    """Draw the bytes of a table: other values, types, columns and class lists."""
    made = []
    for number in range(draw(st.integers(0, 3))):
        one = row | {"video_id": f"v{number}"}
        for name in draw(st.lists(st.sampled_from(schema.names), max_size=3)):
            drawn = draw(texts.filter(is_unicode) | scalars)
            try:
                pa.array([drawn], schema.field(name).type)
            except (pa.ArrowException, OverflowError, UnicodeError, TypeError):
                continue
            one[name] = drawn
        made.append(one)
    table = pa.Table.from_pylist(made, schema)
    for name in draw(st.lists(st.sampled_from(schema.names), max_size=1)):
        if draw(st.booleans()):
            table = table.drop_columns(name)
        else:
            table = with_column(table, name, draw(st.sampled_from(OTHER_COLUMNS)))
    classes = draw(st.just(list(CLASSES)) | values)
    return parquet(table.replace_schema_metadata({"classes": dumped(classes)}))


SOURCE_ROW = {name: getattr(made_video(0), name) for name in SOURCES_SCHEMA.names}
SEGMENT_ROW = {"video_id": "v", "label": "dive", "label_id": 1, "start_seconds": 0.5}


def read_rows(path: Path) -> None:
    """Read a table of sources and every row of it."""
    table = read_sources(path)
    for video in table:
        assert isinstance(video, SourceVideo)
    table.select(table.column("video_id").tolist())


@fuzzed(0.6)
@given(tables(SOURCES_SCHEMA, SOURCE_ROW))
@pytest.mark.timeout(1800)
def test_tables_of_sources(targets: dict[str, Target], content: bytes) -> None:
    path = targets["sources.parquet"].path
    with replaced(path, content):
        attempt("tables of sources", lambda: read_rows(path), 2 * GIB)


@fuzzed(0.6)
@given(tables(SEGMENTS_SCHEMA, SEGMENT_ROW | {"end_seconds": 1.5, "subset": None}))
@pytest.mark.timeout(1800)
def test_tables_of_segments(targets: dict[str, Target], content: bytes) -> None:
    path = targets["segments.parquet"].path
    with replaced(path, content):
        attempt("tables of segments", lambda: read_segments(path).to_pylist(), 2 * GIB)


@fuzzed(0.6)
@given(st.lists(st.tuples(st.sampled_from(["seed", "frames", "crop", "kinds", "flip"]), values)))
@pytest.mark.timeout(1800)
def test_recipes(targets: dict[str, Target], pairs: list[tuple[str, Any]]) -> None:
    target = targets["recipe"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in pairs]
    with replaced(target.path, "\n".join(["[synth]", *lines]).encode()):
        attempt("values of a recipe", target.read)


def test_the_sandbox_sees_what_it_must(tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "written").write_bytes(b"x")

    def refuse() -> None:
        raise UsageError("a thing must be so, got another")

    def take() -> None:
        with mmap.mmap(-1, 2**26) as memory:  # fresh pages, whatever the process holds already
            memory[:: mmap.PAGESIZE] = bytes(2**26 // mmap.PAGESIZE)

    with pytest.raises(AssertionError, match="written"):
        attempt("nothing", write)
    with pytest.raises(AssertionError, match="MiB, 1 are allowed"):
        attempt("nothing", take, most_bytes=2**20)
    with pytest.raises(KeyError):
        attempt("nothing", lambda: {}["a"])
    attempt("nothing", refuse)
    del COUNTS["nothing"]

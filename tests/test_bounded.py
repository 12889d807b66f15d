"""JSON and Parquet that are written to harm: refused in one sentence, before they take memory."""

import io
import json
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounds import GIB, memory_bound
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import SeamlineError, UsageError, open_table, read_json, read_table
from manifests.bounded import LARGEST_JSON, read_batches
from manifests.parquet_pages import row_group_bytes

pytestmark = pytest.mark.slow

TEXTS = pa.schema([("text", pa.string()), ("texts", pa.list_(pa.string()))])


def parquet(table: pa.Table, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=False, compression="zstd", **options)
    file.seek(0)
    return file


words = st.text(st.characters(codec="utf-8"), max_size=5)
rows = st.lists(
    st.fixed_dictionaries(
        {"text": words | st.none(), "texts": st.lists(words | st.none()) | st.none()}
    )
)


@settings(deadline=None)
@given(rows, st.integers(1, 9), st.booleans())
def test_what_is_written_is_read(rows: list[dict], group: int, dictionary: bool) -> None:
    table = pa.Table.from_pylist(rows, TEXTS)
    file = parquet(table, row_group_size=group, use_dictionary=dictionary)
    assert read_table(open_table(file), TEXTS).to_pylist() == rows


def test_long_columns_of_many_texts_are_read() -> None:
    texts = [f"{number:0120d}" for number in range(40_000)]  # above what a dictionary page holds
    table = pa.table({"text": texts, "texts": [[text] for text in texts]}, TEXTS)
    assert read_table(open_table(parquet(table)), TEXTS).equals(table)
    parts = list(read_batches(open_table(parquet(table)), TEXTS))
    assert max(map(len, parts)) <= 16_384
    assert pa.concat_tables(parts).equals(table)


def repeated(text: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), [text])


BOMBS = {
    "one text a thousand times": lambda: pa.table({"text": repeated("x" * 10**6, 1000)}),
    "one text in lists": lambda: pa.table(
        {"texts": pa.ListArray.from_arrays([0, 1000], repeated("x" * 10**6, 1000))}
    ),
    "a billion nulls": lambda: pa.table({"text": pa.nulls(10**8, pa.string())}),
    "pages of zeros": lambda: pa.table({"text": pa.array(["\0" * 2**20] * 520)}),
}


@pytest.mark.parametrize(
    "name", [*list(BOMBS)[:-1], pytest.param(list(BOMBS)[-1], marks=pytest.mark.slow)]
)
def test_bombs_are_refused_and_take_little(name: str) -> None:
    table = BOMBS[name]()
    options = {"use_dictionary": "zeros" not in name, "write_statistics": False}
    file = parquet(table, row_group_size=len(table), **options)
    assert len(file.getbuffer()) < 300_000
    schema = pa.schema([TEXTS.field(table.column_names[0])])
    with memory_bound(GIB // 4), pytest.raises(ValueError, match="must take at most"):
        read_table(open_table(file), schema)


def test_a_footer_that_lies_about_its_pages_is_not_believed() -> None:
    table = pa.table({"text": pa.array(["\0" * 2**20] * 520)})
    options = {"use_dictionary": False, "write_statistics": False, "data_page_size": 2**30}
    file = parquet(table, row_group_size=len(table), **options)
    said = pq.ParquetFile(file).metadata.row_group(0).total_byte_size
    number, small = zigzag(said), b"\xe8\x87" + b"\x80" * (len(zigzag(said)) - 3) + b"\x00"
    content = file.getvalue()
    assert content.count(number) >= 2  # of the row group, and of its column
    lying = content.replace(number, small)
    assert pq.ParquetFile(io.BytesIO(lying)).metadata.row_group(0).total_byte_size == 500
    del table
    with memory_bound(GIB // 4), pytest.raises(ValueError, match="must take at most"):
        open_table(io.BytesIO(lying))


def zigzag(number: int) -> bytes:
    """Return a positive number as Thrift's compact protocol writes it."""
    number, made = number * 2, b""
    while number >= 128:
        number, made = number >> 7, made + bytes([number & 127 | 128])
    return made + bytes([number])


def test_a_list_of_a_billion_values_that_take_no_bytes_is_refused() -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**8, np.int32)), ["x"])
    file = parquet(pa.table({"texts": pa.ListArray.from_arrays([0, 10**8], texts)}))
    assert len(file.getbuffer()) < 100_000
    with memory_bound(GIB // 4), pytest.raises(ValueError, match="must take at most"):
        open_table(file)


@pytest.mark.parametrize("version", ["1.0", "2.6"])
@pytest.mark.parametrize("page", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip"])
def test_sizes_of_pages_are_those_that_arrow_says(version: str, page: str, codec: str) -> None:
    rng = np.random.default_rng(3)
    columns = {
        "number": rng.integers(0, 9, 5000),
        "text": [f"{number % 70:030d}" for number in range(5000)],
        "list": [[float(k) for k in range(number % 4)] for number in range(5000)],
        "truth": [None if number % 5 == 0 else number % 2 == 0 for number in range(5000)],
    }
    file = io.BytesIO()
    options = {"version": version, "data_page_version": page, "compression": codec}
    pq.write_table(pa.table(columns), file, row_group_size=2000, data_page_size=4000, **options)
    metadata = pq.ParquetFile(file).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for group, found in zip(groups, row_group_bytes(file), strict=True):
        chunks = [group.column(number) for number in range(group.num_columns)]
        values = sum(chunk.num_values for chunk in chunks)
        assert found >= 8 * values
        # Arrow counts the headers of the pages too, and this the values of dictionaries
        assert abs(found - 8 * values - group.total_byte_size) < 0.2 * group.total_byte_size + 2000


@pytest.mark.parametrize("flip", [1, 2, 16, 0xFF])
def test_every_byte_of_a_footer_may_be_wrong(flip: int) -> None:
    # pyarrow ends the process where Python looks at some of these footers
    table = pa.Table.from_pylist([{"text": "a", "texts": ["b", None]}] * 2, TEXTS)
    content = parquet(table).getvalue()
    for place in range(len(content) - int.from_bytes(content[-8:-4], "little") - 8, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= flip
        with suppress(ValueError):
            read_table(open_table(io.BytesIO(damaged)), TEXTS)


@given(st.data())
@settings(deadline=None)
def test_damaged_footers_are_a_value_error(drawn: st.DataObject) -> None:
    table = pa.table({"text": ["a", "b"], "texts": [["c"], []]}, TEXTS)
    content = bytearray(parquet(table).getvalue())
    for _ in range(drawn.draw(st.integers(1, 4))):
        place = drawn.draw(st.integers(1, len(content) - 1))
        content[-place] = drawn.draw(st.integers(0, 255))
    with suppress(ValueError):
        read_table(open_table(io.BytesIO(content)), TEXTS)


@pytest.mark.parametrize("nested", [b"\x19" * 5000, b"\x1c" * 5000, b"\x1b\x01\x99" * 5000])
def test_a_footer_nested_too_deep_is_refused(nested: bytes) -> None:
    content = b"PAR1" + nested + len(nested).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(ValueError, match="nested too deep"):
        open_table(io.BytesIO(content))


def test_groups_that_are_small_add_up() -> None:
    table = pa.table({"text": pa.nulls(4 * 10**6, pa.string())})
    file = parquet(table, row_group_size=2**15)
    with memory_bound(2 * GIB):
        assert len(read_table(open_table(file), pa.schema([TEXTS.field("text")]))) == len(table)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([b"\xff\xfe"]), "column 'text' must be string"),
        (pa.array([[1]]), "column 'text' must be string, got list"),
        (pa.array([{"a": 1}]), "column 'text' must be string, got struct"),
    ],
)
def test_columns_of_another_type_are_refused(column: pa.Array, words: str) -> None:
    file = parquet(pa.table({"text": column}))
    with pytest.raises(ValueError, match=words):
        read_table(open_table(file), pa.schema([TEXTS.field("text")]))


def test_json_is_read_within_its_bound() -> None:
    assert read_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert read_json("3") == 3
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b" " * LARGEST_JSON + b"1"):
        with pytest.raises(ValueError, match=r"\w"):
            read_json(content)


@pytest.mark.parametrize("item", ["[]", '{"":0}', '"ab"'])
def test_json_takes_thirty_times_its_bytes_at_most(item: str) -> None:
    content = f"[{','.join([item] * 200_000)}]"
    with memory_bound(30 * len(content)):
        assert len(read_json(content)) == 200_000


@given(st.text())
def test_every_error_is_one_printable_line(text: str) -> None:
    said = str(UsageError(f"a key must be known, got {text}"))
    assert said.isprintable()
    assert len(said) <= 10_000
    assert str(SeamlineError("plain words, 3 of them: 'ä'")) == "plain words, 3 of them: 'ä'"


def test_an_error_does_not_quote_megabytes() -> None:
    said = str(UsageError("a name must be short, got " + "x" * 10**6 + " (sources.parquet)"))
    assert len(said) < 1000
    assert said.startswith("a name must be short, got xx")
    assert said.endswith("xx (sources.parquet)")
    assert json.dumps(said)

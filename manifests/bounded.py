"""Read JSON and Parquet that anybody may have written, within a bound on what they take.

A few hundred bytes of Parquet can stand for gigabytes: a page of zeros, or one long text a billion
times. So the sizes of the pages are added up before one is unpacked, texts are read as
dictionaries, in which a text stands once, and what they take is counted before they are spelt out.
"""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .parquet_pages import row_group_bytes

LARGEST_JSON = 2**25  # bytes; Python's objects take up to 30 times as much
LARGEST_TABLE = 2**30  # bytes of a whole table
LARGEST_GROUP = 2**29  # bytes of a row group, also of a table that is read in a stream
BATCH_ROWS = 16_384


def read_json(content: bytes | str) -> Any:
    """Parse JSON; ValueError if it is none, is nested too deep or above `LARGEST_JSON`."""
    if len(content) > LARGEST_JSON:
        raise ValueError(f"JSON must be at most {LARGEST_JSON} bytes, got {len(content)}")
    try:
        return json.loads(content)
    except RecursionError as err:
        raise ValueError("JSON is nested too deep") from err


def open_table(source: BinaryIO | pa.NativeFile) -> pq.ParquetFile:
    """Open a Parquet file so that its texts are read as dictionaries.

    Raises:
        ValueError: It is no Parquet file, or a row group takes more than `LARGEST_GROUP` bytes.
    """
    try:
        for size in row_group_bytes(source):
            if size > LARGEST_GROUP:
                raise ValueError(f"a row group must take at most {LARGEST_GROUP} bytes, not {size}")
        source.seek(0)
        plain = pq.ParquetFile(source)
        columns = [plain.schema.column(i) for i in range(len(plain.schema))]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        return pq.ParquetFile(source, metadata=plain.metadata, read_dictionary=texts)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise ValueError(f"not a Parquet table: {err}") from err


def read_table(file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """Read the columns of `schema` from a file of `open_table`, and give them its types.

    Raises:
        ValueError: A column is missing or of another type, a text is no UTF-8, the file is damaged,
            or takes more than `LARGEST_TABLE` bytes.
    """
    size, tables = 0, [conform(file.schema_arrow.empty_table(), schema)]
    for table in read_batches(file, schema):
        tables.append(table)
        size += table.nbytes
        if size > LARGEST_TABLE:
            raise ValueError(f"a table must take at most {LARGEST_TABLE} bytes")
    metadata = file.schema_arrow.metadata
    return pa.concat_tables(tables).combine_chunks().replace_schema_metadata(metadata)


def read_batches(file: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.Table]:
    """Read as `read_table`, in a stream, at most `BATCH_ROWS` rows at a time.

    Raises:
        ValueError: As `read_table`; the bound, `LARGEST_GROUP`, is that of a row group.
    """
    for group in range(file.num_row_groups):
        batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=schema.names)
        while (batch := _next(batches)) is not None:
            yield conform(pa.Table.from_batches([batch]), schema)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` in its types, texts in place of dictionaries of them.

    Raises:
        ValueError: As `read_batches`.
    """
    size = sum(_spelt_bytes(chunk) for column in table.columns for chunk in column.chunks)
    if size > LARGEST_GROUP:
        raise ValueError(f"texts must take at most {LARGEST_GROUP} bytes, not {size}")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            raise ValueError(f"column {field.name!r} is missing")
        column = table.column(field.name)
        try:
            columns.append(column.cast(field.type))
            columns[-1].validate(full=True)
        except pa.ArrowException as err:
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            types = f"{field.type}, got {kind}"
            if pa.types.is_nested(field.type):  # their names would fill a page
                types = "as the format says"
            raise ValueError(f"column {field.name!r} must be {types}: {err}") from err
    return pa.Table.from_arrays(columns, schema=schema.remove_metadata())


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as err:
        raise ValueError(f"not a Parquet table: {err}") from err


def _spelt_bytes(array: pa.Array) -> int:
    """Return what the texts of an array take at most, each written out where it stands."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return len(array) * (pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(_spelt_bytes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _spelt_bytes(array.values)
    return 0

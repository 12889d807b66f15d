"""Say how many bytes a Parquet file asks for, from its footer and the headers of its pages.

Nothing is unpacked. pyarrow's own view of a damaged footer ends the process, and a footer may say
less than its pages. Source: parquet-format, `parquet.thrift`; the compact protocol of Thrift.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

MAGIC = b"PAR1"
BYTES_PER_VALUE = 8  # what a value takes at most, beside a text's characters
HEADER_BYTES, LONGEST_HEADER = 2**12, 2**24
DEEPEST = 16  # structures and lists in one another
# Types of the compact protocol.
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
INTEGERS = (4, 5, 6)
# Fields by their numbers in parquet.thrift.
ROW_GROUPS, COLUMNS, NUM_ROWS, COLUMN_META = 4, 1, 3, 3
COMPRESSED_BYTES, DATA_OFFSET, DICTIONARY_OFFSET = 7, 9, 11
PAGE_BYTES, PAGE_COMPRESSED, PAGE_KINDS, PAGE_VALUES = 2, 3, (5, 7, 8), 1

Fields = Mapping[int, Any]


def row_group_bytes(file: BinaryIO) -> Iterator[int]:
    """Yield what the values of each row group take when its pages are unpacked.

    A text counts once for each time that it is stored, in a page of texts or a dictionary.

    Raises:
        ValueError: It is no Parquet file, or a page lies outside of it.
    """
    try:
        for group in _footer(file)[ROW_GROUPS]:
            columns = group[COLUMNS] if group[NUM_ROWS] else []  # no rows: no page is read
            yield sum(_chunk_bytes(file, column[COLUMN_META]) for column in columns)
    except (AttributeError, LookupError, TypeError) as err:
        raise ValueError(f"its footer or a page header has other fields: {err}") from err


def _footer(file: BinaryIO) -> Fields:
    num_bytes = file.seek(0, 2)
    file.seek(max(num_bytes - 8, 0))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length > num_bytes - 12:
        raise ValueError("it does not end as a Parquet file")
    file.seek(num_bytes - 8 - length)
    return _Thrift(file.read(length)).structure()


def _chunk_bytes(file: BinaryIO, column: Fields) -> int:
    """Walk the pages of a column in a row group."""
    start, dictionary = column[DATA_OFFSET], column.get(DICTIONARY_OFFSET, 0)
    if 0 < dictionary < start:
        start = dictionary
    end, size = start + column[COMPRESSED_BYTES], 0
    if not 0 <= start <= end:
        raise ValueError(f"a column lies from byte {start} to {end}")
    while start < end:
        page, length = _page_header(file, start)
        values = sum(page[kind][PAGE_VALUES] for kind in PAGE_KINDS if kind in page)
        if min(page[PAGE_BYTES], page[PAGE_COMPRESSED], values) < 0:
            raise ValueError(f"the page at byte {start} has negative sizes")
        size += page[PAGE_BYTES] + values * BYTES_PER_VALUE
        start += length + page[PAGE_COMPRESSED]
    return size


def _page_header(file: BinaryIO, start: int) -> tuple[Fields, int]:
    """Return the header of the page at byte `start`, and its length."""
    for most in (HEADER_BYTES, LONGEST_HEADER):
        file.seek(start)
        content = file.read(most)
        thrift = _Thrift(content)
        try:
            return thrift.structure(), thrift.position
        except IndexError:
            if len(content) < most:
                break
    raise ValueError(f"the header of the page at byte {start} is cut short")


class _Thrift:
    """Read values of the compact protocol; IndexError where the bytes end too soon."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def structure(self, depth: int = 0) -> Fields:
        """Return the fields of a structure by their numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step = head >> 4
            number = number + step if step else self._zigzag()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError("its structures are nested too deep")
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if kind in INTEGERS:
            return self._zigzag()
        if kind == DOUBLE:
            return self._take(8)
        if kind == BINARY:
            return self._take(self._varint())
        if kind in (LIST, SET):
            return self._list(depth)
        if kind == MAP:
            return self._map(depth)
        if kind == STRUCT:
            return self.structure(depth + 1)
        raise ValueError(f"it has a value of the unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        if size == 15:
            size = self._varint()
        if kind in (TRUE, FALSE):  # in lists they have a byte of their own
            kind = BYTE
        return [self._value(kind, depth + 1) for _ in range(self._fitting(size))]

    def _map(self, depth: int) -> None:
        size = self._fitting(self._varint())
        kinds = self._byte() if size else 0
        for _ in range(size):  # none of the maps matters here
            for kind in (kinds >> 4, kinds & 15):
                self._value(BYTE if kind in (TRUE, FALSE) else kind, depth + 1)

    def _fitting(self, size: int) -> int:
        """Return a number of values, each of a byte at least, if so many bytes are left."""
        if size > len(self._content) - self.position:
            raise IndexError(f"{size} values end beyond the bytes")
        return size

    def _byte(self) -> int:
        self.position += 1
        return self._content[self.position - 1]

    def _take(self, length: int) -> bytes:
        start = self.position
        self.position += self._fitting(length)
        return self._content[start : self.position]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > 63:
                raise ValueError("it has a number of more than 64 bits")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

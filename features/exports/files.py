"""Write the containers that tools read, the same bytes every time, and read each one back."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from manifests import StoreError, write_atomic

ROWS_PER_CHUNK = 64


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_atomic(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, without NaN."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header; floats in the shortest digits that give them back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_npy(path: Path, rows: np.ndarray) -> None:
    """Write one array as NPY; raises StoreError if it reads back otherwise."""
    with open(path, "wb") as file:
        np.save(file, rows, allow_pickle=False)
    check_same(path.name, rows, np.load(path, mmap_mode="r", allow_pickle=False))


def write_feature_csv(path: Path, bins_BD: np.ndarray) -> None:
    """Write rows as text below a header `f0,f1,...`: digits enough to give float32 back.

    Raises:
        StoreError: It reads back otherwise.
    """
    names = [f"f{column}" for column in range(bins_BD.shape[1])]
    table = pa.table([pa.array(column) for column in bins_BD.astype(np.float32).T], names=names)
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    with open(path, "wb") as file:
        file.write((",".join(names) + "\n").encode())
        pa_csv.write_csv(table, file, options)
    read = pa_csv.read_csv(
        path, convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32()))
    )
    check_same(path.name, bins_BD, np.column_stack([c.to_numpy() for c in read.columns]))


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file whose bytes depend on its content alone."""
    with h5py.File(path, "x", libver=("earliest", "v110")) as file:
        yield file


def write_dataset(file: h5py.File, key: str, rows: np.ndarray) -> None:
    """Write one dataset at the root; raises StoreError if it reads back otherwise."""
    dataset = file.create_dataset(key, data=rows, track_times=False)
    check_same(f"{Path(file.filename).name}:/{key}", rows, dataset)


def write_repeated(file: h5py.File, key: str, rows_SD: np.ndarray, row_N: np.ndarray) -> None:
    """Write `rows_SD[row_N]` as a dataset, a part at a time; raises StoreError as `write_dataset`.

    Compressed: what repeats costs next to nothing, and every HDF5 library reads gzip.
    """
    shape = (len(row_N), rows_SD.shape[1])
    dataset = file.create_dataset(
        key,
        shape,
        rows_SD.dtype,
        chunks=(min(ROWS_PER_CHUNK, shape[0]), shape[1]),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        track_times=False,
    )
    for first in range(0, len(row_N), ROWS_PER_CHUNK):
        part_ND = rows_SD[row_N[first : first + ROWS_PER_CHUNK]]
        dataset[first : first + len(part_ND)] = part_ND
        check_same(
            f"{Path(file.filename).name}:/{key}", part_ND, dataset[first : first + len(part_ND)]
        )


def check_same(name: str, written: np.ndarray, read: np.ndarray | h5py.Dataset) -> None:
    """Raise StoreError unless what was read has the shape, type and values of what was written."""
    if (read.shape, read.dtype) != (written.shape, written.dtype) or not np.array_equal(
        read[...], written
    ):
        raise StoreError(f"{name} does not read back as it was written")


def num_csv_rows(path: Path) -> int:
    """Return the rows below the header of a CSV file of numbers."""
    with open(path, "rb") as file:
        return sum(1 for _ in file) - 1


def read_columns(path: Path, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the values of some columns of a CSV file, row by row."""
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield tuple(row[name] for name in names)

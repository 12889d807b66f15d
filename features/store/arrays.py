"""Open the two arrays of a store, whoever wrote it: what they say of themselves is checked first.

Zarr would look up any codec that a file names and make room for any shape.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from manifests import StoreError, read_json

from .layout import CHUNK_ROWS
from .rows import StoredArray

MOST_ROWS = 2**40
MOST_SHARD_ROWS = 2**28  # the index of a shard has 16 bytes for every 64 rows
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CODECS = [BYTES, {"name": "crc32c"}]


def writable_arrays(path: Path, feature_dim: int) -> tuple[zarr.Array, zarr.Array]:
    """Return the arrays `features` and `times` of a store, for a writer; raises as below."""
    stored_arrays(path, feature_dim)
    # a group would rather believe a copy of the arrays' records, were one put into its own
    features, times = (
        zarr.open_array(path / name, mode="r+", zarr_format=3) for name in ("features", "times")
    )
    return features, times


def stored_arrays(path: Path, feature_dim: int) -> tuple[StoredArray, StoredArray]:
    """Return the arrays `features` and `times` of a store, for reading.

    Raises:
        StoreError: One is missing, or is not as `StoreWriter` makes it.
    """
    arrays = []
    for name, columns, dtype in (("features", feature_dim, "float16"), ("times", 3, "float64")):
        folder = path / name
        try:
            record = read_json((folder / "zarr.json").read_bytes())
            _check_record(record, columns, dtype)
            shard_rows, _ = _chunks(record["chunk_grid"])
            little = np.dtype(dtype).newbyteorder("<")
            arrays.append(StoredArray(folder, record["shape"][0], columns, little, shard_rows))
        except FileNotFoundError as err:
            raise StoreError(
                f"the store {str(path)!r} lacks its arrays 'features' and 'times'"
            ) from err
        except (OSError, ValueError, LookupError, TypeError) as err:
            raise StoreError(
                f"the array {name!r} of the store {str(path)!r} is not as stores have it: {err}"
            ) from err
    return arrays[0], arrays[1]


def _check_record(record: Mapping[str, Any], columns: int, dtype: str) -> None:
    """Raise ValueError, KeyError or TypeError unless an array is one that `StoreWriter` makes."""
    (num_rows, width), (shard_rows, _) = record["shape"], _chunks(record["chunk_grid"])
    for name, found, most in (
        ("shape", num_rows, MOST_ROWS),
        ("shards", shard_rows, MOST_SHARD_ROWS),
    ):
        if type(found) is not int or not 0 < found <= most or found % CHUNK_ROWS:
            raise ValueError(f"{name} must have rows in whole chunks, at most {most}, got {found}")
    if width != columns:
        raise ValueError(f"it must have {columns} columns, got {width}")
    sharding = {
        "chunk_shape": [CHUNK_ROWS, columns],
        "codecs": CODECS,
        "index_codecs": CODECS,
        "index_location": "end",
    }
    wanted = {
        "node_type": "array",
        "zarr_format": 3,
        "data_type": dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [shard_rows, columns]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    for name, value in wanted.items():
        if record[name] != value:
            raise ValueError(f"its {name} must be {value}")
    if record.get("storage_transformers"):
        raise ValueError("it must have no storage_transformers")


def _chunks(grid: Mapping[str, Any]) -> list[Any]:
    return grid["configuration"]["chunk_shape"]

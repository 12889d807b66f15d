"""List an export as a tree with the shapes that its files hold."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

SHOWN = 2  # of files or datasets of one kind in one folder


def export_tree(out: Path | str) -> list[str]:
    """Return a line per file, with shapes of arrays and sizes of tables, alike ones counted.

    # "features/a.npy  float32 (41, 256)", "features/...  22 more .npy"
    """
    out = Path(out)
    lines = []
    folders = [out, *sorted(path for path in out.rglob("*") if path.is_dir())]
    for folder in folders:
        files = sorted(
            (path for path in folder.iterdir() if path.is_file()),
            key=lambda path: (path.suffix, path.name),
        )
        for suffix, alike in groupby(files, key=lambda path: path.suffix):
            paths = list(alike)
            several = len(paths) > 2 * SHOWN
            for path in paths[: SHOWN if several else None]:
                lines.append(path.relative_to(out).as_posix())
                lines[-1] += f"  {_content(path)}" if _content(path) else ""
                if suffix in (".h5", ".hdf5"):
                    lines += [f"  {line}" for line in _datasets(path)]
            if several:
                place = (folder.relative_to(out) / "...").as_posix()
                lines.append(f"{place}  {len(paths) - SHOWN:,} more {suffix}")
    return lines


def _content(path: Path) -> str:
    if path.suffix == ".npy":
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        return f"{rows.dtype} {rows.shape}"
    if path.suffix == ".csv":
        with open(path, encoding="utf-8") as file:
            columns = file.readline().count(",") + 1
            return f"header and {sum(1 for _ in file):,} rows of {columns:,}"
    return ""


def _datasets(path: Path) -> Iterator[str]:
    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        for name in names[:SHOWN]:
            yield f"/{name}  {file[name].dtype} {file[name].shape}"
        if len(names) > SHOWN:
            yield f"/...  {len(names) - SHOWN:,} more"

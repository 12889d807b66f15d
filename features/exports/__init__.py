"""Files that other tools read, written from a feature store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manifests import UsageError

from ..annotations import Annotations
from ..store.feature_store import FeatureStore
from .actionformer import export_actionformer
from .frame_labels import export_frame_labels
from .grounding import export_2d_tan, export_lgi
from .gtad_thumos import export_gtad_thumos
from .hundred_bins import export_hundred_bins
from .npy import export_npy
from .opentad import export_opentad
from .report import ExportReport, file_name
from .request import ExportRequest
from .rescale import bsn_bins, mmaction2_bins, resize_linear
from .tree import export_tree


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is written, and what it takes.

    Attributes:
        export: Writes it.
        options: The options of `export_store` that mean something to it.
        needs_annotations: It cannot be written without them.
        rgb_first: It reads all channels as one row, of two streams rgb before flow.
    """

    export: Callable[[ExportRequest], ExportReport]
    options: tuple[str, ...] = ()
    needs_annotations: bool = False
    rgb_first: bool = False


FORMATS: dict[str, Format] = {
    "npy": Format(export_npy),
    "actionformer": Format(export_actionformer, ("prefix", "resize"), rgb_first=True),
    "opentad": Format(export_opentad, ("prefix", "resize"), rgb_first=True),
    "gtad-thumos": Format(export_gtad_thumos, needs_annotations=True),
    "gtad-anet": Format(export_hundred_bins, ("rule", "prefix"), rgb_first=True),
    "bmn": Format(export_hundred_bins, ("rule", "prefix"), rgb_first=True),
    "mmaction2": Format(export_hundred_bins, ("rule", "prefix"), rgb_first=True),
    "tgm": Format(export_frame_labels),
    "super-events": Format(export_frame_labels),
    "pdan": Format(export_frame_labels),
    "ms-tct": Format(export_frame_labels),
    "lgi": Format(export_lgi),
    "2d-tan": Format(export_2d_tan),
}


def export_store(
    store: FeatureStore,
    out: Path | str,
    format: str = "npy",
    annotations: Annotations | None = None,
    *,
    rule: str | None = None,
    prefix: str | None = None,
    resize: int | None = None,
) -> ExportReport:
    """Write the store in another tool's format, and read it back as that tool would.

    Args:
        store: What to write.
        out: Folder; made if it does not exist, refused if it holds anything.
        format: A key of `FORMATS`.
        annotations: Segments for the annotation file that the tool wants; None: no such file.
        rule: How rows are averaged into 100 bins: "jjboy" or "mmaction2"; None: the tool's own.
        prefix: What stands before every video id; None: the tool's habit ("v_" or nothing).
        resize: Resize every video to so many rows; None: leave them.

    Raises:
        UsageError: An unknown format, an option it does not take, a store that the tool cannot
            hold, or a folder in use.
        StoreError: Rows are damaged, or a file reads back otherwise.
    """
    if format not in FORMATS:
        raise UsageError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    chosen = FORMATS[format]
    given = {"rule": rule, "prefix": prefix, "resize": resize}
    odd = [name for name, value in given.items() if value is not None]
    odd = [name for name in odd if name not in chosen.options]
    if odd:
        takers = [name for name, other in FORMATS.items() if odd[0] in other.options]
        raise UsageError(f"--{odd[0]} is an option of {', '.join(takers)}, not of {format}")
    if chosen.needs_annotations and annotations is None:
        raise UsageError(f"format {format} must be given the annotated segments (--segments)")
    if resize is not None and resize < 1:
        raise UsageError(f"--resize must be at least 1 row, got {resize}")
    if prefix is not None and file_name(prefix + "x") != prefix + "x":
        raise UsageError(f"--prefix must be letters, digits, '_', '-' or '~', got {prefix!r}")
    if chosen.rgb_first:
        store = _rgb_first(store)
    return chosen.export(ExportRequest(format, store, Path(out), annotations, rule, prefix, resize))


def _rgb_first(store: FeatureStore) -> FeatureStore:
    """Return the store with its stream rgb before its stream flow, if it has both."""
    names = list(store.channel_ranges)
    if {"rgb", "flow"} <= set(names) and names.index("flow") < names.index("rgb"):
        swapped = {"rgb": "flow", "flow": "rgb"}
        return store.select([swapped.get(name, name) for name in names])
    return store


__all__ = [
    "FORMATS",
    "ExportReport",
    "Format",
    "bsn_bins",
    "export_store",
    "export_tree",
    "file_name",
    "mmaction2_bins",
    "resize_linear",
]

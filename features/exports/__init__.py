"""Files that other tools read, written from a feature store."""

from collections.abc import Callable
from pathlib import Path

from manifests import UsageError

from ..store import FeatureStore
from .npy import export_npy
from .report import ExportReport, claim_folder, file_name

FORMATS: dict[str, Callable[[FeatureStore, Path], ExportReport]] = {"npy": export_npy}


def export_store(store: FeatureStore, out: Path | str, format: str = "npy") -> ExportReport:
    """Write the store in another tool's format.

    Args:
        store: What to write.
        out: Folder; made if it does not exist, refused if it holds anything.
        format: A key of `FORMATS`.

    Raises:
        UsageError: An unknown format, or a folder in use.
    """
    if format not in FORMATS:
        raise UsageError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    claim_folder(Path(out))
    return FORMATS[format](store, Path(out))


__all__ = ["FORMATS", "ExportReport", "export_npy", "export_store", "file_name"]

"""`metrics.jsonl`: one JSON object per line, cut back to a checkpoint when a run is resumed."""

import json
import os
from pathlib import Path
from typing import Any

from manifests import CheckpointError


class MetricsFile:
    """The metrics of a run.

    Args:
        run: The run's folder.
        writes: Whether this worker writes; the others count nothing.

    Attributes:
        num_bytes: Length of the file: with a checkpoint it says which lines belong to it.
    """

    def __init__(self, run: Path, writes: bool) -> None:
        self._path, self._writes = run / "metrics.jsonl", writes
        self.num_bytes = 0

    def begin(self) -> None:
        """Start an empty file."""
        if self._writes:
            self._path.write_bytes(b"")

    def resume(self, num_bytes: int) -> None:
        """Drop the lines that were written after a checkpoint.

        Raises:
            CheckpointError: The file is shorter than when the checkpoint was written.
        """
        self.num_bytes = num_bytes
        if self._writes:
            if not self._path.exists() or self._path.stat().st_size < num_bytes:
                raise CheckpointError(f"{str(self._path)!r} is shorter than when the run was saved")
            os.truncate(self._path, num_bytes)

    def write(self, **line: Any) -> None:
        """Append a line and make sure that it is on the disk."""
        if not self._writes:
            return
        with open(self._path, "ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self.num_bytes = file.tell()

"""Find the frames of parts of files that a table made elsewhere gives in seconds alone."""

import pyarrow as pa
import pyarrow.compute as pc

from .errors import VideoError
from .packets import scan_packets
from .places import resolve_path
from .probe import frames_between
from .progress import Progress


def find_parts(table: pa.Table, folder: str) -> pa.Table:
    """Scan the packets of every ok row with a start or an end, and fill in its frames.

    A file that cannot be read, or presents no frame in its part, becomes a rejected row.

    Args:
        table: A sources table whose `first_frame` and `end_frame` stand for whole files.
        folder: What relative paths are relative to.
    """
    has_part = pc.or_(pc.is_valid(table["start_seconds"]), pc.is_valid(table["end_seconds"]))
    wanted = pc.and_(has_part, pc.equal(table["status"], "ok")).to_pylist()
    if not any(wanted):
        return table
    names = ("path", "start_seconds", "end_seconds", "status", "reason", "first_frame", "end_frame")
    columns = {name: table[name].to_pylist() for name in names}
    with Progress("find parts", "videos", sum(wanted)) as progress:
        for row in (row for row, is_wanted in enumerate(wanted) if is_wanted):
            try:
                scan = scan_packets(resolve_path(columns["path"][row], folder))
                columns["first_frame"][row], columns["end_frame"][row] = frames_between(
                    scan, columns["start_seconds"][row], columns["end_seconds"][row]
                )
            except VideoError as err:
                columns["status"][row], columns["reason"][row] = "rejected", err.reason
            progress.advance()
    for name in ("status", "reason", "first_frame", "end_frame"):
        position = table.column_names.index(name)
        field = table.schema.field(name)
        table = table.set_column(position, field, pa.array(columns[name], field.type))
    return table

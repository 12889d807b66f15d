"""End a worker whose decoder hangs, and know afterwards which video it was.

No Python code can stop a decoder that loops in C and holds the interpreter's lock. The timer of
`faulthandler` is a thread of its own that does not need the lock: it writes to a file and ends the
process.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

EXPIRED = "Timeout ("  # what faulthandler writes first


def unwatched(video_id: str) -> AbstractContextManager[None]:
    """Let a block take as long as it takes."""
    return nullcontext()


@contextmanager
def watched(video_id: str, record: Path, seconds: float) -> Iterator[None]:
    """End this process if the block takes longer than `seconds`; `record` then says so.

    Args:
        video_id: What is being decoded.
        record: File that stands while the block runs, and stays if the process ends in it.
        seconds: How long the block may take.
    """
    with open(record, "w", encoding="utf-8") as file:
        file.write(f"{video_id}\n")
        file.flush()
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    record.unlink(missing_ok=True)


def expired_video(record: Path) -> str | None:
    """Return the video that a process was ended for, and remove the record.

    None: it was not ended by `watched`.
    """
    try:
        video_id, _, rest = record.read_text(encoding="utf-8", errors="replace").partition("\n")
    except FileNotFoundError:
        return None
    record.unlink(missing_ok=True)
    return video_id if rest.startswith(EXPIRED) else None

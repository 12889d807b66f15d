"""What all exports share: their report, their folder, and safe file names."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from manifests import UsageError

MAX_NAME_BYTES = 200  # file systems allow 255; an ending is still to come


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        format: Its name.
        out: The folder.
        num_videos: Videos in it.
        num_rows: Rows of all videos.
        num_bytes: Bytes of all files.
        notes: Sentences for people: how exact the tool's times are, what was left out.
    """

    format: str
    out: Path
    num_videos: int
    num_rows: int
    num_bytes: int
    notes: tuple[str, ...] = ()


def claim_folder(out: Path) -> None:
    """Make the folder of an export; raises UsageError if it is a file or holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        is_cut = out.is_dir() and not (out / "store.json").exists()
        hint = "; without store.json it may be an interrupted export: delete it" if is_cut else ""
        raise UsageError(f"the export folder must be new or empty, got {str(out)!r}{hint}")
    out.mkdir(parents=True, exist_ok=True)


def folder_bytes(out: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def file_name(video_id: str) -> str:
    """Return a file name, without ending, that stands for `video_id` and cannot leave its folder.

    Characters other than letters, digits and `_.-~ ` become `%XX` of their UTF-8 bytes, and so does
    a leading dot: different ids get different names, `urllib.parse.unquote` gives the id back, and
    ids that are plain file names already stay as they are.

    # "kitchen/cam 1" -> "kitchen%2Fcam 1", ".." -> "%2E."

    Raises:
        UsageError: The id is empty or its name would be too long for a file.
    """
    name = quote(video_id, safe=" ")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if not name or len(name) > MAX_NAME_BYTES:
        raise UsageError(
            f"a video id must give a file name of 1 to {MAX_NAME_BYTES} characters to be exported, "
            f"got {len(name)} ({video_id[:60]!r})"
        )
    return name

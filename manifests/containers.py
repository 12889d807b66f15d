"""Say how many bytes a container file declares, from its outermost structure alone.

A file that holds fewer was cut short, whatever its decoder says: demuxers stop at the end of a
truncated Matroska file without an error.
"""

from typing import BinaryIO

ISO_BOXES = frozenset(
    b"ftyp styp moov moof mdat mfra sidx free skip wide uuid meta udta pdin emsg".split()
)
EBML_HEADER, EBML_SEGMENT = 0x1A45DFA3, 0x18538067
HEAD_BYTES = 12


def declared_bytes(file: BinaryIO) -> int | None:
    """Return where the outermost structure of a video file ends, by its own account.

    Args:
        file: The whole file, seekable. MP4/QuickTime, Matroska/WebM and AVI are understood.

    Returns:
        Bytes that the file should have at least, or None where the format or this file does not
        say (a stream written without going back to fill in its sizes).
    """
    file.seek(0)
    kind = container_of(file.read(HEAD_BYTES))
    return _ENDS[kind](file) if kind else None


def container_of(head: bytes) -> str | None:
    """Return "iso", "matroska" or "avi" by the first `HEAD_BYTES` of a file, None for others."""
    if head[4:8] in ISO_BOXES:
        return "iso"
    if head[:4] == EBML_HEADER.to_bytes(4, "big"):
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def _iso_end(file: BinaryIO) -> int | None:
    end = 0
    while True:
        file.seek(end)
        head = file.read(16)
        if len(head) < 8 or head[4:8] not in ISO_BOXES:
            return end
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the real size follows in 64 bits
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: up to the end of the file
            return None
        end += size


def _matroska_end(file: BinaryIO) -> int | None:
    end = 0
    while True:
        file.seek(end)
        head = file.read(12)
        element, id_length = _variable_integer(head, keep_marker=True)
        size, size_length = _variable_integer(head[id_length:], keep_marker=False)
        if not id_length or not size_length:
            return end
        if size == (1 << 7 * size_length) - 1:  # all ones: not known when it was written
            return None
        end += id_length + size_length + size
        if element == EBML_SEGMENT:
            return end


def _variable_integer(content: bytes, keep_marker: bool) -> tuple[int, int]:
    """Return an EBML integer and its length: leading zero bits of the first byte + 1 (0: none)."""
    length = 9 - content[0].bit_length() if content else 0
    if not 1 <= length <= min(8, len(content)):
        return 0, 0
    number = int.from_bytes(content[:length], "big")
    return number if keep_marker else number & ((1 << 7 * length) - 1), length


def _riff_end(file: BinaryIO) -> int | None:
    end = 0
    while True:  # files above 1 GiB are a chain of RIFF chunks
        file.seek(end)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return end
        size = int.from_bytes(head[4:8], "little")
        if size in (0, 0xFFFFFFFF):
            return None
        end += 8 + size + size % 2


_ENDS = {"iso": _iso_end, "matroska": _matroska_end, "avi": _riff_end}

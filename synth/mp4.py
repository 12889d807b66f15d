"""Find the pictures in an mp4 member, without a demuxer.

FFmpeg's makes room for as many samples as a header claims: 1,500 bytes can ask for gigabytes. Here
nothing is larger than the member. Source: ISO/IEC 14496-12 (boxes) and -15 (H.264 in them).
"""

from collections.abc import Iterator

import numpy as np

TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
ENTRY_BYTES = 78  # of a visual sample entry, before the boxes in it


def read_pictures(member: bytes, num_pictures: int) -> tuple[bytes, list[bytes]]:
    """Return the decoder's configuration and the coded pictures of an mp4 with one H.264 track.

    Args:
        member: An mp4 whose pictures lie end to end, as `encode_h264` writes it.
        num_pictures: How many pictures it must hold.

    Raises:
        ValueError: It is not such a file, or holds another number of pictures.
    """
    tables = _find(memoryview(member), *TABLES)
    entry = _find(_find(tables, b"stsd")[8:], b"avc1")
    configuration = bytes(_find(entry[ENTRY_BYTES:], b"avcC"))
    sizes = _find(tables, b"stsz")
    uniform, found = _number(sizes, 4), _number(sizes, 8)
    if found != num_pictures:
        raise ValueError(f"an mp4 of {found} frames does not hold {num_pictures}")
    if found * uniform > len(member) or (not uniform and len(sizes) != 12 + 4 * found):
        raise ValueError(f"its table of sizes is not that of {found} pictures")
    lengths = [uniform] * found if uniform else np.frombuffer(sizes[12:], ">u4").tolist()
    end = _number(_find(tables, b"stco"), 8)
    pictures = []
    for length in lengths:
        pictures.append(member[end : end + length])
        end += length
        if end > len(member):
            raise ValueError(f"its pictures end at byte {end} of {len(member)}")
    return configuration, pictures


def _find(content: memoryview, *path: bytes) -> memoryview:
    """Return the content of the first box of the first kind, in it that of the second, ..."""
    for kind in path:
        found = next((inner for name, inner in _boxes(content) if name == kind), None)
        if found is None:
            raise ValueError(f"it has no box {kind.decode()!r}")
        content = found
    return content


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind and the content of the boxes that lie end to end in `content`."""
    start = 0
    while start < len(content):
        size = _number(content, start)
        if not 8 <= size <= len(content) - start:
            raise ValueError(f"a box at byte {start} of {len(content)} claims {size} bytes")
        yield bytes(content[start + 4 : start + 8]), content[start + 8 : start + size]
        start += size


def _number(content: memoryview, start: int) -> int:
    if start + 4 > len(content):
        raise ValueError(f"a box of {len(content)} bytes is cut short")
    return int.from_bytes(content[start : start + 4], "big")

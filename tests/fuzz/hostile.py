"""What files made to harm are made of: strategies of hypothesis."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

LARGE = (2**15, 2**24, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)
NUMBERS: tuple[int | float, ...] = (
    *(0, 1, -1, -2, 7, 64, 1000),
    *LARGE,
    *(-number for number in LARGE),
    *(0.5, -0.0, 1e-320, 1e300, -1e300, math.inf, -math.inf, math.nan),
)
TEXTS = (
    *("", " ", "\0", "a\0b", "\ud800", "\x1b[2J", "a\nb", "\u202e", "x" * 100_000),
    *("..", "../../x", "/etc/passwd", "C:\\x", "~", "-i", "$(id)", "%s%n", "{0.__class__}"),
    *("pipe:0", "pipe:///0", "file:///etc/passwd", "http://127.0.0.1:9/x", "concat:a|b"),
    *("subfile,,start,0,end,9,,:a", "s3://", "memory://x", "simplecache::memory://x", "::"),
    *("ok", "rejected", "rendered", "clip", "mixup", "paste", "pair", "annotate", "filmstrip"),
    *("nan", "1e999999999", "1/0", "True", "None"),
)
numbers = st.sampled_from(NUMBERS) | st.integers(-100, 100) | st.floats()
texts = st.sampled_from(TEXTS) | st.text(max_size=8)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)

SNIPPETS = (
    *(b"", b"\0", b"\xff", b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8),
    *(b"\0" * 512, b"../", b"/etc/", b"NaN", b"Infinity", b"1e999", b"-1", b"9" * 5000, b"null"),
    *(b"[" * 2000, b'{"a":' * 2000, b"{}", b"[]", b'"\\ud800"', b",", b"]", b"}", b'"'),
)
places = st.integers(0, 700) | st.integers(-700, -1) | st.integers(0, 2**24)
edits = st.lists(
    st.tuples(
        st.sampled_from(("flip", "put", "insert", "delete", "cut", "repeat")),
        places,
        st.integers(0, 255),
        st.sampled_from(SNIPPETS) | st.binary(max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def edit_bytes(content: bytes, changes: Sequence[tuple[str, int, int, bytes]]) -> bytes:
    """Return `content` with bytes flipped, overwritten, inserted, deleted, cut off or repeated."""
    made = bytearray(content)
    for kind, place, number, snippet in changes:
        at = place % (len(made) + 1)
        if kind == "flip" and at < len(made):
            made[at] ^= number or 1
        elif kind == "put":
            made[at : at + len(snippet)] = snippet
        elif kind == "insert":
            made[at:at] = snippet
        elif kind == "delete":
            del made[at : at + number]
        elif kind == "cut":
            del made[at:]
        elif kind == "repeat":
            made[at:at] = made[at : at + number]
    return bytes(made)


def paths_in(value: Any) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value, its own, (), first."""
    found: list[tuple[Any, ...]] = [()]
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, item in inner:
        found += [(key, *path) for path in paths_in(item)]
    return found


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """Draw a JSON value with some of its parts replaced, left out or added to."""
    made = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = (None, *draw(st.sampled_from(paths_in(made))))
        if last is None:
            return draw(values)
        inner = made
        for key in path[1:]:
            inner = inner[key]
        kind = draw(st.sampled_from(("replace", "replace", "delete", "add")))
        if kind == "replace":
            inner[last] = draw(values)
        elif kind == "delete":
            del inner[last]
        elif isinstance(inner, dict):
            inner[draw(texts)] = draw(values)
        else:
            inner.append(draw(values))
        if not made:
            return made
    return made

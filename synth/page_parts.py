"""What the pages share: the frame of the HTML, tiles of numbers, bars, sizes and counts in words.

A page refers to nothing outside itself; whatever is put into it as text must be escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape

from .preview_style import STYLE, palette_css


def build_html(title: str, body: Iterable[str], style: str = "") -> str:
    """Return the HTML of a page that may load nothing and run nothing.

    Args:
        title: Of the window, as text.
        body: HTML, a line each.
        style: Rules beside those that all pages have.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>\n{STYLE}\n{palette_css()}\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def draw_tiles(tiles: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of large numbers, each with its name: text, (number, name)."""
    shown = (f"<div><dt>{escape(name)}</dt><dd>{escape(v)}</dd></div>" for v, name in tiles)
    return f'<dl class="tiles">{"".join(shown)}</dl>'


def draw_bar(share: float, style: str = "rest") -> str:
    """Return the HTML of a bar that fills `share` of its track, 0 to 1."""
    return f'<span class="track"><i class="{style}" style="width:{100 * share:.2f}%"></i></span>'


def say_count(number: int, unit: str) -> str:
    """Return a number with its unit: "1 shard", "1,200 classes"."""
    return f"{number:,} {plural(number, unit)}"


def plural(number: int, unit: str) -> str:
    """Return the unit as it stands after a number."""
    if number == 1:
        return unit
    return "classes" if unit == "class" else f"{unit}s"


def say_bytes(number: int) -> str:
    """Return a size in decimal units: "12.3 MB"."""
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"

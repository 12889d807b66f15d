"""The colours of classes, the same in every picture: pages, timelines and figures."""

import colorsys

# Hue and lightness (%) of ten class colours: neighbours far apart, all dark enough for thin lines.
COLOURS = (
    *((217, 48), (12, 48), (152, 34), (38, 44), (280, 50)),
    *((190, 36), (335, 50), (95, 32), (250, 58), (60, 34)),
)
SATURATION = 68  # per cent


def class_colour(index: int) -> str:
    """Return a CSS colour for a class: ten far apart, then the same hues darker and lighter."""
    hue, lightness = _hue_lightness(index)
    return f"hsl({hue} {SATURATION}% {lightness}%)"


def class_rgb(index: int) -> tuple[float, float, float]:
    """Return the colour of `class_colour` as red, green and blue in [0, 1]."""
    hue, lightness = _hue_lightness(index)
    return colorsys.hls_to_rgb(hue / 360, lightness / 100, SATURATION / 100)


def _hue_lightness(index: int) -> tuple[int, int]:
    hue, lightness = COLOURS[index % len(COLOURS)]
    return hue, lightness + (0, -12, 14)[index // len(COLOURS) % 3]

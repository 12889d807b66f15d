"""How figures look and are written: one style, class colours, PNG files of repeatable bytes.

Matplotlib's global state (pyplot, rcParams) is neither read for the style nor changed.
"""

import io
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from manifests import AnyPath, write_atomic

from .colours import class_rgb

INK, SOFT, LINE, LANE = "#1c2430", "#66707f", "#dfe4ea", "#f5f7f9"  # as in the HTML pages
BLUE, RED = class_rgb(0), class_rgb(1)
FONT = "DejaVu Sans"  # comes with matplotlib
TITLE, LABEL, TICK = 10.5, 9.0, 8.0  # points
DPI = 144
LONGEST_NAME = 24  # signs of a class name
MOST_NAMED = 24  # classes in a legend
LEGEND_ROW = 0.17  # inches


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure that lays out its axes itself and draws without a display."""
    figure = Figure((width_inches, height_inches), DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(
    axes: Axes,
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    grid: bool = True,
    title_pad: float = 6.0,
) -> None:
    """Give axes the style of the house: labels in grey, a soft grid, no box.

    Args:
        axes: What to style, before or after drawing on it.
        title: Set on the left, above.
        x_label: What the horizontal axis shows, with its unit.
        y_label: What the vertical axis shows, with its unit.
        grid: Draw thin lines behind everything.
        title_pad: Points between the axes and the title, more where bars lie between them.
    """
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left", pad=title_pad)
    axes.set_xlabel(x_label, fontsize=LABEL, color=SOFT)
    axes.set_ylabel(y_label, fontsize=LABEL, color=SOFT)
    axes.tick_params(
        labelsize=TICK, labelcolor=SOFT, color=LINE, labelfontfamily=FONT, length=3, width=0.8
    )
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    axes.set_axisbelow(True)
    axes.grid(False)
    if grid:
        axes.grid(True, color=LINE, linewidth=0.7)


def ground_truth_bar(
    axes: Axes,
    segments: Iterable[tuple[float, float, int]],
    span_seconds: tuple[float, float],
    *,
    vertical: bool = False,
) -> None:
    """Draw annotated segments as bars in their class colours along time; those that overlap, apart.

    Args:
        axes: Its own axes, thin; may share its time axis with others.
        segments: `(start_seconds, end_seconds, class_index)` each, in any order.
        span_seconds: Where the time axis starts and ends.
        vertical: Time runs down, as along the rows of a matrix, instead of to the right.
    """
    segments = sorted(segments)
    lanes = _lanes(segments)
    thick = 1 / max([lane + 1 for lane in lanes], default=1)
    for (start, end, class_index), lane in zip(segments, lanes, strict=True):
        across, along = ((lane + 0.08) * thick, 0.84 * thick), (start, end - start)
        (x, width), (y, height) = (across, along) if vertical else (along, across)
        axes.add_patch(Rectangle((x, y), width, height, color=class_rgb(class_index), linewidth=0))
    axes.set_facecolor(LANE)
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if vertical:
        axes.set(xlim=(0, 1), ylim=span_seconds[::-1])
    else:
        axes.set(xlim=span_seconds, ylim=(1, 0))


def class_legend(figure: Figure, classes: Sequence[str], shown: Iterable[int]) -> None:
    """Name the colours of the classes `shown` under a figure, which grows by the rows of names.

    Of many classes the first are named, and the others counted.
    """
    indices = sorted(set(shown))
    named = indices[:MOST_NAMED]
    patches = [Patch(color=class_rgb(i), label=shortened(classes[i])) for i in named]
    if len(indices) > len(named):
        patches.append(Patch(alpha=0, label=f"and {len(indices) - len(named)} more"))
    columns = max(1, int(figure.get_figwidth() / 1.7))
    if patches:
        num_rows = -(-len(patches) // columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (num_rows - 1))
        legend = figure.legend(
            handles=patches,
            loc="outside lower center",
            ncols=min(columns, len(patches)),
            fontsize=TICK,
            labelcolor=SOFT,
            frameon=False,
            handlelength=1.2,
        )
        legend.set_in_layout(True)


def shortened(name: str) -> str:
    """Return a class name of at most `LONGEST_NAME` signs."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def write_figure(path: AnyPath | str, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes."""
    for text in figure.findobj(Text):
        text.set_fontfamily(FONT)
        text.set_parse_math(False)  # a name may hold dollar signs
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _lanes(segments: Sequence[tuple[float, float, int]]) -> list[int]:
    """Return the lane of each segment (by start): the first one that is free at its start."""
    ends: list[float] = []
    lanes = []
    for start, end, _ in segments:
        lane = next((k for k, taken_until in enumerate(ends) if taken_until <= start), len(ends))
        ends[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes

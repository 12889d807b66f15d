"""The figures of docs/proof.md: what every method gains, and how it learns along the budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from features import BLUE, INK, RED, SOFT, new_figure, style_axes, write_figure
from manifests import UsageError

from .comparisons import BASELINE, FAMILY_NAMES, LINEAR, METRICS, Metric, Results
from .intervals import Interval

SIGN_COLOURS = {"+": BLUE, "-": RED, "0": SOFT}
TITLE, LABEL, TICK = 10.5, 9.0, 8.0  # points
SIGNS_PER_INCH = 13.5  # of a label
MULTIPLES = 5  # learning curves beside each other
PANEL_INCHES, ROW_INCHES = 3.6, 0.26
HOW_TO_READ = (
    "gain over classification in points of 100, with 95 % intervals over seeds and test videos; "
    "grey: the interval holds zero"
)


def draw_headline(results: Results, methods: Mapping[str, Sequence[str]], path: Path) -> None:
    """Draw what chosen methods gain over classification, the families side by side.

    Args:
        results: What was measured.
        methods: By family, from top to bottom.
        path: The PNG file to write.

    Raises:
        UsageError: A family or a method is not among the results.
    """
    rows = _compared(results, methods)
    height = 0.95 + ROW_INCHES * max(map(len, rows.values()))
    figure = new_figure(3.1 * len(rows), height)
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for axes, (family, names) in zip(panels, rows.items(), strict=True):
        _draw_gains(axes, results, family, names, _first(results.main_metrics(family), family))
    _add_note(figure, HOW_TO_READ, figure.get_figwidth())
    write_figure(path, figure)


def draw_gains(results: Results, methods: Mapping[str, Sequence[str]], path: Path) -> None:
    """Draw what every method gains: families below each other, what they are judged by in a row.

    A dot is the mean difference to classification, the line its 95 % interval; blue where all of it
    is a gain, red where all of it is a loss, grey where it holds zero.

    Args:
        results: What was measured.
        methods: By family, from top to bottom.
        path: The PNG file to write.

    Raises:
        UsageError: A family or a method is not among the results.
    """
    rows = _compared(results, methods)
    heights = [0.8 + ROW_INCHES * len(names) for names in rows.values()]
    metrics = {family: results.main_metrics(family) for family in rows}
    width = max(map(len, metrics.values()))
    figure = new_figure(PANEL_INCHES * max(width, 2), sum(heights))
    grid = figure.subplots(len(rows), width, squeeze=False, height_ratios=heights)
    for panels, (family, names) in zip(grid, rows.items(), strict=True):
        for axes in panels[len(metrics[family]) :]:
            axes.set_visible(False)
        for axes, metric in zip(panels, metrics[family], strict=False):
            _draw_gains(axes, results, family, names, metric)
    _add_note(figure, HOW_TO_READ, figure.get_figwidth())
    write_figure(path, figure)


def draw_curves(results: Results, methods: Mapping[str, Sequence[str]], path: Path) -> None:
    """Draw the linear probe along the budget: each method over classification, which is grey.

    Bands are 95 % intervals of the means.

    Args:
        results: What was measured.
        methods: By family, in the order of the panels.
        path: The PNG file to write.

    Raises:
        UsageError: A family or a method is not among the results, or no family has learning curves.
    """
    rows = {
        family: names
        for family, names in _compared(results, methods).items()
        if LINEAR in results.metrics(family)
    }
    if not rows:
        raise UsageError("learning curves need the linear probe, but no family was measured by it")
    num_rows = [-(-len(names) // MULTIPLES) for names in rows.values()]
    figure = new_figure(9.3, 0.55 + sum(0.45 + 1.35 * number for number in num_rows))
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=num_rows)[:, 0]
    for part, number, (family, names) in zip(parts, num_rows, rows.items(), strict=True):
        title = f"{FAMILY_NAMES.get(family, family)}: linear mAP along the budget"
        part.suptitle(title, fontsize=TITLE, color=INK, x=0.01, ha="left")
        panels = part.subplots(number, MULTIPLES, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(names) :]:
            axes.set_axis_off()
        for axes, method in zip(panels.flat, names, strict=False):
            _draw_curve(axes, results, family, method)
        for axes in panels.flat[max(0, len(names) - MULTIPLES) : len(names)]:
            axes.tick_params(labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("mAP [%]", fontsize=TICK, color=SOFT)
    note = "gradient steps; grey: classification; bands: 95 % intervals over seeds and test videos"
    _add_note(parts[-1], note, figure.get_figwidth())
    write_figure(path, figure)


def _compared(results: Results, methods: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the methods that are compared with the baseline, by family."""
    for family, names in methods.items():
        results.check(family, [*names, BASELINE])
    return {
        family: tuple(name for name in names if name != BASELINE)
        for family, names in methods.items()
    }


def _first(metrics: Sequence[Metric], family: str) -> Metric:
    if not metrics:
        raise UsageError(f"nothing that family {family!r} is judged by was measured")
    return metrics[0]


def _draw_gains(
    axes: Axes, results: Results, family: str, methods: Sequence[str], metric: Metric
) -> None:
    steps = results.steps(family)[-1]
    name = FAMILY_NAMES.get(family, family)
    style_axes(axes, title=f"{name}: {METRICS[metric]}")
    axes.grid(False, axis="y")
    axes.axvline(0, color=SOFT, linewidth=1)
    for place, method in enumerate(methods):
        gain = results.difference(family, method, metric, steps)
        if gain is not None:
            _draw_gain(axes, place, gain)
    axes.set(ylim=(len(methods) - 0.4, -0.6), yticks=range(len(methods)))
    axes.set_yticklabels([_spelt(method) for method in methods], color=INK, fontsize=LABEL)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _add_note(figure: FigureBase, note: str, inches: float) -> None:
    """Write under a figure how it is read, in lines that fit its width."""
    figure.supxlabel(fill(note, int(SIGNS_PER_INCH * inches)), fontsize=LABEL, color=SOFT)


def _draw_gain(axes: Axes, place: int, gain: Interval) -> None:
    colour = SIGN_COLOURS[gain.sign]
    axes.plot([100 * gain.low, 100 * gain.high], [place, place], color=colour, linewidth=2.2)
    axes.plot([100 * gain.mean], [place], "o", color=colour, markersize=6.5)


def _draw_curve(axes: Axes, results: Results, family: str, method: str) -> None:
    every = results.steps(family)
    style_axes(axes)
    axes.set_title(_spelt(method), fontsize=LABEL, color=INK, loc="left", pad=3)
    for name, colour in ((BASELINE, SOFT), (method, BLUE)):
        found = {steps: results.mean(family, name, LINEAR, steps) for steps in every}
        known = {steps: mean for steps, mean in found.items() if mean is not None}
        lows = [100 * mean.low for mean in known.values()]
        highs = [100 * mean.high for mean in known.values()]
        means = [100 * mean.mean for mean in known.values()]
        axes.fill_between(list(known), lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.plot(list(known), means, color=colour, linewidth=1.7, marker="o", markersize=3)
    axes.set_xticks(every, [f"{steps:,}" for steps in every])
    axes.set_xlim(0, 1.06 * every[-1])


def _spelt(method: str) -> str:
    return method.replace("_", " ")

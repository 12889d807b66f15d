"""The tables of docs/proof.md: what every method scores, what it gains, and the papers' gains."""

import itertools
import math
from collections.abc import Mapping, Sequence

from .comparisons import FAMILY_NAMES, LINEAR, METRICS, Metric, Results
from .intervals import Interval
from .papers import PaperGain

UNKNOWN = "–"
SIGNS = {"+": "+", "-": "−", "0": "0"}
HOW_TO_READ = (
    "In points of 100; small, the 95 % interval over seeds and test videos together (of one seed, "
    "over videos alone). A gain is the difference to classification, of the seeds that both have "
    "and on the same videos. Sign: + or − where the whole interval of the gain is on that side of "
    "zero, 0 where it holds zero; each interval is for one comparison, so of many, one in twenty "
    "misses by chance. A relative gain is a share of what classification scores."
)


def write_tables(
    results: Results,
    methods: Mapping[str, Sequence[str]],
    papers: Sequence[PaperGain] = (),
    controls: Mapping[str, str] | None = None,
) -> str:
    """Return the tables of all families in Markdown.

    Args:
        results: What was measured (`read_results`).
        methods: By family, in the order of the rows.
        papers: What the papers report.
        controls: Method -> what it is compared with besides classification.

    Raises:
        UsageError: A family or a method is not among the results.
    """
    parts = [HOW_TO_READ]
    for family, names in methods.items():
        results.check(family, names)
        parts += [f"### {FAMILY_NAMES.get(family, family)}", _gains(results, family, names)]
        parts += _over_controls(results, family, names, controls or {})
        parts += _beside(results, family, names, papers)
        parts += _others(results, family, names)
        parts += _curves(results, family, names)
    return "\n\n".join(parts)


def _gains(results: Results, family: str, methods: Sequence[str]) -> str:
    """Return the table of what a family is judged by, with the differences to classification."""
    metrics, steps = results.main_metrics(family), results.steps(family)[-1]
    header = ["method", "seeds"]
    for metric in metrics:
        header += [METRICS[metric], "gain", "sign", "relative gain"]
    rows = []
    for method in methods:
        row = [f"`{method}`", _seeds(results, family, method)]
        for metric in metrics:
            gain = results.difference(family, method, metric, steps)
            relative = results.relative_gain(family, method, metric, steps)
            row.append(_cell(results.mean(family, method, metric, steps)))
            row += [_cell(gain, "+"), SIGNS[gain.sign], _share(relative)] if gain else [""] * 3
        rows.append(row)
    chance = ["chance", ""]
    for metric in metrics:
        chance += [_points(results.chance(family, metric, steps)), "", "", ""]
    return markdown(header, [*rows, chance] if any(chance[1:]) else rows)


def _over_controls(
    results: Results, family: str, methods: Sequence[str], controls: Mapping[str, str]
) -> list[str]:
    """Return the table of the gains over another method than classification, if any."""
    metrics, steps = results.main_metrics(family), results.steps(family)[-1]
    rows = []
    for method in methods:
        over = controls.get(method, "")
        if over in methods:
            gains = [results.difference(family, method, at, steps, over) for at in metrics]
            seeds = max((gain.num_seeds for gain in gains if gain), default=0)
            cells = [[_cell(gain, "+"), SIGNS[gain.sign] if gain else ""] for gain in gains]
            rows.append([f"`{method}`", f"`{over}`", f"{seeds}", *itertools.chain(*cells)])
    if not rows:
        return []
    header = ["method", "over", "seeds"]
    for metric in metrics:
        header += [METRICS[metric], "sign"]
    return ["Gains over another method than classification:", markdown(header, rows, num_texts=2)]


def _beside(
    results: Results, family: str, methods: Sequence[str], papers: Sequence[PaperGain]
) -> list[str]:
    """Return the papers' relative gains beside ours, by what the family is judged by."""
    metrics, steps = results.main_metrics(family), results.steps(family)[-1]
    rows = []
    for paper in papers:
        if paper.family == family and {paper.method, paper.over} <= {*methods}:
            row = [f"`{paper.method}`", f"`{paper.over}`", paper.benchmark, paper.source]
            row.append(_share(paper.relative_gain, 1))
            for metric in metrics:
                gain = results.difference(family, paper.method, metric, steps, paper.over)
                relative = results.relative_gain(family, paper.method, metric, steps, paper.over)
                row.append(f"{_share(relative, 1)} ({SIGNS[gain.sign]})" if gain else UNKNOWN)
            rows.append(row)
    if not rows:
        return []
    here = [f"here: {METRICS[metric]}" for metric in metrics]
    header = ["method", "over", "the paper's benchmark", "source", "paper", *here]
    return [
        "Relative gains beside the paper's, with the sign of ours:",
        markdown(header, rows, num_texts=4),
    ]


def _others(results: Results, family: str, methods: Sequence[str]) -> list[str]:
    """Return the table of everything else that was measured, if anything."""
    main, steps = results.main_metrics(family), results.steps(family)[-1]
    metrics = [metric for metric in results.metrics(family) if metric not in main]
    if not metrics:
        return []
    rows = [
        [f"`{method}`", *(_signed(results, family, method, metric, steps) for metric in metrics)]
        for method in methods
    ]
    chance = ["chance", *(_points(results.chance(family, metric, steps)) for metric in metrics)]
    rows += [chance] if any(chance[1:]) else []
    header = ["method", *(METRICS[metric] for metric in metrics)]
    return [
        "Everything else, with the sign of the gain where it is not 0:",
        markdown(header, rows),
    ]


def _curves(results: Results, family: str, methods: Sequence[str]) -> list[str]:
    """Return the table of the linear probe along the budget, if it was measured."""
    if LINEAR not in results.metrics(family):
        return []
    every = results.steps(family)
    rows = [
        [f"`{method}`", *(_signed(results, family, method, LINEAR, steps) for steps in every)]
        for method in methods
    ]
    header = ["method", *(f"{steps:,} steps" for steps in every)]
    return [
        "Learning curves: linear mAP along the budget, with the sign of the gain over "
        "classification after as many steps:",
        markdown(header, rows),
    ]


def _seeds(results: Results, family: str, method: str) -> str:
    """Return of how many seeds a method's numbers are; of unlike ones the range."""
    numbers = sorted(results.num_seeds(family, method))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _signed(results: Results, family: str, method: str, metric: Metric, steps: int) -> str:
    gain = results.difference(family, method, metric, steps)
    sign = f" **{SIGNS[gain.sign]}**" if gain and gain.sign != "0" else ""
    return _cell(results.mean(family, method, metric, steps), mark=sign)


def _cell(found: Interval | None, sign: str = "", mark: str = "") -> str:
    """Return a mean above its interval."""
    if found is None:
        return UNKNOWN
    low, high = _points(found.low, sign), _points(found.high, sign)
    return f"{_points(found.mean, sign)}{mark}<br><sub>{low} to {high}</sub>"


def _points(value: float | None, sign: str = "") -> str:
    """Return a number in points of 100; nothing where there is none, a dash for NaN."""
    if value is None:
        return ""
    if math.isnan(value):
        return UNKNOWN
    return f"{100 * value:{sign}.1f}".replace("-", "−")


def _share(value: float | None, decimals: int = 0) -> str:
    return "" if value is None else f"{100 * value:+.{decimals}f} %".replace("-", "−")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int = 1) -> str:
    """Return a table; all but its first columns are numbers, set on the right."""
    lines = [header, [*["---"] * num_texts, *["---:"] * (len(header) - num_texts)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)

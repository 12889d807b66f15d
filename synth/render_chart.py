"""Draw how a number changed over a run: steps in an inline SVG, with scales and tooltips."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from manifests import say_seconds

MINUTE, HOUR, DAY = 60, 3600, 86_400
TICK_SECONDS = (
    *(1, 2, 5, 10, 15, 30),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * HOUR for factor in (1, 2, 3, 6, 12)),
)
MAX_TICKS = 8
STYLE = """
.graph { margin:0; min-width:0 }
.graph figcaption { display:flex; justify-content:space-between; gap:16px; margin-bottom:8px;
  font-size:13px; color:var(--soft) }
.graph figcaption b { font-weight:600; color:var(--ink) }
.plot { position:relative; margin-left:58px; height:var(--tall,110px) }
.plot svg { display:block; width:100%; height:100%; overflow:visible }
.plot .rule { stroke:var(--line); stroke-width:1; vector-effect:non-scaling-stroke }
.plot .fill { opacity:.2; stroke:none }
.plot .edge { fill:none; stroke-width:1.8; stroke-linejoin:round;
  vector-effect:non-scaling-stroke }
.plot .frames span:hover { background:var(--ink); opacity:.12 }
.ys span { position:absolute; right:calc(100% + 9px); transform:translateY(-50%);
  white-space:nowrap }
.xs { position:relative; margin-left:58px; height:20px }
.xs span { position:absolute; top:4px; transform:translateX(-50%); white-space:nowrap }
.ys, .xs { font-size:11.5px; line-height:1.3; color:var(--faint) }
@media print { .plot { height:70px } .ys, .xs, .graph figcaption { font-size:8px } }
""".strip()


@dataclass(frozen=True)
class Scale:
    """The axis of a chart: what its top is, and how its numbers are written."""

    top: float
    say: Callable[[float], str]
    is_whole: bool = False

    @property
    def ticks(self) -> list[float]:
        """Return the numbers that are written beside the chart."""
        middle = self.top / 2
        return [0, self.top] if self.is_whole and middle % 1 else [0, middle, self.top]


def draw_over_time(
    title: str,
    mean: str,
    values: Sequence[float],
    width_seconds: float,
    seconds: float,
    scale: Scale,
    colour: str,
) -> str:
    """Return the HTML of a chart.

    Args:
        title: What is drawn.
        mean: What to say of it in a word or two.
        values: One for each stretch of `width_seconds` from the start, at least one; the last one
            reaches to the end of the run.
        width_seconds, seconds: Of a stretch, and of the whole run.
        scale: Of the values.
        colour: A CSS colour.
    """
    top = scale.top or 1
    ends = [*((k + 1) * width_seconds / seconds for k in range(len(values) - 1)), 1.0]
    steps = "".join(
        f"V{1 - min(value / top, 1):.4g}H{end:.5g}" for value, end in zip(values, ends, strict=True)
    )
    first = 1 - min(values[0] / top, 1) if values else 1
    rules = "".join(f'<path class="rule" d="M0 {1 - tick / top:g}H1"/>' for tick in [*scale.ticks])
    ys = "".join(
        f'<span style="top:{100 - 100 * tick / top:.4g}%">{escape(scale.say(tick))}</span>'
        for tick in scale.ticks
    )
    return (
        f'<figure class="graph"><figcaption><b>{escape(title)}</b><span>{escape(mean)}</span>'
        f'</figcaption><div class="plot" role="img" aria-label="{escape(title)} over time">'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{rules}'
        f'<path class="fill" style="fill:{colour}" d="M0 1{steps}V1Z"/>'
        f'<path class="edge" style="stroke:{colour}" d="M0 {first:.4g}{steps}"/></svg>'
        f'<div class="ys">{ys}</div>{_tooltips(values, width_seconds, ends, scale)}</div>'
        f'<div class="xs">{_time_axis(seconds)}</div></figure>'
    )


def _tooltips(
    values: Sequence[float], width_seconds: float, ends: Sequence[float], scale: Scale
) -> str:
    widths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    columns = " ".join(f"{width:.5f}fr" for width in widths)
    spans = "".join(
        f'<span title="{escape(f"after {say_seconds(k * width_seconds)}: {scale.say(value)}")}">'
        "</span>"
        for k, value in enumerate(values)
    )
    return f'<div class="frames" style="grid-template-columns:{columns}">{spans}</div>'


def _time_axis(seconds: float) -> str:
    step = tick_seconds(seconds)
    ticks = [k * step for k in range(int(seconds / step) + 1)]
    return "".join(
        f'<span style="left:{100 * tick / seconds:.4g}%">{say_tick(tick, step)}</span>'
        for tick in ticks
    )


def tick_seconds(seconds: float) -> float:
    """Return a round distance between ticks, so that there are not too many."""
    for step in TICK_SECONDS:
        if seconds <= MAX_TICKS * step:
            return step
    return DAY * math.ceil(seconds / (MAX_TICKS * DAY))


def say_tick(tick: float, step: float) -> str:
    """Return the name of a tick: "20 s", "1:20 min", "10 min", "1:30 h", "3 h", "2 d"."""
    if not tick:
        return "0"
    for unit, name, smaller in ((DAY, "d", HOUR), (HOUR, "h", MINUTE), (MINUTE, "min", 1)):
        if step % unit == 0:
            return f"{tick / unit:g} {name}"
        if tick >= unit and unit < DAY:
            return f"{int(tick // unit)}:{int(tick % unit // smaller):02d} {name}"
    return f"{tick:g} s"


def round_up(value: float) -> float:
    """Return the least of 1, 2, 3, 4, 5, 6, 8, 10, 20, ... that is not below `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    factors = (1, 2, 3, 4, 5, 6, 8, 10, 20)  # 20: the logarithm may be rounded down
    return next(power * factor for factor in factors if power * factor >= value)

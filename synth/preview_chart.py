"""Draw the label weights of a sample over time: stacked bands whose edges are the curves, or a lane
for each class where several may be present at once.

A chart is as wide as its film strip; frame `t` takes the same share of both.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from .labels import LabelTrack

NAME_HEIGHT = 0.3  # share of the chart that a name in it needs
HARD_STEP = 0.45  # change of weight from frame to frame that is a step and not a slope
MAX_MARKED = 32  # frames; in longer charts single frames are not marked
DOT_MARGIN = 0.01  # weights nearer to 0 or 1 get no dot


def draw_chart(
    track: LabelTrack, order: Sequence[int], classes: Sequence[str], colours: Mapping[int, int]
) -> str:
    """Return the HTML of a track: stacked bands, a tooltip per frame, names where they fit.

    Args:
        track: The labels.
        order: Class ids from the bottom up; those that the track lacks are left out.
        classes: Class names in id order.
        colours: Place in the palette by class id.
    """
    rows = {class_id: row for row, class_id in enumerate(track.class_ids.tolist())}
    drawn = [class_id for class_id in order if class_id in rows]
    lower_T = np.zeros(track.num_frames)
    bands, edges, dots, names = [], [], [], []
    for class_id in drawn:
        upper_T = lower_T + track.weights_CT[rows[class_id]]
        style = f"c{colours[class_id]}"
        bands.append(f'<path class="{style}" d="{band_path(lower_T, upper_T)}"/>')
        edges.append(f'<path class="edge" d="{_line(_edge(upper_T))}"/>')
        dots.append(f'<path class="dot" d="{dots_path(lower_T, upper_T)}"/>')
        names.append(_name_in_band(classes[class_id], lower_T, upper_T, style))
        lower_T = upper_T
    names.append(_name_in_band("background", lower_T, np.ones_like(lower_T), "rest"))
    shown = ", ".join([*(classes[class_id] for class_id in drawn), "background"])
    num_frames = track.num_frames
    marks = []
    if num_frames <= MAX_MARKED:
        marks = [*(f'<path class="rule" d="M{t} 0V1"/>' for t in range(1, num_frames)), *dots]
    return (
        f'<div class="chart" role="img" aria-label="label weights of {escape(shown)}">'
        f'<svg viewBox="0 0 {num_frames} 1" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join([*bands, *edges, *marks])}</svg><div class="names">{"".join(names)}</div>'
        f'<div class="frames">{_tooltips(track, drawn, rows, classes)}</div></div>'
    )


def draw_lanes(
    track: LabelTrack, order: Sequence[int], classes: Sequence[str], colours: Mapping[int, int]
) -> str:
    """Return the HTML of a track whose classes do not exclude each other: a named lane for each.

    Args:
        track: The labels.
        order: Class ids; the lanes stand in the order in which their classes begin.
        classes, colours: As `draw_chart`.
    """
    num_frames = track.num_frames
    rows = {class_id: row for row, class_id in enumerate(track.class_ids.tolist())}
    shown = {
        class_id: np.flatnonzero(track.weights_CT[rows[class_id]] > 0)
        for class_id in order
        if class_id in rows
    }
    drawn = sorted((c for c in shown if len(shown[c])), key=lambda c: int(shown[c][0]))
    lanes = []
    for class_id in drawn:
        weight_T = track.weights_CT[rows[class_id]]
        start, stop = int(shown[class_id][0]), int(shown[class_id][-1]) + 1
        place = f"left:{100 * start / num_frames:.2f}%"
        if 2 * start >= num_frames:  # a name never leaves the chart
            place = f"right:{100 - 100 * stop / num_frames:.2f}%"
        path = band_path(np.zeros(num_frames), weight_T)
        lanes.append(
            f'<div class="lane"><bdi style="{place}">{escape(classes[class_id])}</bdi>'
            f'<svg viewBox="0 0 {num_frames} 1" preserveAspectRatio="none" aria-hidden="true">'
            f'<path class="c{colours[class_id]}" d="{path}"/></svg></div>'
        )
    if not lanes:
        lanes.append('<div class="lane"><bdi style="left:0">background</bdi><svg></svg></div>')
    names = ", ".join(classes[class_id] for class_id in drawn) or "background"
    return (
        f'<div class="lanes" role="img" aria-label="frames of {escape(names)}">{"".join(lanes)}'
        f'<div class="frames">{_tooltips(track, drawn, rows, classes)}</div></div>'
    )


def _tooltips(
    track: LabelTrack, drawn: Sequence[int], rows: Mapping[int, int], classes: Sequence[str]
) -> str:
    background_T = track.background_T
    spans = []
    for t in range(track.num_frames):
        lines = [f"frame {t + 1}"]
        weights = [(classes[class_id], track.weights_CT[rows[class_id], t]) for class_id in drawn]
        for name, weight in [*weights, ("background", background_T[t])]:
            if weight >= 0.005:
                lines.append(f"{name} {weight:.2f}")
        spans.append(f'<span title="{escape(chr(10).join(lines))}"></span>')
    return "".join(spans)


def band_path(lower_T: np.ndarray, upper_T: np.ndarray) -> str:
    """Return the SVG path of a band; frame `t` spans `t..t+1`, weight 1 is at the top, `y = 0`.

    # lower 0 0, upper 1 0.8: M0 0L0.5 0L1.5 0.2L2 0.2L2 1L1.5 1L0.5 1L0 1Z
    """
    outline = [*_edge(upper_T), *reversed(_edge(lower_T))]
    return f"{_line(outline)}Z"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {_y(weight)}" for x, weight in points)


def _edge(weight_T: np.ndarray) -> list[tuple[float, float]]:
    """Return the points of a curve through the middles of the frames.

    A change of at least HARD_STEP between two frames is drawn as the step that it is.
    """
    weights = weight_T.tolist()
    points = [(0.0, weights[0])]
    for t, weight in enumerate(weights):
        if t and abs(weight - weights[t - 1]) >= HARD_STEP:
            points += [(float(t), weights[t - 1]), (float(t), weight)]
        points.append((t + 0.5, weight))
    return [*points, (float(len(weights)), weights[-1])]


def dots_path(lower_T: np.ndarray, upper_T: np.ndarray) -> str:
    """Return the SVG path of a dot on each frame where the band ends inside the chart."""
    inside_T = (upper_T > lower_T) & (upper_T > DOT_MARGIN) & (upper_T < 1 - DOT_MARGIN)
    return "".join(f"M{t + 0.5:g} {_y(upper_T[t])}h0" for t in np.flatnonzero(inside_T))


def _y(weight: float) -> str:
    return f"{min(max(1.0 - weight, 0.0), 1.0):.4g}"


def _name_in_band(name: str, lower_T: np.ndarray, upper_T: np.ndarray, style: str) -> str:
    place = widest_place(lower_T, upper_T)
    if place is None:
        return ""
    start, stop, middle = place
    num_frames = len(lower_T)
    box = (
        f"left:{100 * start / num_frames:.2f}%;width:{100 * (stop - start) / num_frames:.2f}%;"
        f"top:{100 * (1 - middle):.1f}%"
    )
    return f'<span style="{box}"><bdi class="{style}">{escape(name)}</bdi></span>'


def widest_place(lower_T: np.ndarray, upper_T: np.ndarray) -> tuple[int, int, float] | None:
    """Find where a name fits best inside a band: frames `start..stop` and the height of its middle.

    Returns None where the band is nowhere high enough.
    """
    best, best_score = None, 0.0
    for start in range(len(lower_T)):
        floor, ceiling = 0.0, 1.0
        for stop in range(start + 1, len(lower_T) + 1):
            floor = max(floor, float(lower_T[stop - 1]))
            ceiling = min(ceiling, float(upper_T[stop - 1]))
            if ceiling - floor < NAME_HEIGHT:
                break
            score = (stop - start) ** 0.5 * (ceiling - floor)  # high places before long ones
            if score > best_score:
                best, best_score = (start, stop, (floor + ceiling) / 2), score
    return best

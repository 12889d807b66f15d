"""Draw timelines: what is annotated, and what a head says, in one self-contained HTML page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from manifests import write_atomic

from ..probing.probe_frames import ProbedVideo, ProbeReport
from .colours import class_colour

WIDTH, LEFT, RIGHT = 1040, 196, 24  # pixels of a picture, of its labels, of its margin
LANE, GAP, TOP, AXIS = 46, 8, 8, 30  # height of a class's lane, between lanes, above, of the axis
BAR = 7  # height of a ground-truth bar at the foot of its lane

STYLE = """
:root { --ink:#1c2430; --soft:#66707f; --line:#dfe4ea; --lane:#f5f7f9; --page:#ffffff; --card:#fff }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif }
main { max-width:1104px; margin:0 auto; padding:36px 32px 64px }
h1 { font-size:26px; line-height:1.2; margin:0 0 6px; letter-spacing:-.01em }
h2 { font-size:15px; margin:34px 0 6px; font-weight:600 }
h2 small { color:var(--soft); font-weight:400; margin-left:10px }
p { margin:0 0 10px; color:var(--soft); max-width:70ch }
.scores { display:flex; gap:40px; margin:22px 0 20px }
.scores b { display:block; font-size:34px; line-height:1.1; font-weight:650;
  font-variant-numeric:tabular-nums }
.scores span { color:var(--soft); font-size:13px }
svg { display:block; width:100%; height:auto }
svg text { font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
  fill:var(--ink) }
svg .soft { fill:var(--soft); font-size:11.5px }
""".strip()


def draw_timelines(report: ProbeReport, path: Path | str, max_videos: int = 24) -> None:
    """Write the page of a probe: its scores, AP per class, and a timeline per test video.

    Args:
        report: Of `probe_store`.
        path: The HTML file to write; it refers to nothing outside itself.
        max_videos: Timelines at most, the first ones.
    """
    shown = report.videos[:max_videos]
    left_out = len(report.videos) - len(shown)
    note = f" The first {len(shown)} of {len(report.videos)} are shown." if left_out else ""
    body = [
        "<h1>What the features know</h1>",
        f"<p>{_what_was_done(report)}</p>",
        _scores(report),
        _class_bars(report),
        "<h2>Timelines of the test videos</h2>",
        "<p>Filled curves: the head's probability of each class at the centre of each snippet, "
        "from 0 to 1; the dotted line is one half. Bars and shades: where the class is annotated."
        f"{note}</p>",
        *(_timeline(video, report.classes) for video in shown),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What the features know</title><style>\n{STYLE}\n</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )
    write_atomic(path, page.encode())


def shown_classes(video: ProbedVideo) -> list[int]:
    """Return the classes that a timeline has a lane for: annotated, or believed in somewhere."""
    annotated = {index for _, _, index in video.segments}
    believed = np.flatnonzero(video.scores_SC.max(axis=0, initial=0.0) >= 0.5)
    return sorted(annotated | set(believed.tolist()))


def shown_span(video: ProbedVideo) -> tuple[float, float]:
    """Return the first and the last second that a timeline shows."""
    ends = [end for _, end, _ in video.segments] + video.times_S3[:, 2].tolist()
    start = min([0.0, *video.times_S3[:, 0].tolist()])
    return start, max([video.duration_seconds, *ends, start + 1e-3])


def _what_was_done(report: ProbeReport) -> str:
    trained = (
        f"trained on {report.num_train_snippets:,} snippets of {report.num_train_videos} videos"
        if report.num_train_videos
        else "trained before"
    )
    return (
        f"A {escape(report.head)} head {trained}, scored on {report.num_test_snippets:,} snippets "
        f"of {report.num_test_videos} others."
    )


def _scores(report: ProbeReport) -> str:
    numbers = [
        (report.map, "mean average precision"),
        (report.chance, "expected by chance"),
    ]
    if report.num_train_videos:
        numbers.append((report.shuffled, "same head, training labels dealt at random"))
    shown = [("–" if np.isnan(value) else f"{100 * value:.1f}", name) for value, name in numbers]
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in shown)
    return f'<div class="scores">{cells}</div>'


def _class_bars(report: ProbeReport) -> str:
    """Draw AP per class as horizontal bars, with chance as one thin line through them."""
    row, top = 26, 6
    height = top + row * len(report.classes) + 26
    scale = WIDTH - LEFT - RIGHT - 60
    parts = [_svg_open(height, "Average precision of every class")]
    for index, name in enumerate(report.classes):
        ap, y = report.per_class[name], top + row * index
        parts.append(_text(LEFT - 12, y + 15, name, anchor="end"))
        parts.append(_rect(LEFT, y + 4, scale, 14, "var(--lane)", 3))
        if np.isnan(ap):
            parts.append(_text(LEFT + 8, y + 15, "not in the test videos", soft=True))
            continue
        parts.append(_rect(LEFT, y + 4, max(scale * ap, 1), 14, class_colour(index), 3))
        parts.append(_text(LEFT + scale + 10, y + 15, f"{100 * ap:.1f}"))
    if not np.isnan(report.chance):
        x, foot = LEFT + scale * report.chance, top + row * len(report.classes)
        parts.append(_line(x, top, x, foot + 4, "var(--ink)", "3 3"))
        parts.append(_text(x, foot + 18, "chance", anchor="middle", soft=True))
    return "".join([*parts, "</svg>"])


def _timeline(video: ProbedVideo, classes: Sequence[str]) -> str:
    """Draw one lane for each class that is annotated or that the head believes in."""
    lanes, (start, end) = shown_classes(video), shown_span(video)
    scale = (WIDTH - LEFT - RIGHT) / (end - start)
    foot = TOP + len(lanes) * (LANE + GAP)
    parts = [_svg_open(foot + AXIS, f"Timeline of {video.video_id}")]
    for position, index in enumerate(lanes):
        y = TOP + position * (LANE + GAP)
        spans = [(a, b) for a, b, c in video.segments if c == index]
        parts.append(_lane(video, index, classes[index], spans, y, start, scale))
    parts.append(_axis(start, end, scale, foot))
    count = len(video.segments)
    title = (
        f"<h2>{escape(video.video_id)}<small>{end - start:.1f} s, {len(video.times_S3)} snippets, "
        f"{count} annotated segment{'' if count == 1 else 's'}</small></h2>"
    )
    return "".join([title, *parts, "</svg>"])


def _lane(
    video: ProbedVideo,
    index: int,
    name: str,
    spans: Sequence[tuple[float, float]],
    y: float,
    start: float,
    scale: float,
) -> str:
    """Draw a class's lane: its name, the annotation under the curve of its probability."""
    colour, height = class_colour(index), LANE - BAR - 3
    parts = [
        _rect(LEFT, y, WIDTH - LEFT - RIGHT, LANE, "var(--lane)", 4),
        _text(LEFT - 12, y + LANE / 2 + 4, name, anchor="end"),
    ]
    for a, b in spans:
        x, width = LEFT + (a - start) * scale, max((b - a) * scale, 1.5)
        parts.append(_rect(x, y, width, LANE - BAR, colour, 0, opacity=0.13))
        parts.append(_rect(x, y + LANE - BAR, width, BAR, colour, 2))
    parts.append(
        _line(LEFT, y + 3 + height / 2, WIDTH - RIGHT, y + 3 + height / 2, "#aab3bf", "1 4")
    )
    if len(video.times_S3):
        xs = LEFT + (video.times_S3[:, 1] - start) * scale
        ys = y + 3 + (1 - video.scores_SC[:, index]) * height
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(xs, ys, strict=True))
        base = y + 3 + height
        parts.append(
            f'<polygon points="{xs[0]:.1f},{base:.1f} {points} {xs[-1]:.1f},{base:.1f}" '
            f'fill="{colour}" fill-opacity="0.28"/>'
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )
    return "".join(parts)


def _axis(start: float, end: float, scale: float, y: float) -> str:
    """Draw seconds under the lanes, at steps of 1, 2 or 5 times a power of ten."""
    least = (end - start) / 10
    power = 10.0 ** np.floor(np.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    parts = [_line(LEFT, y, WIDTH - RIGHT, y, "var(--line)")]
    for k in range(int(np.ceil(start / step)), int(end / step) + 1):
        x = LEFT + (k * step - start) * scale
        parts.append(_line(x, y, x, y + 5, "#aab3bf"))
        label = f"{k * step:g}" + (" s" if (k + 1) * step > end else "")
        parts.append(_text(x, y + 19, label, anchor="middle", soft=True))
    return "".join(parts)


def _svg_open(height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img"><title>{escape(title)}</title>'


def _text(x: float, y: float, text: str, anchor: str = "start", soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    shown = text if len(text) <= 24 else f"{text[:23]}…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(shown)}</text>'


def _rect(
    x: float, y: float, width: float, height: float, fill: str, radius: float, opacity: float = 1
) -> str:
    faded = "" if opacity == 1 else f' fill-opacity="{opacity:g}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" '
        f'fill="{fill}"{faded}/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashed}/>'
    )

"""Write `render-report.html`: what one run of the render job did, over time and by reason.

Names of nodes, reasons and sample keys come from elsewhere and are escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from importlib.metadata import version
from itertools import accumulate
from platform import python_version

from manifests import (
    AnyPath,
    ShardError,
    say_rate,
    say_seconds,
    storage_errors,
    to_path,
    write_atomic,
)

from .page_parts import build_html, draw_bar, draw_tiles, plural, say_bytes, say_count
from .render_chart import STYLE as CHART_STYLE
from .render_chart import Scale, draw_over_time, round_up
from .render_log import EXAMPLES, MAX_FAILED, RenderLog
from .shards import parse_index, shard_path

PAGE_NAME = "render-report.html"
SHOWN_REASONS = 20
SHOWN_NODES = 40
SHOWN_RETRIES = 20
LONGEST_TEXT = 400
REJECTED = ("status", "=", "rejected")
STYLE = f"""
{CHART_STYLE}
.verdict {{ font-size:17px; margin-top:14px }}
.verdict::before {{ content:""; display:inline-block; width:10px; height:10px; border-radius:50%;
  margin-right:10px; background:var(--verdict) }}
.graphs {{ display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));
  gap:34px 56px; padding-top:26px; border-top:1px solid var(--line) }}
.graphs .wide {{ grid-column:1/-1; --tall:190px }}
.list {{ width:100%; border-collapse:collapse; font-size:13.5px; margin-top:14px }}
.list th {{ text-align:left; font-weight:600; color:var(--soft); white-space:nowrap }}
.list th, .list td {{ padding:6px 28px 6px 0; vertical-align:top;
  border-bottom:1px solid var(--line) }}
.list .number {{ text-align:right; white-space:nowrap }}
.list .track {{ display:block; width:150px; margin-top:4px }}
.list td:last-child {{ width:99%; padding-right:0 }}
@media (max-width:640px) {{ .list .track {{ width:40px }} }}
.list small {{ display:block; font-size:12.5px; color:var(--soft) }}
""".strip()
GOOD, BAD, OPEN = "#009e73", "var(--mark)", "#e69f00"


@dataclass(frozen=True)
class RejectedSample:
    """A rejected sample: its key, and what its reason says beyond the one that is counted."""

    key: str
    details: str


def write_render_page(log: RenderLog, out: AnyPath | str) -> None:
    """Write the page of a run beside its shards.

    A run that had nothing to do leaves the page of the run before.

    Raises:
        OSError: The page cannot be written; an object store may raise others of its own.
    """
    if not log.has_worked:
        return
    path = to_path(out)
    reasons = [reason for reason, _ in log.reasons.most_common(SHOWN_REASONS)]
    examples = {reason: _examples(path, reason, log.examples[reason]) for reason in reasons}
    page = build_page(log, path.name, examples)
    write_atomic(path / PAGE_NAME, page.encode("utf-8", "replace"))


def _examples(out: AnyPath, reason: str, shards: Iterable[int]) -> list[RejectedSample]:
    """Return a few samples that were rejected for a reason, from the indices of these shards."""
    found: list[RejectedSample] = []
    for shard in shards:
        try:
            content = shard_path(out, shard, "parquet").read_bytes()
            rows = parse_index(content, shard_path(out, shard))
        except storage_errors():
            continue  # taken away meanwhile; the count stands
        except ShardError:
            continue  # written again meanwhile
        for row in rows:
            counted, _, details = str(row["reason"]).partition(": ")
            if row["status"] == "rejected" and counted == reason:
                found.append(RejectedSample(row["key"], details))
        if len(found) >= EXAMPLES:
            break
    return found[:EXAMPLES]


def build_page(log: RenderLog, name: str, examples: Mapping[str, Sequence[RejectedSample]]) -> str:
    """Return the HTML of the page.

    Args:
        log: Of the run.
        name: Of the output folder.
        examples: A few rejected samples by reason.
    """
    ended = log.started + timedelta(seconds=log.seconds)
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="lead">Rendering from {log.started:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} '
        f"UTC, {say_seconds(log.seconds)}</p>",
        _verdict(log),
        draw_tiles(_tiles(log)),
        _graphs(log),
        _failed(log),
        _rejections(log, examples),
        _slowest(log),
        _retries(log),
        _nodes(log),
        _versions(log),
    ]
    return build_html(f"{name} - render report", filter(None, body), STYLE)


def _verdict(log: RenderLog) -> str:
    done = log.found_shards + log.done_shards
    if done == log.num_shards:
        colour, words = GOOD, f"All {say_count(done, 'shard')} of the plan are done."
    elif log.num_failed:
        colour = BAD
        words = (
            f"{say_count(log.num_failed, 'shard')} could not be rendered. The same command tries "
            "again; finished shards are kept."
        )
    else:
        colour = OPEN
        words = "Stopped before the end. The same command renders what is missing."
    if log.found_shards:
        words += f" An earlier run had finished {say_count(log.found_shards, 'shard')}."
    return f'<p class="verdict" style="--verdict:{colour}">{words}</p>'


def _tiles(log: RenderLog) -> list[tuple[str, str]]:
    seconds = max(log.seconds, 1e-9)
    busy = sum(work.busy_seconds for work in log.nodes.values())
    return [
        (f"{log.rendered:,}", f"of {log.num_samples:,} samples rendered"),
        (f"{log.rejected:,}", "rejected"),
        (f"{log.found_shards + log.done_shards:,}", f"of {log.num_shards:,} shards done"),
        (say_rate(log.done_samples / seconds, "samples"), "mean of this run"),
        (say_rate(log.done_shards / seconds, "shards"), "mean of this run"),
        (f"{busy / seconds:.1f}", f"workers busy, on {say_count(len(log.nodes), 'node')}"),
        (say_bytes(log.peak_bytes), "peak memory of a worker"),
        (say_bytes(log.num_bytes), "written"),
    ]


def _graphs(log: RenderLog) -> str:
    seconds = max(log.seconds, 1e-3)
    stretches = log.timeline.stretches(seconds)
    width = log.timeline.width_seconds
    rates = [bucket.samples / length for length, bucket in stretches]
    busy = [bucket.busy_seconds / length for length, bucket in stretches]
    rejected = [bucket.rejected for _, bucket in stretches]
    done = accumulate((bucket.shards for _, bucket in stretches), initial=log.found_shards)
    peaks = [next((b.peak_bytes for _, b in stretches if b.peak_bytes), 0)]
    for _, bucket in stretches:
        peaks.append(bucket.peak_bytes or peaks[-1])

    def draw(title: str, mean: str, values: Sequence[float], scale: Scale, colour: str) -> str:
        return draw_over_time(title, mean, values, width, seconds, scale, colour)

    mean_busy = f"mean {sum(bucket.busy_seconds for _, bucket in stretches) / seconds:,.1f}"
    mean_rate = f"mean {log.done_samples / seconds:,.1f}"
    graphs = [
        f'<div class="wide">'
        f"{draw('Samples per second', mean_rate, rates, _up_to(rates), 'var(--blue)')}</div>",
        draw(
            "Shards done",
            f"{log.found_shards + log.done_shards:,} of {log.num_shards:,}",
            list(done)[1:],
            Scale(log.num_shards, lambda shards: f"{shards:,.0f}", is_whole=True),
            "#009e73",
        ),
        draw("Busy workers", mean_busy, busy, _up_to(busy), "#e69f00"),
        draw(
            "Peak memory of the workers",
            f"at most {say_bytes(log.peak_bytes)}",
            peaks[1:],
            Scale(round_up(max(peaks)), lambda size: say_bytes(round(size))),
            "#6a5acd",
        ),
    ]
    if log.rejected_now:
        every = say_seconds(width) if width >= 1 else f"{width:g} s"
        words = f"{log.rejected_now:,} together; drawn for every {every}"
        graphs.append(draw("Rejected samples", words, rejected, _up_to(rejected), BAD))
    return f'<div class="graphs" style="--blue:#0072b2">{"".join(graphs)}</div>'


def _up_to(values: Sequence[float]) -> Scale:
    return Scale(round_up(max(values)), lambda value: f"{value:,.4g}")


def _failed(log: RenderLog) -> str:
    if not log.num_failed:
        return ""
    rows = [[str(shard), _text(reason)] for shard, reason in sorted(log.failed.items())]
    beyond = log.num_failed - MAX_FAILED
    note = f"{beyond:,} more are not listed." if beyond > 0 else ""
    return _section("Failed shards", ("Shard", "Reason"), rows, note)


def _rejections(log: RenderLog, examples: Mapping[str, Sequence[RejectedSample]]) -> str:
    if not log.rejected:
        return '<section><header><h2>Rejections</h2></header><p class="note">None.</p></section>'
    ranked = log.reasons.most_common()
    rows = []
    for reason, count in ranked[:SHOWN_REASONS]:
        share = f"{100 * count / (log.rendered + log.rejected):.2g} %"
        rows.append(
            [
                f"{count:,}",
                share,
                draw_bar(count / ranked[0][1]),
                f"{_text(reason)}{_list_examples(examples.get(reason, ()))}",
            ]
        )
    rest = ranked[SHOWN_REASONS:]
    note = "Of all runs, with examples; shares are of the samples that are done."
    if rest:
        others = say_count(len(rest), "reason")
        note += f" {sum(count for _, count in rest):,} more for {others}."
    return _section("Rejections", ("Samples", "Share", "", "Reason"), rows, note)


def _list_examples(samples: Sequence[RejectedSample]) -> str:
    """Return a line for each example, or one for all if there is nothing but their keys."""
    lines = [f"<code>{escape(s.key)}</code> {_text(s.details)}" for s in samples]
    if not any(sample.details for sample in samples):
        lines = ["".join(lines)] if lines else []
    return "".join(f"<small>{line}</small>" for line in lines)


def _slowest(log: RenderLog) -> str:
    if not log.slowest:
        return ""
    mean = sum(work.busy_seconds for work in log.nodes.values()) / log.done_shards
    rows = [
        [
            str(made.shard),
            say_seconds(made.seconds),
            f"{made.samples:,}",
            draw_bar(made.seconds / max(log.slowest[0].seconds, 1e-9)),
            _text(made.node),
        ]
        for made in log.slowest
    ]
    note = f"A shard took {say_seconds(mean)} in the mean."
    return _section("Slowest shards", ("Shard", "Took", "Samples", "", "Node"), rows, note)


def _retries(log: RenderLog) -> str:
    if not log.num_retried:
        return ""
    last = [f"shard {a.shard} after {say_seconds(a.seconds)}" for a in log.last_retries]
    rows = [
        [f"{count:,}", _text(reason)] for reason, count in log.retried.most_common(SHOWN_REASONS)
    ]
    note = (
        f"Tries that failed and were followed by another; the last {plural(len(last), 'one')}: "
        f"{', '.join(last[-SHOWN_RETRIES:])}."
    )
    return _section("Tried again", ("Times", "Reason"), rows, note)


def _nodes(log: RenderLog) -> str:
    works = sorted(log.nodes.items(), key=lambda item: (-item[1].samples, item[0]))
    rows = [
        [
            f"{work.shards:,}",
            f"{work.samples:,}",
            say_rate(work.samples / max(work.busy_seconds, 1e-9), "samples"),
            say_bytes(work.peak_bytes),
            _text(node),
        ]
        for node, work in works[:SHOWN_NODES]
    ]
    beyond = len(works) - SHOWN_NODES
    note = "Rates are those of one busy worker."
    if beyond > 0:
        note += f" {say_count(beyond, 'node')} more with fewer samples."
    heads = ("Shards", "Samples", "Per worker", "Peak memory", "Node")
    return _section("Nodes", heads, rows, note) if rows else ""


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """Return a table under a title; the last column has the text, the others numbers or bars."""
    last = len(heads) - 1
    kinds = ["" if column == last else ' class="number"' for column in range(len(heads))]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    lines = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    said = f"<p>{note}</p>" if note else ""
    return (
        f'<section><header><h2>{title}</h2>{said}</header><table class="list"><tr>{head}</tr>'
        f"{lines}</table></section>"
    )


def _versions(log: RenderLog) -> str:
    versions = {"seamline": version("seamline"), "python": python_version(), **log.versions}
    parts = "".join(f"<code>{escape(f'{k} {v}')}</code>" for k, v in versions.items())
    return f'<section><div class="digests">{parts}</div></section>'


def _text(text: str) -> str:
    shown = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
    return escape(shown)

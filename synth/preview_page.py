"""Build the preview page as one string: statistics, film strips, and the labels under them.

Whatever comes from files - names, ids, captions - is escaped: shards come from other people.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .labels import LabelTrack
from .preview_chart import draw_chart
from .preview_style import PALETTE, STYLE, palette_css

MAX_CLASSES = 29  # bars of the class distribution, beside that of background
MAX_REASONS = 8
ONE_COLUMN = 8  # bars that stand in one column; more stand in two
# Title and meaning of each kind, in the order of the page.
KIND_WORDS = {
    "clip": ("Clip", "An untouched clip with its video's class on every frame."),
    "freeze": (
        "Freeze",
        "One frame stays while the action should go on; the frozen frames are background.",
    ),
    "mixup": ("MixUp", "One action dissolves into another over time, and the labels with it."),
    "cutmix_window": (
        "CutMix, transient window",
        "A border sweeps over the frame; each label weighs what its clip covers.",
    ),
    "cutmix_view": (
        "CutMix, transient view",
        "Two halves side by side, each with a clip that slides past; both count half throughout.",
    ),
}


@dataclass(frozen=True)
class ShownSource:
    """One source of a shown sample, as its plan row says."""

    video_id: str
    label_id: int | None
    first_frame: int
    last_frame: int
    frame_stride: int
    num_frames: int
    flip: bool


@dataclass(frozen=True)
class ShownSample:
    """A sample on the page.

    Attributes:
        key, caption: Its name, and what its tree does.
        sources: The clips that it shows.
        track: Its labels.
        size: Frames, height and width as rendered.
        positions: Which frames the strip shows, from 0.
        cell_width, cell_height: Pixels of a frame of the strip.
        jpegs: The frames of the strip.
    """

    key: str
    caption: str
    sources: tuple[ShownSource, ...]
    track: LabelTrack
    size: tuple[int, int, int]
    positions: tuple[int, ...]
    cell_width: int
    cell_height: int
    jpegs: tuple[bytes, ...]


@dataclass(frozen=True)
class Dataset:
    """The numbers of the page's head.

    Attributes:
        name: Of the output folder.
        classes: Class names in id order.
        kinds: Rendered samples by kind.
        num_shards, num_bytes: Shards and the size of their tars.
        reasons: Rejected samples by reason.
        codec: "filmstrip", "h264" or "raw".
        digests: sha256 by what it is of.
        shares: Share of the label weight by class id; None is background.
        num_counted: Samples from which the shares were taken.
    """

    name: str
    classes: tuple[str, ...]
    kinds: Mapping[str, int]
    num_shards: int
    num_bytes: int
    reasons: Mapping[str, int]
    codec: str
    digests: Mapping[str, str]
    shares: Mapping[int | None, float]
    num_counted: int

    @property
    def num_samples(self) -> int:
        """Rendered samples."""
        return sum(self.kinds.values())


def build_page(dataset: Dataset, shown: Mapping[str, Sequence[ShownSample]]) -> str:
    """Return the HTML of the preview page; it refers to nothing outside itself."""
    ranked = sorted(
        (class_id for class_id in dataset.shares if class_id is not None),
        key=lambda class_id: (-dataset.shares[class_id], class_id),
    )
    samples = [sample for samples in shown.values() for sample in samples]
    groups = [_class_order(sample) for sample in samples]
    colours = assign_colours([*groups, *([class_id] for class_id in ranked)])
    title = escape(dataset.name)
    body = [
        f"<h1>{title}</h1>",
        '<p class="lead">Film strips with the labels of every frame under them.</p>',
        _tiles(dataset, samples),
        f'<div class="tables">{_kind_bars(dataset)}{_class_bars(dataset, ranked, colours)}</div>',
        _digests(dataset),
        '<p class="how">Under each strip stand the label weights of its frames, stacked up to 1; '
        "what they leave over is background. Dots mark the weights of single frames, which are "
        "counted from 1.</p>",
        *(_section(kind, dataset, shown[kind], colours) for kind in shown),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} - preview</title>\n<style>\n{STYLE}\n{palette_css()}\n</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def assign_colours(groups: Iterable[Sequence[int]]) -> dict[int, int]:
    """Give every class one colour of the palette; classes of one group never share theirs.

    Classes are served in order of appearance, each with the least used colour that is free.
    """
    groups = list(groups)
    beside: dict[int, set[int]] = {}
    for group in groups:
        for class_id in group:
            beside.setdefault(class_id, set()).update(group)
    colours: dict[int, int] = {}
    used = [0] * len(PALETTE)
    for class_id, neighbours in beside.items():
        taken = {colours[other] for other in neighbours if other in colours}
        colour = min(range(len(PALETTE)), key=lambda i: (i in taken, used[i], i))
        colours[class_id] = colour
        used[colour] += 1
    return colours


def _class_order(sample: ShownSample) -> list[int]:
    """Return the classes of a sample from the bottom of its chart up: those of clip 1 first."""
    first = [source.label_id for source in sample.sources if source.label_id is not None]
    return list(dict.fromkeys([*first, *sample.track.class_ids.tolist()]))


def _tiles(dataset: Dataset, samples: Sequence[ShownSample]) -> str:
    sizes = {sample.size for sample in samples}
    counts = [
        (dataset.num_samples, "sample"),
        (len(dataset.kinds), "kind"),
        (len(dataset.classes), "class"),
    ]
    tiles = [
        *((f"{number:,}", _plural(number, unit)) for number, unit in counts),
        (f"{sum(dataset.reasons.values()):,}", "rejected"),
        (_bytes(dataset.num_bytes), f"in {_count(dataset.num_shards, 'shard')}"),
        (dataset.codec, "codec"),
    ]
    if len(sizes) == 1:
        ((num_frames, height, width),) = sizes
        tiles.insert(3, (f"{num_frames}", f"frames of {width}×{height}"))
    return (
        '<dl class="tiles">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(v)}</dd></div>" for v, name in tiles)
        + "</dl>"
    )


def _kind_bars(dataset: Dataset) -> str:
    most = max(dataset.kinds.values(), default=1)
    rows = [
        f'<li><a href="#kind-{number}">{escape(_kind_title(kind))}</a>'
        f"{_bar(count / most)}"
        f'<span class="value">{count:,} · {100 * count / dataset.num_samples:.1f} %</span></li>'
        for number, (kind, count) in enumerate(dataset.kinds.items())
    ]
    parts = [f'<div><h3>Samples by kind</h3><ul class="bars">{"".join(rows)}</ul>']
    reasons = sorted(dataset.reasons.items(), key=lambda item: (-item[1], item[0]))
    if reasons:
        lines = [f"{count:,} rejected: {escape(reason)}" for reason, count in reasons[:MAX_REASONS]]
        if len(reasons) > MAX_REASONS:
            rest = sum(count for _, count in reasons[MAX_REASONS:])
            lines.append(f"{rest:,} rejected for other reasons")
        parts.append(f'<p class="note">{"<br>".join(lines)}</p>')
    return "".join([*parts, "</div>"])


def _class_bars(dataset: Dataset, ranked: Sequence[int], colours: Mapping[int, int]) -> str:
    most = max(dataset.shares.values(), default=1.0) or 1.0
    bars = [
        (dataset.classes[class_id], dataset.shares[class_id], f"c{colours[class_id]}")
        for class_id in ranked[:MAX_CLASSES]
    ]
    if None in dataset.shares:
        bars.append(("background", dataset.shares[None], "rest"))
    rows = [
        f"<li><span>{_name(name)}</span>{_bar(share / most, style)}"
        f'<span class="value">{100 * share:.1f} %</span></li>'
        for name, share, style in bars
    ]
    half = max(len(rows), 1) if len(rows) <= ONE_COLUMN else (len(rows) + 1) // 2
    lists = "".join(
        f'<ul class="bars">{"".join(rows[i : i + half])}</ul>' for i in range(0, len(rows), half)
    )
    note = _class_note(dataset, len(ranked))
    return f'<div><h3>Share of the label weight</h3><div class="columns">{lists}</div>{note}</div>'


def _class_note(dataset: Dataset, num_present: int) -> str:
    notes = []
    if num_present > MAX_CLASSES:
        notes.append(f"{num_present - MAX_CLASSES:,} more with less weight.")
    if num_present < len(dataset.classes):
        notes.append(f"{_count(len(dataset.classes) - num_present, 'class')} without a frame.")
    if dataset.num_counted < dataset.num_samples:
        notes.append(f"Counted on {dataset.num_counted:,} samples, chosen evenly.")
    return f'<p class="note">{" ".join(notes)}</p>' if notes else ""


def _bar(share: float, style: str = "rest") -> str:
    return f'<span class="track"><i class="{style}" style="width:{100 * share:.2f}%"></i></span>'


def _digests(dataset: Dataset) -> str:
    parts = "".join(
        f'<code title="{escape(digest)}">{escape(name)} {escape(digest[:16])}…</code>'
        for name, digest in dataset.digests.items()
    )
    return f'<div class="digests">{parts}</div>'


def _section(
    kind: str, dataset: Dataset, samples: Sequence[ShownSample], colours: Mapping[int, int]
) -> str:
    number = list(dataset.kinds).index(kind)
    meaning = KIND_WORDS[kind][1] if kind in KIND_WORDS else ""
    count = dataset.kinds[kind]
    shown = f"{len(samples)} of " if len(samples) < count else ""
    title = f"{escape(_kind_title(kind))} <small>{shown}{_count(count, 'sample')}</small>"
    articles = "\n".join(_sample(sample, dataset.classes, colours) for sample in samples)
    return (
        f'<section id="kind-{number}"><header><h2>{title}</h2><p>{meaning}</p></header>\n'
        f"{articles}\n</section>"
    )


def _sample(sample: ShownSample, classes: Sequence[str], colours: Mapping[int, int]) -> str:
    num_frames = sample.size[0]
    thinned = ""
    if len(sample.positions) < num_frames:
        thinned = f" The strip shows {len(sample.positions)} of {num_frames} frames."
    key = escape(sample.key)
    images = "".join(
        f'<img alt="" title="frame {t + 1}" width="{sample.cell_width}" '
        f'height="{sample.cell_height}" src="{_jpeg_uri(jpeg)}">'
        for t, jpeg in zip(sample.positions, sample.jpegs, strict=True)
    )
    numbers = "".join(f"<span>{t + 1}</span>" for t in sample.positions)
    return (
        f'<article class="sample"><div class="says"><p>{escape(sample.caption)}{thinned}</p>'
        f"<code>{key}</code></div>\n{_clips(sample, classes, colours)}\n"
        f'<div class="scroll" tabindex="0" role="group" aria-label="sample {key}">'
        f'<div class="reel" style="--n:{len(sample.positions)};--cell:{sample.cell_width};'
        f'--t:{num_frames}">'
        f'<div class="strip" role="img" aria-label="frames of sample {key}">{images}</div>'
        f"{draw_chart(sample.track, _class_order(sample), classes, colours)}"
        f'<div class="numbers" aria-hidden="true">{numbers}</div></div></div></article>'
    )


def _clips(sample: ShownSample, classes: Sequence[str], colours: Mapping[int, int]) -> str:
    items = []
    for number, source in enumerate(sample.sources, 1):
        clip = f"clip {number} · " if len(sample.sources) > 1 else ""
        label_id = source.label_id
        label = "<b>no label</b>"
        if label_id is not None:
            label = f'<i class="c{colours[label_id]}"></i><b>{_name(classes[label_id])}</b>'
        mirrored = " · mirrored" if source.flip else ""
        items.append(
            f"<li>{label} {clip}{_name(source.video_id)} · frames {source.first_frame}"
            f"–{source.last_frame}, stride {source.frame_stride}{mirrored}</li>"
        )
    return f'<ul class="clips">{"".join(items)}</ul>'


def _jpeg_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _name(name: str) -> str:
    return f"<bdi>{escape(name)}</bdi>"


def _kind_title(kind: str) -> str:
    return KIND_WORDS[kind][0] if kind in KIND_WORDS else kind


def _count(number: int, unit: str) -> str:
    return f"{number:,} {_plural(number, unit)}"


def _plural(number: int, unit: str) -> str:
    if number == 1:
        return unit
    return "classes" if unit == "class" else f"{unit}s"


def _bytes(number: int) -> str:
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"

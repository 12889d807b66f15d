"""Build the preview page as one string: statistics, then a section of samples for each kind.

Whatever comes from files - names, ids, captions - is escaped: shards come from other people.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .page_parts import build_html, draw_bar, draw_tiles, plural, say_bytes, say_count
from .preview_sample import ShownSample, draw_sample
from .preview_style import PALETTE

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
    "joint": (
        "Joint",
        "Freeze, MixUp and CutMix one upon the other, each by chance; the steps are numbered in "
        "the order in which they are made.",
    ),
    "boundary": (
        "Boundary",
        "Another class, another video of the class or another speed begins at a known frame - or "
        "nothing changes. Which of the four it is, and where, is what there is to learn.",
    ),
    "pal": (
        "Pasted action",
        "Two videos, query and key: parts of one action video, pasted into a background each. What "
        "there is to learn is that both framed regions show one action; no label is read.",
    ),
    "clip_pair": (
        "Clip pair",
        "Two clips of one video, query and key, each from a place and with an augmentation of its "
        "own; no label is read.",
    ),
    "annotated": (
        "Annotated window",
        "A window of an untrimmed video with its annotated classes; a frame may have several of "
        "them, or none.",
    ),
}


@dataclass(frozen=True)
class Counts:
    """What was counted on samples, chosen evenly.

    Attributes:
        num_samples: How many were looked at.
        num_labelled: Those of them that have labels: pairs have none.
        shares: Mean weight on a frame by class id; None is background.
        exclusive: Whether the classes share each frame; if not, the shares may exceed 1 together.
        boundary_classes: Samples by boundary class, in the order of their ids.
    """

    num_samples: int
    num_labelled: int
    shares: Mapping[int | None, float]
    exclusive: bool
    boundary_classes: Mapping[str, int]


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
        counts: What its samples say.
    """

    name: str
    classes: tuple[str, ...]
    kinds: Mapping[str, int]
    num_shards: int
    num_bytes: int
    reasons: Mapping[str, int]
    codec: str
    digests: Mapping[str, str]
    counts: Counts

    @property
    def num_samples(self) -> int:
        """Rendered samples."""
        return sum(self.kinds.values())

    @property
    def shows_classes(self) -> bool:
        """Whether there is anything to say about classes."""
        return bool(self.classes and self.counts.num_labelled)


def build_page(dataset: Dataset, shown: Mapping[str, Sequence[ShownSample]]) -> str:
    """Return the HTML of the preview page; it refers to nothing outside itself."""
    shares = dataset.counts.shares
    ranked = sorted(
        (class_id for class_id in shares if class_id is not None),
        key=lambda class_id: (-shares[class_id], class_id),
    )
    samples = [sample for samples in shown.values() for sample in samples]
    groups = [sample.class_order for sample in samples]
    colours = assign_colours([*groups, *([class_id] for class_id in ranked)])
    title = escape(dataset.name)
    body = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{_lead(samples)}</p>',
        _tiles(dataset, samples),
        f'<div class="tables">{_kind_bars(dataset)}{_class_bars(dataset, ranked, colours)}</div>',
        _digests(dataset),
        _how(samples),
        *(_section(kind, dataset, shown[kind], colours) for kind in shown),
    ]
    return build_html(f"{dataset.name} - preview", body)


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


def _lead(samples: Sequence[ShownSample]) -> str:
    if samples and all(sample.track is None for sample in samples):
        return "Film strips of every kind of sample."
    return "Film strips with the labels of every frame under them."


def _how(samples: Sequence[ShownSample]) -> str:
    """Say how to read what stands under the strips."""
    drawn = {sample.track.exclusive for sample in samples if sample.track is not None}
    ways = []
    if True in drawn:
        ways.append(
            "Under each strip stand the label weights of its frames, stacked up to 1; what they "
            "leave over is background. Dots mark the weights of single frames."
        )
    if False in drawn:
        ways.append("Each class has a lane of its own; its bar stands under the frames it is on.")
    if any(clip.marks.change_point is not None for sample in samples for clip in sample.clips):
        ways.append("The red line is the change point, between two frames.")
    if any(clip.marks.clip_len for sample in samples for clip in sample.clips):
        ways.append("The red frame is the pasted region; gaps part the clips of a video.")
    ways.append("Frames of a strip are counted from 1, those of a video from 0 as in the plan.")
    return f'<p class="how">{" ".join(ways)}</p>'


def _tiles(dataset: Dataset, samples: Sequence[ShownSample]) -> str:
    sizes = {sample.size for sample in samples}
    counts = [(dataset.num_samples, "sample"), (len(dataset.kinds), "kind")]
    if dataset.shows_classes:
        counts.append((len(dataset.classes), "class"))
    tiles = [
        *((f"{number:,}", plural(number, unit)) for number, unit in counts),
        (f"{sum(dataset.reasons.values()):,}", "rejected"),
        (say_bytes(dataset.num_bytes), f"in {say_count(dataset.num_shards, 'shard')}"),
        (dataset.codec, "codec"),
    ]
    if len(sizes) == 1:
        ((num_frames, height, width),) = sizes
        tiles.insert(len(counts), (f"{num_frames}", f"frames of {width}×{height}"))
    return draw_tiles(tiles)


def _kind_bars(dataset: Dataset) -> str:
    most = max(dataset.kinds.values(), default=1)
    rows = [
        f'<li><a href="#kind-{number}">{escape(_kind_title(kind))}</a>'
        f"{draw_bar(count / most)}"
        f'<span class="value">{count:,} · {100 * count / dataset.num_samples:.1f} %</span></li>'
        for number, (kind, count) in enumerate(dataset.kinds.items())
    ]
    parts = [f'<div><h3>Samples by kind</h3><ul class="bars">{"".join(rows)}</ul>']
    parts.append(_boundary_bars(dataset))
    reasons = sorted(dataset.reasons.items(), key=lambda item: (-item[1], item[0]))
    if reasons:
        lines = [f"{count:,} rejected: {escape(reason)}" for reason, count in reasons[:MAX_REASONS]]
        if len(reasons) > MAX_REASONS:
            rest = sum(count for _, count in reasons[MAX_REASONS:])
            lines.append(f"{rest:,} rejected for other reasons")
        parts.append(f'<p class="note">{"<br>".join(lines)}</p>')
    return "".join([*parts, "</div>"])


def _boundary_bars(dataset: Dataset) -> str:
    counted = dataset.counts.boundary_classes
    if not counted:
        return ""
    total, most = sum(counted.values()), max(counted.values())
    rows = [
        f'<li><span>{escape(name)}</span>{draw_bar(count / most)}<span class="value">{count:,} · '
        f"{100 * count / total:.1f} %</span></li>"
        for name, count in counted.items()
    ]
    note = f'<p class="note">{_scanned(dataset)}</p>' if _scanned(dataset) else ""
    return f'<h3>Boundary classes</h3><ul class="bars">{"".join(rows)}</ul>{note}'


def _class_bars(dataset: Dataset, ranked: Sequence[int], colours: Mapping[int, int]) -> str:
    if not dataset.shows_classes:
        return ""
    shares = dataset.counts.shares
    most = max(shares.values(), default=1.0) or 1.0
    bars = [
        (dataset.classes[class_id], shares[class_id], f"c{colours[class_id]}")
        for class_id in ranked[:MAX_CLASSES]
    ]
    if None in shares:
        bars.append(("background", shares[None], "rest"))
    rows = [
        f"<li><span>{_name(name)}</span>{draw_bar(share / most, style)}"
        f'<span class="value">{100 * share:.1f} %</span></li>'
        for name, share, style in bars
    ]
    half = max(len(rows), 1) if len(rows) <= ONE_COLUMN else (len(rows) + 1) // 2
    lists = "".join(
        f'<ul class="bars">{"".join(rows[i : i + half])}</ul>' for i in range(0, len(rows), half)
    )
    title = "Share of the label weight" if dataset.counts.exclusive else "Share of the frames"
    note = _class_note(dataset, len(ranked))
    return f'<div><h3>{title}</h3><div class="columns">{lists}</div>{note}</div>'


def _class_note(dataset: Dataset, num_present: int) -> str:
    notes = []
    if num_present > MAX_CLASSES:
        notes.append(f"{num_present - MAX_CLASSES:,} more with less weight.")
    if num_present < len(dataset.classes):
        notes.append(f"{say_count(len(dataset.classes) - num_present, 'class')} without a frame.")
    if not dataset.counts.exclusive:
        notes.append("A frame may show several classes.")
    notes.append(_scanned(dataset))
    return f'<p class="note">{" ".join(filter(None, notes))}</p>' if any(notes) else ""


def _scanned(dataset: Dataset) -> str:
    num_samples = dataset.counts.num_samples
    if num_samples == dataset.num_samples:
        return ""
    return f"Counted on {num_samples:,} samples, chosen evenly."


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
    title = f"{escape(_kind_title(kind))} <small>{shown}{say_count(count, 'sample')}</small>"
    articles = "\n".join(draw_sample(sample, dataset.classes, colours) for sample in samples)
    return (
        f'<section id="kind-{number}"><header><h2>{title}</h2><p>{meaning}</p></header>\n'
        f"{articles}\n</section>"
    )


def _name(name: str) -> str:
    return f"<bdi>{escape(name)}</bdi>"


def _kind_title(kind: str) -> str:
    return KIND_WORDS[kind][0] if kind in KIND_WORDS else kind

"""Show a finished output folder: choose samples, read them, write one self-contained HTML page."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests import AnyPath, Progress, UsageError, to_path, write_atomic

from .boundary import BOUNDARY_CLASSES
from .dataset import ShardDataset, read_dataset
from .preview_page import Counts, Dataset, build_page
from .preview_show import KNOWN_OPS, boundary_class, read_track, root_op, show_sample, spread
from .recipe import KINDS
from .shards import (
    ShardSample,
    done_records,
    parse_sample,
    read_record,
    read_sample,
)

MAX_SCANNED = 100  # samples of a kind among which those to show are chosen
MAX_COUNTED = 1000  # samples whose labels are counted
READ_TOGETHER = 32  # samples of an object store

Place = tuple[int, int]  # which shard of the dataset, which sample of that shard


@dataclass(frozen=True)
class PreviewReport:
    """What `write_preview` wrote.

    Attributes:
        path: The page.
        num_bytes: Its size.
        num_samples: Samples of the dataset.
        num_shown: Samples on the page.
        kinds: Samples of the dataset by kind.
    """

    path: AnyPath
    num_bytes: int
    num_samples: int
    num_shown: int
    kinds: Mapping[str, int]


def write_preview(
    out: AnyPath | str, page: AnyPath | str, *, samples_per_kind: int = 3
) -> PreviewReport:
    """Write the preview page of a finished output folder.

    The samples are spread evenly over the shards; the same folder gives the same page.

    Args:
        out: The output folder of `synth render`.
        page: The HTML file to write; it refers to nothing outside itself.
        samples_per_kind: Samples shown of each kind, at most; more only where a kind has several
            operations, such as the four boundary classes, of which each is shown.

    Raises:
        UsageError: No such folder, rendering not finished, or a senseless argument.
        ShardError: A shard or sample that is not what the records say.
    """
    if samples_per_kind < 1:
        raise UsageError(f"samples_per_kind must be >= 1, got {samples_per_kind}")
    path = to_path(page)
    if path.is_dir():
        raise UsageError(f"the page must be a file, got the folder {str(page)!r}")
    dataset = read_dataset(out)
    places = _places_by_kind(dataset)
    num_classes = len(dataset.classes)
    shown = {
        kind: [
            show_sample(sample, num_classes) for sample in _choose(dataset, where, samples_per_kind)
        ]
        for kind, where in places.items()
    }
    kinds = {kind: len(where) for kind, where in places.items()}
    content = build_page(_summarise(dataset, kinds), shown).encode("utf-8", "replace")
    write_atomic(path, content)
    return PreviewReport(
        path=path,
        num_bytes=len(content),
        num_samples=sum(kinds.values()),
        num_shown=sum(len(samples) for samples in shown.values()),
        kinds=kinds,
    )


def _choose(dataset: ShardDataset, where: Sequence[Place], wanted: int) -> list[ShardSample]:
    """Read samples of one kind, spread evenly, at least one of each operation that is found."""
    found: defaultdict[str, list[Place]] = defaultdict(list)
    scanned = [where[i] for i in spread(len(where), MAX_SCANNED)]
    for place, sample in zip(scanned, _read(dataset, scanned), strict=True):
        found[root_op(sample)].append(place)
    order = [op for op in (*KNOWN_OPS, "") if op in found]
    numbers = dict.fromkeys(order, 0)
    for _ in range(max(wanted, len(order))):
        left = [op for op in order if numbers[op] < len(found[op])]
        if left:
            numbers[min(left, key=lambda op: numbers[op])] += 1
    shown: set[str] = set()
    chosen = [place for op in order for place in _pick(dataset, found[op], numbers[op], shown)]
    return list(_read(dataset, chosen))


def _pick(
    dataset: ShardDataset, places: Sequence[Place], wanted: int, shown: set[str]
) -> Iterator[Place]:
    """Pick from each of `wanted` equal parts, near its middle, where the fewest videos are `shown`.

    Samples of one video may lie at equal distances, so that the middles alone would meet no other.
    """
    for i in range(wanted):
        part = places[i * len(places) // wanted : (i + 1) * len(places) // wanted]
        videos = [set(dataset.shards[number].video_ids[position]) for number, position in part]
        best = min(
            range(len(part)), key=lambda j: (len(videos[j] & shown), abs(2 * j + 1 - len(part)))
        )
        shown |= videos[best]
        yield part[best]


def _places_by_kind(dataset: ShardDataset) -> dict[str, list[Place]]:
    """Return where the samples of each kind lie; the known kinds first, in the recipe's order."""
    places: dict[str, list[Place]] = defaultdict(list)
    for number, shard in enumerate(dataset.shards):
        for position, kind in enumerate(shard.kinds):
            places[kind].append((number, position))
    known = [kind for kind in KINDS if kind in places]
    return {kind: places[kind] for kind in [*known, *sorted(set(places) - set(known))]}


def _read(dataset: ShardDataset, places: Sequence[Place]) -> Iterator[ShardSample]:
    """Read samples; of an object store many at a time."""
    ranges = [
        (shard.path, int(shard.offsets[position]), int(shard.sizes[position]))
        for shard, position in ((dataset.shards[number], position) for number, position in places)
    ]
    if isinstance(dataset.path, Path):
        yield from (read_sample(*place) for place in ranges)
        return
    for first in range(0, len(ranges), READ_TOGETHER):
        paths, offsets, sizes = zip(*ranges[first : first + READ_TOGETHER], strict=True)
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
        keys = [path.path for path in paths]
        contents = dataset.path.fs.cat_ranges(keys, list(offsets), ends, on_error="raise")
        yield from map(parse_sample, contents, sizes)


def _summarise(dataset: ShardDataset, kinds: Mapping[str, int]) -> Dataset:
    record = read_record(dataset.path / "dataset.json") or {}
    shards = set(record.get("shards", ()))
    reasons: Counter[str] = Counter()
    num_bytes = 0
    for shard, done, _ in done_records(dataset.path):
        if shard in shards:
            reasons.update(done["reasons"])
            num_bytes += int(done["bytes"])
    return Dataset(
        name=dataset.path.resolve().name,
        classes=dataset.classes,
        kinds=kinds,
        num_shards=len(dataset.shards),
        num_bytes=num_bytes,
        reasons=reasons,
        codec=str(record.get("codec", "unknown")),
        digests={
            "dataset": dataset.digest,
            **{
                name: str(record[f"{name}_digest"])
                for name in ("plan", "recipe")
                if record.get(f"{name}_digest")
            },
        },
        counts=_count(dataset),
    )


def _count(dataset: ShardDataset) -> Counts:
    """Count labels and boundary classes on samples that are spread evenly over the dataset."""
    places = [
        (number, position)
        for number, shard in enumerate(dataset.shards)
        for position in range(len(shard))
    ]
    chosen = [places[i] for i in spread(len(places), MAX_COUNTED)]
    weights: defaultdict[int | None, list[float]] = defaultdict(list)
    found: Counter[str | None] = Counter()
    exclusive, num_labelled, num_frames = True, 0, 0
    with Progress("preview", "samples", len(chosen)) as progress:
        for sample in _read(dataset, chosen):
            progress.advance()
            track = read_track(sample, len(dataset.classes))
            found[boundary_class(sample)] += 1
            if root_op(sample) == "pair":
                continue
            for class_id, weights_T in zip(track.class_ids, track.weights_CT, strict=True):
                weights[int(class_id)].append(float(weights_T.sum()))
            weights[None].append(float(track.background_T.sum()))
            exclusive &= track.exclusive
            num_labelled += 1
            num_frames += track.num_frames
    return Counts(
        num_samples=len(chosen),
        num_labelled=num_labelled,
        shares={class_id: math.fsum(parts) / num_frames for class_id, parts in weights.items()},
        exclusive=exclusive,
        boundary_classes={name: found[name] for name in BOUNDARY_CLASSES if found[name]},
    )

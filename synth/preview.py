"""Show a finished output folder: choose samples, read them, write one self-contained HTML page."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from manifests import Progress, ShardError, UsageError, write_atomic

from .captions import describe_tree
from .labels import LabelTrack
from .preview_page import Dataset, ShownSample, ShownSource, build_page
from .recipe import KINDS
from .shards import ShardDataset, ShardSample, read_dataset, read_record, read_sample
from .views import resize

FRAME_HEIGHT = 112  # pixels
MAX_FRAMES = 16  # in a strip; of longer samples every few are shown
JPEG_QUALITY = 85
MAX_COUNTED = 1000  # samples whose labels are counted

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

    path: Path
    num_bytes: int
    num_samples: int
    num_shown: int
    kinds: Mapping[str, int]


def write_preview(out: Path | str, page: Path | str, *, samples_per_kind: int = 3) -> PreviewReport:
    """Write the preview page of a finished output folder.

    The samples are spread evenly over the shards; the same folder gives the same page.

    Args:
        out: The output folder of `synth render`.
        page: The HTML file to write; it refers to nothing outside itself.
        samples_per_kind: Samples shown of each kind, at most.

    Raises:
        UsageError: No such folder, rendering not finished, or a senseless argument.
        ShardError: A shard or sample that is not what the records say.
    """
    if samples_per_kind < 1:
        raise UsageError(f"samples_per_kind must be >= 1, got {samples_per_kind}")
    if Path(page).is_dir():
        raise UsageError(f"the page must be a file, got the folder {str(page)!r}")
    dataset = read_dataset(out)
    places = _places_by_kind(dataset)
    shown = {
        kind: [
            _show_sample(_read(dataset, where[i]), dataset)
            for i in _spread(len(where), samples_per_kind)
        ]
        for kind, where in places.items()
    }
    kinds = {kind: len(where) for kind, where in places.items()}
    content = build_page(_summarise(dataset, kinds), shown).encode("utf-8", "replace")
    write_atomic(Path(page), content)
    return PreviewReport(
        path=Path(page),
        num_bytes=len(content),
        num_samples=sum(kinds.values()),
        num_shown=sum(len(samples) for samples in shown.values()),
        kinds=kinds,
    )


def _spread(total: int, wanted: int) -> list[int]:
    """Return the middles of `wanted` equal parts of `total` things, or all of them.

    # total=9, wanted=3: 1 4 7
    """
    wanted = min(total, wanted)
    return [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]


def _places_by_kind(dataset: ShardDataset) -> dict[str, list[Place]]:
    """Return where the samples of each kind lie; the known kinds first, in the recipe's order."""
    places: dict[str, list[Place]] = defaultdict(list)
    for number, shard in enumerate(dataset.shards):
        for position, kind in enumerate(shard.kinds):
            places[kind].append((number, position))
    known = [kind for kind in KINDS if kind in places]
    return {kind: places[kind] for kind in [*known, *sorted(set(places) - set(known))]}


def _read(dataset: ShardDataset, place: Place) -> ShardSample:
    number, position = place
    shard = dataset.shards[number]
    return read_sample(shard.path, int(shard.offsets[position]), int(shard.sizes[position]))


def _track(sample: ShardSample, classes: Sequence[str]) -> LabelTrack:
    try:
        track = sample.track()
    except (KeyError, TypeError, ValueError) as err:
        raise ShardError(f"sample {sample.key} has no label track: {err}") from err
    for class_id in track.class_ids:
        _check_class(class_id, classes, sample)
    return track


def _check_class(class_id: int, classes: Sequence[str], sample: ShardSample) -> None:
    if not 0 <= class_id < len(classes):
        raise ShardError(
            f"class ids must be below the number of classes {len(classes)}, got {class_id} "
            f"(sample {sample.key})"
        )


def _show_sample(sample: ShardSample, dataset: ShardDataset) -> ShownSample:
    track = _track(sample, dataset.classes)
    frames_THWC = sample.frames()
    num_frames, height, width, _ = frames_THWC.shape
    cell_width = max(1, round(FRAME_HEIGHT * width / height))
    positions = _spread(num_frames, MAX_FRAMES)
    try:
        caption = describe_tree(sample.meta["tree"])
        sources = tuple(_show_source(source) for source in sample.meta["sources"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise ShardError(f"sample {sample.key} does not say how it was made: {err!r}") from err
    for source in sources:
        if source.label_id is not None:
            _check_class(source.label_id, dataset.classes, sample)
    return ShownSample(
        key=sample.key,
        caption=caption,
        sources=sources,
        track=track,
        size=(num_frames, height, width),
        positions=tuple(positions),
        cell_width=cell_width,
        cell_height=FRAME_HEIGHT,
        jpegs=tuple(_thumbnail(frames_THWC[t], FRAME_HEIGHT, cell_width) for t in positions),
    )


def _show_source(source: Mapping[str, Any]) -> ShownSource:
    start, stride, count = (
        int(source[name]) for name in ("start_frame", "frame_stride", "num_frames")
    )
    label_id = source["label_id"]
    return ShownSource(
        video_id=str(source["video_id"]),
        label_id=None if label_id is None else int(label_id),
        first_frame=start,
        last_frame=start + (count - 1) * stride,
        frame_stride=stride,
        num_frames=count,
        flip=bool(source["view"]["flip"]),
    )


def _thumbnail(frame_HWC: np.ndarray, height: int, width: int) -> bytes:
    small = np.ascontiguousarray(resize(frame_HWC, height, width))
    return simplejpeg.encode_jpeg(small, quality=JPEG_QUALITY, colorspace="RGB")


def _summarise(dataset: ShardDataset, kinds: Mapping[str, int]) -> Dataset:
    record = read_record(dataset.path / "dataset.json") or {}
    reasons: Counter[str] = Counter()
    num_bytes = 0
    for shard in dataset.shards:
        done = read_record(shard.path.with_suffix(".json")) or {}
        reasons.update(done.get("reasons", {}))
        num_bytes += int(done["bytes"])
    shares, num_counted = _class_shares(dataset)
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
        shares=shares,
        num_counted=num_counted,
    )


def _class_shares(dataset: ShardDataset) -> tuple[dict[int | None, float], int]:
    """Return each class's share of the label weight (None: background), and samples counted."""
    places = [
        (number, position)
        for number, shard in enumerate(dataset.shards)
        for position in range(len(shard))
    ]
    chosen = [places[i] for i in _spread(len(places), MAX_COUNTED)]
    weights: defaultdict[int | None, list[float]] = defaultdict(list)
    with Progress("preview", "samples", len(chosen)) as progress:
        for place in chosen:
            track = _track(_read(dataset, place), dataset.classes)
            for class_id, weights_T in zip(track.class_ids, track.weights_CT, strict=True):
                weights[int(class_id)].append(float(weights_T.sum()))
            weights[None].append(float(track.background_T.sum()))
            progress.advance()
    totals = {class_id: math.fsum(parts) for class_id, parts in weights.items()}
    whole = math.fsum(totals.values())
    return {class_id: total / whole for class_id, total in totals.items() if whole}, len(chosen)

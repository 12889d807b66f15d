"""Turn a sample of a shard into what the preview page shows of it."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import simplejpeg

from manifests import ShardError

from .boundary import BOUNDARY_CLASSES, change_point
from .captions import describe_tree, leaves
from .labels import LabelTrack, constant_track
from .preview_marks import mark_tree
from .preview_sample import ShownClip, ShownSample, ShownSource
from .shards import ShardSample
from .tree import OPERATIONS, LabelledSize, Tree, clips_of
from .views import resize

FRAME_HEIGHT = 112  # pixels
MAX_FRAMES = 16  # in a strip; of longer samples every few are shown
JPEG_QUALITY = 85
KNOWN_OPS = ("clip", *OPERATIONS, "pair")  # at the root of a tree
BROKEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)


def spread(total: int, wanted: int) -> list[int]:
    """Return the middles of `wanted` equal parts of `total` things, or all of them.

    # total=9, wanted=3: 1 4 7
    """
    wanted = min(total, wanted)
    return [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]


def root_op(sample: ShardSample) -> str:
    """Return the op at the root of a sample's tree, "" for any that is not known."""
    tree = sample.meta.get("tree")
    op = tree.get("op") if isinstance(tree, dict) else None
    return op if isinstance(op, str) and op in KNOWN_OPS else ""


def boundary_class(sample: ShardSample) -> str | None:
    """Return the boundary class of a sample, if it has one.

    Raises:
        ShardError: It says another class or change point than its tree makes.
    """
    op = root_op(sample)
    if op not in BOUNDARY_CLASSES:
        return None
    says = (sample.meta.get("boundary_class"), sample.meta.get("change_point"))
    try:
        made = (BOUNDARY_CLASSES.index(op), change_point(op, sample.meta["tree"]))
    except ValueError as err:
        raise ShardError(f"sample {sample.key} does not say how it was made: {err}") from err
    if says != made:
        raise ShardError(
            f"sample {sample.key} must say boundary class and change point {made}, as its tree "
            f"makes them, got {says}"
        )
    return op


def read_track(sample: ShardSample, num_classes: int) -> LabelTrack:
    """Return the labels of a sample.

    Raises:
        ShardError: They are no label track, or a class is none of the dataset's.
    """
    track = sample.track()
    for class_id in track.class_ids.tolist():
        _check_class(class_id, num_classes, sample)
    return track


def _check_class(class_id: int, num_classes: int, sample: ShardSample) -> None:
    if not 0 <= class_id < num_classes:
        raise ShardError(
            f"class ids must be below the number of classes {num_classes}, got {class_id} "
            f"(sample {sample.key})"
        )


def show_sample(sample: ShardSample, num_classes: int) -> ShownSample:
    """Decode a sample and say what it is made of.

    Raises:
        ShardError: It does not decode, or does not say how it was made.
    """
    frames_NTHWC = sample.frames()
    if frames_NTHWC.ndim == 4:
        frames_NTHWC = frames_NTHWC[None]
    _, num_frames, height, width, _ = frames_NTHWC.shape
    cell_width = max(1, round(FRAME_HEIGHT * width / height))
    track = read_track(sample, num_classes)
    try:
        clips = [
            _show_clip(sample, name, tree, frames_THWC, cell_width)
            for (name, tree), frames_THWC in zip(
                clips_of(sample.meta["tree"]).items(), frames_NTHWC, strict=True
            )
        ]
    except BROKEN as err:
        raise ShardError(f"sample {sample.key} does not say how it was made: {err!r}") from err
    for source in (source for clip in clips for source in clip.sources):
        if source.label_id is not None:
            _check_class(source.label_id, num_classes, sample)
    return ShownSample(
        key=sample.key,
        boundary_class=boundary_class(sample) or "",
        clips=tuple(clips),
        track=track if num_classes and len(clips) == 1 else None,
        size=(num_frames, height, width),
        cell_width=cell_width,
        cell_height=FRAME_HEIGHT,
    )


def _show_clip(
    sample: ShardSample, name: str, tree: Tree, frames_THWC: np.ndarray, cell_width: int
) -> ShownClip:
    """Show one clip of a sample: all of it, or the query or key of a pair."""
    sources = sample.meta["sources"]
    marks = mark_tree(tree, len(frames_THWC), [_size(source) for source in sources])
    positions = spread(marks.num_frames, _num_cells(marks.num_clips))
    return ShownClip(
        name=name,
        steps=() if name and tree["op"] == "clip" else describe_tree(tree),
        sources=_show_sources(tree, sources, bool(name)),
        marks=marks,
        positions=tuple(positions),
        jpegs=tuple(_thumbnail(frames_THWC[t], FRAME_HEIGHT, cell_width) for t in positions),
    )


def _num_cells(num_clips: int) -> int:
    """Return how many frames a strip shows: as many of each clip, if all of them fit."""
    return MAX_FRAMES // num_clips * num_clips or MAX_FRAMES


def _size(source: Mapping[str, Any]) -> LabelledSize:
    view = source["view"]
    track = constant_track(None, int(source["num_frames"]))
    return LabelledSize(track, int(view["height"]), int(view["width"]))


def _show_sources(
    tree: Tree, sources: Sequence[Mapping[str, Any]], is_view: bool
) -> tuple[ShownSource, ...]:
    """Show the sources of a clip; runs of one video that follow one another count as one."""
    if tree.get("op") == "paste":
        background, action = (leaves(child) for child in tree["inputs"])
        roles = {"background": background, "action": action}
        runs = [
            (role, list(run))
            for role, numbers in roles.items()
            for _, run in groupby((sources[i] for i in numbers), key=_stretch)
        ]
    else:
        numbers = leaves(tree) if is_view else list(range(len(sources)))
        roles_of = [f"clip {i + 1}" if len(numbers) > 1 else "" for i in numbers]
        runs = [(role, [sources[i]]) for role, i in zip(roles_of, numbers, strict=True)]
    return tuple(_show_source(role, run) for role, run in runs)


def _stretch(source: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what the clips of one background have in common."""
    names = ("video_id", "label_id", "frame_stride", "num_frames", "view")
    return tuple(source[name] for name in names)


def _show_source(role: str, run: Sequence[Mapping[str, Any]]) -> ShownSource:
    source = run[0]
    stride, count = (int(source[name]) for name in ("frame_stride", "num_frames"))
    starts = [int(source["start_frame"]) for source in run]
    label_id = source["label_id"]
    return ShownSource(
        video_id=str(source["video_id"]),
        label_id=None if label_id is None else int(label_id),
        role=role,
        first_frame=min(starts),
        last_frame=max(starts) + (count - 1) * stride,
        frame_stride=stride,
        num_frames=count,
        num_clips=len(run),
        flip=bool(source["view"]["flip"]),
    )


def _thumbnail(frame_HWC: np.ndarray, height: int, width: int) -> bytes:
    small = np.ascontiguousarray(resize(frame_HWC, height, width))
    return simplejpeg.encode_jpeg(small, quality=JPEG_QUALITY, colorspace="RGB")

"""Evaluate the expression tree of a plan row: what it does to frames, and what to labels.

`{"op": "clip", "source": 0}` is a leaf; an inner node has `op`, its numbers and `inputs`. One dict
literal maps each op to its two functions; the numbers mean what the module of that op says. A
`pair` stands at the root alone: its two inputs are the two clips of the sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

import numpy as np

from .annotated import annotate_labels
from .boundary import (
    BOUNDARY_CLASSES,
    change_point,
    diff_class_frames,
    diff_class_labels,
    diff_speed_frames,
    diff_speed_labels,
    same_class_frames,
    same_class_labels,
    same_speed_frames,
    same_speed_labels,
)
from .cutmix import (
    check_view_delta,
    cutmix_view_frames,
    cutmix_view_labels,
    cutmix_window_frames,
    cutmix_window_labels,
)
from .freeze import freeze_frames, freeze_labels
from .labels import LabelTrack, constant_track
from .mixup import Overlap, mixup_frames, mixup_labels
from .paste import concat_frames, concat_labels, paste_frames, paste_labels

Tree = Mapping[str, Any]
PAIR = ("query", "key")  # the clips of a pair, in their order
NUMBERS = (int, float)
LARGEST_NUMBER = 2**31
DEEPEST = 64  # nodes above one another; a recipe needs at most four
MOST_INPUTS = MOST_RUNS = 1024
LARGEST_SAMPLE = 256 * 2**20  # bytes of the clip that any node of a tree makes


@dataclass(frozen=True)
class LabelledSize:
    """What is known of a clip without its pixels: its labels and its frame size."""

    track: LabelTrack
    height: int
    width: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the pixels."""
        return self.track.num_frames * self.height * self.width * 3


@dataclass(frozen=True)
class Operation:
    """One op: how many inputs it takes (None: one or more), its frames and labels functions."""

    num_inputs: int | None
    frames: Callable[[Tree, list[np.ndarray]], np.ndarray]
    labels: Callable[[Tree, list[LabelledSize]], LabelTrack]


def _intervals(node: Tree) -> list[tuple[int, int]]:
    if "segments" in node:
        if not isinstance(node["segments"], list):
            raise ValueError(f"segments must be a list of [r, m], got {brief(node['segments'])}")
        return [(_whole(pair, 0), _whole(pair, 1)) for pair in node["segments"]]
    return [(_whole(node, "r"), _whole(node, "m"))]


def _overlap(node: Tree) -> Overlap:
    return Overlap(_whole(node, "n1"), _whole(node, "n2"), _whole(node, "r"))


def _boundary(node: Tree) -> Any:
    boundary = node.get("boundary", "smooth")
    if boundary not in ("smooth", "hard"):
        raise ValueError(f"boundary must be 'smooth' or 'hard', got {brief(boundary)}")
    return boundary


def _delta(node: Tree) -> float:
    delta = _number(node, "delta")
    if not 0 <= delta <= LARGEST_NUMBER:
        raise ValueError(f"delta must be in [0, {LARGEST_NUMBER}], got {brief(delta)}")
    return float(delta)


def _number(node: Any, name: Any) -> int | float:
    try:
        value = node[name]
    except (KeyError, IndexError, TypeError) as err:
        raise ValueError(f"number {name!r} is missing in {brief(node)}") from err
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise ValueError(f"{name!r} must be a number, got {brief(value)}")
    return value


def _whole(node: Any, name: Any) -> int:
    value = _number(node, name)
    if not abs(value) <= LARGEST_NUMBER or value != int(value):
        raise ValueError(f"{name!r} must be a whole number, got {brief(value)}")
    return int(value)


def _real(node: Any, name: Any) -> float:
    value = _number(node, name)
    if not abs(value) <= LARGEST_NUMBER:  # NaN fails too
        raise ValueError(f"{name!r} must be a finite number, got {brief(value)}")
    return float(value)


def _runs(node: Tree) -> list[tuple[int, int, int]]:
    segments = node.get("segments")
    if not isinstance(segments, list) or len(segments) > MOST_RUNS:
        raise ValueError(
            f"segments must be a list of at most {MOST_RUNS} [class_id, first, last], got "
            f"{brief(segments)}"
        )
    return [(_whole(run, 0), _whole(run, 1), _whole(run, 2)) for run in segments]


def _eps(node: Tree) -> tuple[int, int]:
    return _whole(node, "tau"), _whole(node, "eps")


def _speed(node: Tree) -> tuple[int, int, float]:
    return _whole(node, "tau"), _whole(node, "t"), _real(node, "gamma")


def _region(node: Tree) -> tuple[int, int, float]:
    return _whole(node, "s"), _whole(node, "e"), _real(node, "beta")


def _view_labels(sizes: list[LabelledSize], delta: float) -> LabelTrack:
    check_view_delta(sizes[0].width, delta)
    return cutmix_view_labels(sizes[0].track, sizes[1].track)


OPERATIONS: dict[str, Operation] = {
    "freeze": Operation(
        1,
        lambda node, clips: freeze_frames(clips[0], _intervals(node)),
        lambda node, sizes: freeze_labels(sizes[0].track, _intervals(node)),
    ),
    "mixup": Operation(
        2,
        lambda node, clips: mixup_frames(clips[0], clips[1], _overlap(node), _boundary(node)),
        lambda node, sizes: mixup_labels(
            sizes[0].track, sizes[1].track, _overlap(node), _boundary(node)
        ),
    ),
    "cutmix_window": Operation(
        2,
        lambda node, clips: cutmix_window_frames(clips[0], clips[1], _overlap(node), _delta(node)),
        lambda node, sizes: cutmix_window_labels(
            sizes[0].track, sizes[1].track, _overlap(node), _delta(node), sizes[0].width
        ),
    ),
    "cutmix_view": Operation(
        2,
        lambda node, clips: cutmix_view_frames(clips[0], clips[1], _delta(node)),
        lambda node, sizes: _view_labels(sizes, _delta(node)),
    ),
    "diff_class": Operation(
        2,
        lambda node, clips: diff_class_frames(clips[0], clips[1], *_eps(node)),
        lambda node, sizes: diff_class_labels(sizes[0].track, sizes[1].track, *_eps(node)),
    ),
    "same_class": Operation(
        2,
        lambda node, clips: same_class_frames(clips[0], clips[1], _whole(node, "tau")),
        lambda node, sizes: same_class_labels(sizes[0].track, sizes[1].track, _whole(node, "tau")),
    ),
    "diff_speed": Operation(
        1,
        lambda node, clips: diff_speed_frames(clips[0], *_speed(node)),
        lambda node, sizes: diff_speed_labels(sizes[0].track, *_speed(node)),
    ),
    "same_speed": Operation(
        1,
        lambda node, clips: same_speed_frames(clips[0], _whole(node, "tau")),
        lambda node, sizes: same_speed_labels(sizes[0].track, _whole(node, "tau")),
    ),
    "concat": Operation(
        None,
        lambda node, clips: concat_frames(clips),
        lambda node, sizes: concat_labels([size.track for size in sizes]),
    ),
    "paste": Operation(
        2,
        lambda node, clips: paste_frames(clips[0], clips[1], *_region(node)),
        lambda node, sizes: paste_labels(sizes[0].track, sizes[1].track, *_region(node)),
    ),
    "annotate": Operation(
        1,
        lambda node, clips: clips[0],
        lambda node, sizes: annotate_labels(_runs(node), sizes[0].track.num_frames),
    ),
}


def clips_of(tree: Tree) -> dict[str, Tree]:
    """Return the trees of a sample's clips by name: "query" and "key" of a pair, else one, ""."""
    if tree.get("op") == "pair":
        return dict(zip(PAIR, tree["inputs"], strict=True))
    return {"": tree}


def describe_sample(tree: Tree, sources: Sequence[LabelledSize]) -> dict[str, Any]:
    """Return what a trainer needs of a tree that is checked, beyond the labels.

    Of a boundary: its class and change point. Of a pair of composed videos: the clips `s..e` of
    both regions, query first, counted from 1, and the frames of a clip.
    """
    op = tree["op"]
    if op in BOUNDARY_CLASSES:
        return {
            "boundary_class": BOUNDARY_CLASSES.index(op),
            "change_point": change_point(op, tree),
        }
    if op == "pair" and _are_pasted(tree["inputs"]):
        regions = {name: [_whole(view, name) for view in tree["inputs"]] for name in ("s", "e")}
        return {**regions, "clip_len": _clip_len(tree["inputs"][0], sources)}
    return {}


def _are_pasted(views: Sequence[Tree]) -> bool:
    return all(view["op"] == "paste" for view in views)


def _clip_len(view: Tree, sources: Sequence[LabelledSize]) -> int:
    """Return the frames of one of the clips that a composed video consists of."""
    num_action = evaluate_labels(view["inputs"][1], sources).track.num_frames
    return num_action // (_whole(view, "e") - _whole(view, "s") + 1)


def evaluate_frames(tree: Tree, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return the frames `(T, H, W, 3)` uint8 of one clip; the source clips are not modified.

    Raises:
        ValueError: The tree is malformed or does not fit the clips.
    """
    if tree.get("op") == "clip":
        return clips[_source(tree, len(clips))]
    operation = _operation(tree)
    return operation.frames(tree, [evaluate_frames(node, clips) for node in tree["inputs"]])


def evaluate_labels(tree: Tree, sources: Sequence[LabelledSize], depth: int = 0) -> LabelledSize:
    """Return the labels and size of a sample; checks everything that `evaluate_frames` relies on.

    Raises:
        ValueError: The tree is malformed or does not fit the sources.
    """
    if depth > DEEPEST:
        raise ValueError(f"the tree must be at most {DEEPEST} nodes deep")
    if not isinstance(tree, Mapping):
        raise ValueError(f"a node of the tree must be an object, got {brief(tree)}")
    if tree.get("op") == "clip":
        return sources[_source(tree, len(sources))]
    if tree.get("op") == "pair" and depth == 0:
        return _pair(tree, sources)
    operation = _operation(tree)
    inputs = [evaluate_labels(node, sources, depth + 1) for node in tree["inputs"]]
    first = inputs[0]
    if any((size.height, size.width) != (first.height, first.width) for size in inputs):
        sizes = [f"{size.width}x{size.height}" for size in inputs]
        raise ValueError(f"inputs of {tree['op']!r} must have one size, got {brief(sizes)}")
    made = LabelledSize(operation.labels(tree, inputs), first.height, first.width)
    if made.num_bytes > LARGEST_SAMPLE:
        raise ValueError(
            f"what {tree['op']!r} makes must fit in {LARGEST_SAMPLE} bytes, got "
            f"{made.track.num_frames} frames of {made.width}x{made.height}"
        )
    return made


def _pair(tree: Tree, sources: Sequence[LabelledSize]) -> LabelledSize:
    """Check both clips of a pair; no label of theirs is kept (PAL reads none)."""
    inputs = tree.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 2:
        raise ValueError(f"op 'pair' takes 2 inputs, got {brief(inputs)}")
    query, key = (evaluate_labels(node, sources, 1) for node in inputs)
    shapes = [(size.track.num_frames, size.height, size.width) for size in (query, key)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"query and key must have one length and size, got {shapes}")
    if _are_pasted(inputs) and len({_clip_len(node, sources) for node in inputs}) > 1:
        raise ValueError("query and key must consist of clips of one length")
    return LabelledSize(constant_track(None, query.track.num_frames), query.height, query.width)


def _source(node: Tree, num_sources: int) -> int:
    source = _whole(node, "source")
    if not 0 <= source < num_sources:
        raise ValueError(f"source must be 0..{num_sources - 1}, got {source}")
    return source


def _operation(node: Tree) -> Operation:
    op = node.get("op")
    operation = OPERATIONS.get(op) if isinstance(op, str) else None
    if operation is None:
        raise ValueError(
            f"op must be 'clip' or one of {list(OPERATIONS)}, got {brief(node.get('op'))}"
        )
    inputs = node.get("inputs")
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MOST_INPUTS:
        raise ValueError(
            f"op {node['op']!r} takes a list of 1..{MOST_INPUTS} inputs, got {brief(inputs)}"
        )
    if operation.num_inputs not in (None, len(inputs)):
        raise ValueError(
            f"op {node['op']!r} takes {operation.num_inputs} inputs, got {brief(inputs)}"
        )
    return operation

"""Evaluate the expression tree of a plan row: what it does to frames, and what to labels.

`{"op": "clip", "source": 0}` is a leaf; an inner node has `op`, its numbers and `inputs`. One dict
literal maps each op to its two functions; the numbers mean what the module of that op says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cutmix import (
    check_view_delta,
    cutmix_view_frames,
    cutmix_view_labels,
    cutmix_window_frames,
    cutmix_window_labels,
)
from .freeze import freeze_frames, freeze_labels
from .labels import LabelTrack
from .mixup import Overlap, mixup_frames, mixup_labels

Tree = Mapping[str, Any]
NUMBERS = (int, float)
LARGEST_NUMBER = 2**31
DEEPEST = 64  # nodes above one another; a recipe needs at most four


@dataclass(frozen=True)
class LabelledSize:
    """What is known of a clip without its pixels: its labels and its frame size."""

    track: LabelTrack
    height: int
    width: int


@dataclass(frozen=True)
class Operation:
    """One op: how many inputs it takes, its frames function and its labels function."""

    num_inputs: int
    frames: Callable[[Tree, list[np.ndarray]], np.ndarray]
    labels: Callable[[Tree, list[LabelledSize]], LabelTrack]


def _intervals(node: Tree) -> list[tuple[int, int]]:
    if "segments" in node:
        if not isinstance(node["segments"], list):
            raise ValueError(f"segments must be a list of [r, m], got {node['segments']!r}")
        return [(_whole(pair, 0), _whole(pair, 1)) for pair in node["segments"]]
    return [(_whole(node, "r"), _whole(node, "m"))]


def _overlap(node: Tree) -> Overlap:
    return Overlap(_whole(node, "n1"), _whole(node, "n2"), _whole(node, "r"))


def _boundary(node: Tree) -> Any:
    boundary = node.get("boundary", "smooth")
    if boundary not in ("smooth", "hard"):
        raise ValueError(f"boundary must be 'smooth' or 'hard', got {boundary!r}")
    return boundary


def _delta(node: Tree) -> float:
    delta = _number(node, "delta")
    if not 0 <= delta <= LARGEST_NUMBER:
        raise ValueError(f"delta must be in [0, {LARGEST_NUMBER}], got {delta!r}")
    return float(delta)


def _number(node: Any, name: Any) -> int | float:
    try:
        value = node[name]
    except (KeyError, IndexError, TypeError) as err:
        raise ValueError(f"number {name!r} is missing in {node!r}") from err
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise ValueError(f"{name!r} must be a number, got {value!r}")
    return value


def _whole(node: Any, name: Any) -> int:
    value = _number(node, name)
    if not abs(value) <= LARGEST_NUMBER or value != int(value):
        raise ValueError(f"{name!r} must be a whole number, got {value!r}")
    return int(value)


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
}


def evaluate_frames(tree: Tree, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return the frames `(T, H, W, 3)` uint8 of a sample; the source clips are not modified.

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
        raise ValueError(f"a node of the tree must be an object, got {tree!r}")
    if tree.get("op") == "clip":
        return sources[_source(tree, len(sources))]
    operation = _operation(tree)
    inputs = [evaluate_labels(node, sources, depth + 1) for node in tree["inputs"]]
    first = inputs[0]
    if any((size.height, size.width) != (first.height, first.width) for size in inputs):
        sizes = [f"{size.width}x{size.height}" for size in inputs]
        raise ValueError(f"inputs of {tree['op']!r} must have one size, got {sizes}")
    return LabelledSize(operation.labels(tree, inputs), first.height, first.width)


def _source(node: Tree, num_sources: int) -> int:
    source = _whole(node, "source")
    if not 0 <= source < num_sources:
        raise ValueError(f"source must be 0..{num_sources - 1}, got {source}")
    return source


def _operation(node: Tree) -> Operation:
    op = node.get("op")
    operation = OPERATIONS.get(op) if isinstance(op, str) else None
    if operation is None:
        raise ValueError(f"op must be 'clip' or one of {list(OPERATIONS)}, got {node.get('op')!r}")
    inputs = node.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != operation.num_inputs:
        raise ValueError(f"op {node['op']!r} takes {operation.num_inputs} inputs, got {inputs!r}")
    return operation

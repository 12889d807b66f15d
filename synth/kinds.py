"""What each kind of a single clip draws: the lengths of its sources, and its expression tree.

A draft knows neither videos nor places; `synth/plan.py` finds them. Pairs are in `pairs.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .boundary import BOUNDARY_CLASSES, draw_eps, draw_speed, speed_length
from .candidates import Partners
from .freeze import draw_freeze
from .mixup import draw_overlap
from .recipe import Recipe

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample before its videos are known.

    Attributes:
        lengths: Sampled frames of each source; the first is of the row's own video.
        tree: The expression over them.
        partners: Which videos the other sources may come from.
    """

    lengths: list[int]
    tree: Node
    partners: Partners = "other"


def leaf(source: int) -> Node:
    """Return the node of a source."""
    return {"op": "clip", "source": source}


def draw_clip(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft an untouched clip."""
    return Draft([recipe.frames], leaf(0))


def draw_frozen(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft Volume Freeze of one clip."""
    return Draft([recipe.frames], _freeze(recipe, rng, leaf(0)))


def draw_mixup(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft Volume MixUp of two clips."""
    tree = _overlapping(recipe, rng, "mixup", [leaf(0), leaf(1)], boundary=recipe.mixup.boundary)
    return Draft([tree["n1"], tree["n2"]], tree)


def draw_cutmix_window(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft Volume CutMix of two clips, transient window."""
    tree = _overlapping(recipe, rng, "cutmix_window", [leaf(0), leaf(1)], delta=_delta(recipe))
    return Draft([tree["n1"], tree["n2"]], tree)


def draw_cutmix_view(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft Volume CutMix of two clips, transient view."""
    return Draft([recipe.frames] * 2, _cutmix_view(recipe, [leaf(0), leaf(1)]))


def draw_joint(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft freeze, mixup and cutmix one upon the other, each with its probability.

    Every operation takes and gives clips of `T` frames, as on a batch: a frozen sample has all its
    clips frozen, and what cutmix joins are two mixed clips - up to four sources.

    Source: SSDet (AAAI 2023), "Combining Augmentations", joint.
    """
    frozen, mixed, cut = (rng.random(3) < recipe.joint.probability).tolist()
    num_sources = 2 ** (mixed + cut)
    nodes = [leaf(source) for source in range(num_sources)]
    if frozen:
        nodes = [_freeze(recipe, rng, node) for node in nodes]
    if mixed:
        nodes = [
            _overlapping(recipe, rng, "mixup", list(pair), boundary=recipe.mixup.boundary)
            for pair in zip(nodes[::2], nodes[1::2], strict=True)
        ]
    if cut and rng.random() < 0.5:
        nodes = [_overlapping(recipe, rng, "cutmix_window", nodes, delta=_delta(recipe))]
    elif cut:
        nodes = [_cutmix_view(recipe, nodes)]
    return Draft([recipe.frames] * num_sources, nodes[0])


def draw_boundary(recipe: Recipe, rng: np.random.Generator) -> Draft:
    """Draft one of the four boundary classes of BSP (ICCV 2021, section 3.2)."""
    weights = np.cumsum([recipe.boundary.weight(name) for name in BOUNDARY_CLASSES])
    place = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
    op, tau = BOUNDARY_CLASSES[place], recipe.frames // 2
    if op == "diff_class":
        eps = draw_eps(rng, tau, *recipe.eps_range)
        tree = {"op": op, "tau": tau, "eps": eps, "inputs": [leaf(0), leaf(1)]}
        return Draft([tau + eps] * 2, tree, "other_class")
    if op == "same_class":
        return Draft([tau] * 2, {"op": op, "tau": tau, "inputs": [leaf(0), leaf(1)]}, "same_class")
    if op == "diff_speed":
        t, gamma = draw_speed(rng, tau, recipe.boundary.gammas)
        tree = {"op": op, "tau": tau, "t": t, "gamma": gamma, "inputs": [leaf(0)]}
        return Draft([speed_length(tau, t, gamma)], tree)
    return Draft([2 * tau], {"op": op, "tau": tau, "inputs": [leaf(0)]})


def _freeze(recipe: Recipe, rng: np.random.Generator, node: Node) -> Node:
    intervals = draw_freeze(rng, recipe.frames, recipe.freeze.segments)
    if len(intervals) == 1:
        numbers: Node = {"r": intervals[0][0], "m": intervals[0][1]}
    else:
        numbers = {"segments": [list(pair) for pair in intervals]}
    return {"op": "freeze", **numbers, "inputs": [node]}


def _overlapping(
    recipe: Recipe, rng: np.random.Generator, op: str, inputs: list[Node], **numbers: Any
) -> Node:
    overlap = draw_overlap(rng, recipe.frames, recipe.mixup.min_overlap, recipe.mixup.scenarios)
    place = {"n1": overlap.n1, "n2": overlap.n2, "r": overlap.r}
    return {"op": op, **place, **numbers, "inputs": inputs}


def _cutmix_view(recipe: Recipe, inputs: list[Node]) -> Node:
    return {"op": "cutmix_view", "delta": _delta(recipe), "inputs": inputs}


def _delta(recipe: Recipe) -> float:
    return recipe.cutmix.delta * recipe.crop_size[1]


DRAFTS: dict[str, Callable[[Recipe, np.random.Generator], Draft]] = {
    "clip": draw_clip,
    "freeze": draw_frozen,
    "mixup": draw_mixup,
    "cutmix_window": draw_cutmix_window,
    "cutmix_view": draw_cutmix_view,
    "joint": draw_joint,
    "boundary": draw_boundary,
}

"""Say in plain words what the expression tree of a sample does; frames are counted from 1."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from .boundary import change_point, diff_class_overlap
from .mixup import Overlap

Node = Mapping[str, Any]


def describe_tree(tree: Node) -> tuple[str, ...]:
    """Return what a tree does: a step for each level of its operations, the innermost first.

    `clip 1` is the first source, `mix 1+2` what became of two. An operation that has no words here
    is named with its numbers.

    Raises:
        ValueError: A node whose numbers are missing or senseless.
    """
    if tree.get("op") == "clip":
        return ("The clip as it is.",)
    steps: defaultdict[int, list[str]] = defaultdict(list)
    _collect(tree, len(leaves(tree)) > 1, steps)
    return tuple(" ".join(steps[level]) for level in sorted(steps))


def leaves(node: Node) -> list[int]:
    """Return the sources of a tree, in their order in it."""
    if node.get("op") == "clip":
        return [int(node["source"])]
    return [source for child in node.get("inputs", []) for source in leaves(child)]


def name_node(node: Node, numbered: bool = True) -> str:
    """Return what to call the clip that a node makes; with one input it keeps that one's name."""
    if node.get("op") == "clip":
        return f"clip {int(node['source']) + 1}" if numbered else "the clip"
    inputs = node.get("inputs", [])
    if len(inputs) == 1:
        return name_node(inputs[0], numbered)
    numbers = "+".join(str(source + 1) for source in leaves(node))
    return f"{NAMES.get(node.get('op', ''), 'sample')} {numbers}".rstrip()


def _collect(node: Node, numbered: bool, steps: defaultdict[int, list[str]]) -> int:
    """Add the sentences of a node and those below it to the step of their level; return its own."""
    if node.get("op") == "clip":
        return 0
    inputs = node.get("inputs", [])
    below = [_collect(child, numbered, steps) for child in inputs if not _is_joined(child, node)]
    level = 1 + max(below, default=0)
    words = WORDS.get(node.get("op", ""))
    try:
        names = [name_node(child, numbered) for child in inputs]
        steps[level].append(words(node, *names) if words else _unknown(node))
    except (KeyError, IndexError, TypeError) as err:
        raise ValueError(f"a {node.get('op')!r} node lacks its numbers: {err!r}") from err
    return level


def _is_joined(child: Node, parent: Node) -> bool:
    """Return whether a node only joins the clips of a background: no step worth telling."""
    return parent.get("op") == "paste" and child.get("op") == "concat"


def _freeze(node: Node, name: str) -> str:
    pairs = node["segments"] if "segments" in node else [(node["r"], node["m"])]
    stays = [
        f"frame {r} stays for {m} frames" if not i else f"frame {r} for {m}"
        for i, (r, m) in enumerate(pairs)
    ]
    of_clip = "" if name == "the clip" else f"in {name}, "
    return f"{_start(of_clip + _and(stays))}."


def _mixup(node: Node, first: str, second: str) -> str:
    overlap = _overlap(node)
    if node.get("boundary") == "hard":
        change = "each counts half while they overlap"
    elif overlap.is_first_scenario:
        change = f"{first} dissolves into {second}"
    else:
        change = f"{first} dissolves into {second} and comes back"
    return f"{_place(overlap, first, second)}; {change}."


def _cutmix_window(node: Node, first: str, second: str) -> str:
    overlap = _overlap(node)
    if overlap.is_first_scenario:
        change = f"a border sweeps from right to left and {second} takes over behind it"
    else:
        change = f"a border brings {second} in from the right and moves out again"
    return f"{_place(overlap, first, second)}; {change}."


def _cutmix_view(node: Node, first: str, second: str) -> str:
    return f"{_start(first)} slides past in the left half, {second} in the right."


def _diff_class(node: Node, first: str, second: str) -> str:
    overlap = diff_class_overlap(int(node["tau"]), int(node["eps"]))
    low, high = overlap.r + 1, overlap.n1 - 1
    when = f"over frames {low} to {high}" if low < high else f"on frame {low}"
    middle = change_point(node["op"], node)
    return (
        f"{_start(first)} dissolves into {second}, of another class, {when}; the change point is "
        f"{middle:g}."
    )


def _same_class(node: Node, first: str, second: str) -> str:
    return (
        f"{_start(second)}, another video of the same class, follows {first} after frame "
        f"{int(node['tau'])}."
    )


def _diff_speed(node: Node, name: str) -> str:
    return f"After frame {int(node['t'])} {name} goes on at {node['gamma']:g} times its rate."


def _same_speed(node: Node, name: str) -> str:
    return f"{_start(name)} at its own rate; nothing changes."


def _concat(node: Node, *names: str) -> str:
    return f"{_start(_and(list(names)))} one after the other."


def _paste(node: Node, background: str, action: str) -> str:
    s, e = int(node["s"]), int(node["e"])
    region = f"Clip {s} shows" if s == e else f"Clips {s} to {e} show"
    return f"{region} the action over the background, with weight beta {node['beta']:.2f}."


def _annotate(node: Node, name: str) -> str:
    shown = len(node["segments"])
    if not shown:
        return "No annotated segment lies in this window."
    return f"{_start(name)} shows {shown} annotated segment{'s' if shown > 1 else ''}."


def _unknown(node: Node) -> str:
    numbers = [f"{name} {value}" for name, value in node.items() if name not in ("op", "inputs")]
    return f"{_start(str(node.get('op')))}{' with ' if numbers else ''}{_and(numbers)}."


def _place(overlap: Overlap, first: str, second: str) -> str:
    """Say how two clips lie in time.

    # n1=11, n2=10, r=6: clip 2 starts 6 frames after clip 1; they overlap for 5
    """
    start = f"{_start(second)} starts {_count(overlap.r)} after {first}"
    if overlap.is_first_scenario:
        return f"{start}; they overlap for {overlap.n1 - overlap.r}"
    return f"{start} and lasts for {overlap.n2}"


def _overlap(node: Node) -> Overlap:
    return Overlap(int(node["n1"]), int(node["n2"]), int(node["r"]))


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _and(parts: list[str]) -> str:
    return " and ".join([part for part in (", ".join(parts[:-1]), *parts[-1:]) if part])


def _start(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


WORDS: dict[str, Callable[..., str]] = {
    "freeze": _freeze,
    "mixup": _mixup,
    "cutmix_window": _cutmix_window,
    "cutmix_view": _cutmix_view,
    "diff_class": _diff_class,
    "same_class": _same_class,
    "diff_speed": _diff_speed,
    "same_speed": _same_speed,
    "concat": _concat,
    "paste": _paste,
    "annotate": _annotate,
}
NAMES = {
    "mixup": "mix",
    "cutmix_window": "cut",
    "cutmix_view": "split",
    "diff_class": "join",
    "same_class": "join",
    "concat": "row",
    "paste": "paste",
}

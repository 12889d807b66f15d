"""Say in plain words what the expression tree of a sample does; frames are counted from 1."""

from collections.abc import Callable, Mapping
from typing import Any

from .mixup import Overlap

Node = Mapping[str, Any]


def describe_tree(tree: Node) -> str:
    """Return what a tree does, in sentences, the innermost operation first.

    `clip 1` is the first source. An operation that has no words here is named with its numbers.

    Raises:
        ValueError: A node whose numbers are missing or senseless.
    """
    if tree.get("op") == "clip":
        return "The clip as it is."
    return " ".join(_sentences(tree, _num_leaves(tree) > 1))


def _sentences(node: Node, numbered: bool) -> list[str]:
    if node.get("op") == "clip":
        return []
    inputs = node.get("inputs", [])
    before = [sentence for child in inputs for sentence in _sentences(child, numbered)]
    names = [_name(child, numbered) for child in inputs]
    words = WORDS.get(node.get("op", ""))
    try:
        sentence = words(node, *names) if words else _unknown(node)
    except (KeyError, IndexError, TypeError) as err:
        raise ValueError(f"a {node.get('op')!r} node lacks its numbers: {err!r}") from err
    return [*before, sentence]


def _num_leaves(node: Node) -> int:
    if node.get("op") == "clip":
        return 1
    return sum(_num_leaves(child) for child in node.get("inputs", []))


def _name(node: Node, numbered: bool) -> str:
    if node.get("op") == "clip":
        return f"clip {int(node['source']) + 1}" if numbered else "the clip"
    return f"the {NAMES.get(node.get('op', ''), 'made')} clip"


def _freeze(node: Node, name: str) -> str:
    pairs = node["segments"] if "segments" in node else [(node["r"], node["m"])]
    stays = [
        f"frame {r} stays for {m} frames" if not i else f"frame {r} for {m}"
        for i, (r, m) in enumerate(pairs)
    ]
    of_clip = "" if name == "the clip" else f" of {name}"
    return f"{_start(_and(stays))}{of_clip}."


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
}
NAMES = {"freeze": "frozen", "mixup": "mixed", "cutmix_window": "cut", "cutmix_view": "split"}

"""Captions: what a tree does, in plain words, from the inside out."""

from typing import Any

import pytest
from made_previews import LEAVES, TREES

from synth.captions import describe_tree, leaves, name_node


def leaf(source: int) -> dict[str, Any]:
    return {"op": "clip", "source": source}


def mix(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return TREES["mixup"] | {"inputs": [first, second]}


def frozen(source: int) -> dict[str, Any]:
    return {"op": "freeze", "r": source + 2, "m": 3, "inputs": [leaf(source)]}


JOINT = TREES["cutmix_view"] | {
    "inputs": [mix(frozen(0), frozen(1)), mix(frozen(2), frozen(3))]
}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (TREES["clip"], "The clip as it is."),
        (TREES["freeze"], "Frame 5 stays for 7 frames."),
        (
            {"op": "freeze", "segments": [[3, 4], [11, 2]], "inputs": LEAVES[:1]},
            "Frame 3 stays for 4 frames and frame 11 for 2.",
        ),
        (
            TREES["mixup"],
            "Clip 2 starts 6 frames after clip 1; they overlap for 5; clip 1 dissolves into clip "
            "2.",
        ),
        (
            {"op": "mixup", "n1": 16, "n2": 8, "r": 1, "boundary": "hard", "inputs": LEAVES},
            "Clip 2 starts 1 frame after clip 1 and lasts for 8; each counts half while they "
            "overlap.",
        ),
        (
            TREES["cutmix_window"],
            "Clip 2 starts 3 frames after clip 1 and lasts for 8; a border brings clip 2 in from "
            "the right and moves out again.",
        ),
        (TREES["cutmix_view"], "Clip 1 slides past in the left half, clip 2 in the right."),
        (
            {"op": "diff_class", "tau": 8, "eps": 3, "inputs": LEAVES},
            "Clip 1 dissolves into clip 2, of another class, over frames 6 to 10; the change point "
            "is 8.5.",
        ),
        (
            {"op": "diff_class", "tau": 8, "eps": 1, "inputs": LEAVES},
            "Clip 1 dissolves into clip 2, of another class, on frame 8; the change point is 8.5.",
        ),
        (
            {"op": "same_class", "tau": 8, "inputs": LEAVES},
            "Clip 2, another video of the same class, follows clip 1 after frame 8.",
        ),
        (
            {"op": "diff_speed", "tau": 8, "t": 5, "gamma": 0.25, "inputs": LEAVES[:1]},
            "After frame 5 the clip goes on at 0.25 times its rate.",
        ),
        (
            {"op": "same_speed", "tau": 8, "inputs": LEAVES[:1]},
            "The clip at its own rate; nothing changes.",
        ),
        (
            {"op": "annotate", "segments": [[0, 1, 4], [2, 3, 9]], "inputs": LEAVES[:1]},
            "The clip shows 2 annotated segments.",
        ),
        (
            {"op": "annotate", "segments": [], "inputs": LEAVES[:1]},
            "No annotated segment lies in this window.",
        ),
        (
            {
                "op": "paste", "s": 2, "e": 3, "beta": 0.8591,
                "inputs": [{"op": "concat", "inputs": [leaf(i) for i in range(8)]}, leaf(8)],
            },
            "Clips 2 to 3 show the action over the background, with weight beta 0.86.",
        ),
        (
            {"op": "concat", "inputs": [leaf(0), leaf(1), leaf(2)]},
            "Clip 1, clip 2 and clip 3 one after the other.",
        ),
        ({"op": "melt", "tau": 8, "inputs": LEAVES}, "Melt with tau 8."),
    ],
)  # fmt: skip
def test_captions_say_what_the_tree_does(tree: dict[str, Any], words: str) -> None:
    assert describe_tree(tree) == (words,)


def test_a_joint_sample_is_told_step_by_step_from_the_inside_out() -> None:
    freezes, mixes, cut = describe_tree(JOINT)
    assert freezes == (
        "In clip 1, frame 2 stays for 3 frames. In clip 2, frame 3 stays for 3 frames. "
        "In clip 3, frame 4 stays for 3 frames. In clip 4, frame 5 stays for 3 frames."
    )
    assert mixes.startswith("Clip 2 starts 6 frames after clip 1;")
    assert "Clip 4 starts 6 frames after clip 3;" in mixes
    assert cut == "Mix 1+2 slides past in the left half, mix 3+4 in the right."


def test_what_an_operation_makes_is_named_after_its_clips() -> None:
    assert leaves(JOINT) == [0, 1, 2, 3]
    assert name_node(JOINT) == "split 1+2+3+4"
    assert name_node(frozen(2)) == "clip 3"
    assert name_node({"op": "melt", "inputs": LEAVES}) == "sample 1+2"


def test_a_tree_without_its_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="'mixup' node lacks its numbers"):
        describe_tree({"op": "mixup", "n1": 4, "inputs": LEAVES})

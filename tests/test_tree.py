"""Expression trees: every op against its oracle, composition, and trees that are no trees."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import constant_track
from synth.boundary import LONGEST_TAU
from synth.tree import (
    LARGEST_SAMPLE,
    MOST_INPUTS,
    LabelledSize,
    clips_of,
    describe_sample,
    evaluate_frames,
    evaluate_labels,
)

HEIGHT, WIDTH = 3, 8
LEAF = {"op": "clip", "source": 0}
PAIR = [LEAF, {"op": "clip", "source": 1}]


def sizes(*lengths: int) -> list[LabelledSize]:
    """Return sources 0, 1, ... of the given lengths whose classes are 10, 11, ..."""
    return [
        LabelledSize(constant_track(10 + source, length), HEIGHT, WIDTH)
        for source, length in enumerate(lengths)
    ]


def clips(*lengths: int) -> list[np.ndarray]:
    return [oracle.random_clip(seed, length) for seed, length in enumerate(lengths)]


def test_leaf_is_its_source() -> None:
    first, second = clips(4, 4)
    np.testing.assert_array_equal(evaluate_frames(PAIR[1], [first, second]), second)
    size = evaluate_labels(PAIR[1], sizes(4, 4))
    assert size.track.class_ids.tolist() == [11]
    assert (size.height, size.width) == (HEIGHT, WIDTH)


def test_every_op_takes_its_numbers_from_the_node() -> None:
    v1, v2 = clips(6, 5)
    frozen = evaluate_frames({"op": "freeze", "r": 2, "m": 3, "inputs": [LEAF]}, [v1])
    np.testing.assert_array_equal(frozen, v1[[0, 1, 1, 1, 2, 3]])
    two = {"op": "freeze", "segments": [[1, 2], [5, 2]], "inputs": [LEAF]}
    np.testing.assert_array_equal(evaluate_frames(two, [v1]), v1[[0, 0, 1, 2, 3, 3]])
    numbers = {"n1": 6, "n2": 5, "r": 3}
    for boundary in ("smooth", "hard"):
        mix = {"op": "mixup", **numbers, "boundary": boundary, "inputs": PAIR}
        expected = oracle.mixup(v1, v2, 6, 5, 3, boundary)
        np.testing.assert_array_equal(evaluate_frames(mix, [v1, v2]), expected)
    window = {"op": "cutmix_window", **numbers, "delta": 1.5, "inputs": PAIR}
    expected, shares = oracle.cutmix_window(v1, v2, 6, 5, 3, Fraction(3, 2))
    np.testing.assert_array_equal(evaluate_frames(window, [v1, v2]), expected)
    track = evaluate_labels(window, sizes(6, 5)).track
    np.testing.assert_allclose(track.weights_CT[0], [float(s) for s in shares], atol=1e-9)
    view = {"op": "cutmix_view", "delta": 1.5, "inputs": PAIR}
    np.testing.assert_array_equal(
        evaluate_frames(view, [v1[:5], v2]), oracle.cutmix_view(v1[:5], v2, Fraction(3, 2))
    )


def test_operations_compose_from_the_inside_out() -> None:
    # Section 4, joint: freeze, then mixup; labels are composed in the same order.
    freeze = {"op": "freeze", "r": 1, "m": 4, "inputs": [LEAF]}
    tree = {"op": "mixup", "n1": 6, "n2": 5, "r": 2, "inputs": [freeze, PAIR[1]]}
    v1, v2 = clips(6, 5)
    frozen = v1[[t - 1 for t in oracle.freeze_order(6, 1, 4)]]
    expected = oracle.mixup(frozen, v2, 6, 5, 2)
    np.testing.assert_array_equal(evaluate_frames(tree, [v1, v2]), expected)
    # a = 1 1 3/4 1/2 1/4 0 0; clip 1 is background on its frames 1..4.
    track = evaluate_labels(tree, sizes(6, 5)).track
    np.testing.assert_allclose(
        track.weights_CT,
        [[0, 0, 0, 0, 0.25, 0, 0], [0, 0, 0.25, 0.5, 0.75, 1, 1]],
        atol=1e-12,
    )
    np.testing.assert_allclose(track.background_T, [1, 1, 0.75, 0.5, 0, 0, 0], atol=1e-12)


def labels_of(tree: dict, *lengths: int) -> dict[int, list[float]]:
    """Return the weights of each class of a tree over sources of the classes 10, 11, ..."""
    track = evaluate_labels(tree, sizes(*lengths)).track
    return dict(zip(track.class_ids.tolist(), track.weights_CT.tolist(), strict=True))


def test_boundary_ops_take_their_numbers_from_the_node() -> None:
    v1, v2 = clips(8, 8)
    dissolve = evaluate_frames({**DISSOLVE, "eps": 1}, [v1, v2])
    # w1 = 1 1/2 0 0; clip 2 shows its frames 1 2 3 from the second frame on.
    middle = oracle.mixed_pixels(v1[1], v2[0], Fraction(1, 2))
    np.testing.assert_array_equal(dissolve, [v1[0], middle, v2[1], v2[2]])
    assert labels_of({**DISSOLVE, "eps": 1}, 3, 3) == {10: [1, 0.5, 0, 0], 11: [0, 0.5, 1, 1]}
    np.testing.assert_array_equal(evaluate_frames(JOIN, [v1, v2]), [*v1[:2], *v2[:2]])
    assert labels_of(JOIN, 2, 2) == {10: [1, 1, 0, 0], 11: [0, 0, 1, 1]}
    np.testing.assert_array_equal(evaluate_frames(SPEED, [v1]), v1[[0, 1, 3, 5]])
    slow = {**SPEED, "gamma": 0.25}
    np.testing.assert_array_equal(evaluate_frames(slow, [v1]), v1[[0, 1, 1, 2]])  # 2.5 goes up
    np.testing.assert_array_equal(evaluate_frames(STEADY, [v1]), v1[:4])
    assert labels_of(SPEED, 6) == labels_of(STEADY, 4) == {10: [1, 1, 1, 1]}


def test_pairs_and_annotations_take_their_numbers_from_the_node() -> None:
    v1, v2 = clips(4, 2)
    joined = {"op": "concat", "inputs": PAIR}
    np.testing.assert_array_equal(evaluate_frames(joined, [v1, v2]), [*v1, *v2])
    assert labels_of(joined, 4, 2) == {10: [1] * 4 + [0] * 2, 11: [0] * 4 + [1] * 2}
    np.testing.assert_array_equal(
        evaluate_frames(PASTE, [v1, v2]),
        [v1[0], *(oracle.mixed_pixels(v2[t], v1[t + 1], Fraction(3, 4)) for t in (0, 1)), v1[3]],
    )
    assert labels_of(PASTE, 4, 2) == {10: [1, 0.25, 0.25, 1], 11: [0, 0.75, 0.75, 0]}
    np.testing.assert_array_equal(evaluate_frames(ANNOTATE, [v1]), v1)
    track = evaluate_labels(ANNOTATE, sizes(4)).track
    assert track.class_ids.tolist() == [2, 5]  # nothing of the source's own class
    assert track.weights_CT.tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]
    assert not track.exclusive


def test_classes_that_share_frames_stay_so_when_joined() -> None:
    tree = {"op": "concat", "inputs": [ANNOTATE, ANNOTATE]}
    track = evaluate_labels(tree, sizes(4)).track
    assert not track.exclusive
    assert track.weights_CT.sum(0).tolist() == [1, 1, 2, 1] * 2


def test_a_pair_is_two_clips_without_labels() -> None:
    tree = {"op": "pair", "inputs": [PASTE, LEAF]}
    size = evaluate_labels(tree, sizes(4, 2))
    assert (size.track.num_frames, size.track.class_ids.tolist()) == (4, [])
    assert (size.height, size.width) == (HEIGHT, WIDTH)
    assert clips_of(tree) == {"query": PASTE, "key": LEAF}
    assert clips_of(PASTE) == {"": PASTE}


def test_what_a_trainer_needs_is_described() -> None:
    described = {
        "diff_class": (DISSOLVE, {"boundary_class": 0, "change_point": 2.5}),
        "same_class": (JOIN, {"boundary_class": 1, "change_point": 2.5}),
        "diff_speed": ({**SPEED, "t": 2}, {"boundary_class": 2, "change_point": 2.5}),
        "same_speed": (STEADY, {"boundary_class": 3, "change_point": None}),
        "clip": (LEAF, {}),
        "pasted alone": (PASTE, {}),
        "annotate": (ANNOTATE, {}),
        "clip pair": ({"op": "pair", "inputs": [LEAF, LEAF]}, {}),
        "half a pair": ({"op": "pair", "inputs": [LEAF, PASTE]}, {}),
        "pair": (
            {"op": "pair", "inputs": [PASTE, {**PASTE, "s": 3, "e": 3}]},
            {"s": [2, 3], "e": [3, 3], "clip_len": 1},
        ),
    }
    for name, (tree, expected) in described.items():
        assert describe_sample(tree, sizes(4, 2)) == expected, name


def test_same_source_twice_is_not_modified() -> None:
    v1 = clips(6)[0].copy()
    before = v1.copy()
    tree = {"op": "cutmix_view", "delta": 1.0, "inputs": [LEAF, LEAF]}
    evaluate_frames(tree, [v1])
    np.testing.assert_array_equal(v1, before)


def test_inputs_must_have_one_size() -> None:
    sources = sizes(4, 4)
    sources[1] = LabelledSize(sources[1].track, HEIGHT, WIDTH + 1)
    for op in ({"op": "mixup", "n1": 4, "n2": 2, "r": 2}, {"op": "cutmix_view", "delta": 1}):
        with pytest.raises(ValueError, match=r"one size.*8x3.*9x3"):
            evaluate_labels({**op, "inputs": PAIR}, sources)


MIX = {"op": "mixup", "n1": 4, "n2": 2, "r": 2, "inputs": PAIR}
WINDOW = {**MIX, "op": "cutmix_window", "delta": 1.0}
VIEW = {"op": "cutmix_view", "delta": 1.0, "inputs": PAIR}
FREEZE = {"op": "freeze", "r": 1, "m": 2, "inputs": [LEAF]}
DISSOLVE = {"op": "diff_class", "tau": 2, "eps": 1, "inputs": PAIR}
JOIN = {"op": "same_class", "tau": 2, "inputs": PAIR}
SPEED = {"op": "diff_speed", "tau": 2, "t": 2, "gamma": 2.0, "inputs": [LEAF]}
STEADY = {"op": "same_speed", "tau": 2, "inputs": [LEAF]}
PASTE = {"op": "paste", "s": 2, "e": 3, "beta": 0.75, "inputs": PAIR}
ANNOTATE = {"op": "annotate", "segments": [[2, 1, 3], [5, 3, 4]], "inputs": [LEAF]}
SAME_PAIR = {"op": "pair", "inputs": [LEAF, LEAF]}
FAST = {"op": "diff_speed", "tau": 2, "t": 2, "gamma": 0.5, "inputs": [LEAF]}
NAN, INF = float("nan"), float("inf")
BAD_TREES: dict[str, Any] = {
    "null": None,
    "list": [],
    "string": "clip",
    "number": 3,
    "empty": {},
    "op unknown": {"op": "paste_all", "inputs": [LEAF]},
    "op null": {"op": None},
    "op list": {"op": ["clip"]},
    "op object": {"op": {}},
    "source missing": {"op": "clip"},
    "source negative": {"op": "clip", "source": -1},
    "source beyond": {"op": "clip", "source": 2},
    "source string": {"op": "clip", "source": "0"},
    "source bool": {"op": "clip", "source": False},
    "source fraction": {"op": "clip", "source": 0.5},
    "source NaN": {"op": "clip", "source": NAN},
    "source infinite": {"op": "clip", "source": INF},
    "source huge": {"op": "clip", "source": 10**400},
    "inputs missing": {"op": "freeze", "r": 1, "m": 2},
    "inputs null": {**FREEZE, "inputs": None},
    "inputs string": {**FREEZE, "inputs": "a"},
    "inputs object": {**FREEZE, "inputs": {"0": LEAF}},
    "inputs too many": {**FREEZE, "inputs": PAIR},
    "inputs too few": {**MIX, "inputs": [LEAF]},
    "inputs of nulls": {**MIX, "inputs": [None, None]},
    "freeze r missing": {"op": "freeze", "m": 2, "inputs": [LEAF]},
    "freeze r string": {**FREEZE, "r": "1"},
    "freeze m huge": {**FREEZE, "m": 10**30},
    "freeze m infinite": {**FREEZE, "m": INF},
    "freeze segments number": {"op": "freeze", "segments": 3, "inputs": [LEAF]},
    "freeze segments null": {"op": "freeze", "segments": None, "inputs": [LEAF]},
    "freeze segments strings": {"op": "freeze", "segments": ["12"], "inputs": [LEAF]},
    "freeze segments short": {"op": "freeze", "segments": [[1]], "inputs": [LEAF]},
    "freeze segments objects": {"op": "freeze", "segments": [{"r": 1}], "inputs": [LEAF]},
    "mixup n1 string": {**MIX, "n1": "4"},
    "mixup n1 NaN": {**MIX, "n1": NAN},
    "mixup n2 infinite": {**MIX, "n2": INF},
    "mixup r zero": {**MIX, "r": 0},
    "mixup r list": {**MIX, "r": [2]},
    "mixup n1 huge": {**MIX, "n1": 10**13},
    "mixup n2 huge": {**MIX, "n2": 10**13},
    "mixup all huge": {**MIX, "n1": 10**30, "n2": 10**30},
    "mixup boundary unknown": {**MIX, "boundary": "soft"},
    "mixup boundary list": {**MIX, "boundary": []},
    "mixup clip too short": {**MIX, "n1": 5},
    "window delta missing": {**MIX, "op": "cutmix_window"},
    "window delta string": {**WINDOW, "delta": "1"},
    "window delta NaN": {**WINDOW, "delta": NAN},
    "window delta infinite": {**WINDOW, "delta": INF},
    "window delta negative": {**WINDOW, "delta": -1},
    "window delta beyond float": {**WINDOW, "delta": 10**400},
    "window n1 huge": {**WINDOW, "n1": 10**13},
    "view delta missing": {"op": "cutmix_view", "inputs": PAIR},
    "view delta string": {**VIEW, "delta": "1"},
    "view delta negative": {**VIEW, "delta": -1},
    "view delta NaN": {**VIEW, "delta": NAN},
    "view delta infinite": {**VIEW, "delta": INF},
    "view delta wider than half": {**VIEW, "delta": 5.0},
    "view delta 1e300": {**VIEW, "delta": 1e300},
    "diff_class eps zero": {**DISSOLVE, "eps": 0},
    "diff_class eps of tau": {**DISSOLVE, "eps": 2},
    "diff_class eps NaN": {**DISSOLVE, "eps": NAN},
    "diff_class one input": {**DISSOLVE, "inputs": [LEAF]},
    "diff_class clips too short": {**DISSOLVE, "tau": 4, "eps": 1},
    "same_class tau missing": {"op": "same_class", "inputs": PAIR},
    "same_class tau 10^9": {**JOIN, "tau": 10**9},
    "same_class tau infinite": {**JOIN, "tau": INF},
    "same_class tau one": {**JOIN, "tau": 1},
    "same_speed tau 10^9": {**STEADY, "tau": 10**9},
    "same_speed tau half": {**STEADY, "tau": 1.5},
    "same_speed tau too long": {**STEADY, "tau": 3},
    "diff_speed tau 10^9": {**SPEED, "tau": 10**9},
    "diff_speed t one": {**SPEED, "t": 1},
    "diff_speed t beyond": {**SPEED, "t": 3},
    "diff_speed gamma one": {**SPEED, "gamma": 1},
    "diff_speed gamma zero": {**SPEED, "gamma": 0},
    "diff_speed gamma negative": {**SPEED, "gamma": -2.0},
    "diff_speed gamma NaN": {**SPEED, "gamma": NAN},
    "diff_speed gamma infinite": {**SPEED, "gamma": INF},
    "diff_speed gamma string": {**SPEED, "gamma": "2"},
    "diff_speed gamma list": {**SPEED, "gamma": [2]},
    "diff_speed gamma missing": {"op": "diff_speed", "tau": 2, "t": 2, "inputs": [LEAF]},
    "diff_speed gamma beyond float": {**SPEED, "gamma": 10**400},
    "diff_speed clip too short": {**SPEED, "gamma": 4.0},
    "concat of nothing": {"op": "concat", "inputs": []},
    "concat of 5,000": {"op": "concat", "inputs": [LEAF] * 5000},
    "concat of a string": {"op": "concat", "inputs": "clips"},
    "paste s above e": {**PASTE, "s": 3, "e": 2},
    "paste s first": {**PASTE, "s": 1},
    "paste e last": {**PASTE, "s": 3, "e": 4},
    "paste e string": {**PASTE, "e": "3"},
    "paste beta above": {**PASTE, "beta": 1.5},
    "paste beta NaN": {**PASTE, "beta": NAN},
    "paste beta beyond float": {**PASTE, "beta": 10**400},
    "paste one input": {**PASTE, "inputs": [LEAF]},
    "paste of another length": {**PASTE, "s": 2, "e": 2},
    "annotate segments missing": {"op": "annotate", "inputs": [LEAF]},
    "annotate segments object": {**ANNOTATE, "segments": {"0": [1, 1, 1]}},
    "annotate run outside": {**ANNOTATE, "segments": [[0, 1, 5]]},
    "annotate run from zero": {**ANNOTATE, "segments": [[0, 0, 2]]},
    "annotate run reversed": {**ANNOTATE, "segments": [[0, 3, 2]]},
    "annotate run short": {**ANNOTATE, "segments": [[0, 1]]},
    "annotate run number": {**ANNOTATE, "segments": [3]},
    "annotate class negative": {**ANNOTATE, "segments": [[-1, 1, 2]]},
    "annotate class NaN": {**ANNOTATE, "segments": [[NAN, 1, 2]]},
    "annotate too many runs": {**ANNOTATE, "segments": [[c, 1, 1] for c in range(5000)]},
    "pair of one": {"op": "pair", "inputs": [LEAF]},
    "pair of three": {"op": "pair", "inputs": [LEAF] * 3},
    "pair of nulls": {"op": "pair", "inputs": [None, None]},
    "pair without inputs": {"op": "pair"},
    "pair below a freeze": {**FREEZE, "inputs": [SAME_PAIR]},
    "pair below a pair": {"op": "pair", "inputs": [SAME_PAIR, LEAF]},
    "pair of two lengths": {"op": "pair", "inputs": [LEAF, {"op": "concat", "inputs": PAIR}]},
    "pair of other clip lengths": {
        "op": "pair",
        "inputs": [
            {"op": "paste", "s": 2, "e": 2, "beta": 1, "inputs": [six, two_or_one]}
            for six in [{"op": "concat", "inputs": [LEAF, STEADY, STEADY]}]
            for two_or_one in (LEAF, {"op": "concat", "inputs": [LEAF, LEAF]})
        ],
    },
    "bad below good": {**MIX, "inputs": [LEAF, {**FREEZE, "r": -1}]},
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_what_is_no_tree_is_one_clear_error(name: str) -> None:
    # Labels are evaluated first: they must refuse all that the frames could stumble over.
    lengths = (4, 2) if "paste" in name else (4, 4)
    with pytest.raises(ValueError, match=r"\w+ \w+") as caught:
        evaluate_labels(BAD_TREES[name], sizes(*lengths))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


GOOD_TREES = [MIX, WINDOW, VIEW, FREEZE, DISSOLVE, JOIN, FAST, STEADY, ANNOTATE]


@pytest.mark.parametrize("tree", GOOD_TREES, ids=lambda tree: str(tree["op"]))
def test_the_good_trees_behind_the_bad_ones_evaluate(tree: dict) -> None:
    assert evaluate_labels(tree, sizes(4, 4)).track.num_frames == 4
    assert evaluate_frames(tree, clips(4, 4)).shape == (4, HEIGHT, WIDTH, 3)


def test_a_clip_that_hardly_moves_is_no_error() -> None:
    (clip,) = clips(4)
    slow = {**SPEED, "gamma": 1e-9}
    np.testing.assert_array_equal(evaluate_frames(slow, [clip]), clip[[0, 1, 1, 1]])


@pytest.mark.parametrize(
    "tree",
    [
        {**SPEED, "tau": LONGEST_TAU, "gamma": 1e-9},
        {"op": "concat", "inputs": [LEAF] * MOST_INPUTS},
        {
            "op": "mixup",
            "n1": 2,
            "n2": 2,
            "r": 1,
            "inputs": [{"op": "concat", "inputs": [LEAF] * 99}] * 2,
        },
        {"op": "pair", "inputs": [{"op": "concat", "inputs": [LEAF] * 99}] * 2},
    ],
    ids=["slow", "long", "within", "pair"],
)
def test_no_node_makes_more_pixels_than_a_sample_may_have(tree: dict) -> None:
    side = 1024
    assert 4096 * side * side * 3 > 99 * 4 * side * side * 3 > LARGEST_SAMPLE
    source = LabelledSize(constant_track(0, 4), side, side)
    with pytest.raises(ValueError, match="must fit in"):
        evaluate_labels(tree, [source])


@pytest.mark.parametrize("depth", [1500, 200_000])
def test_deep_tree_is_a_clear_error(depth: int) -> None:
    tree: dict = LEAF
    for _ in range(depth):
        tree = {"op": "freeze", "r": 1, "m": 2, "inputs": [tree]}
    with pytest.raises(ValueError, match="deep"):
        evaluate_labels(tree, sizes(4))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 6)
    | st.sampled_from([NAN, INF, -INF, 0.5, 1e308, 10**20])
    | st.sampled_from(["clip", "0", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("r"), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_one_number_evaluates_or_is_a_value_error(data: st.DataObject) -> None:
    tree = json.loads(json.dumps(data.draw(st.sampled_from([*GOOD_TREES, LEAF, SAME_PAIR]))))
    tree[data.draw(st.sampled_from(sorted(tree)))] = data.draw(JSON)
    try:
        track = evaluate_labels(tree, sizes(4, 4)).track
    except ValueError:
        return
    for part in clips_of(tree).values():
        assert len(evaluate_frames(part, clips(4, 4))) == track.num_frames
    describe_sample(tree, sizes(4, 4))
    assert np.isfinite(track.weights_CT).all()
    assert np.all((track.background_T >= 0) & (track.background_T <= 1))

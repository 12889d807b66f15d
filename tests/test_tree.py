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
from synth.tree import LabelledSize, evaluate_frames, evaluate_labels

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
    "bad below good": {**MIX, "inputs": [LEAF, {**FREEZE, "r": -1}]},
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_what_is_no_tree_is_one_clear_error(name: str) -> None:
    # Labels are evaluated first: they must refuse all that the frames could stumble over.
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        evaluate_labels(BAD_TREES[name], sizes(4, 4))


@pytest.mark.parametrize("tree", [MIX, WINDOW, VIEW, FREEZE], ids=lambda tree: str(tree["op"]))
def test_the_good_trees_behind_the_bad_ones_evaluate(tree: dict) -> None:
    assert evaluate_labels(tree, sizes(4, 4)).track.num_frames == 4
    assert evaluate_frames(tree, clips(4, 4)).shape == (4, HEIGHT, WIDTH, 3)


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
    tree = json.loads(json.dumps(data.draw(st.sampled_from([MIX, WINDOW, VIEW, FREEZE, LEAF]))))
    tree[data.draw(st.sampled_from(sorted(tree)))] = data.draw(JSON)
    try:
        track = evaluate_labels(tree, sizes(4, 4)).track
    except ValueError:
        return
    frames = evaluate_frames(tree, clips(4, 4))
    assert len(frames) == track.num_frames
    assert np.isfinite(track.weights_CT).all()
    assert np.all((track.background_T >= 0) & (track.background_T <= 1))

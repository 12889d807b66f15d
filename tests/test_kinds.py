"""Joint and boundary: how they are drawn, and that their pixels are those of the papers."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import oracle_boundary
import oracle_synthesis as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import rendered_raw, shown_clip, six_sources
from made_plans import drawn_rows, rows_of
from made_videos import MadeVideos

from manifests import read_sources
from synth import BOUNDARY_CLASSES, constant_track
from synth.kinds import Draft, Node, draw_boundary, draw_joint
from synth.plan import Row
from synth.recipe import BoundaryRecipe, JointRecipe, MixupRecipe, Recipe
from synth.render import sample_meta
from synth.tree import LabelledSize, evaluate_frames, evaluate_labels

FRAMES, HEIGHT, WIDTH = 8, 3, 16
SMALL: dict[str, Any] = {"frames": FRAMES, "short_side": (16, 16), "crop": WIDTH}
JOINT = Recipe(kinds={"joint": 1.0}, **SMALL)
MIXED = ("mixup", "cutmix_window", "cutmix_view")
Labels = list[dict[int, Fraction]]


def drafts(recipe: Recipe, count: int, seed: int = 0) -> list[Draft]:
    draw = draw_joint if recipe.has("joint") else draw_boundary
    rng = np.random.default_rng(seed)
    return [draw(recipe, rng) for _ in range(count)]


def ops_of(tree: Node) -> list[str]:
    """Return the ops from the root to the leaves, one per level; a level has one op only."""
    level, ops = [tree], []
    while level[0]["op"] != "clip":
        (op,) = {node["op"] for node in level}
        ops.append(op)
        level = [node for parent in level for node in parent["inputs"]]
    assert [leaf["source"] for leaf in level] == list(range(len(level)))
    return ops


def within(counts: Counter, total: int, expected: dict[Any, float]) -> None:
    """Assert that every count is within 5 standard deviations of its share."""
    assert set(counts) == set(expected)
    for name, share in expected.items():
        assert abs(counts[name] - share * total) <= 5 * np.sqrt(total * share * (1 - share)), name


def test_joint_applies_each_operation_with_probability_a_half() -> None:
    applied: Counter = Counter()
    cuts: Counter = Counter()
    for draft in drafts(JOINT, 4000):
        ops = ops_of(draft.tree)
        cut = [op for op in ops if op.startswith("cutmix")]
        assert ops == [*cut, *["mixup"] * ("mixup" in ops), *["freeze"] * ("freeze" in ops)]
        applied["freeze" in ops, "mixup" in ops, bool(cut)] += 1
        cuts.update(cut)
        assert draft.lengths == [FRAMES] * 2 ** (("mixup" in ops) + bool(cut))
        assert draft.partners == "other"
    within(applied, 4000, dict.fromkeys(product((False, True), repeat=3), 1 / 8))
    within(cuts, cuts.total(), {"cutmix_window": 0.5, "cutmix_view": 0.5})


@pytest.mark.parametrize(("probability", "levels"), [(0.0, 0), (1.0, 3)])
def test_joint_with_certainty(probability: float, levels: int) -> None:
    recipe = Recipe(kinds={"joint": 1.0}, joint=JointRecipe(probability), **SMALL)
    for draft in drafts(recipe, 50):
        assert len(ops_of(draft.tree)) == levels
        assert len(draft.lengths) == (4 if levels else 1)


def test_every_clip_of_a_joint_sample_freezes_and_mixes_by_itself() -> None:
    recipe = Recipe(kinds={"joint": 1.0}, joint=JointRecipe(1.0), **SMALL)
    frozen, mixed = [], []
    for draft in drafts(recipe, 60):
        mixups = draft.tree["inputs"]
        mixed.append([(node["n1"], node["n2"], node["r"]) for node in mixups])
        frozen.append([(leaf["r"], leaf["m"]) for node in mixups for leaf in node["inputs"]])
    assert any(len(set(numbers)) == 4 for numbers in frozen)
    assert any(len(set(numbers)) == 2 for numbers in mixed)


def oracle_sample(tree: Node, clips: Sequence[Any], labels: Sequence[Labels]) -> tuple[Any, Labels]:
    """Evaluate a joint tree with the slow oracles: frames, and exact labels per frame."""
    if tree["op"] == "clip":
        return clips[tree["source"]], labels[tree["source"]]
    inputs = [oracle_sample(node, clips, labels) for node in tree["inputs"]]
    (v1, l1), (v2, l2) = inputs[0], inputs[-1]
    if tree["op"] == "freeze":
        r, m = tree["r"], tree["m"]
        order = oracle.freeze_order(len(v1), r, m)
        hard = [{} if r <= t < r + m else l1[i - 1] for t, i in enumerate(order, start=1)]
        return np.stack([v1[i - 1] for i in order]), hard
    delta = Fraction(tree.get("delta", 0))
    if tree["op"] == "cutmix_view":
        halves = [Fraction(1, 2)] * len(v1)
        return oracle.cutmix_view(v1, v2, delta), oracle.mix_labels(l1, l2, halves, 0)
    n1, n2, r = tree["n1"], tree["n2"], tree["r"]
    if tree["op"] == "mixup":
        weights = [
            oracle.mixing_weight(t, n1, n2, r, tree["boundary"])
            for t in range(1, max(n1, n2 + r) + 1)
        ]
        frames = oracle.mixup(v1, v2, n1, n2, r, tree["boundary"])
    else:
        frames, weights = oracle.cutmix_window(v1, v2, n1, n2, r, delta)
    return frames, oracle.mix_labels(l1, l2, weights, r)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["smooth", "hard"]), st.booleans())
def test_joint_is_the_composition_of_the_oracles(
    seed: int, boundary: Any, shares_class: bool
) -> None:
    recipe = Recipe(kinds={"joint": 1.0}, mixup=MixupRecipe(boundary=boundary), **SMALL)
    (draft,) = drafts(recipe, 1, seed)
    class_ids = [3, 7, 3 if shares_class else 5, 1][: len(draft.lengths)]
    clips = [oracle.random_clip(seed % 997 + k, FRAMES, HEIGHT, WIDTH) for k in range(4)]
    labels: list[Labels] = [[{class_id: Fraction(1)}] * FRAMES for class_id in class_ids]
    wanted, wanted_labels = oracle_sample(draft.tree, clips, labels)
    frames = evaluate_frames(draft.tree, clips[: len(class_ids)])
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(frames, wanted)
    sizes = [LabelledSize(constant_track(n, FRAMES), HEIGHT, WIDTH) for n in class_ids]
    track = evaluate_labels(draft.tree, sizes).track
    assert track.num_frames == len(wanted_labels) == FRAMES
    for t, row in enumerate(wanted_labels):
        exact = [float(row.get(int(class_id), 0)) for class_id in track.class_ids]
        np.testing.assert_allclose(track.weights_CT[:, t], exact, atol=1e-9)
        background = 1 - sum(row.values())
        assert 0 <= background <= 1
        assert track.background_T[t] == pytest.approx(float(background), abs=1e-6)


def test_joint_rows_show_up_to_four_different_videos(tmp_path: Path) -> None:
    rows, decodes = rows_of(tmp_path, 12, kinds="{joint = 1}", samples_per_video=20)
    counts: Counter = Counter()
    for row in rows:
        ids = [source["video_id"] for source in row["sources"]]
        assert len(set(ids)) == len(ids)
        assert {source["num_frames"] for source in row["sources"]} == {8}
        counts[len(ids)] += 1
    within(counts, len(rows), {1: 1 / 4, 2: 1 / 2, 4: 1 / 4})
    assert decodes < len(rows)


BOUNDARY = Recipe(kinds={"boundary": 1.0}, **SMALL)
TAU = FRAMES // 2


def test_boundary_classes_are_balanced() -> None:
    counts = Counter(draft.tree["op"] for draft in drafts(BOUNDARY, 4000))
    within(counts, 4000, dict.fromkeys(BOUNDARY_CLASSES, 1 / 4))


def test_boundary_weights_are_shares() -> None:
    weights = {"same_speed": 1.0, "diff_class": 3.0, "diff_speed": 0.0}
    recipe = Recipe(kinds={"boundary": 1.0}, boundary=BoundaryRecipe(weights), **SMALL)
    counts = Counter(draft.tree["op"] for draft in drafts(recipe, 2000))
    within(counts, 2000, {"diff_class": 3 / 4, "same_speed": 1 / 4})
    assert not recipe.has_boundary("same_class")


def test_boundary_numbers_reach_all_of_their_ranges() -> None:
    seen: dict[str, Counter] = {op: Counter() for op in BOUNDARY_CLASSES}
    for draft in drafts(BOUNDARY, 4000):
        tree = draft.tree
        assert tree["tau"] == TAU
        numbers = tuple(tree[name] for name in ("eps", "t", "gamma") if name in tree)
        seen[tree["op"]][numbers] += 1
    speeds = list(product(range(2, 2 * TAU - 1), (0.25, 0.5, 2.0, 4.0)))
    expected = {"diff_class": [(1,), (2,), (3,)], "diff_speed": speeds}
    for op in BOUNDARY_CLASSES:
        places = expected.get(op, [()])
        within(seen[op], seen[op].total(), dict.fromkeys(places, 1 / len(places)))


def test_boundary_eps_is_that_of_the_recipe() -> None:
    settings = BoundaryRecipe({"diff_class": 1.0}, eps=(2, 3))
    drawn = drafts(Recipe(kinds={"boundary": 1.0}, boundary=settings, **SMALL), 200)
    assert {draft.tree["eps"] for draft in drawn} == {2, 3}


def numbers_of(tree: Node) -> dict[str, Any]:
    """Return the numbers of a boundary tree as the oracle takes them."""
    numbers = {name: tree[name] for name in ("eps", "t") if name in tree}
    return numbers | ({"gamma": Fraction(tree["gamma"])} if "gamma" in tree else {})


def test_boundary_sources_are_exactly_as_long_as_they_are_read() -> None:
    partners = {"diff_class": "other_class", "same_class": "same_class"}
    for draft in drafts(BOUNDARY, 300):
        op = draft.tree["op"]
        read = oracle_boundary.frames_read(op, TAU, **numbers_of(draft.tree))
        assert draft.lengths == [length for length in read if length]
        assert draft.partners == partners.get(op, "other")


BOUNDARY_ROWS = {"kinds": "{boundary = 1}", "frame_stride": 1, "group_videos": 8}


def classes_of(row: Row) -> list[int]:
    return [source["label_id"] for source in row["sources"]]


@pytest.mark.parametrize("num_videos", [4, 5, 13, 40])
def test_boundary_partners_always_keep_their_rule(tmp_path: Path, num_videos: int) -> None:
    # With 4 videos of 3 classes two of the classes have one video only, with 5 one of them.
    rows, _ = rows_of(tmp_path, num_videos, **BOUNDARY_ROWS, samples_per_video=400 // num_videos)
    seen: Counter = Counter()
    for row in rows:
        ids, labels = [s["video_id"] for s in row["sources"]], classes_of(row)
        op = row["tree"]["op"]
        seen[op] += 1
        assert len(ids) == len(set(ids)) == (2 if op in ("diff_class", "same_class") else 1)
        if op == "same_class":
            assert labels[0] == labels[1]
        if op == "diff_class":
            assert labels[0] != labels[1]
        for source in row["sources"]:
            last = source["start_frame"] + source["num_frames"] - 1
            assert 0 <= source["start_frame"] <= last < 60 + int(source["video_id"][1:])
    within(seen, len(rows), dict.fromkeys(BOUNDARY_CLASSES, 1 / 4))


def test_the_faster_part_may_start_wherever_it_still_fits(tmp_path: Path) -> None:
    # v000 has 60 frames; diff-speed at t=2 and gamma 4 reads 26 of stride 2: 51 of them.
    changes = BOUNDARY_ROWS | {
        "frame_stride": 2,
        "boundary": "{gammas = [4.0], classes = {diff_speed = 1}}",
    }
    starts: dict[int, set[int]] = {}
    for row in rows_of(tmp_path, 1, **changes, samples_per_video=3000)[0]:
        (source,) = row["sources"]
        assert row["tree"]["gamma"] == 4
        starts.setdefault(source["num_frames"], set()).add(source["start_frame"])
    for num_frames, found in starts.items():
        assert found == set(range(60 - 2 * (num_frames - 1)))
    assert max(starts) == 26


def test_boundary_pixels_and_json_are_bsp_to_the_letter(made_videos: MadeVideos) -> None:
    """Through reading, viewing, evaluation and description: nothing but the formula."""
    table = read_sources(six_sources(made_videos))
    videos = {video.video_id: video for video in table}
    recipe = Recipe(
        kinds={"boundary": 1.0},
        frames=FRAMES,
        frame_stride=1,
        short_side=(48, 52),
        crop=(32, 48),
        samples_per_video=4,
    )
    rows, _ = drawn_rows(table, recipe)
    seen = set()
    for row, result in zip(rows, rendered_raw(rows, table), strict=True):
        tree, numbers = row["tree"], numbers_of(row["tree"])
        clips = [shown_clip(source, videos) for source in row["sources"]]
        labels: list[Labels] = [
            [{label: Fraction(1)}] * len(clip)
            for label, clip in zip(classes_of(row), clips, strict=True)
        ]

        def show(i: int, op: str = tree["op"], numbers: dict = numbers) -> Any:
            return oracle_boundary.shown(op, i, TAU, **numbers)

        expected = oracle_boundary.frames_of(show, clips, TAU)
        np.testing.assert_array_equal(result.frames, expected)
        meta = sample_meta(result.sample)
        assert BOUNDARY_CLASSES[meta["boundary_class"]] == tree["op"]
        places = {"diff_speed": tree.get("t", 0) + 0.5, "same_speed": None}
        assert meta["change_point"] == places.get(tree["op"], TAU + 0.5)
        for t, wanted in enumerate(oracle_boundary.labels_of(show, labels, TAU)):
            found = dict(zip(meta["class_ids"], [row[t] for row in meta["weights"]], strict=True))
            assert found == pytest.approx({k: float(wanted.get(k, 0)) for k in found})
            assert set(wanted) <= set(found)
        assert [source["label_id"] for source in meta["sources"]] == classes_of(row)
        seen.add(tree["op"])
    assert seen == set(BOUNDARY_CLASSES)


@pytest.mark.parametrize("samples_per_video", [1, 4])
def test_couples_stand_together_and_every_video_leads_as_often(
    tmp_path: Path, samples_per_video: int
) -> None:
    changes = {"samples_per_video": samples_per_video, "samples_per_shard": 64}
    rows, decodes = rows_of(tmp_path, 96, **(BOUNDARY_ROWS | changes))
    leading = Counter(row["sources"][0]["video_id"] for row in rows)
    assert set(leading.values()) == {samples_per_video}
    assert len(leading) == 96
    # A classmate always stands in the group, somebody of another class nearly always.
    assert decodes <= 1.05 * len(rows)
    order = list(dict.fromkeys(row["sources"][0]["video_id"] for row in rows))
    couples = [
        {int(video_id[1:]) % 3 for video_id in order[n : n + 2]} for n in range(0, len(order), 2)
    ]
    assert all(len(couple) == 1 for couple in couples)
    assert len({frozenset(couple) for couple in couples[:8]}) > 1  # but classes are shuffled


def test_a_video_alone_in_its_class_gives_way_in_same_class_only(tmp_path: Path) -> None:
    # v001 and v002 are alone in their classes among 4 videos: 0 and 3 are `climb`.
    rows, _ = rows_of(tmp_path, 4, **BOUNDARY_ROWS, samples_per_video=50)
    for row in rows:
        ids = {source["video_id"] for source in row["sources"]}
        if row["tree"]["op"] == "same_class":
            assert ids == {"v000", "v003"}
    others = [row for row in rows if row["tree"]["op"] != "same_class"]
    assert {row["sources"][0]["video_id"] for row in others} == {"v000", "v001", "v002", "v003"}

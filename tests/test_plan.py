"""Plans: every number drawn once, from its own stream, within its range; partners and decodes."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import oracle_synthesis as oracle
import pytest
from made_plans import made_plan, made_recipe, made_sources, made_video, rows_of, rows_on_disk

from manifests import UsageError, read_sources
from synth.plan import Row
from synth.plan_files import read_plan, read_plan_sources, write_plan

MIXING = {"mixup", "cutmix_window", "cutmix_view"}
FRAMES, STRIDE, CROP = 8, 3, 32
SPAN = (FRAMES - 1) * STRIDE + 1


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Return 400 rows of every kind over 40 videos."""
    return rows_of(tmp_path_factory.mktemp("rows"), 40, samples_per_video=10)[0]


def test_rows_are_in_shard_order_with_consecutive_keys(rows: list[Row]) -> None:
    assert len(rows) == 400
    assert [row["sample_key"] for row in rows] == [f"{number:08d}" for number in range(400)]
    shards = [row["shard"] for row in rows]
    assert shards == sorted(shards)
    assert set(shards) == set(range(max(shards) + 1))
    assert max(Counter(shards).values()) <= 8


def test_every_video_leads_samples_per_video_rows(rows: list[Row]) -> None:
    leading = Counter(row["sources"][0]["video_id"] for row in rows)
    assert set(leading.values()) == {10}
    assert len(leading) == 40


def test_windows_lie_inside_their_videos(rows: list[Row]) -> None:
    for row in rows:
        for source in row["sources"]:
            number = int(source["video_id"][1:])
            assert source["frame_stride"] == STRIDE
            assert source["start_frame"] >= 0
            last = source["start_frame"] + (source["num_frames"] - 1) * STRIDE
            assert last < 60 + number
            assert source["label_id"] == number % 3


def test_views_fit_and_both_ends_are_reached(rows: list[Row]) -> None:
    shorter, flips = set(), Counter()
    for source in (source for row in rows for source in row["sources"]):
        number, view = int(source["video_id"][1:]), source["view"]
        height, width = 48 + number % 3, 64 + 2 * (number % 5)
        assert 40 <= view["short_side"] <= 48
        assert (view["width"], view["height"]) == (CROP, CROP)
        longer = oracle.nearest(Fraction(width * view["short_side"], height))
        assert 0 <= view["x"] <= longer - CROP
        assert 0 <= view["y"] <= view["short_side"] - CROP
        shorter.add(view["short_side"])
        flips[view["flip"]] += 1
    assert shorter == set(range(40, 49))
    total = flips.total()
    assert abs(flips[True] - total / 2) < 5 * np.sqrt(total) / 2


def test_trees_carry_the_numbers_of_the_contract(rows: list[Row]) -> None:
    seen = Counter(row["kind"] for row in rows)
    assert set(seen) == {"clip", "freeze", *MIXING}
    for row in rows:
        kind, tree = row["kind"], row["tree"]
        lengths = [source["num_frames"] for source in row["sources"]]
        leaves = [{"op": "clip", "source": number} for number in range(len(lengths))]
        if kind == "clip":
            assert tree == leaves[0]
            assert lengths == [FRAMES]
            continue
        assert tree["op"] == kind
        assert tree["inputs"] == leaves
        if kind == "freeze":
            assert set(tree) == {"op", "r", "m", "inputs"}
            assert 1 <= tree["r"] <= FRAMES - 1
            assert 2 <= tree["m"] <= FRAMES - tree["r"] + 1
            assert lengths == [FRAMES]
        elif kind == "cutmix_view":
            assert tree["delta"] == CROP / 16
            assert lengths == [FRAMES, FRAMES]
        else:
            assert lengths == [tree["n1"], tree["n2"]]
            assert max(tree["n1"], tree["n2"] + tree["r"]) == FRAMES
            if kind == "mixup":
                assert tree["boundary"] == "smooth"
            else:
                assert tree["delta"] == CROP / 16


def test_partners_have_different_videos_and_clips_have_none(rows: list[Row]) -> None:
    for row in rows:
        ids = [source["video_id"] for source in row["sources"]]
        assert len(ids) == len(set(ids)) == (2 if row["kind"] in MIXING else 1)


def test_kind_weights_are_shares(tmp_path: Path) -> None:
    changes = {"kinds": "{clip = 3, freeze = 1, mixup = 0}", "samples_per_video": 100}
    counts = Counter(row["kind"] for row in rows_of(tmp_path, 12, **changes)[0])
    assert set(counts) == {"clip", "freeze"}
    assert abs(counts["clip"] - 900) < 5 * np.sqrt(1200 * 0.75 * 0.25)


def test_scenarios_are_halves_in_the_plan(tmp_path: Path) -> None:
    changes = {"kinds": "{mixup = 1, cutmix_window = 1}", "samples_per_video": 100}
    drawn = rows_of(tmp_path, 12, **changes)[0]
    first = sum(row["tree"]["n2"] + row["tree"]["r"] >= row["tree"]["n1"] for row in drawn)
    assert abs(first - 600) < 5 * np.sqrt(1200) / 2


def test_settings_of_the_kinds_reach_the_trees(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "kinds": "{freeze = 1, mixup = 1, cutmix_view = 1}",
        "freeze": "{segments = 2}",
        "mixup": '{boundary = "hard", scenarios = "second"}',
        "cutmix": "{delta = 0.25}",
    }
    for row in rows_of(tmp_path, 12, **changes)[0]:
        tree = row["tree"]
        if row["kind"] == "freeze":
            (r1, m1), (r2, m2) = tree["segments"]
            assert r1 + m1 <= r2 <= FRAMES - 1
            assert min(m1, m2) >= 2
        elif row["kind"] == "mixup":
            assert tree["boundary"] == "hard"
            assert tree["n1"] == FRAMES > tree["n2"] + tree["r"]
        else:
            assert tree["delta"] == 8.0


@pytest.mark.parametrize("num_videos", [12, 13])
def test_row_i_draws_first_its_window_from_its_own_stream(tmp_path: Path, num_videos: int) -> None:
    changes = {"samples_per_video": 3, "seed": 11}
    for number, row in enumerate(rows_of(tmp_path, num_videos, **changes)[0]):
        rng = np.random.default_rng(np.random.SeedSequence(11, spawn_key=(number,)))
        source = row["sources"][0]
        frames = 60 + int(source["video_id"][1:])
        assert source["start_frame"] == rng.integers(0, frames - SPAN + 1)


def test_every_place_of_a_window_can_be_drawn(tmp_path: Path) -> None:
    changes = {"samples_per_video": 200, "kinds": "{clip = 1}", "frame_stride": 8}
    starts: dict[str, set[int]] = {}
    for row in rows_of(tmp_path, 3, **changes)[0]:
        source = row["sources"][0]
        starts.setdefault(source["video_id"], set()).add(source["start_frame"])
    span = 7 * 8 + 1
    assert starts == {f"v{n:03d}": set(range(60 + n - span + 1)) for n in range(3)}


def test_same_seed_same_plan_and_another_seed_another(tmp_path: Path) -> None:
    plans = [
        made_plan(tmp_path / name, seed=seed) for name, seed in zip("abc", (5, 5, 6), strict=True)
    ]
    contents = [plan.path.read_bytes() for plan in plans]
    assert contents[0] == contents[1] != contents[2]
    assert plans[0].digest == plans[1].digest != plans[2].digest


def test_neighbouring_seeds_share_no_stream(tmp_path: Path) -> None:
    # `seed + index` would make row i of seed s equal to row i - 1 of seed s + 1.
    first = rows_of(tmp_path, 40, seed=1, kinds="{clip = 1}")[0]
    second = rows_of(tmp_path, 40, seed=2, kinds="{clip = 1}")[0]

    def views(rows: list[Row]) -> list[tuple]:
        return [tuple(row["sources"][0]["view"].values()) for row in rows]

    one, other = views(first), views(second)
    assert len(set(one)) == len(one)
    assert not set(one) & set(other)


def decodes_of(rows: list[Row]) -> int:
    """Count one decode for every video of every shard."""
    return len({(row["shard"], s["video_id"]) for row in rows for s in row["sources"]})


@pytest.mark.parametrize("num_videos", [2, 4, 5, 9, 37, 40])
@pytest.mark.parametrize("samples_per_video", [1, 3, 10])
def test_no_more_decodes_than_samples(
    tmp_path: Path, num_videos: int, samples_per_video: int
) -> None:
    rows, decodes = rows_of(tmp_path, num_videos, samples_per_video=samples_per_video)
    assert decodes == decodes_of(rows) <= len(rows) == num_videos * samples_per_video
    if samples_per_video > 1:  # windows of one video are cut from one pass
        assert decodes < len(rows)


@pytest.mark.parametrize("num_videos", [2, 5, 9, 37])
@pytest.mark.parametrize("samples_per_video", [1, 3, 10])
def test_partner_shows_a_window_that_a_row_of_its_own_shows(
    tmp_path: Path, num_videos: int, samples_per_video: int
) -> None:
    changes = {"samples_per_video": samples_per_video, "samples_per_shard": 64}
    rows = rows_of(tmp_path, num_videos, **changes)[0]
    shown = {
        (row["shard"], s["video_id"], s["start_frame"], slot)
        for row in rows
        for slot, s in enumerate(row["sources"])
    }
    assert {place[:3] for place in shown} == {place[:3] for place in shown if place[3] == 0}


def test_partners_come_from_small_groups(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, 64, kinds="{mixup = 1}", samples_per_shard=64, group_videos=4)
    place = {row["sources"][0]["video_id"]: number for number, row in enumerate(rows)}
    distance = [abs(place[row["sources"][1]["video_id"]] - n) for n, row in enumerate(rows)]
    assert max(distance) <= 7


def test_shards_of_one_sample_still_find_partners(tmp_path: Path) -> None:
    rows, decodes = rows_of(tmp_path, 5, samples_per_shard=1, kinds="{mixup = 1}")
    assert [row["shard"] for row in rows] == list(range(5))
    assert decodes == decodes_of(rows) == 10


def test_part_of_a_video_that_is_meant_is_all_that_is_shown(tmp_path: Path) -> None:
    part = {"first_frame": 20, "end_frame": 20 + SPAN + 2, "num_frames": 200}
    sources = made_sources(tmp_path, 4, v001=part)
    plan = write_plan(made_recipe(tmp_path, samples_per_video=30), sources, tmp_path / "PLAN")
    assert plan.record["counts"]["videos"] == 4
    rows = rows_on_disk(read_plan(tmp_path / "PLAN"))
    starts = {s["start_frame"] for row in rows for s in row["sources"] if s["video_id"] == "v001"}
    assert starts == {20, 21, 22}


def test_rows_on_disk_are_the_rows_drawn_and_json_says_what_they_are(tmp_path: Path) -> None:
    plan = made_plan(tmp_path, samples_per_video=2)
    rows, decodes = rows_of(tmp_path / "again", samples_per_video=2)
    assert rows_on_disk(plan) == rows
    record = json.loads((tmp_path / "PLAN" / "plan.json").read_bytes())
    assert record == plan.record
    counts = record["counts"]
    assert counts["samples"] == plan.num_samples == 24
    assert counts["decodes"] == decodes
    assert counts["decodes_per_sample"] == round(decodes / 24, 4)
    assert counts["kinds"] == Counter(row["kind"] for row in rows)
    assert counts["shards"] == rows[-1]["shard"] + 1
    assert (record["seed"], record["classes"]) == (5, ["climb", "dive", "throw"])
    assert record["recipe"]["frames"] == FRAMES
    table = read_plan_sources(plan, None)
    assert record["sources_digest"] == table.digest
    assert {"recipe_digest", "plan_digest"} <= set(record)


def test_boundary_classes_and_videos_alone_are_counted(tmp_path: Path) -> None:
    kinds = "{boundary = 2, joint = 1}"
    plan = made_plan(tmp_path, 10, kinds=kinds, frame_stride=2, samples_per_video=6)
    counts, drawn = plan.record["counts"], rows_on_disk(plan)
    assert counts["kinds"] == Counter(row["kind"] for row in drawn)
    boundaries = Counter(row["tree"]["op"] for row in drawn if row["kind"] == "boundary")
    assert counts["boundary_classes"] == boundaries
    assert set(boundaries) == {"diff_class", "same_class", "diff_speed", "same_speed"}
    assert counts["alone_in_class"] == 0
    without = made_plan(tmp_path / "clips", 4, kinds="{clip = 1}").record["counts"]
    assert not {"boundary_classes", "alone_in_class", "unreadable"} & set(without)


def test_rows_of_pairs_keep_their_augmentation_on_disk(tmp_path: Path) -> None:
    changes = {"kinds": "{pal = 1, clip_pair = 1, clip = 1}", "samples_per_video": 3}
    plan = made_plan(tmp_path, **changes)
    drawn = rows_of(tmp_path / "again", **changes)[0]
    assert rows_on_disk(plan) == drawn
    for row in drawn:
        is_pair = row["kind"] != "clip"
        assert all((source["augment"] is not None) == is_pair for source in row["sources"])
        assert all((source["label_id"] is None) == is_pair for source in row["sources"])


@pytest.mark.parametrize("kind", ["joint", "boundary", "pal", "clip_pair"])
@pytest.mark.parametrize("num_videos", [6, 37])
def test_every_kind_shows_every_video_once_a_pass(
    tmp_path: Path, kind: str, num_videos: int
) -> None:
    changes = {"kinds": f"{{{kind} = 1}}", "frame_stride": 1, "samples_per_shard": 64}
    changes |= {"samples_per_video": 4}
    rows, decodes = rows_of(tmp_path, num_videos, **changes)
    leading = Counter(row["sources"][-1]["video_id"] for row in rows)
    if kind in ("joint", "boundary"):
        leading = Counter(row["sources"][0]["video_id"] for row in rows)
    assert set(leading.values()) == {4}
    assert len(leading) == num_videos
    assert decodes == decodes_of(rows) < len(rows)  # windows of one video are cut from one pass


def test_plan_and_sources_can_move_together(tmp_path: Path) -> None:
    made_plan(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    plan = read_plan(tmp_path / "there" / "PLAN")
    assert len(read_plan_sources(plan, None)) == 12


def plan_of(folder: Path, num_videos: int = 6, recipe: dict | None = None, **changes: Any) -> dict:
    sources = made_sources(folder, num_videos, **changes)
    out = folder / "PLAN"
    return write_plan(made_recipe(folder, **(recipe or {})), sources, out).record["counts"]


def test_short_and_rejected_videos_are_left_out_and_counted(tmp_path: Path) -> None:
    short = {"num_frames": SPAN - 1, "end_frame": SPAN - 1, "label_id": None, "label": None}
    just = {"num_frames": SPAN, "end_frame": SPAN}
    broken = {"status": "rejected", "reason": "truncated", "width": 0, "height": 0}
    broken |= {"num_frames": 0, "end_frame": 0, "label_id": None, "label": None}
    counts = plan_of(tmp_path, 6, v001=short, v002=just, v005=broken)
    assert (counts["videos"], counts["too_short"], counts["rejected"]) == (4, 1, 1)
    assert counts["samples"] == 4


def test_subset_selects_its_videos(tmp_path: Path) -> None:
    counts = plan_of(tmp_path, 12, {"subset": '"val"', "kinds": "{clip = 1}"})
    assert counts["videos"] == 3
    with pytest.raises(UsageError, match="no readable video of subset 'test'"):
        plan_of(tmp_path, 12, {"subset": '"test"'})


ALL = [f"v{number:03d}" for number in range(6)]
SHORT = {"num_frames": 5, "end_frame": 5}
REJECTED = {"status": "rejected", "reason": "empty"}
ONE_CLASS = {"label": "dive", "label_id": 1}


@pytest.mark.parametrize(
    ("num_videos", "recipe", "changes", "words"),
    [
        (6, {}, dict.fromkeys(ALL, SHORT), r"8 frames x stride 3 \(22 frames\).*6 has 5"),
        (6, {}, dict.fromkeys(ALL, REJECTED), "no readable video"),
        (6, {}, dict.fromkeys(ALL, ONE_CLASS), "at least two classes.*'dive'"),
        (1, {}, {}, "at least two classes.*'climb'"),
        (6, {}, {"v003": {"label": None, "label_id": None}}, "needs a label.*'v003'"),
        (6, {}, {"v003": {"label_id": 3}}, r"label_id must be .*\b3\b.*got 3"),
        (6, {}, {"v003": {"label_id": -1}}, "label_id must be .*got -1"),
        (6, {"frames": 10**12}, {}, "no video is long enough"),
        (6, {"frame_stride": 2**62}, {}, "no video is long enough"),
        (6, {}, {"v003": {"width": 0}}, r"size|width"),
        (6, {}, {"v003": {"height": -4}}, r"size|height"),
        (6, {}, {"v003": {"first_frame": -9}}, "first_frame"),
        (6, {}, {"v003": {"end_frame": 900}}, "end_frame"),
    ],
)
def test_sources_that_cannot_be_planned_are_one_sentence(
    tmp_path: Path, num_videos: int, recipe: dict, changes: dict, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        plan_of(tmp_path, num_videos, recipe, **changes)
    assert "sources.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PLAN").exists()  # all checks come before the first side effect


def test_one_class_is_enough_without_mixing(tmp_path: Path) -> None:
    recipe = {"kinds": "{clip = 1, freeze = 1, mixup = 0}"}
    assert plan_of(tmp_path, 1, recipe)["samples"] == 1


def test_two_videos_mix_with_each_other(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 2, kinds="{mixup = 1}", samples_per_video=5)[0]
    assert {tuple(s["video_id"] for s in row["sources"]) for row in rows} == {
        ("v000", "v001"),
        ("v001", "v000"),
    }


def test_changed_sources_are_another_table(tmp_path: Path) -> None:
    plan = made_plan(tmp_path)
    made_sources(tmp_path, 11)
    with pytest.raises(UsageError, match="another sources table"):
        read_plan_sources(plan, None)
    with pytest.raises(UsageError, match="another sources table"):
        read_plan_sources(plan, tmp_path / "sources.parquet")
    (tmp_path / "sources.parquet").unlink()
    with pytest.raises(UsageError, match="no such table"):
        read_plan_sources(plan, None)


def test_video_of_the_plan_must_be_in_the_table(tmp_path: Path) -> None:
    table = read_sources(made_sources(tmp_path, 2))
    assert set(table.select(["v001", "v000", "v001"])) == {"v000", "v001"}
    with pytest.raises(UsageError, match="'v7' of the plan is not in the sources table"):
        table.select(["v000", "v7"])


def test_made_videos_are_what_the_tests_assume() -> None:
    video = made_video(5)
    assert (video.video_id, video.label_id, video.num_frames) == ("v005", 2, 65)
    assert (video.width, video.height) == (64, 50)

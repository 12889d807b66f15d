"""Pairs: PAL's two composed videos and two clips of one video; no label, constant augmentation."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import oracle_paste as oracle
import pytest
from made_clips import rendered_raw, shown_clip, six_sources
from made_plans import drawn_rows, made_recipe, made_sources, rows_of
from made_videos import MadeVideos

from manifests import read_sources
from manifests.tables import write_sources
from synth.plan import Row
from synth.planned import PlannedSample, check_row
from synth.recipe import PalRecipe, Recipe, read_recipe
from synth.render import sample_meta

NUM_CLIPS, CLIP_LEN = 8, 8
PAL = {"kinds": "{pal = 1}", "frames": 64, "crop": 32, "short_side": "[40, 48]"}
PAIR = {"kinds": "{clip_pair = 1}", "frames": 8, "frame_stride": 3}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Return 600 pairs of 30 videos of 60 to 89 frames."""
    folder = tmp_path_factory.mktemp("rows")
    return rows_of(folder, 30, **PAL, samples_per_video=20)[0]


def views_of(row: Row) -> list[dict[str, Any]]:
    """Return what each view of a pair is made of: region, beta, background, action."""
    tree, sources = row["tree"], row["sources"]
    assert (row["kind"], tree["op"], len(tree["inputs"])) == ("pal", "pair", 2)
    views, used = [], []
    for view in tree["inputs"]:
        assert set(view) == {"op", "s", "e", "beta", "inputs"}
        assert view["op"] == "paste"
        behind, region = view["inputs"]
        assert behind["op"] == "concat"
        numbers = [leaf["source"] for leaf in (*behind["inputs"], region)]
        used += numbers
        *background, action = (sources[number] for number in numbers)
        views.append({**view, "background": background, "action": action})
    assert used == list(range(len(sources)))
    return views


def num_frames_of(source: Row) -> int:
    return 60 + int(source["video_id"][1:])


def test_backgrounds_are_eight_clips_spread_over_their_video(rows: list[Row]) -> None:
    for view in (view for row in rows for view in views_of(row)):
        clips = view["background"]
        assert len(clips) == NUM_CLIPS
        starts = [clip["start_frame"] for clip in clips]
        end = num_frames_of(clips[0])
        assert starts == oracle.background_starts(0, end, NUM_CLIPS, CLIP_LEN)
        for clip in clips:
            assert (clip["num_frames"], clip["frame_stride"]) == (CLIP_LEN, 1)
            same = ("video_id", "view", "augment")  # one video behind all, seen in one way
            assert all(clip[name] == clips[0][name] for name in same)


def test_actions_fill_their_region_and_lie_inside_their_video(rows: list[Row]) -> None:
    for view in (view for row in rows for view in views_of(row)):
        action, length = view["action"], view["e"] - view["s"] + 1
        assert 2 <= view["s"] <= view["e"] <= NUM_CLIPS - 1
        assert action["num_frames"] == length * CLIP_LEN
        last = action["start_frame"] + (action["num_frames"] - 1) * action["frame_stride"]
        assert 0 <= action["start_frame"] <= last < num_frames_of(action)
        assert 0.6 <= view["beta"] <= 1


def test_query_and_key_show_one_action_before_two_others(rows: list[Row]) -> None:
    pairs: Counter = Counter()
    for row in rows:
        query, key = views_of(row)
        action, other = query["action"]["video_id"], key["action"]["video_id"]
        behind = [view["background"][0]["video_id"] for view in (query, key)]
        assert action == other
        assert len({action, *behind}) == 3
        pairs.update(behind)
    assert len(pairs) == 30


def test_same_background_is_one_other_video(tmp_path: Path) -> None:
    changes = PAL | {"pal": '{background = "same"}', "samples_per_video": 5}
    seen = set()
    for row in rows_of(tmp_path, 2, **changes)[0]:
        query, key = views_of(row)
        behind = {clip["video_id"] for view in (query, key) for clip in view["background"]}
        assert len(behind) == 1
        assert query["action"]["video_id"] == key["action"]["video_id"] not in behind
        seen.add(query["background"][0]["augment"] == key["background"][0]["augment"])
    assert seen == {False}  # each view still sees it in its own way


def within(found: Counter, expected: dict[Any, float]) -> None:
    """Assert that every count is within 5 standard deviations of its share."""
    total = found.total()
    assert set(found) <= set(expected)
    for name, share in expected.items():
        assert abs(found[name] - share * total) <= 5 * np.sqrt(total * share * (1 - share)), name


def test_regions_are_those_of_the_paper(rows: list[Row]) -> None:
    # The shortest video of 60 frames has room for 7 clips: nothing limits L = 1..6.
    found = Counter((view["s"], view["e"]) for row in rows for view in views_of(row))
    within(found, {region: float(p) for region, p in oracle.regions(8, 7).items()})


def test_strides_are_drawn_from_four_and_reduced_to_what_fits(rows: list[Row]) -> None:
    found: Counter = Counter()
    for action in (view["action"] for row in rows for view in views_of(row)):
        if action["num_frames"] == CLIP_LEN:  # one clip: stride 4 spans 29 frames, all fit
            found[action["frame_stride"]] += 1
        fitting = [
            oracle.region_stride(num_frames_of(action), action["num_frames"], stride)
            for stride in (1, 2, 3, 4)
        ]
        assert action["frame_stride"] in fitting
        if action["num_frames"] == 5 * CLIP_LEN:
            assert action["frame_stride"] <= 2
    within(found, dict.fromkeys((1, 2, 3, 4), 1 / 4))


DRAWN_PER_VIEW = {
    "length": lambda view: view["e"] - view["s"],
    "first clip": lambda view: view["s"],
    "beta": lambda view: view["beta"],
    "stride": lambda view: view["action"]["frame_stride"],
    "flip": lambda view: view["action"]["view"]["flip"],
    "crop": lambda view: view["action"]["view"]["width"],
    "brightness": lambda view: view["action"]["augment"]["brightness"],
    "blur": lambda view: view["action"]["augment"]["blur_sigma"],
    "hue behind": lambda view: view["background"][0]["augment"]["hue"],
    "flip behind": lambda view: view["background"][0]["view"]["flip"],
}


@pytest.mark.parametrize("name", DRAWN_PER_VIEW)
def test_both_views_draw_everything_independently(rows: list[Row], name: str) -> None:
    pairs = [[float(DRAWN_PER_VIEW[name](view)) for view in views_of(row)] for row in rows]
    query, key = np.array(pairs).T
    assert np.ptp(query) > 0
    assert abs(np.corrcoef(query, key)[0, 1]) < 5 / np.sqrt(len(pairs))


def test_action_and_background_are_augmented_independently(rows: list[Row]) -> None:
    parts = [
        [view[part]["augment"]["contrast"] for part in ("action", "background")]
        for view in (
            {**view, "background": view["background"][0]} for row in rows for view in views_of(row)
        )
    ]
    action, behind = np.array(parts).T
    assert abs(np.corrcoef(action, behind)[0, 1]) < 5 / np.sqrt(len(parts))


def test_no_label_is_read(tmp_path: Path) -> None:
    """A table without any label, or with wrong ones, gives the very same rows."""
    kinds = {"kinds": "{pal = 1, clip_pair = 1}", "frames": 16, "samples_per_video": 3}
    labelled, _ = rows_of(tmp_path, 12, **(PAL | kinds))
    bare = {f"v{number:03d}": {"label": None, "label_id": None} for number in range(12)}
    table = read_sources(made_sources(tmp_path, 12, **bare))
    from_bare, _ = drawn_rows(table, recipe_of(tmp_path, **(PAL | kinds)))
    assert from_bare == labelled
    write_sources(tmp_path / "none.parquet", list(table), [])  # not even a class list
    nameless = read_sources(tmp_path / "none.parquet")
    assert drawn_rows(nameless, recipe_of(tmp_path, **(PAL | kinds)))[0] == labelled
    assert {source["label_id"] for row in labelled for source in row["sources"]} == {None}


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    return read_recipe(made_recipe(folder, **changes))


def test_a_video_of_one_clip_gives_regions_of_one_clip(tmp_path: Path) -> None:
    lengths = {"v000": 8, "v001": 7, "v002": 17}
    changes = {name: {"num_frames": n, "end_frame": n} for name, n in lengths.items()}
    table = read_sources(made_sources(tmp_path, 5, **changes))
    drawn, _ = drawn_rows(table, recipe_of(tmp_path, **PAL, samples_per_video=40))
    seen: dict[str, set] = {}
    for view in (view for row in drawn for view in views_of(row)):
        action = view["action"]
        found = (view["e"] - view["s"] + 1, action["frame_stride"])
        seen.setdefault(action["video_id"], set()).add(found)
        assert [c["start_frame"] for c in view["background"] if c["video_id"] == "v000"] in (
            [],
            [0] * 8,
        )
    assert "v001" not in seen  # shorter than a clip
    assert seen["v000"] == {(1, 1)}
    assert seen["v002"] == {(1, 1), (1, 2), (2, 1)}  # 7 * 2 + 1 = 15 frames; 16 frames at stride 1


def test_videos_larger_than_a_view_may_be_are_shrunk_first(tmp_path: Path) -> None:
    large = {"width": 7680, "height": 4320}
    table = read_sources(made_sources(tmp_path, 3, **dict.fromkeys(("v000", "v001"), large)))
    drawn, _ = drawn_rows(table, recipe_of(tmp_path, **PAL, samples_per_video=4))
    videos = {video.video_id: video for video in table}
    for row in drawn:
        written = row | {"tree": json.dumps(row["tree"])}
        assert isinstance(check_row(written, videos, "raw"), PlannedSample)


TINY_PAL = Recipe(
    kinds={"pal": 1.0},
    frames=16,
    short_side=(32, 32),
    crop=(32, 32),
    pal=PalRecipe(beta=(0.0, 1.0)),
    seed=3,
)


def test_pal_pixels_and_json_are_those_of_the_formula(made_videos: MadeVideos) -> None:
    """Through reading, cropping, augmenting, joining and pasting: `beta A + (1 - beta) B`."""
    table = read_sources(six_sources(made_videos))
    videos = {video.video_id: video for video in table}
    drawn, _ = drawn_rows(table, TINY_PAL)
    for row, result in zip(drawn, rendered_raw(drawn, table), strict=True):
        views = views_of(row)
        assert list(result.clips) == ["query", "key"]
        for view, found in zip(views, result.clips.values(), strict=True):
            behind = np.concatenate([shown_clip(clip, videos) for clip in view["background"]])
            action = shown_clip(view["action"], videos)
            beta = Fraction(view["beta"]).limit_denominator(100)
            expected = oracle.paste(behind, action, view["s"], view["e"], beta, clip_len=2)
            np.testing.assert_array_equal(found, expected)
        meta = sample_meta(result.sample)
        assert meta["s"] == [view["s"] for view in views]
        assert meta["e"] == [view["e"] for view in views]
        assert (meta["num_frames"], meta["clip_len"]) == (16, 2)
        assert (meta["class_ids"], meta["weights"]) == ([], [])
        assert {source["label_id"] for source in meta["sources"]} == {None}


def test_augmentation_adds_no_motion(made_videos: MadeVideos) -> None:
    """What is shown of a frame does not depend on where it stands among the others."""
    table = read_sources(six_sources(made_videos))
    recipe = Recipe(
        kinds={"clip_pair": 1.0}, frames=4, short_side=(32, 32), crop=32, frame_stride=1
    )
    drawn, _ = drawn_rows(table, recipe)
    still = [
        {**row, "sources": [{**s, "num_frames": 1} for s in row["sources"] for _ in range(4)]}
        for row in drawn
    ]
    for row in still:
        row["tree"] = {"op": "pair", "inputs": [joined(0), joined(4)]}
    for result in rendered_raw(still, table):
        for clip in result.clips.values():
            assert (clip == clip[0]).all()


def joined(first: int) -> dict[str, Any]:
    """Return four sources, one after the other."""
    return {
        "op": "concat",
        "inputs": [{"op": "clip", "source": first + number} for number in range(4)],
    }


def test_clip_pairs_are_two_places_of_one_video(tmp_path: Path) -> None:
    starts = []
    for row in rows_of(tmp_path, 12, **PAIR, samples_per_video=25)[0]:
        first, second = row["sources"]
        assert row["tree"]["op"] == "pair"
        assert [leaf["source"] for leaf in row["tree"]["inputs"]] == [0, 1]
        assert first["video_id"] == second["video_id"]
        for source in (first, second):
            assert (source["num_frames"], source["frame_stride"]) == (8, 3)
            assert 0 <= source["start_frame"] <= num_frames_of(source) - 22
        assert any(first[name] != second[name] for name in ("view", "augment"))
        starts.append(
            [source["start_frame"] / (num_frames_of(first) - 22) for source in (first, second)]
        )
    one, other = np.array(starts).T
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(starts))
    assert {min(one), max(one)} == {0, 1}


def test_clip_pairs_render_as_planned(made_videos: MadeVideos) -> None:
    table = read_sources(six_sources(made_videos))
    videos = {video.video_id: video for video in table}
    recipe = Recipe(
        kinds={"clip_pair": 1.0}, frames=8, short_side=(48, 48), crop=(32, 48), frame_stride=2
    )
    drawn, decodes = drawn_rows(table, recipe)
    assert decodes == len(drawn)
    for row, result in zip(drawn, rendered_raw(drawn, table), strict=True):
        for source, found in zip(row["sources"], result.clips.values(), strict=True):
            np.testing.assert_array_equal(found, shown_clip(source, videos))
        meta = sample_meta(result.sample)
        assert not {"s", "e", "clip_len", "boundary_class"} & set(meta)
        assert (meta["kind"], meta["class_ids"]) == ("clip_pair", [])
        assert result.frames.shape == (2, 8, 32, 48, 3)


def test_augmentation_is_that_of_the_recipe(tmp_path: Path) -> None:
    plain = "{jitter = 0, blur = 0, flip = 1, scale = [1, 1], ratio = [1.3, 1.5]}"
    for row in rows_of(tmp_path, 6, **PAIR, augment=plain)[0]:
        for source in row["sources"]:
            augment = dict(source["augment"])
            assert (augment.pop("height"), augment.pop("width")) == (32, 32)
            assert augment == {
                "blur_sigma": 0,
                "brightness": 1,
                "contrast": 1,
                "saturation": 1,
                "hue": 0,
            }
            assert source["view"]["flip"] is True

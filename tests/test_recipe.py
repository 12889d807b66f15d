"""Recipes: defaults of the papers, and one sentence for everything that can be wrong."""

import re
from pathlib import Path

import pytest

from manifests import UsageError
from synth.recipe import Recipe, read_recipe


def read(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "dense.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def test_defaults_are_those_of_ssdet(tmp_path: Path) -> None:
    recipe = read(tmp_path, "[synth]\n")
    assert (recipe.frames, recipe.frame_stride) == (16, 5)
    assert recipe.short_side == (256, 320)
    assert recipe.crop_size == (224, 224)
    assert recipe.flip == 0.5
    assert (recipe.mixup.boundary, recipe.mixup.scenarios) == ("smooth", "both")
    assert recipe.mixup.min_overlap == 0.25
    assert recipe.freeze.segments == 1
    assert recipe.cutmix.delta == 1 / 16
    assert recipe.span == 15 * 5 + 1
    assert recipe == Recipe()


def test_every_key_is_read(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        """
        [synth]
        frames = 8
        frame_stride = 2
        short_side = [64, 80]
        crop = [48, 64]
        flip = 0
        samples_per_video = 3
        samples_per_shard = 32
        group_videos = 4
        subset = "train"
        seed = 7
        [synth.kinds]
        freeze = 2
        mixup = 0.5
        [synth.freeze]
        segments = 2
        [synth.mixup]
        boundary = "hard"
        scenarios = "second"
        min_overlap = 0.5
        [synth.cutmix]
        delta = 0.125
        """,
    )
    assert recipe.kinds == {"freeze": 2.0, "mixup": 0.5}
    assert recipe.crop_size == (48, 64)
    assert (recipe.frames, recipe.frame_stride, recipe.span) == (8, 2, 15)
    assert (recipe.samples_per_video, recipe.samples_per_shard, recipe.group_videos) == (3, 32, 4)
    assert (recipe.subset, recipe.seed, recipe.flip) == ("train", 7, 0.0)
    assert recipe.freeze.segments == 2
    assert (recipe.mixup.boundary, recipe.mixup.scenarios) == ("hard", "second")
    assert (recipe.mixup.min_overlap, recipe.cutmix.delta) == (0.5, 0.125)
    assert recipe.mixes


def test_recipe_of_clips_and_freezes_does_not_mix(tmp_path: Path) -> None:
    assert not read(tmp_path, "[synth.kinds]\nclip = 1\nfreeze = 1\nmixup = 0\n").mixes


def test_training_table_may_stand_in_the_same_file(tmp_path: Path) -> None:
    assert read(tmp_path, "[synth]\nframes = 4\n[train]\nanything = 1\n").frames == 4


# text of the recipe, words that the one sentence must have
WRONG = {
    "unknown key": ("frame_strid = 2", ["frame_strid", "did you mean 'frame_stride'"]),
    "unknown key far": ("speed = 2", ["unknown key 'speed'", "did you mean '"]),
    "unknown nested key": ("mixup.boundry = 'hard'", ["boundry", "'boundary'", "synth.mixup"]),
    "unknown kind": ("kinds.mixxup = 1", ["mixxup", "'mixup'"]),
    "unknown kind near": ("kinds.cutmix = 1", ["'cutmix'", "'cutmix_view'"]),
    "frames string": ("frames = '16'", ["synth.frames", "whole number", "'16'"]),
    "frames float": ("frames = 16.0", ["synth.frames", "whole number", "16.0"]),
    "frames bool": ("frames = true", ["synth.frames", "whole number", "True"]),
    "frames list": ("frames = [16]", ["synth.frames", "whole number"]),
    "frames zero": ("frames = 0", ["frames must be >= 1", "0"]),
    "frames negative": ("frames = -3", ["frames must be >= 1", "-3"]),
    "stride zero": ("frame_stride = 0", ["frame_stride must be >= 1"]),
    "short_side number": ("short_side = 256", ["short_side", "list", "256"]),
    "short_side three": ("short_side = [1, 2, 3]", ["short_side", "list"]),
    "short_side reversed": ("short_side = [320, 256]", ["short_side", "[320, 256]"]),
    "short_side zero": ("short_side = [0, 256]\ncrop = 1", ["short_side", "[0, 256]"]),
    "short_side huge": ("short_side = [256, 2000000000]", ["short_side", "2000000000"]),
    "crop too large": ("crop = 300", ["crop", "256", "300"]),
    "crop zero": ("crop = 0", ["crop", "0"]),
    "crop pair too large": ("crop = [224, 257]", ["crop", "256", "257"]),
    "crop string": ("crop = '224'", ["crop", "'224'"]),
    "flip above": ("flip = 1.5", ["flip", "1.5"]),
    "flip below": ("flip = -0.1", ["flip", "-0.1"]),
    "flip nan": ("flip = nan", ["flip", "nan"]),
    "seed negative": ("seed = -1", ["seed must be >= 0"]),
    "seed float": ("seed = 1.5", ["seed", "whole number"]),
    "samples_per_video": ("samples_per_video = 0", ["samples_per_video must be >= 1"]),
    "samples_per_shard": ("samples_per_shard = 0", ["samples_per_shard must be >= 1"]),
    "group_videos": ("group_videos = 1", ["group_videos must be >= 2"]),
    "subset number": ("subset = 3", ["subset", "string"]),
    "kinds empty": ("kinds = {}", ["kinds", "above 0"]),
    "kinds zero": ("kinds.clip = 0", ["kinds", "above 0"]),
    "kinds negative": ("kinds = {clip = 2, mixup = -1}", ["kinds.mixup", "-1"]),
    "kinds nan": ("kinds.clip = nan", ["kinds.clip", "nan"]),
    "kinds infinite": ("kinds = {clip = inf, mixup = 1}", ["kinds.clip", "inf"]),
    "kinds string": ("kinds.clip = 'much'", ["kinds", "number"]),
    "kinds list": ("kinds = ['clip']", ["kinds", "table"]),
    "segments zero": ("freeze.segments = 0", ["segments must be >= 1"]),
    "segments too many": ("frames = 6\nkinds.freeze = 1\nfreeze.segments = 4", ["frames", "4"]),
    "boundary": ("mixup.boundary = 'soft'", ["boundary", "'smooth'", "'hard'", "'soft'"]),
    "scenarios": ("mixup.scenarios = 'third'", ["scenarios", "'both'", "'third'"]),
    "scenarios number": ("mixup.scenarios = 1", ["scenarios", "'both'"]),
    "min_overlap above": ("mixup.min_overlap = 0.6", ["min_overlap", "0.6"]),
    "min_overlap nan": ("mixup.min_overlap = nan", ["min_overlap", "nan"]),
    "delta negative": ("cutmix.delta = -0.1", ["delta", "-0.1"]),
    "delta above": ("cutmix.delta = 0.75", ["delta", "0.75"]),
    "delta nan": ("cutmix.delta = nan", ["delta", "nan"]),
    "mixing too short": ("frames = 3\nkinds.mixup = 1", ["frames >= 4", "3"]),
    "freeze as number": ("freeze = 2", ["freeze", "table"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_recipe_is_one_sentence_that_names_the_file(tmp_path: Path, name: str) -> None:
    text, words = WRONG[name]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"[synth]\n{text}\n")
    message = str(caught.value)
    for word in [*words, "dense.toml"]:
        assert word in message, message
    assert "\n" not in message
    assert not re.search(r"\.\s+[A-Z]", message), f"more than one sentence: {message}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no table [synth]"),
        ("[train]\n", "no table [synth]"),
        ("synth = 3\n", "no table [synth]"),
        ("[[synth]]\n", "no table [synth]"),
        ("[sinth]\n", "did you mean 'synth'"),
        ("[synth\n", "not valid TOML"),
        ("[synth]\nframes = 1\nframes = 2\n", "not valid TOML"),
    ],
)
def test_wrong_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        read(tmp_path, text)
    assert "dense.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_or_unreadable_recipes_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such recipe: .*absent\.toml"):
        read_recipe(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"[synth]\nsubset = '\xff'\n")
    with pytest.raises(UsageError, match=r"latin\.toml"):
        read_recipe(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        read_recipe(tmp_path)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Recipe().frames = 3  # type: ignore[misc]


def test_a_bare_name_finds_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_recipe("demo-ssdet.toml").crop == 64
    (tmp_path / "demo-ssdet.toml").write_text("[synth]\ncrop = 96\n")
    assert read_recipe("demo-ssdet.toml").crop == 96  # the user's own file comes first
    with pytest.raises(UsageError, match=r"no such recipe: 'nowhere/demo\.toml'"):
        read_recipe("nowhere/demo-ssdet.toml")

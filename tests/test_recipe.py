"""Recipes: defaults of the papers, and one sentence for everything that can be wrong."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import UsageError
from synth import BOUNDARY_CLASSES
from synth.boundary import diff_speed_index
from synth.recipe import KINDS, BoundaryRecipe, Recipe, read_recipe
from synth.tree import OPERATIONS


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


def test_every_key_of_the_kinds_is_read(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        """
        [synth]
        [synth.joint]
        probability = 0.25
        [synth.boundary]
        classes = {same_speed = 2, diff_class = 1}
        eps = [1, 2]
        gammas = [0.5, 3]
        [synth.pal]
        num_clips = 4
        strides = [1, 2]
        beta = [0.5, 0.75]
        background = "same"
        [synth.augment]
        scale = [0.5, 1]
        ratio = [1, 2]
        brightness = 0.1
        contrast = 0.2
        saturation = 0.3
        hue = 0.05
        jitter = 0.7
        blur = 0.25
        blur_sigma = [1, 2]
        flip = 0
        """,
    )
    assert recipe.joint.probability == 0.25
    assert (recipe.boundary.weight("diff_class"), recipe.boundary.weight("diff_speed")) == (1, 0)
    assert (recipe.eps_range, recipe.boundary.gammas) == ((1, 2), (0.5, 3.0))
    assert (recipe.pal.num_clips, recipe.pal.strides, recipe.pal.beta) == (4, (1, 2), (0.5, 0.75))
    assert (recipe.pal.background, recipe.num_backgrounds, recipe.clip_len) == ("same", 1, 4)
    augment = recipe.augment
    assert (augment.scale, augment.ratio, augment.blur_sigma) == ((0.5, 1), (1, 2), (1, 2))
    assert (augment.brightness, augment.contrast, augment.saturation) == (0.1, 0.2, 0.3)
    assert (augment.hue, augment.jitter, augment.blur, augment.flip) == (0.05, 0.7, 0.25, 0)


def test_defaults_are_those_of_bsp_and_pal() -> None:
    bsp = Recipe(kinds={"boundary": 1.0}, frames=8)
    assert bsp.boundary.gammas == (0.25, 0.5, 2.0, 4.0)
    assert bsp.eps_range == (1, 3)
    assert {bsp.boundary.weight(name) for name in BOUNDARY_CLASSES} == {1.0}
    pal = Recipe(kinds={"pal": 1.0}, frames=64)
    assert (pal.pal.num_clips, pal.clip_len, pal.num_backgrounds) == (8, 8, 2)
    assert (pal.pal.strides, pal.pal.beta) == ((1, 2, 3, 4), (0.6, 1.0))
    assert not pal.needs_labels
    assert Recipe().joint.probability == 0.5


def test_the_span_is_what_the_hungriest_kind_reads() -> None:
    def span(kinds: dict[str, float], **changes: Any) -> int:
        return Recipe(kinds=kinds, frames=16, frame_stride=2, **changes).span

    assert span({"clip": 1.0, "pal": 1.0}) == 31
    assert span({"pal": 1.0}) == 2  # one clip, consecutive frames
    assert span({"clip_pair": 1.0}) == span({"annotated": 1.0}) == span({"joint": 1.0}) == 31
    # tau 8: gamma 4 from t = 2 on reads frame 2 + 4 * 14 = 58, so 57 * 2 + 1 source frames.
    assert span({"boundary": 1.0}) == 115
    assert span({"boundary": 1.0}, boundary=BoundaryRecipe({"diff_class": 1.0})) == 31


@pytest.mark.parametrize("gamma", [0.74, 0.25, 1e-9, 1.25, 1.5, 1024.0])
def test_every_speed_that_is_let_through_differs_from_its_own(gamma: float) -> None:
    """Two frames after the latest change of speed suffice to tell it from same-speed."""
    assert BoundaryRecipe(gammas=(gamma,)).gammas == (gamma,)
    for tau in (2, 4, 8):
        for t in range(2, 2 * tau - 1):
            shown = diff_speed_index(tau, t, gamma)
            assert not np.array_equal(shown, np.arange(2 * tau))


@pytest.mark.parametrize("gamma", [0.75, 0.9, 1.1, 1.2499])
def test_every_speed_that_is_refused_may_show_its_own(gamma: float) -> None:
    assert np.array_equal(diff_speed_index(4, 6, gamma), np.arange(8))
    with pytest.raises(ValueError, match="very frames of same_speed"):
        BoundaryRecipe(gammas=(2.0, gamma))


def test_recipe_of_clips_and_freezes_does_not_mix(tmp_path: Path) -> None:
    assert not read(tmp_path, "[synth.kinds]\nclip = 1\nfreeze = 1\nmixup = 0\n").mixes


def test_every_key_kind_and_op_is_documented() -> None:
    text = Path(__file__).parents[1].joinpath("docs", "formats.md").read_text(encoding="utf-8")
    names = {*KINDS, *OPERATIONS, "clip", "pair", *BOUNDARY_CLASSES}
    for field in fields(Recipe):
        table = getattr(Recipe(), field.name)
        if is_dataclass(table):
            names |= {f"{field.name}.{key.name}" for key in fields(table)}
        else:
            names.add(field.name)
    text += text.replace("`.", "`augment.")  # `augment.blur`, `.blur_sigma`
    assert sorted(name for name in names if f"`{name}`" not in text) == []


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
    "joint probability": ("joint.probability = 2", ["joint.probability", "[0, 1]", "2"]),
    "joint key": ("joint.probabilty = 1", ["probabilty", "'probability'", "synth.joint"]),
    "joint too short": ("frames = 3\nkinds.joint = 1", ["frames >= 4", "3"]),
    "joint segments": ("frames = 4\nkinds.joint = 1\nfreeze.segments = 3", ["frames", "3"]),
    "boundary odd": ("frames = 9\nkinds.boundary = 1", ["frames must be even", "9"]),
    "boundary short": ("frames = 2\nkinds.boundary = 1", ["frames >= 4", "2"]),
    "boundary long": ("frames = 4098\nkinds.boundary = 1", ["4..4096", "4098"]),
    "boundary huge": ("frames = 1000000000000\nkinds.boundary = 1", ["4..4096"]),
    "boundary key": ("boundary.gamma = 2", ["'gamma'", "'gammas'", "synth.boundary"]),
    "boundary class": ("boundary.classes.same_clas = 1", ["'same_class'", "'same_clas'"]),
    "boundary weight": ("boundary.classes.same_class = -1", ["same_class", "-1"]),
    "boundary weights": ("boundary.classes.same_class = 0", ["boundary.classes", "above 0"]),
    "eps zero": ("kinds.boundary = 1\nboundary.eps = [0, 3]", ["eps", "1..7", "[0, 3]"]),
    "eps of tau": ("kinds.boundary = 1\nboundary.eps = [1, 8]", ["eps", "1..7", "[1, 8]"]),
    "eps reversed": ("kinds.boundary = 1\nboundary.eps = [3, 2]", ["eps", "[3, 2]"]),
    "eps number": ("boundary.eps = 3", ["boundary.eps", "list"]),
    "gammas empty": ("boundary.gammas = []", ["gammas", "[]"]),
    "gamma one": ("boundary.gammas = [2, 1]", ["gammas", "0.75", "1.25", "same_speed", "1.0"]),
    "gamma near one": ("boundary.gammas = [1.2]", ["gammas", "0.75", "1.25", "1.2"]),
    "gamma zero": ("boundary.gammas = [0]", ["gammas", "> 0", "0"]),
    "gamma nan": ("boundary.gammas = [nan]", ["gammas", "nan"]),
    "gamma infinite": ("boundary.gammas = [inf]", ["gammas", "1024", "inf"]),
    "gamma beyond": ("boundary.gammas = [2000]", ["gammas", "1024", "2000"]),
    "gamma string": ("boundary.gammas = ['2']", ["gammas", "number"]),
    "pal frames": ("frames = 60\nkinds.pal = 1", ["multiple of pal.num_clips", "60", "8"]),
    "pal frames few": ("frames = 4\nkinds.pal = 1", ["multiple of pal.num_clips", "4", "8"]),
    "pal clips few": ("pal.num_clips = 2", ["pal.num_clips", "3..1024", "2"]),
    "pal clips many": ("pal.num_clips = 2000", ["pal.num_clips", "3..1024", "2000"]),
    "pal beta reversed": ("pal.beta = [1.0, 0.6]", ["pal.beta", "[1.0, 0.6]"]),
    "pal beta above": ("pal.beta = [0.6, 1.2]", ["pal.beta", "1.2"]),
    "pal beta nan": ("pal.beta = [nan, 1]", ["pal.beta", "nan"]),
    "pal strides zero": ("pal.strides = [0, 1]", ["pal.strides", ">= 1", "[0, 1]"]),
    "pal strides empty": ("pal.strides = []", ["pal.strides", "[]"]),
    "pal background": ("pal.background = 'none'", ["background", "'different'", "'none'"]),
    "pal key": ("pal.stride = [1]", ["'stride'", "'strides'", "synth.pal"]),
    "augment key": ("augment.blur_sigmas = [1, 2]", ["'blur_sigma'", "synth.augment"]),
    "augment scale": ("augment.scale = [0, 1]", ["augment.scale", "above 0"]),
    "augment jitter": ("augment.jitter = 2", ["augment.jitter", "[0, 1]", "2"]),
    "augment hue": ("augment.hue = 0.7", ["augment.hue", "0.5", "0.7"]),
    "annotated mixed": ("kinds = {annotated = 1, clip = 1}", ["'annotated'", "of its own"]),
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
        (f"[synth]\nframes = {'9' * 5000}\n", "not valid TOML"),
        (f"[synth]\nframes = {'[' * 5000}\n", "nested too deep"),
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
    (tmp_path / "sources.parquet").write_bytes(b"PAR1\xff")
    with pytest.raises(UsageError, match=r"must be a text file, got .*sources\.parquet"):
        read_recipe(tmp_path / "sources.parquet")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        read_recipe(tmp_path)
    with pytest.raises(UsageError, match=r"'demo-ssdet'; did you mean 'demo-ssdet\.toml'\?"):
        read_recipe("demo-ssdet")


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
    with pytest.raises(UsageError, match=r"no such recipe: 'nowhere/demo-ssdet\.toml'"):
        read_recipe("nowhere/demo-ssdet.toml")

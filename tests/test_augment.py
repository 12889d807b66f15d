"""Spatial augmentation against a float64 reference written from the definitions, and Pillow."""

import colorsys
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from manifests import UsageError, build_record, probe_video
from synth import read_frames, resize
from synth.augment import (
    Augment,
    AugmentRecipe,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    augment_frame,
    blur,
    draw_augment,
    draw_resized_crop,
    gaussian_kernel,
    shift_hue,
)
from synth.views import Scratch

UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "blur_sigma": 0.0}
FACTORS = [0.0, 0.3, 0.6, 0.5, 0.937, 1.0, 1.25, 1.4, 2.0, 10.0]
GREY = np.array([0.299, 0.587, 0.114])
MOCO = AugmentRecipe()


def smooth_frame(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return a read-only frame with gradients of all colours, as a photograph has."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    frame = np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((width, height)))
    frame.flags.writeable = False
    return frame


def noise_frame(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    frame.flags.writeable = False
    return frame


FRAMES = [smooth_frame(0), smooth_frame(1), noise_frame(2), np.full((9, 7, 3), 77, np.uint8)]


def nearest(values: np.ndarray) -> np.ndarray:
    """Clip and round to nearest, ties up."""
    return np.floor(np.clip(values, 0, 255) + 0.5 + 1e-9)


def reference_brightness(frame: np.ndarray, factor: float) -> np.ndarray:
    return nearest(factor * frame)


def reference_contrast(frame: np.ndarray, factor: float) -> np.ndarray:
    mean = nearest(nearest(frame @ GREY).mean())
    return nearest(factor * frame + (1 - factor) * mean)


def reference_saturation(frame: np.ndarray, factor: float) -> np.ndarray:
    return nearest(factor * frame + (1 - factor) * nearest(frame @ GREY)[..., None])


def reference_hue(frame: np.ndarray, turns: float) -> np.ndarray:
    """Shift the exact hue of each pixel, without any quantisation in between."""
    shifted = np.empty(frame.shape)
    for place in np.ndindex(frame.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(frame[place] / 255))
        shifted[place] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
    return nearest(255 * shifted)


def reference_blur(frame: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with the true Gaussian, as far as 6 sigma; the border repeats."""
    radius = math.ceil(6 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    blurred = frame.astype(float)
    for axis in (0, 1):
        reach = np.arange(frame.shape[axis])
        blurred = sum(
            weight * np.take(blurred, np.clip(reach + offset, 0, reach[-1]), axis=axis)
            for weight, offset in zip(weights, offsets, strict=True)
        )
    return nearest(blurred)


def applied(step: Callable[..., None], frame: np.ndarray, number: float) -> np.ndarray:
    changed = frame.copy()
    step(changed, number)
    return changed.astype(int)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("frame", FRAMES, ids=["smooth", "smooth2", "noise", "flat"])
@pytest.mark.parametrize(
    ("step", "reference"),
    [
        (adjust_brightness, reference_brightness),
        (adjust_contrast, reference_contrast),
        (adjust_saturation, reference_saturation),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter_is_the_formula_rounded(
    step: Callable[..., None],
    reference: Callable[..., np.ndarray],
    frame: np.ndarray,
    factor: float,
) -> None:
    difference = np.abs(applied(step, frame, factor) - reference(frame, factor))
    # cv2's grey has weights in 2**-14: where that rounds differently it is one level off.
    off = 0 if step is adjust_brightness else math.ceil(abs(1 - factor))
    assert difference.max() <= off
    assert (difference > 0).mean() <= 0.01


@pytest.mark.parametrize("turns", [-0.5, -0.25, -0.1, -0.03, 0.01, 0.05, 0.1, 1 / 3, 0.5])
@pytest.mark.parametrize("frame", FRAMES, ids=["smooth", "smooth2", "noise", "flat"])
def test_hue_turns_by_the_nearest_256th(frame: np.ndarray, turns: float) -> None:
    steps = math.floor(256 * turns + 0.5)
    difference = np.abs(applied(shift_hue, frame, turns) - reference_hue(frame, steps / 256))
    # A hue known to half a 256th of a turn places the middle channel to 6 * 255 / 512 = 3 levels.
    assert difference.max() <= 4
    assert difference.mean() <= 0.7


def test_primary_colours_turn_into_one_another() -> None:
    red, green, blue = np.eye(3, dtype=np.uint8) * 255
    frame = np.stack([red, green, blue, [200, 200, 200], [0, 0, 0]]).astype(np.uint8)[None]
    greys = [[200] * 3, [0] * 3]
    complements = [255 - red, 255 - green, 255 - blue, *greys]
    for turns, wanted in ((1 / 2, complements), (1 / 3, [green, blue, red, *greys])):
        # A third of a turn is 85.33 of 256, blue itself 170.67: nearly so.
        assert np.abs(applied(shift_hue, frame, turns)[0] - np.array(wanted)).max() <= 4


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.004, 0.2, 0.5])
def test_hue_keeps_value_and_greys(turns: float) -> None:
    frame = noise_frame(5)
    shifted = applied(shift_hue, frame, turns)
    np.testing.assert_array_equal(shifted.max(axis=2), frame.max(axis=2))
    assert np.abs(shifted.min(axis=2) - frame.min(axis=2)).max() <= 1
    greys = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(applied(shift_hue, greys, turns), greys)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.4, 0.5, 0.7, 1.0, 1.3, 2.0, 3.0, 5.0, 16.0])
@pytest.mark.parametrize("frame", FRAMES, ids=["smooth", "smooth2", "noise", "flat"])
def test_blur_is_the_true_gaussian(frame: np.ndarray, sigma: float) -> None:
    difference = np.abs(applied(blur, frame, sigma) - reference_blur(frame, sigma))
    # Cut off at 3 sigma and in 256ths: two levels within the recipe's range, three beyond.
    assert difference.max() <= (2 if sigma <= 2 else 3)
    assert difference.mean() <= (0.5 if sigma <= 2 else 0.8)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.7, 1.3, 2.0, 16.0])
def test_blur_is_its_kernel_rounded(sigma: float) -> None:
    kernel = gaussian_kernel(sigma)
    radius = len(kernel) // 2
    assert radius == math.ceil(3 * sigma)
    assert kernel.sum() == 1
    assert kernel.min() >= 0
    np.testing.assert_array_equal(kernel, kernel[::-1])
    np.testing.assert_array_equal(kernel * 256, np.rint(kernel * 256))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    # Two rounded sums bound each weight; the centre takes what both sides leave.
    assert np.abs(kernel - weights / weights.sum()).max() <= 1 / 256
    frame = noise_frame(3)
    padded = np.pad(frame.astype(float), ((radius,) * 2, (radius,) * 2, (0, 0)), mode="edge")
    rows = sum(k * padded[i : i + 48] for i, k in enumerate(kernel))
    exact = sum(k * rows[:, i : i + 64] for i, k in enumerate(kernel))
    # Ties, multiples of 2**-16 that few kernels have, may go either way.
    assert np.abs(applied(blur, frame, sigma) - exact).max() <= 0.5


@pytest.mark.parametrize("sigma", [0.1, 2.0, 16.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (3, 2)])
def test_blur_of_tiny_frames(size: tuple[int, int], sigma: float) -> None:
    frame = noise_frame(1, *size)
    difference = np.abs(applied(blur, frame, sigma) - reference_blur(frame, sigma))
    assert difference.max() <= 3


# Pillow rounds differently (it cuts fractions off), and its blur is three boxes, not a Gaussian.
@pytest.mark.parametrize("factor", [0.6, 0.8, 1.2, 1.4])
@pytest.mark.parametrize("frame", FRAMES[:3], ids=["smooth", "smooth2", "noise"])
@pytest.mark.parametrize(
    ("step", "pillow"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter_agrees_with_pillow(
    step: Callable[..., None], pillow: Callable, frame: np.ndarray, factor: float
) -> None:
    theirs = np.asarray(pillow(Image.fromarray(frame)).enhance(factor)).astype(int)
    assert np.abs(applied(step, frame, factor) - theirs).max() <= 1


@pytest.mark.parametrize("steps", [-26, -5, 1, 13, 26, 128])
@pytest.mark.parametrize("frame", FRAMES[:3], ids=["smooth", "smooth2", "noise"])
def test_hue_agrees_with_pillow(frame: np.ndarray, steps: int) -> None:
    hsv = np.array(Image.fromarray(frame).convert("HSV"))
    hsv[..., 0] += np.uint8(steps % 256)
    theirs = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")).astype(int)
    difference = np.abs(applied(shift_hue, frame, steps / 256) - theirs)
    # Pillow cuts off where it quantises hue (here: 255 of them to a turn) and saturation.
    assert difference.max() <= 12
    assert difference.mean() <= 2.5


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("frame", FRAMES[:2], ids=["smooth", "smooth2"])
def test_blur_agrees_with_pillow(frame: np.ndarray, sigma: float) -> None:
    blurred = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(sigma))
    difference = np.abs(applied(blur, frame, sigma) - np.asarray(blurred).astype(int))
    assert difference.max() <= 4
    assert difference.mean() <= 1


def test_identity_leaves_every_bit() -> None:
    frame = noise_frame(4)
    out = augment_frame(frame, Augment(48, 64, **UNCHANGED))
    np.testing.assert_array_equal(out, frame)
    assert not np.shares_memory(out, frame)


@pytest.mark.parametrize("size", [(48, 64), (25, 33), (30, 20), (112, 112)])
def test_resize_above_a_half_is_the_resize_of_views(size: tuple[int, int]) -> None:
    frame = noise_frame(4)
    out = augment_frame(frame, Augment(*size, **UNCHANGED), scratch=Scratch())
    np.testing.assert_array_equal(out, resize(frame, *size))


@pytest.mark.parametrize("times", [2, 4, 8])
def test_resize_by_a_power_of_two_is_the_mean_of_blocks(times: int) -> None:
    frame = noise_frame(4)
    out = augment_frame(frame, Augment(48 // times, 64 // times, **UNCHANGED), scratch=Scratch())
    blocks = frame.reshape(48 // times, times, 64 // times, times, 3)
    # Each halving rounds.
    assert np.abs(out - blocks.mean(axis=(1, 3))).max() <= 0.5 * math.log2(times) + 1e-9


@pytest.mark.parametrize("size", [(112, 112), (100, 57), (47, 60)])
@pytest.mark.parametrize("native", [(240, 320), (256, 340), (257, 341), (225, 300)])
def test_shrinking_stays_near_area_averaging(
    native: tuple[int, int], size: tuple[int, int]
) -> None:
    coarse = Image.fromarray(noise_frame(3, 8, 10))
    frame = np.asarray(coarse.resize(native[::-1], Image.Resampling.BICUBIC))
    out = augment_frame(frame, Augment(*size, **UNCHANGED))
    area = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    difference = np.abs(out.astype(int) - area)
    # An odd row or column left out moves what is shown by up to half a pixel of the output.
    assert difference.mean() <= (2 if native[0] % 2 else 0.5)
    assert difference.max() <= (12 if native[0] % 2 else 4)


def test_steps_follow_in_their_order() -> None:
    frame = smooth_frame(7)
    augment = Augment(32, 40, 1.5, brightness=1.4, contrast=0.6, saturation=1.3, hue=-0.08)
    expected = resize(frame, 32, 40).copy()
    adjust_brightness(expected, 1.4)
    adjust_contrast(expected, 0.6)
    adjust_saturation(expected, 1.3)
    shift_hue(expected, -0.08)
    blur(expected, 1.5)
    np.testing.assert_array_equal(augment_frame(frame, augment), expected)


def test_all_steps_stay_near_the_reference() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        recipe = dataclasses.replace(MOCO, jitter=1.0, blur=1.0)
        _, _, augment = draw_augment(rng, recipe, 48, 64, 25, 25)
        frame = smooth_frame(seed)
        expected = resize(frame, 25, 25).astype(float)
        expected = reference_brightness(expected, augment.brightness)
        expected = reference_contrast(expected, augment.contrast)
        expected = reference_saturation(expected, augment.saturation)
        expected = reference_hue(expected, math.floor(256 * augment.hue + 0.5) / 256)
        expected = reference_blur(expected, augment.blur_sigma)
        difference = np.abs(augment_frame(frame, augment).astype(int) - expected)
        assert difference.max() <= 6
        assert difference.mean() <= 1


def test_frames_are_augmented_alike_and_alone() -> None:
    augment = Augment(20, 20, 1.1, 0.7, 1.3, 0.8, 0.06)
    frames = [smooth_frame(seed) for seed in (1, 2, 1)]
    scratch, outs = Scratch(), np.zeros((3, 20, 20, 3), np.uint8)
    before = [frame.copy() for frame in frames]
    for frame, out in zip(frames, outs, strict=True):
        assert augment_frame(frame, augment, out, scratch) is out
    np.testing.assert_array_equal(outs[0], outs[2])
    np.testing.assert_array_equal(outs[1], augment_frame(frames[1], augment))
    for frame, was in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame, was)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_crops_lie_inside_the_frame(height: int, width: int, seed: int) -> None:
    crop = draw_resized_crop(np.random.default_rng(seed), height, width, (0.2, 1.0), (3 / 4, 4 / 3))
    x, y, w, h = crop
    assert all(type(number) is int for number in crop)
    assert 0 <= x <= x + w <= width
    assert 0 <= y <= y + h <= height
    assert min(w, h) >= 1


def test_crops_have_the_share_the_ratio_and_the_place_they_should() -> None:
    rng, height, width = np.random.default_rng(0), 1000, 1000
    drawn = np.array(
        [draw_resized_crop(rng, height, width, (0.2, 0.7), (3 / 4, 4 / 3)) for _ in range(8000)]
    )
    x, y, w, h = drawn.T
    shares, ratios = w * h / (height * width), np.log(w / h)  # all fit: 0.7 * 4/3 < 1
    assert shares.min() >= 0.199
    assert shares.max() <= 0.701
    assert np.abs(ratios).max() <= np.log(4 / 3) + 0.005
    quantiles = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(shares, quantiles), 0.2 + 0.5 * quantiles, atol=0.015)
    spread = np.log(4 / 3)
    np.testing.assert_allclose(
        np.quantile(ratios, quantiles), (2 * quantiles - 1) * spread, atol=0.02
    )
    for place in (x / (width - w), y / (height - h)):
        np.testing.assert_allclose(np.quantile(place, quantiles), quantiles, atol=0.03)
    assert abs(np.corrcoef(x / (width - w), y / (height - h))[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 1000, (433, 0, 133, 100)),  # 4/3 of the height
        (1000, 90, (0, 440, 90, 120)),  # 3/4 of the height
        (1, 1000, (499, 0, 1, 1)),
        (100, 100, (0, 0, 100, 100)),
    ],
)
def test_crops_that_cannot_fit_are_central(
    height: int, width: int, expected: tuple[int, int, int, int]
) -> None:
    # A share of (nearly) the whole area with another shape: no attempt fits.
    ratio = (3 / 4, 4 / 3) if height != width else (0.99, 0.999)
    crop = draw_resized_crop(np.random.default_rng(0), height, width, (1.0, 1.0), ratio)
    if height == width:
        expected = (0, 0, 100, 100)
    assert crop == expected


@pytest.mark.parametrize("size", [(240, 320), (100, 1000), (7, 5)])
def test_every_draw_takes_the_same_numbers(size: tuple[int, int]) -> None:
    recipes = [MOCO, AugmentRecipe(jitter=0.0, blur=0.0, flip=0.0), AugmentRecipe(jitter=1.0)]
    states = []
    for recipe in recipes:
        rng = np.random.default_rng(3)
        draw_augment(rng, recipe, *size, 112, 112)
        states.append(rng.random())
    assert len(set(states)) == 1


def test_draws_follow_the_recipe() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_augment(rng, MOCO, 240, 320, 112, 96) for _ in range(4000)]
    augments = [augment for _, _, augment in drawn]
    assert {(augment.height, augment.width) for augment in augments} == {(112, 96)}
    jittered = [a for a in augments if (a.brightness, a.contrast, a.saturation) != (1, 1, 1)]
    blurred = [a for a in augments if a.blur_sigma > 0]
    for count, probability in (
        (len(jittered), 0.8),
        (len(blurred), 0.5),
        (sum(flip for _, flip, _ in drawn), 0.5),
    ):
        assert abs(count / 4000 - probability) < 0.04
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.6, 1.4),
        ("hue", -0.1, 0.1),
    ):
        values = [getattr(augment, name) for augment in jittered]
        quantiles = np.linspace(0, 1, 11)
        wanted = low + (high - low) * quantiles
        np.testing.assert_allclose(np.quantile(values, quantiles), wanted, atol=0.04 * (high - low))
        assert all(value == round(value, 3) for value in values)
    sigmas = [augment.blur_sigma for augment in blurred]
    assert min(sigmas) >= 0.1
    assert max(sigmas) <= 2.0
    assert abs(np.mean(sigmas) - 1.05) < 0.05
    assert all(type(flip) is bool for _, flip, _ in drawn)
    plain = draw_augment(rng, AugmentRecipe(jitter=0.0, blur=0.0), 240, 320, 112, 112)[2]
    assert plain == Augment(112, 112, **UNCHANGED)


def test_draws_repeat_and_stay_in_range_at_the_extremes() -> None:
    widest = AugmentRecipe(brightness=9, contrast=9, saturation=9, hue=0.5, blur_sigma=(0, 16))
    for seed in range(300):
        first, second = (
            draw_augment(np.random.default_rng(seed), widest, 240, 320, 112, 112) for _ in range(2)
        )
        assert first == second


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ({"height": 0}, "height and width"),
        ({"width": 4097}, "height and width"),
        ({"brightness": -0.1}, "brightness"),
        ({"contrast": 10.1}, "contrast"),
        ({"saturation": float("inf")}, "saturation"),
        ({"brightness": float("nan")}, "brightness"),
        ({"hue": 0.51}, "hue"),
        ({"hue": float("nan")}, "hue"),
        ({"blur_sigma": -1.0}, "blur_sigma"),
        ({"blur_sigma": 16.5}, "blur_sigma"),
        ({"blur_sigma": float("nan")}, "blur_sigma"),
    ],
)
def test_impossible_augments_are_refused(numbers: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Augment(**{"height": 8, "width": 8, **UNCHANGED, **numbers})


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"scale": [0, 1.0]}, r"augment.scale must be above 0, got \[0.0, 1.0\]"),
        ({"scale": [0.5, 0.2]}, "augment.scale"),
        ({"scale": [0.5, 1.2]}, "augment.scale"),
        ({"ratio": [0, 1]}, "augment.ratio"),
        ({"ratio": [2.0, 1.0]}, "augment.ratio"),
        ({"brightness": -0.1}, "augment.brightness"),
        ({"saturation": 9.5}, "augment.saturation"),
        ({"contrast": float("nan")}, "augment.contrast"),
        ({"hue": 0.6}, "augment.hue"),
        ({"jitter": 1.5}, "augment.jitter"),
        ({"blur": -1}, "augment.blur"),
        ({"flip": 2}, "augment.flip"),
        ({"blur_sigma": [0.1, 20]}, "augment.blur_sigma"),
        ({"blur_sigma": [2.0]}, "blur_sigma"),
        ({"sharpness": 1.0}, "unknown key 'sharpness'"),
    ],
)
def test_impossible_recipes_are_refused(table: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build_record(AugmentRecipe, table, "synth.pal.augment", "recipe.toml")


def test_recipes_are_built_from_tables() -> None:
    table = {"scale": [0.5, 1], "brightness": 1, "jitter": 0}
    recipe = build_record(AugmentRecipe, table, "synth.pal.augment", "recipe.toml")
    assert recipe == AugmentRecipe(scale=(0.5, 1.0), brightness=1.0, jitter=0.0)
    assert build_record(AugmentRecipe, {}, "synth.pal.augment", "recipe.toml") == MOCO


def test_real_frames_stay_near_the_reference(shared: Path) -> None:
    path = sorted((shared / "data" / "clips").rglob("*.mp4"))[0]
    frame = read_frames(probe_video(str(path)), np.array([10]))[0]
    augment = Augment(130, 130, 1.2, brightness=1.25, contrast=0.7, saturation=1.3, hue=0.05)
    expected = resize(frame, 130, 130).astype(float)
    expected = reference_brightness(expected, 1.25)
    expected = reference_contrast(expected, 0.7)
    expected = reference_saturation(expected, 1.3)
    expected = reference_blur(reference_hue(expected, 13 / 256), 1.2)
    difference = np.abs(augment_frame(frame, augment).astype(int) - expected)
    assert difference.max() <= 4
    assert difference.mean() <= 0.6

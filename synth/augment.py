"""Spatial augmentation of a source: resized crop, colour jitter, Gaussian blur; constant over time.

One set of numbers holds for all frames of a source, so that the augmentation adds no motion. The
crop (native pixels) and the flip are a `View` of the source; an `Augment` is what follows: resize,
brightness, contrast, saturation, hue, blur, in this order. Every step is clipped and rounded to
whole grey levels, by integer or single-operation arithmetic that gives the same bytes on every
processor.

Source: PAL (Zhang et al., "Unsupervised Pre-training for Temporal Action Localization Tasks", CVPR
2022), section 4.1; strengths of MoCo v2 (Chen et al., "Improved Baselines with Momentum Contrastive
Learning", 2020). The steps are defined as in Pillow's `ImageEnhance`, `HSV` and `GaussianBlur`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .cutmix import round_half_up
from .views import LARGEST_SIDE, Scratch, resize

Crop = tuple[int, int, int, int]  # x, y, width, height

CROP_ATTEMPTS = 10
DECIMALS = 3  # of the numbers drawn: a plan stays readable
TIES_UP = 5e-4  # cv2 rounds ties to even; factors are thousandths, so nothing else crosses a tie
HUES = 256  # hues of the 8-bit circle
KERNEL_ONE = 256  # kernel weights are whole 256ths: cv2 then filters in integers
LARGEST_FACTOR = 10.0
LARGEST_SIGMA = 16.0  # pixels
WIDEST_RATIO = 100.0


@dataclass(frozen=True, slots=True)
class Augment:
    """What happens to each frame of a source after its crop and flip.

    Attributes:
        height, width: Size after the resize, in pixels.
        blur_sigma: Standard deviation of the Gaussian, in pixels; 0: no blur.
        brightness, contrast, saturation: Factors; 1: unchanged.
        hue: Shift of the hue in turns, in [-0.5, 0.5]; 0: unchanged.
    """

    height: int
    width: int
    blur_sigma: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __post_init__(self) -> None:
        if not 1 <= min(self.height, self.width) <= max(self.height, self.width) <= LARGEST_SIDE:
            raise ValueError(
                f"height and width must be in 1..{LARGEST_SIDE}, got {self.height} and {self.width}"
            )
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= LARGEST_FACTOR:
                raise ValueError(
                    f"{name} must be in [0, {LARGEST_FACTOR:g}], got {getattr(self, name)}"
                )
        if not -0.5 <= self.hue <= 0.5:
            raise ValueError(f"hue must be in [-0.5, 0.5] turns, got {self.hue}")
        if not 0 <= self.blur_sigma <= LARGEST_SIGMA:
            raise ValueError(
                f"blur_sigma must be in [0, {LARGEST_SIGMA:g}] pixels, got {self.blur_sigma}"
            )


@dataclass(frozen=True, slots=True)
class AugmentRecipe:
    """Strengths of the spatial augmentation; the defaults are MoCo v2's.

    Attributes:
        scale: Range of the crop's share of the frame's area.
        ratio: Range of the crop's width over its height.
        brightness, contrast, saturation: Largest distance of the factor from 1.
        hue: Largest shift of the hue, in turns.
        jitter: Probability of the colour jitter (all four of the above at once).
        blur: Probability of the blur.
        blur_sigma: Range of its standard deviation, in pixels of the resized frame.
        flip: Probability of mirroring left and right.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter: float = 0.8
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5

    def __post_init__(self) -> None:
        _check_range("scale", self.scale, 0.0, 1.0)
        _check_range("ratio", self.ratio, 1 / WIDEST_RATIO, WIDEST_RATIO)
        _check_range("blur_sigma", self.blur_sigma, 0.0, LARGEST_SIGMA)
        if self.scale[0] == 0:
            raise ValueError(f"augment.scale must be above 0, got {list(self.scale)}")
        for name in ("brightness", "contrast", "saturation"):
            _check_number(name, getattr(self, name), LARGEST_FACTOR - 1)
        _check_number("hue", self.hue, 0.5)
        for name in ("jitter", "blur", "flip"):
            _check_number(name, getattr(self, name), 1.0)


def _check_number(name: str, number: float, most: float) -> None:
    if not 0 <= number <= most:
        raise ValueError(f"augment.{name} must be in [0, {most:g}], got {number}")


def _check_range(name: str, limits: tuple[float, float], least: float, most: float) -> None:
    if not least <= limits[0] <= limits[1] <= most:
        raise ValueError(
            f"augment.{name} must be [low, high] within [{least:g}, {most:g}], got {list(limits)}"
        )


def draw_resized_crop(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Crop:
    """Draw `(x, y, width, height)` of a random resized crop, in pixels of the native frame.

    The share of the area is uniform in `scale`, the logarithm of width over height in that of
    `ratio`; the first of 10 attempts that fits is placed uniformly, else the largest central crop
    within `ratio` is taken. The same number of random numbers is drawn whatever the attempts.

    Source: the Inception crop (Szegedy et al., CVPR 2015), as MoCo v2 uses it.
    """
    attempts, place = rng.random((CROP_ATTEMPTS, 2)), rng.random(2)
    shares = scale[0] + (scale[1] - scale[0]) * attempts[:, 0]
    lows, highs = np.log(ratio)
    ratios = np.exp(lows + (highs - lows) * attempts[:, 1])
    widths = round_half_up(np.sqrt(height * width * shares * ratios))
    heights = round_half_up(np.sqrt(height * width * shares / ratios))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if not fits.any():
        return _central_crop(height, width, ratio)
    first = int(np.argmax(fits))
    w, h = int(widths[first]), int(heights[first])
    return int(place[0] * (width - w + 1)), int(place[1] * (height - h + 1)), w, h


def _central_crop(height: int, width: int, ratio: tuple[float, float]) -> Crop:
    """Return the largest central crop whose width over height lies within `ratio`."""
    w, h = width, height
    if width < height * ratio[0]:
        h = max(1, int(round_half_up(width / ratio[0])))
    elif width > height * ratio[1]:
        w = max(1, int(round_half_up(height * ratio[1])))
    return (width - w) // 2, (height - h) // 2, w, h


def draw_augment(
    rng: np.random.Generator,
    recipe: AugmentRecipe,
    height: int,
    width: int,
    out_height: int,
    out_width: int,
) -> tuple[Crop, bool, Augment]:
    """Draw the crop `(x, y, width, height)`, the flip and what follows, for one source.

    Every call draws the same number of random numbers in the same order, whether or not the jitter
    and the blur apply. Factors, hue and sigma are rounded to thousandths.

    Args:
        rng: The row's generator.
        recipe: Strengths.
        height, width: Size of the native frame, in pixels.
        out_height, out_width: Size after the resize, in pixels.
    """
    crop = draw_resized_crop(rng, height, width, recipe.scale, recipe.ratio)
    flip, jitter, blur = (rng.random(3) < (recipe.flip, recipe.jitter, recipe.blur)).tolist()
    brightness, contrast, saturation, hue = rng.uniform(-1.0, 1.0, 4).tolist()
    sigma = rng.uniform(*recipe.blur_sigma)
    augment = Augment(
        out_height,
        out_width,
        blur_sigma=round(sigma, DECIMALS) if blur else 0.0,
        brightness=_factor(brightness, recipe.brightness) if jitter else 1.0,
        contrast=_factor(contrast, recipe.contrast) if jitter else 1.0,
        saturation=_factor(saturation, recipe.saturation) if jitter else 1.0,
        hue=round(hue * recipe.hue, DECIMALS) + 0.0 if jitter else 0.0,  # never -0.0
    )
    return crop, flip, augment


def _factor(deviation: float, strength: float) -> float:
    return round(max(0.0, 1.0 + deviation * strength), DECIMALS)


def augment_frame(
    crop_HWC: np.ndarray,
    augment: Augment,
    out: np.ndarray | None = None,
    scratch: Scratch | None = None,
) -> np.ndarray:
    """Resize, jitter and blur one frame; nothing is random here.

    Args:
        crop_HWC: RGB uint8 `(H, W, 3)` of any size, already cropped and flipped; not modified.
        augment: What to do.
        out: Array to write into; a new one if None.
        scratch: Memory for the resized frame; new memory if None.

    Returns:
        RGB uint8 `(augment.height, augment.width, 3)`.
    """
    if out is None:
        out = np.empty((augment.height, augment.width, 3), np.uint8)
    halved_HWC = _halve(crop_HWC, augment.height, augment.width)
    np.copyto(out, resize(halved_HWC, augment.height, augment.width, scratch))
    if augment.brightness != 1:
        adjust_brightness(out, augment.brightness)
    if augment.contrast != 1:
        adjust_contrast(out, augment.contrast)
    if augment.saturation != 1:
        adjust_saturation(out, augment.saturation)
    if augment.hue != 0:
        shift_hue(out, augment.hue)
    if augment.blur_sigma != 0:
        blur(out, augment.blur_sigma)
    return out


def _halve(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Take means of 2 x 2 pixels for as long as both sides stay at least `height` and `width`.

    `resize` does what then remains, less than a halving of one side at least, and mostly by
    bilinear; area averaging all the way costs several times as much. An odd last row or column is
    left out.
    """
    while frame_HWC.shape[0] >= 2 * height and frame_HWC.shape[1] >= 2 * width:
        h, w = frame_HWC.shape[0] // 2, frame_HWC.shape[1] // 2
        even_HWC = frame_HWC[: 2 * h, : 2 * w]
        frame_HWC = cv2.resize(even_HWC, (w, h), interpolation=cv2.INTER_AREA)
    return frame_HWC


def adjust_brightness(frame_HWC: np.ndarray, factor: float) -> None:
    """Replace every value `x` by `factor * x`, in place."""
    cv2.addWeighted(frame_HWC, factor, frame_HWC, 0.0, TIES_UP, dst=frame_HWC)


def adjust_contrast(frame_HWC: np.ndarray, factor: float) -> None:
    """Replace every value `x` by `factor * x + (1 - factor) * m`, in place.

    `m` is the mean over the frame of `(299 R + 587 G + 114 B) / 1000`, in whole grey levels.
    """
    mean = float(round_half_up(cv2.mean(_grey(frame_HWC))[0]))
    offset = (1.0 - factor) * mean + TIES_UP
    cv2.addWeighted(frame_HWC, factor, frame_HWC, 0.0, offset, dst=frame_HWC)


def adjust_saturation(frame_HWC: np.ndarray, factor: float) -> None:
    """Replace every pixel `x` by `factor * x + (1 - factor) * grey(x)`, in place.

    `grey` is `(299 R + 587 G + 114 B) / 1000`, in whole grey levels.
    """
    grey_HWC = cv2.cvtColor(_grey(frame_HWC), cv2.COLOR_GRAY2RGB)
    cv2.addWeighted(frame_HWC, factor, grey_HWC, 1.0 - factor, TIES_UP, dst=frame_HWC)


def _grey(frame_HWC: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)


def shift_hue(frame_HWC: np.ndarray, turns: float) -> None:
    """Shift the hue of every pixel cyclically by `turns`, to the nearest of 256 hues, in place.

    Saturation and value stay. The way back is `V - V S shade(H)` for each channel: cv2's own works
    in floating point, and its bytes differ between processors.
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2HSV_FULL))
    chroma = cv2.multiply(saturation, value, scale=1 / 255)
    channels = [
        cv2.subtract(value, cv2.multiply(chroma, cv2.LUT(hue, shade), scale=1 / 255))
        for shade in _shades(int(round_half_up(turns * HUES)) % HUES)
    ]
    cv2.merge(channels, dst=frame_HWC)


@lru_cache(maxsize=HUES)
def _shades(shift: int) -> np.ndarray:
    """Return how much each hue, shifted, takes from R, G and B: `(3, 256)`, 255 for all of it.

    `shade(h) = clip01(min(k, 4 - k))` with `k = (n + 6 h) mod 6` and `n` = 5, 3, 1 for R, G, B.

    # h = 0 (red): k = 5, 3, 1, so nothing of red, all of green and all of blue
    """
    turns = (np.arange(HUES) + shift) % HUES / HUES
    k = (np.array([[5], [3], [1]]) + 6 * turns) % 6
    shades = round_half_up(255 * np.clip(np.minimum(k, 4 - k), 0.0, 1.0)).astype(np.uint8)
    shades.flags.writeable = False  # all callers share it
    return shades


def blur(frame_HWC: np.ndarray, sigma: float) -> None:
    """Convolve with a Gaussian of `sigma` pixels along rows and columns, in place.

    The Gaussian is cut off at `3 sigma`; beyond the borders the border pixels repeat.
    """
    kernel = gaussian_kernel(sigma)
    cv2.sepFilter2D(frame_HWC, -1, kernel, kernel, dst=frame_HWC, borderType=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=64)
def gaussian_kernel(sigma: float) -> np.ndarray:
    """Return the weights `exp(-x^2 / (2 sigma^2))`, `|x| <= ceil(3 sigma)`, normalised.

    Returns:
        float64 `(2 ceil(3 sigma) + 1,)`, symmetric, whole 256ths that add up to 1. From the edge
        inwards, sums of weights (not each weight) are rounded, so that errors do not add up.
    """
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    sums = round_half_up(KERNEL_ONE * np.cumsum(weights[:radius]) / weights.sum())
    side = np.diff(sums, prepend=0)
    centre = KERNEL_ONE - 2 * sums[-1]
    kernel = np.concatenate([side, [centre], side[::-1]]) / KERNEL_ONE
    kernel.flags.writeable = False  # all callers share it
    return kernel

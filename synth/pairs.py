"""Draw the rows of pairs: two views of one video, with no label read.

Source: PAL (Zhang et al., CVPR 2022), section 3.2 and 4.1; its baseline of single clips is
instance discrimination, MoCo v2 (Chen et al., 2020).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .augment import draw_augment
from .candidates import Candidates
from .kinds import Node, leaf
from .paste import background_starts, draw_region, region_stride
from .recipe import Recipe
from .views import LARGEST_SIDE, resized_size

Row = dict[str, Any]
Drawn = tuple[list[Row], Node]


def draw_pal(
    recipe: Recipe, videos: Candidates, rng: np.random.Generator, shown: Sequence[int]
) -> Drawn:
    """Draw both composed videos of a pair: regions of one action video, pasted into backgrounds.

    Args:
        recipe: What to draw.
        videos: All videos.
        rng: The row's generator.
        shown: The action video, then the background of the query and of the key (or of both).
    """
    action, *backgrounds = shown
    sources: list[Row] = []
    views = []
    for background in (backgrounds[0], backgrounds[-1]):
        most = videos.num_frames(action) // recipe.clip_len
        s, e = draw_region(rng, recipe.pal.num_clips, most)
        num_frames = (e - s + 1) * recipe.clip_len
        drawn_stride = int(rng.choice(recipe.pal.strides))
        stride = region_stride(videos.num_frames(action), num_frames, drawn_stride)
        start = videos.draw_start(rng, action, (num_frames - 1) * stride + 1)
        beta = round(float(rng.uniform(*recipe.pal.beta)), 2)  # hundredths blend exactly
        behind = _background(recipe, videos, rng, background)
        region = _source(recipe, videos, rng, action, start, stride, num_frames)
        first = len(sources)
        clips = [leaf(first + j) for j in range(len(behind))]
        inputs = [{"op": "concat", "inputs": clips}, leaf(first + len(behind))]
        views.append({"op": "paste", "s": s, "e": e, "beta": beta, "inputs": inputs})
        sources += [*behind, region]
    return sources, {"op": "pair", "inputs": views}


def draw_clip_pair(
    recipe: Recipe, videos: Candidates, rng: np.random.Generator, shown: Sequence[int]
) -> Drawn:
    """Draw two clips of one video, each at a place and with an augmentation of its own."""
    (video,) = shown
    sources = []
    for _ in range(2):
        start = videos.draw_start(rng, video, recipe.window_span)
        stride, num_frames = recipe.frame_stride, recipe.frames
        sources.append(_source(recipe, videos, rng, video, start, stride, num_frames))
    return sources, {"op": "pair", "inputs": [leaf(0), leaf(1)]}


def _background(
    recipe: Recipe, videos: Candidates, rng: np.random.Generator, video: int
) -> list[Row]:
    """Return `J` runs of consecutive frames, spread over a video and seen through one view."""
    starts = background_starts(
        int(videos.first_frames[video]),
        int(videos.end_frames[video]),
        recipe.pal.num_clips,
        recipe.clip_len,
    )
    source = _source(recipe, videos, rng, video, starts[0], 1, recipe.clip_len)
    return [source | {"start_frame": start} for start in starts]


def _source(
    recipe: Recipe,
    videos: Candidates,
    rng: np.random.Generator,
    video: int,
    start_frame: int,
    frame_stride: int,
    num_frames: int,
) -> Row:
    height, width = int(videos.heights[video]), int(videos.widths[video])
    short_side = min(height, width, LARGEST_SIDE)  # as it is: the augmentation scales the crop
    height, width = resized_size(height, width, short_side)
    (x, y, crop_width, crop_height), flip, augment = draw_augment(
        rng, recipe.augment, height, width, *recipe.crop_size
    )
    return {
        "video_id": str(videos.video_ids[video]),
        "label_id": None,
        "start_frame": start_frame,
        "frame_stride": frame_stride,
        "num_frames": num_frames,
        "view": {
            "short_side": short_side,
            "x": x,
            "y": y,
            "width": crop_width,
            "height": crop_height,
            "flip": flip,
        },
        "augment": {name: getattr(augment, name) for name in augment.__slots__},
    }


PAIRS: dict[str, Callable[[Recipe, Candidates, np.random.Generator, Sequence[int]], Drawn]] = {
    "pal": draw_pal,
    "clip_pair": draw_clip_pair,
}

"""Draw every random number of a dataset: rows that say exactly what will be rendered.

Row `i` draws from `SeedSequence(seed, spawn_key=(i,))`, the order of the videos in pass `p` from
`spawn_key=(p, 0)`; rendering draws nothing. Mixing partners come from a small group of videos that
stand side by side in a shard, and a partner shows the window that its own sample shows: so each
window is decoded once, although most samples need two.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from .annotated import runs_of_window
from .candidates import Candidates, Partners
from .kinds import DRAFTS, Draft, leaf
from .pairs import PAIRS
from .recipe import Recipe
from .streams import row_generators
from .views import resized_size

Row = dict[str, Any]
GROUP_ROWS = 32  # samples of a group: what a renderer holds at once


@dataclass
class Window:
    """The window of a row's own video, and the row's random generator."""

    row_index: int
    rng: np.random.Generator
    video: int
    start_frame: int


@dataclass(frozen=True)
class PlannedShard:
    """The rows of one shard and how many decoding passes they need."""

    rows: list[Row]
    num_decodes: int


def draw_plan(recipe: Recipe, videos: Candidates) -> Iterator[PlannedShard]:
    """Draw the plan shard by shard; nothing but the order of one pass is held in memory."""
    row_index = shard = 0
    per_pass = min(recipe.samples_per_video, max(1, GROUP_ROWS // recipe.group_videos))
    per_pass = min(per_pass, recipe.samples_per_shard)
    for pass_index, first in enumerate(range(0, recipe.samples_per_video, per_pass)):
        windows = min(per_pass, recipe.samples_per_video - first)
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(pass_index, 0)))
        order = _order_videos(rng, videos, recipe.has_boundary("same_class"))
        for members in _split(order, recipe.samples_per_shard // windows):
            planned = _draw_shard(recipe, videos, members, windows, row_index, shard)
            row_index += len(planned.rows)
            shard += 1
            yield planned


def _order_videos(rng: np.random.Generator, videos: Candidates, couples: bool) -> np.ndarray:
    """Shuffle the videos; `couples` keeps them by twos of a class, so that partners stand near."""
    order = rng.permutation(len(videos))
    if not couples:
        return order
    by_class = order[np.argsort(videos.label_ids[order], kind="stable")]
    labels = videos.label_ids[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    starts_couple = rank % 2 == 0
    couple = np.cumsum(starts_couple) - 1
    place = rng.permutation(couple[-1] + 1)
    return by_class[np.argsort(place[couple], kind="stable")]


def _split(order: np.ndarray, largest: int) -> list[np.ndarray]:
    """Split into the fewest runs of at most `largest`, of lengths that differ by at most one."""
    return np.array_split(order, -(-len(order) // largest))


def _draw_shard(
    recipe: Recipe,
    videos: Candidates,
    members: np.ndarray,
    windows: int,
    row_index: int,
    shard: int,
) -> PlannedShard:
    rows: list[Row] = []
    num_decodes = 0
    num_groups = max(1, len(members) // recipe.group_videos)
    generators = row_generators(recipe.seed, row_index, len(members) * windows)
    for group in np.array_split(members, num_groups):
        drawn = []
        for video in np.tile(group, windows).tolist():
            rng = next(generators)
            start = videos.draw_start(rng, video, recipe.window_span)
            drawn.append(Window(row_index, rng, video, start))
            row_index += 1
        group_rows = [_draw_row(recipe, videos, window, drawn, shard) for window in drawn]
        rows.extend(group_rows)
        num_decodes += len({source["video_id"] for row in group_rows for source in row["sources"]})
    return PlannedShard(rows, num_decodes)


def _draw_row(
    recipe: Recipe, videos: Candidates, window: Window, group: list[Window], shard: int
) -> Row:
    kinds, weights = list(recipe.kinds), list(accumulate(recipe.kinds.values()))
    kind = kinds[bisect_right(weights, window.rng.random() * weights[-1])]
    if kind in DRAFTS:
        sources, tree = _draw_clips(recipe, videos, window, group, DRAFTS[kind](recipe, window.rng))
    elif kind in PAIRS:
        num_others = recipe.num_backgrounds if kind == "pal" else 0
        shown = _draw_shown(recipe, videos, window, group, [0] * num_others, "other")
        sources, tree = PAIRS[kind](recipe, videos, window.rng, [video for video, _ in shown])
    else:
        sources, tree = _draw_annotated(recipe, videos, window)
    return {
        "sample_key": f"{window.row_index:08d}",
        "shard": shard,
        "kind": kind,
        "sources": sources,
        "tree": tree,
    }


def _draw_clips(
    recipe: Recipe, videos: Candidates, window: Window, group: list[Window], draft: Draft
) -> tuple[list[Row], Row]:
    if draft.partners == "same_class" and videos.class_sizes[window.video] < 2:
        window = _another_window(recipe, videos, window)
    if draft.lengths[0] > recipe.frames:
        span = (draft.lengths[0] - 1) * recipe.frame_stride + 1
        start = videos.draw_start(window.rng, window.video, span)
        window = Window(window.row_index, window.rng, window.video, start)
    shown = _draw_shown(recipe, videos, window, group, draft.lengths[1:], draft.partners)
    sources = [
        _draw_source(recipe, videos, window.rng, video, start_frame, num_frames)
        for (video, start_frame), num_frames in zip(shown, draft.lengths, strict=True)
    ]
    return sources, draft.tree


def _another_window(recipe: Recipe, videos: Candidates, window: Window) -> Window:
    """Draw a window of a video that is not alone in its class."""
    video = int(window.rng.choice(videos.with_classmates))
    start = videos.draw_start(window.rng, video, recipe.window_span)
    return Window(window.row_index, window.rng, video, start)


def _draw_shown(
    recipe: Recipe,
    videos: Candidates,
    window: Window,
    group: list[Window],
    others: Sequence[int],
    partners: Partners,
) -> list[tuple[int, int]]:
    """Return the row's own video and one more for each of `others`, all different, with starts.

    They come from the group, with the windows that are shown anyway, or from anywhere if the group
    has none that may stand there.
    """
    shown = {window.video: window.start_frame}
    for _ in others:
        near = [other for other in group if other.video not in shown]
        if partners != "other":
            near = [other for other in near if videos.fits(window.video, other.video, partners)]
        if near:
            partner = near[int(window.rng.integers(len(near)))]
            shown[partner.video] = partner.start_frame
        else:
            video = videos.draw_other(window.rng, shown, partners)
            shown[video] = videos.draw_start(window.rng, video, recipe.window_span)
    return list(shown.items())


def _draw_annotated(recipe: Recipe, videos: Candidates, window: Window) -> tuple[list[Row], Row]:
    start, stride, num_frames = window.start_frame, recipe.frame_stride, recipe.frames
    source = _draw_source(recipe, videos, window.rng, window.video, start, num_frames)
    runs = runs_of_window(videos.segments[window.video], start, stride, num_frames)
    tree = {"op": "annotate", "segments": [list(run) for run in runs], "inputs": [leaf(0)]}
    return [source | {"label_id": None}], tree  # the classes are those of the segments


def _draw_source(
    recipe: Recipe,
    videos: Candidates,
    rng: np.random.Generator,
    video: int,
    start_frame: int,
    num_frames: int,
) -> Row:
    low, high = recipe.short_side
    crop_height, crop_width = recipe.crop_size
    short_side = int(rng.integers(low, high + 1))
    height, width = resized_size(int(videos.heights[video]), int(videos.widths[video]), short_side)
    view = {
        "short_side": short_side,
        "x": int(rng.integers(0, width - crop_width + 1)),
        "y": int(rng.integers(0, height - crop_height + 1)),
        "width": crop_width,
        "height": crop_height,
        "flip": bool(rng.random() < recipe.flip),
    }
    label_id = int(videos.label_ids[video])
    return {
        "video_id": str(videos.video_ids[video]),
        "label_id": None if label_id < 0 else label_id,
        "start_frame": start_frame,
        "frame_stride": recipe.frame_stride,
        "num_frames": num_frames,
        "view": view,
        "augment": None,
    }

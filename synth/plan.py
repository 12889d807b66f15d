"""Draw every random number of a dataset: rows that say exactly what will be rendered.

Row `i` draws from `SeedSequence(seed, spawn_key=(i,))`, the order of the videos in pass `p` from
`spawn_key=(p, 0)`; rendering draws nothing. Mixing partners come from a small group of videos that
stand side by side in a shard, and a partner shows the window that its own sample shows: so each
window is decoded once, although most samples need two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .freeze import draw_freeze
from .mixup import draw_overlap
from .recipe import Recipe
from .views import resized_size

Row = dict[str, Any]
GROUP_ROWS = 32  # samples of a group: what a renderer holds at once


@dataclass(frozen=True, eq=False)
class Candidates:
    """The videos that a plan may use, as columns of equal length.

    Attributes:
        video_ids: str.
        label_ids: Class ids.
        first_frames, end_frames: Half-open range of presentation frames that may be shown.
        heights, widths: Pixels, after rotation.
    """

    video_ids: np.ndarray
    label_ids: np.ndarray
    first_frames: np.ndarray
    end_frames: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.video_ids)


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
        order = rng.permutation(len(videos))
        for members in _split(order, recipe.samples_per_shard // windows):
            planned = _draw_shard(recipe, videos, members, windows, row_index, shard)
            row_index += len(planned.rows)
            shard += 1
            yield planned


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
    for group in np.array_split(members, num_groups):
        drawn = []
        for video in np.tile(group, windows).tolist():
            drawn.append(_draw_window(recipe, videos, row_index, video))
            row_index += 1
        group_rows = [_draw_row(recipe, videos, window, drawn, shard) for window in drawn]
        rows.extend(group_rows)
        num_decodes += len({source["video_id"] for row in group_rows for source in row["sources"]})
    return PlannedShard(rows, num_decodes)


def _draw_window(recipe: Recipe, videos: Candidates, row_index: int, video: int) -> Window:
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(row_index,)))
    return Window(row_index, rng, video, _draw_start(recipe, videos, video, rng))


def _draw_start(recipe: Recipe, videos: Candidates, video: int, rng: np.random.Generator) -> int:
    last = videos.end_frames[video] - recipe.span
    return int(rng.integers(videos.first_frames[video], last + 1))


def _draw_partner(
    recipe: Recipe, videos: Candidates, window: Window, group: list[Window]
) -> tuple[int, int]:
    """Draw the second video and its window: of the group, or anywhere if the group has no other."""
    others = [other for other in group if other.video != window.video]
    if others:
        partner = others[int(window.rng.integers(len(others)))]
        return partner.video, partner.start_frame
    video = int(window.rng.integers(len(videos) - 1))
    video += video >= window.video
    return video, _draw_start(recipe, videos, video, window.rng)


def _draw_row(
    recipe: Recipe, videos: Candidates, window: Window, group: list[Window], shard: int
) -> Row:
    kinds, weights = list(recipe.kinds), np.cumsum(list(recipe.kinds.values()))
    draw = window.rng.random() * weights[-1]
    kind = kinds[int(np.searchsorted(weights, draw, side="right"))]
    lengths, tree = KINDS[kind](recipe, window.rng)
    shown = [(window.video, window.start_frame)]
    if len(lengths) == 2:
        shown.append(_draw_partner(recipe, videos, window, group))
    return {
        "sample_key": f"{window.row_index:08d}",
        "shard": shard,
        "kind": kind,
        "sources": [
            _draw_source(recipe, videos, window.rng, video, start_frame, num_frames)
            for (video, start_frame), num_frames in zip(shown, lengths, strict=True)
        ],
        "tree": tree,
    }


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
    return {
        "video_id": str(videos.video_ids[video]),
        "label_id": int(videos.label_ids[video]),
        "start_frame": start_frame,
        "frame_stride": recipe.frame_stride,
        "num_frames": num_frames,
        "view": view,
    }


# Each kind draws the lengths of its sources and its tree.
Drawn = tuple[list[int], Row]


def _leaf(source: int) -> Row:
    return {"op": "clip", "source": source}


def _draw_clip(recipe: Recipe, rng: np.random.Generator) -> Drawn:
    return [recipe.frames], _leaf(0)


def _draw_freeze(recipe: Recipe, rng: np.random.Generator) -> Drawn:
    intervals = draw_freeze(rng, recipe.frames, recipe.freeze.segments)
    if len(intervals) == 1:
        numbers: Row = {"r": intervals[0][0], "m": intervals[0][1]}
    else:
        numbers = {"segments": [list(pair) for pair in intervals]}
    return [recipe.frames], {"op": "freeze", **numbers, "inputs": [_leaf(0)]}


def _draw_overlapping(recipe: Recipe, rng: np.random.Generator, op: str, **numbers: Any) -> Drawn:
    overlap = draw_overlap(rng, recipe.frames, recipe.mixup.min_overlap, recipe.mixup.scenarios)
    place = {"n1": overlap.n1, "n2": overlap.n2, "r": overlap.r}
    inputs = [_leaf(0), _leaf(1)]
    return [overlap.n1, overlap.n2], {"op": op, **place, **numbers, "inputs": inputs}


def _draw_mixup(recipe: Recipe, rng: np.random.Generator) -> Drawn:
    return _draw_overlapping(recipe, rng, "mixup", boundary=recipe.mixup.boundary)


def _draw_cutmix_window(recipe: Recipe, rng: np.random.Generator) -> Drawn:
    return _draw_overlapping(recipe, rng, "cutmix_window", delta=_delta(recipe))


def _draw_cutmix_view(recipe: Recipe, rng: np.random.Generator) -> Drawn:
    inputs = [_leaf(0), _leaf(1)]
    lengths = [recipe.frames, recipe.frames]
    return lengths, {"op": "cutmix_view", "delta": _delta(recipe), "inputs": inputs}


def _delta(recipe: Recipe) -> float:
    return recipe.cutmix.delta * recipe.crop_size[1]


KINDS: dict[str, Callable[[Recipe, np.random.Generator], Drawn]] = {
    "clip": _draw_clip,
    "freeze": _draw_freeze,
    "mixup": _draw_mixup,
    "cutmix_window": _draw_cutmix_window,
    "cutmix_view": _draw_cutmix_view,
}

"""A small dataset on disk for tests: videos, sources table, recipes, plans, finished shards."""

import dataclasses
from pathlib import Path

import numpy as np
from made_videos import encode, stamped_frames

from manifests import SourceVideo, file_sizes, probe_video, read_many, to_path, write_sources
from synth import render_plan, write_plan
from synth.render_page import PAGE_NAME

CLASSES = ("bounce", "turn", "zoom")
KINDS = ("clip", "freeze", "mixup", "cutmix_window", "cutmix_view")
RECIPE = """
[synth]
frames = 8
frame_stride = 2
short_side = [64, 72]
crop = 64
samples_per_video = 2
samples_per_shard = 6
seed = 7
[synth.kinds]
clip = 1
freeze = 1
mixup = 1
cutmix_window = 1
cutmix_view = 1
"""


def make_sources(folder: Path, per_class: int = 3, classes: tuple[str, ...] = CLASSES) -> Path:
    """Make `per_class` videos of each class and their sources table; return the table's path."""
    videos: list[SourceVideo] = []
    for label_id, label in enumerate(classes):
        for number in range(per_class):
            path = folder / label / f"{label}_{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames_THWC = np.roll(stamped_frames(40), 9 * number + 31 * label_id, axis=2)
            encode(path, frames_THWC)
            probed = probe_video(str(path))
            videos.append(
                dataclasses.replace(
                    probed,
                    video_id=path.stem,
                    path=str(path.relative_to(folder)),
                    label=label,
                    label_id=label_id,
                )
            )
    table = folder / "sources.parquet"
    write_sources(table, videos, classes)
    return table


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """Write a recipe and return its path."""
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def digests(out: Path | str) -> dict[str, bytes | None]:
    """Return all files of a folder by name, less the page of the run: it says when that was."""
    folder = to_path(out)
    names = [name for name in file_sizes(folder, "", "") if name != PAGE_NAME]
    return dict(zip(names, read_many([folder / name for name in names]), strict=True))


def render_many_shards(folder: Path, changes: str) -> Path:
    """Plan 360 samples into `folder / plan`, render them without Ray into `folder / shards`.

    `changes` are keys of the recipe, the shard's size among them; returns the folder.
    """
    text = RECIPE.replace("samples_per_video = 2\nsamples_per_shard = 6", changes)
    text = text.replace("[synth]\n", "[synth]\nsamples_per_video = 40\n", 1)
    write_plan(write_recipe(folder, text), make_sources(folder), folder / "plan")
    assert render_plan(folder / "plan", folder / "shards", workers=0).is_complete
    return folder

"""Make sources tables and plans in memory, without any video."""

import json
from pathlib import Path
from typing import Any

from manifests import SourceTable, SourceVideo, read_sources, write_sources
from synth.plan import Row, draw_plan
from synth.plan_files import Plan, read_plan, write_plan
from synth.recipe import Recipe, read_recipe
from synth.selection import select_candidates

CLASSES = ("climb", "dive", "throw")


def made_video(number: int, num_classes: int = 3, **changes: Any) -> SourceVideo:
    """Return source video `v<number>` of class `number % num_classes`, 60 frames and more."""
    label_id = number % num_classes
    values = {
        "video_id": f"v{number:03d}",
        "path": f"{CLASSES[label_id]}/v{number:03d}.mp4",
        "label": CLASSES[label_id],
        "label_id": label_id,
        "subset": "train" if number % 4 else "val",
        "num_frames": 60 + number,
        "fps_num": 25,
        "duration_seconds": (60 + number) / 25,
        "width": 64 + 2 * (number % 5),
        "height": 48 + number % 3,
        "codec": "h264",
        "num_bytes": 1000,
        "decoder": "decord",
        "end_frame": 60 + number,
    }
    return SourceVideo(**(values | changes))


def made_sources(folder: Path, num_videos: int = 12, **changes: Any) -> Path:
    """Write a table of made videos; `v003={"label": None}` changes one row."""
    rows = [made_video(number) for number in range(num_videos)]
    videos = [
        made_video(number, **changes[row.video_id]) if row.video_id in changes else row
        for number, row in enumerate(rows)
    ]
    path = folder / "sources.parquet"
    write_sources(path, videos, CLASSES)
    return path


ALL_KINDS = """
[synth]
frames = 8
frame_stride = 3
short_side = [40, 48]
crop = 32
samples_per_shard = 8
group_videos = 4
seed = 5
kinds = {clip = 1, freeze = 1, mixup = 1, cutmix_window = 1, cutmix_view = 1}
"""


def made_recipe(folder: Path, text: str = ALL_KINDS, **changes: Any) -> Path:
    """Write a recipe; `seed=3` replaces or adds one key of `[synth]`."""
    lines = [line for line in text.splitlines() if line.split(" = ")[0] not in changes]
    lines += [f"{key} = {value}" for key, value in changes.items()]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def made_plan(folder: Path, num_videos: int = 12, **changes: Any) -> Plan:
    """Write recipe, sources and plan below `folder`, and open the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = made_sources(folder, num_videos)
    write_plan(made_recipe(folder, **changes), sources, folder / "PLAN")
    return read_plan(folder / "PLAN")


def drawn_rows(table: SourceTable, recipe: Recipe) -> tuple[list[Row], int]:
    """Return the rows of the whole plan, trees as objects, and its number of decodes."""
    videos, _ = select_candidates(recipe, table, "sources.parquet")
    shards = list(draw_plan(recipe, videos))
    return [row for shard in shards for row in shard.rows], sum(s.num_decodes for s in shards)


def rows_of(folder: Path, num_videos: int = 12, **changes: Any) -> tuple[list[Row], int]:
    """Draw a plan in memory over a made table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = read_sources(made_sources(folder, num_videos))
    return drawn_rows(table, read_recipe(made_recipe(folder, **changes)))


def rows_on_disk(plan: Plan) -> list[Row]:
    """Return the rows of a plan file, trees as objects."""
    rows = [row for _, table in plan.shards() for row in table.to_pylist()]
    return [row | {"tree": json.loads(row["tree"])} for row in rows]

"""Train every objective on the demo's videos and print the table of docs/pretexts.md.

    python -m benchmarks.pretexts [FOLDER] [--docs docs/pretexts.md]

Takes about half an hour on two cores. Run again with the same FOLDER, it goes on where it was; with
`--docs` the table in that page is replaced.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests import build_sources, make_demo_videos, read_recipe_table
from synth import render_plan, write_plan
from train import train_model

from .marks import replace_between

HEADER = (
    "| objective | recipe | held out | score | chance | before | after | target | minutes |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Pretext:
    """One line of the table.

    Attributes:
        recipe: A shipped recipe.
        score: What of the validation is shown.
        name: The same in words.
        target: Least score after training, if one is asked for; a number or "4 x chance".
        videos: "trimmed" or "untrimmed".
        init: Recipe whose run gives the initial weights.
        teachers: Recipes whose runs are the teachers.
    """

    recipe: str
    score: str
    name: str
    target: float | str | None = None
    videos: str = "trimmed"
    init: str | None = None
    teachers: tuple[str, ...] = ()


PRETEXTS = (
    Pretext("demo-tac", "accuracy", "accuracy, 8 classes"),
    Pretext("demo-ssdet", "frame_map", "mAP per frame", "4 x chance"),
    Pretext("demo-bsp", "accuracy", "accuracy, 4 boundaries", 0.6),
    Pretext("demo-bsp-regression", "change_ap", "AP of having a change"),
    Pretext("demo-bsp-classification", "accuracy", "accuracy, 8 classes"),
    Pretext("demo-bsp-two-head", "boundary_accuracy", "accuracy, 4 boundaries"),
    Pretext("demo-bsp-two-head", "accuracy", "accuracy, 8 classes"),
    Pretext(
        "demo-bsp-distillation",
        "accuracy",
        "accuracy, 8 classes",
        teachers=("demo-bsp-classification", "demo-bsp"),
    ),
    Pretext("demo-moco", "retrieval_accuracy", "retrieval among 64"),
    Pretext("demo-pal", "retrieval_accuracy", "retrieval among 64", 0.5),
    Pretext("demo-charades", "frame_map", "mAP per frame", videos="untrimmed", init="demo-ssdet"),
)


def main(folder: Path) -> str:
    """Make what is missing in `folder` and return the table, printed line by line."""
    make_videos(folder)
    lines = [HEADER]
    print(HEADER, flush=True)
    for pretext in PRETEXTS:
        train_one(folder, pretext)
        lines.append(describe(folder, pretext))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def make_videos(folder: Path) -> None:
    """Make the demo's videos and their tables."""
    videos = make_demo_videos(folder / "videos")
    build_sources(videos.trimmed_folder, folder / "trimmed.parquet")
    build_sources(videos.untrimmed_folder, folder / "untrimmed.parquet")


def train_one(folder: Path, pretext: Pretext) -> None:
    """Render the shards of a recipe, unless a recipe with the same ones was here, and train."""
    name = f"{pretext.recipe}.toml"
    run = folder / "runs" / pretext.recipe
    train_model(
        name,
        make_shards(folder, name, pretext.videos),
        run,
        resume=(run / "resume.pt").exists(),
        init=None if pretext.init is None else folder / "runs" / pretext.init,
        teachers=[folder / "runs" / teacher for teacher in pretext.teachers],
    )


def make_shards(folder: Path, recipe: str, videos: str) -> Path:
    """Plan and render a recipe; recipes with one [synth] table share the shards."""
    for pretext in PRETEXTS:
        if read_recipe_table(f"{pretext.recipe}.toml", "synth") == read_recipe_table(
            recipe, "synth"
        ):
            shards, plan = folder / "shards" / pretext.recipe, folder / "plans" / pretext.recipe
            break
    if not plan.exists():
        segments = folder / "videos" / "untrimmed" / "segments.parquet"
        write_plan(
            recipe,
            folder / f"{videos}.parquet",
            plan,
            segments if videos == "untrimmed" else None,
        )
    render_plan(plan, shards, workers=0)
    return shards


def describe(folder: Path, pretext: Pretext) -> str:
    """Return the line of a finished run."""
    run = folder / "runs" / pretext.recipe
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    settings = events[0]
    before, *_, after = [event for event in events if event["event"] == "validation"]
    clips_per_second = [e["clips_per_second"] for e in events if e["event"] == "step"][-1]
    minutes = settings["num_steps"] * settings["recipe"]["batch_size"] / clips_per_second / 60
    chance, reached = after[f"{pretext.score}_chance"], after[pretext.score]
    return (
        f"| `{settings['recipe']['objective']}` | {pretext.recipe} | {settings['num_held_out']} "
        f"| {pretext.name} | {chance:.3f} | {before[pretext.score]:.3f} | **{reached:.3f}** "
        f"| {say_target(pretext.target, chance, reached)} | {minutes:.1f} |"
    )


def say_target(target: float | str | None, chance: float, reached: float) -> str:
    """Return what was asked for, and whether it is reached."""
    if target is None:
        return ""
    least = 4 * chance if isinstance(target, str) else target
    return f"> {target}: {'met' if reached > least else 'missed'}"


def replace_table(page: Path, table: str) -> None:
    """Put the table between the marks of a page."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, `python -m benchmarks.pretexts`:"
    replace_between(page, "table", f"{machine}\n\n{table}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.pretexts")
    parser.add_argument("folder", nargs="?", type=Path, help="kept; a temporary one by default")
    parser.add_argument("--docs", type=Path, help="page whose table is replaced")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        made = main(options.folder or Path(temporary))
    if options.docs:
        replace_table(options.docs, made)

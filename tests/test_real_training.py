"""Every shipped demo recipe on real clips: planned, rendered, trained for two steps, scored."""

import math
import re
from pathlib import Path

import pytest
from test_real_kinds import CLASSES, SEGMENTS, TRIMMED, write_clips

import manifests
from manifests.tables import write_segments
from synth import render_plan, write_plan
from train import read_model_record, train_model

SHIPPED = Path(manifests.__file__).parent / "recipes"
FEWER = {"steps": 2, "samples_per_video": 4, "batch_size": 4, "warmup_steps": 0}
FEWER |= {"queue": 4, "validation_fraction": 0.4, "samples_per_shard": 16}
TEACHERS = ("demo-bsp-classification", "demo-bsp")


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables of trimmed and of untrimmed real videos."""
    made = tmp_path_factory.mktemp("real")
    clips = shared / "data" / "clips"
    trimmed = sorted(p for label in TRIMMED for p in (clips / "trimmed" / label).iterdir())
    names = dict.fromkeys(row[0] for row in SEGMENTS)
    for name, paths in {
        "trimmed": trimmed,
        "untrimmed": [clips / "untrimmed" / name for name in names],
    }.items():
        (made / name).mkdir()
        write_clips(made / name, paths)
    rows = [
        {"video_id": v, "label": c, "label_id": CLASSES.index(c), "start_seconds": s}
        | {"end_seconds": e}
        for v, c, s, e in SEGMENTS
    ]
    write_segments(made / "untrimmed" / "segments.parquet", rows, CLASSES)
    return made


def train_shortly(folder: Path, name: str) -> Path:
    """Run a shipped recipe with less of everything, unless it was run before."""
    run = folder / "runs" / name
    if run.exists():
        return run
    teachers = [train_shortly(folder, t) for t in TEACHERS if name == "demo-bsp-distillation"]
    text = (SHIPPED / f"{name}.toml").read_text()
    for key, value in FEWER.items():
        text = re.sub(rf"(?m)^{key} = [\d._]+", f"{key} = {value}", text)
    recipe = folder / f"{name}.toml"
    recipe.write_text(text)
    videos = "untrimmed" if name == "demo-charades" else "trimmed"
    write_plan(recipe, folder / videos / "sources.parquet", folder / "plans" / name)
    report = render_plan(folder / "plans" / name, folder / "shards" / name, workers=0)
    assert report.rejected == 0
    train_model(recipe, folder / "shards" / name, run, device="cpu", teachers=teachers)
    return run


RECIPES = ("ssdet", "bsp", "bsp-regression", "bsp-classification", "bsp-two-head")
RECIPES += ("bsp-distillation", "pal", "moco", "tac", "charades")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_on_real_clips(folder: Path, name: str) -> None:
    record = read_model_record(train_shortly(folder, f"demo-{name}"))
    assert record["step"] == record["num_steps"] == 2
    assert record["scores"]
    assert all(math.isfinite(score) for score in record["scores"].values())

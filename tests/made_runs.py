"""Small trainings for the tests of objectives: recipes, runs, and runs that are cut and resumed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from synth import read_dataset
from train import TrainReport, train_model
from train.job import check_samples
from train.loader import sample_table
from train.loop import Training
from train.recipe import TrainRecipe

SMALL_X3D: dict[str, Any] = {
    "depth_factor": 0.2,
    "width_factor": 0.4,
    "feature_dim": 16,
    "dropout": 0.0,
}
BASE: dict[str, Any] = {
    "batch_size": 4,
    "learning_rate": 0.01,
    "steps": 6,
    "validation_fraction": 0.2,
    "checkpoint_every": 2,
    "log_every": 2,
    "max_grad_norm": 5.0,
    "backbone_arguments": SMALL_X3D,
}


def write_small_recipe(folder: Path, objective: str, **changes: Any) -> Path:
    """Write a recipe of a small X3D; `changes` are keys of `[train]`."""
    table = {**BASE, "objective": objective, **changes}
    lines = [f"{key} = {_toml(value)}" for key, value in table.items()]
    path = folder / f"{objective}-{len(list(folder.glob('*.toml')))}.toml"
    path.write_text("[train]\n" + "\n".join(lines) + "\n")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def train_small(
    folder: Path,
    objective: str,
    shards: Path,
    teachers: Sequence[Path] = (),
    name: str = "run",
    **changes: Any,
) -> TrainReport:
    """Train for a few steps on the CPU into `folder / name`."""
    recipe = write_small_recipe(folder, objective, **changes)
    return train_model(recipe, shards, folder / name, teachers=teachers, device="cpu")


def step_losses(run: Path) -> list[float]:
    """Return the losses that a run wrote down."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["event"] == "step"]


def cut_and_resume(recipe: Path, shards: Path, run: Path, teachers: Sequence[Path] = ()) -> None:
    """Kill a run after its third step, between two checkpoints, then resume it."""
    once = Training.train_step

    def interrupted(self: Any, batch: Any, stop: bool = False) -> None:
        once(self, batch, stop)
        if self.step == 3:
            raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", interrupted)
        with pytest.raises(MemoryError):
            train_model(recipe, shards, run, teachers=teachers, device="cpu")
    train_model(recipe, shards, run, teachers=teachers, resume=True, device="cpu")


def check_shards(objective: str, shards: Path) -> None:
    """Check that an objective can learn from shards, as every training does at first."""
    recipe = TrainRecipe(batch_size=1, learning_rate=1, steps=1, objective=objective)
    check_samples(recipe, sample_table(read_dataset(shards)))

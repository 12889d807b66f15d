"""Training throughput of each backbone against forward and backward on data already in memory.

Ours is the loop's own step on batches from shards: reading, decoding, normalising, loss, optimiser.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from synth import render_plan, write_plan
from train.job import prepare_job
from train.loader import Batch
from train.loop import Training
from train.parallel import Worker

from .measure import Row, interleaved, rate_row

SYNTH = """
[synth]
frames = 8
frame_stride = 4
short_side = [128, 128]
crop = 112
samples_per_video = 8
kinds = {clip = 1}
"""
TRAIN = """
[train]
objective = "classification"
backbone = "%s"
backbone_arguments = {%s}
batch_size = 4
epochs = 1
learning_rate = 1e-4
validation_fraction = 0.0
"""
BACKBONES = {
    "X3D-M": ("x3d", ""),
    "I3D": ("i3d", ""),
    "TSM-ResNet-18": ("tsm", "depth = 18"),
    "TSM-ResNet-50": ("tsm", "depth = 50"),
    "3D-ResNet-50": ("resnet3d", "depth = 50"),
}
STEPS = 3


def measure(folder: Path, sources: Path) -> Iterator[Row]:
    """Measure every backbone at its published width on 8 frames of 112x112, three turns each."""
    (folder / "training.toml").write_text(SYNTH)
    write_plan(folder / "training.toml", sources, folder / "training-plan")
    render_plan(folder / "training-plan", folder / "training", workers=0)
    for name, (backbone, arguments) in BACKBONES.items():
        recipe = folder / f"{name}.toml"
        recipe.write_text(TRAIN % (backbone, arguments))
        yield measure_one(name, recipe, folder)


def measure_one(name: str, recipe: Path, folder: Path) -> Row:
    """Take steps from shards and forward-backward passes in memory by turns."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = prepare_job(recipe, folder / "training", folder / f"run-{name}")
    training = Training(Worker(), device, job)
    batches = training.rest_of_epoch()
    kept = next(batches)
    held = Batch(kept.frames_NTHWC.clone(), kept.targets.clone())
    clips, targets = training.to_device(held)

    def ours() -> None:
        for _ in range(STEPS):
            training.train_step(next(batches))
        synchronise(device)

    def limit() -> None:
        for _ in range(STEPS):
            training.optimiser.zero_grad()
            training.objective(training.backbone, clips, targets).backward()
        synchronise(device)

    ours_seconds, limit_seconds = interleaved(3, ours, limit)
    batches.close()
    count = STEPS * len(targets)
    return rate_row(f"training, {name}", "clips", count, ours_seconds, limit_seconds, 0.85)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()

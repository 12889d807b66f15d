"""Training throughput of each backbone against forward and backward on data already in memory.

Ours is the loop's own step on batches from shards: reading, decoding, normalising, loss, optimiser.
`python -m benchmarks.training [FOLDER]` shows where the CPU time of tiny networks goes.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from manifests import build_sources, make_demo_videos
from synth import render_plan, write_plan
from train.job import prepare_job
from train.loader import Batch
from train.loop import Training
from train.parallel import Worker

from .clips import run_in_folder
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
TINY_SYNTH = """
[synth]
frames = 16
frame_stride = 2
short_side = [36, 40]
crop = 32
samples_per_video = 4
kinds = {clip = 1}
"""
TINY_TRAIN = """
[train]
objective = "classification"
backbone = "%s"
backbone_arguments = {%s}
batch_size = 16
epochs = 1
optimiser = "adamw"
learning_rate = 1e-3
max_grad_norm = 1.0
validation_fraction = 0.0
loader_threads = 1
"""
TINY_BACKBONES = {
    "TSM-ResNet-18, 1/8": ("tsm", "depth = 18, width = 8"),
    "X3D": (
        "x3d",
        "depth_factor = 0.35, width_factor = 0.67, bottleneck_factor = 2.0, feature_dim = 128",
    ),
}
TINY_STEPS = 60


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


def measure_tiny(folder: Path) -> Iterator[str]:
    """Yield the lines of a table: the CPU time of tiny networks on clips of 32x32, by stage."""
    torch.set_num_threads(1)
    videos = make_demo_videos(folder / "videos", num_train_per_class=32, num_untrimmed=2)
    build_sources(videos.trimmed_folder, folder / "trimmed.parquet")
    (folder / "tiny.toml").write_text(TINY_SYNTH)
    write_plan(folder / "tiny.toml", folder / "trimmed.parquet", folder / "tiny-plan")
    for codec in ("filmstrip", "raw"):
        render_plan(folder / "tiny-plan", folder / codec, codec=codec, workers=0)
    yield "| network, codec | stage | CPU ms per step of 16 clips | share |\n|---|---|---|---|"
    for name, (backbone, arguments) in TINY_BACKBONES.items():
        recipe = folder / f"tiny-{backbone}.toml"
        recipe.write_text(TINY_TRAIN % (backbone, arguments))
        for codec in ("filmstrip", "raw"):
            job = prepare_job(recipe, folder / codec, folder / f"tiny-{backbone}-{codec}")
            training = Training(Worker(), torch.device("cpu"), job)
            seconds = stage_seconds(training)
            total = sum(seconds.values())
            yield f"| {name}, {codec} | all | {1000 * total:.1f} | {16 / total:.0f} clips/s |"
            for stage, spent in sorted(seconds.items(), key=lambda pair: -pair[1]):
                yield f"| | {stage} | {1000 * spent:.2f} | {spent / total:.1%} |"


def stage_seconds(training: Training) -> dict[str, float]:
    """Return the CPU seconds of every stage of a step, the mean of `TINY_STEPS` of them."""
    seconds: defaultdict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*words, **named)
            finally:
                seconds[stage] += (time.thread_time() - start) / TINY_STEPS

        return call

    stages = [
        (training, "to_device", "normalise"),
        (training.objective, "forward", "forward"),
        (torch.Tensor, "backward", "backward"),
        (torch.nn.utils, "clip_grad_norm_", "length of the gradient"),
        (training.optimiser, "step", "optimiser"),
    ]
    batches = training.rest_of_epoch()
    for _ in range(STEPS):
        training.train_step(next(batches))
    with ExitStack() as stack:
        for owner, name, stage in stages:
            patch = mock.patch.object(owner, name, timed(stage, getattr(owner, name)))
            stack.enter_context(patch)
        start, start_here = time.process_time(), time.thread_time()
        for _ in range(TINY_STEPS):
            training.train_step(next(batches))
        here = (time.thread_time() - start_here) / TINY_STEPS
        everywhere = (time.process_time() - start) / TINY_STEPS
    batches.close()
    seconds["the rest of the step"] = here - sum(seconds.values())
    seconds["loader's thread"] = everywhere - here
    return seconds


def main(folder: Path) -> None:
    """Print the table of tiny networks."""
    for line in measure_tiny(folder):
        print(line, flush=True)


if __name__ == "__main__":
    run_in_folder(main)

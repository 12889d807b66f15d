"""Train a backbone on shards: one loop for every backbone, objective and device.

What happens at step `s` depends on the recipe, the shards, the weights and `s` alone: the batch is
number `s` of a seeded order, and dropout is seeded anew at every step. So a run that was killed and
resumed ends with the bits of one that was not.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests import Progress, UsageError

from .backbones import Backbone
from .checkpoint import (
    build_backbone,
    load_initial_weights,
    normalise,
    read_resume,
    write_model,
    write_resume,
)
from .job import TrainJob, choose_device, prepare_job
from .loader import Batch, SampleTable, epoch_batches, epoch_order, load_batches
from .metrics_file import MetricsFile
from .objectives import OBJECTIVES, Objective
from .parallel import Worker, run_workers, stop_on_signal
from .recipe import TrainRecipe
from .schedule import build_optimiser, learning_rate


@dataclass(frozen=True)
class TrainReport:
    """How a training ended.

    Attributes:
        run: The run's folder.
        finished: False if it was interrupted; `--resume` goes on.
        step: Optimiser steps done, of `num_steps`.
        num_steps: Steps of the whole run.
        num_samples: Training samples.
        num_held_out: Samples of held-out videos.
        loss: Training loss, the mean since the last but one line of the metrics.
        scores: The last validation's scores and loss.
        clips_per_second: Training clips per second of this call, without validation.
        notes: What was not taken over from initial weights.
    """

    run: str
    finished: bool
    step: int
    num_steps: int
    num_samples: int
    num_held_out: int
    loss: float
    scores: Mapping[str, float]
    clips_per_second: float
    notes: tuple[str, ...]


def train_model(
    recipe_path: Path | str,
    shards: Path | str,
    out: Path | str,
    *,
    resume: bool = False,
    init: Path | str | None = None,
    device: str | None = None,
    workers: int = 1,
) -> TrainReport:
    """Train the model of a recipe on a finished folder of shards.

    Args:
        recipe_path: TOML file with a `[train]` table.
        shards: Folder written by `synth render`.
        out: The run's folder; must be new unless `resume`.
        resume: Go on with a run that was killed or interrupted; its weights replace `init`.
        init: Initial weights: a file or another run's folder.
        device: "cpu" or "cuda"; CUDA where there is one if None.
        workers: Data-parallel processes; each takes an equal share of every batch.

    Raises:
        UsageError: A wrong recipe or argument, unfinished shards, an existing run, a loss that is
            no longer finite.
        ShardError: A shard that is missing, truncated, damaged or of another plan.
        CheckpointError: Weights or a run that do not fit the recipe, the shards or the classes.
    """
    job = prepare_job(recipe_path, shards, out, resume, init)
    return run_workers(workers, choose_device(job.recipe, device, workers), fit, job)


def fit(worker: Worker, device: torch.device, job: TrainJob) -> TrainReport:
    """Run one worker's part of a training: the loop itself."""
    training, recipe = Training(worker, device, job), job.recipe
    if training.step == job.num_steps:
        training.save()  # it was killed after its last step, perhaps before it wrote the model
    with stop_on_signal() as stop, training.progress():
        while training.step < job.num_steps and not training.stopped:
            for batch in training.rest_of_epoch():
                training.train_step(batch, stop.is_set())
                if training.is_due(recipe.log_every, at_the_end=True):
                    training.log_step()
                if training.is_due(recipe.validate_every, at_the_end=True):
                    training.validate()
                if training.is_due(recipe.checkpoint_every, at_the_end=True) or training.stopped:
                    training.save()
                if training.stopped:
                    break
    return training.report()


class Training:
    """The state of a run, and what can happen to it."""

    def __init__(self, worker: Worker, device: torch.device, job: TrainJob) -> None:
        self.worker, self.device, self.job, self.recipe = worker, device, job, job.recipe
        self.step, self.stopped = 0, False
        self.scores: dict[str, float] = {}
        self.notes: list[str] = []
        self._losses: list[torch.Tensor] = []
        self._loss = self._rate = math.nan
        self._grad_norm = torch.tensor(math.nan)
        self._metrics = MetricsFile(job.run, worker.leads)
        self._bar: Progress | None = None
        self._build_model()
        self.optimiser = build_optimiser(self.recipe, self.parameters)
        state = read_resume(job.run) if job.resume else None
        if state is None:
            self._begin()
        else:
            self._restore(state)
        self._first_step, self._seconds, self._lap = self.step, 0.0, time.monotonic()

    def _build_model(self) -> None:
        recipe, classes = self.recipe, self.job.dataset.classes
        torch.manual_seed(recipe.seed)
        self.objective: Objective = OBJECTIVES[recipe.objective](len(classes), recipe.loss)
        self.backbone: Backbone = build_backbone(
            recipe.backbone, recipe.backbone_arguments, self.objective.num_outputs
        )
        if self.job.init is not None:
            self.notes = load_initial_weights(self.backbone, self.job.init, classes)
        self.objective.to(self.device)
        self.backbone.to(self.device)
        self.backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.parameters = [*self.backbone.parameters(), *self.objective.parameters()]
        if recipe.compile and self.device.type == "cuda":
            self.backbone.compile()
        self._autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bf16(recipe, self.device)
        )

    # -- the loop's verbs ------------------------------------------------------------------------

    def rest_of_epoch(self) -> Iterator[Batch]:
        """Yield this worker's share of the batches from the present step to the epoch's end."""
        epoch, first = divmod(self.step, self.job.steps_per_epoch)
        recipe, samples = self.recipe, self.job.samples
        order = epoch_order(samples, recipe.seed, epoch, recipe.shuffle_shards)
        shares = epoch_batches(order, recipe.batch_size, self.worker.rank, self.worker.count)
        end = first + self.job.num_steps - self.step
        return self._load(samples, shares[first:end])

    def train_step(self, batch: Batch, stop: bool = False) -> None:
        """Take one optimiser step; `stop` asks all workers to end after it."""
        seed_step(self.recipe.seed, self.step, self.worker.rank)
        self._rate = learning_rate(self.recipe, self.step, self.job.num_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate
        self.backbone.train()
        clips, targets = self._to_device(batch)
        with self._autocast:
            loss = self.objective(self.backbone, clips, targets)
        self.optimiser.zero_grad()
        loss.backward()
        self._losses.append(loss.detach())
        self._average_over_workers(stop)
        limit = self.recipe.max_grad_norm or math.inf
        self._grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimiser.step()
        self.objective.after_step(self.backbone)
        self.step += 1
        self._seconds += time.monotonic() - self._lap
        self._lap = time.monotonic()
        if self._bar:
            self._bar.advance(note="" if math.isnan(self._loss) else f"loss {self._loss:.3f}")

    def is_due(self, every: int, at_the_end: bool = False) -> bool:
        """Return whether what happens every so many steps (never if 0) happens now."""
        return (every > 0 and self.step % every == 0) or (
            at_the_end and self.step == self.job.num_steps
        )

    def log_step(self) -> None:
        """Write the loss since the last line; UsageError if it is no longer finite."""
        self._loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not math.isfinite(self._loss):
            raise UsageError(
                f"the loss must stay finite, got {self._loss} at step {self.step}: lower "
                f"learning_rate, or set max_grad_norm"
            )
        grad_norm = float(self._grad_norm)
        self._metrics.write(
            event="step",
            step=self.step,
            epoch=(self.step - 1) // self.job.steps_per_epoch,
            loss=self._loss,
            learning_rate=self._rate,
            grad_norm=grad_norm if math.isfinite(grad_norm) else None,
            clips_per_second=self._clips_per_second(),
        )

    def validate(self) -> None:
        """Score the samples of the held-out videos."""
        samples, size = self.job.held_out, self.recipe.batch_size
        if not self.worker.leads or not len(samples):
            return
        self.backbone.eval()
        rows = np.arange(len(samples))
        predictions, targets, loss = [], [], 0.0
        for batch in self._load(samples, [rows[i : i + size] for i in rows[::size]]):
            clips, wanted = self._to_device(batch)
            with torch.inference_mode(), self._autocast:
                loss += float(self.objective(self.backbone, clips, wanted)) * len(wanted)
                predictions.append(self.objective.predict(self.backbone, clips).float().cpu())
            targets.append(batch.targets)
        found, expected = torch.cat(predictions).numpy(), torch.cat(targets).numpy()
        self.scores = {"loss": loss / len(samples), **self.objective.score(found, expected)}
        self._metrics.write(event="validation", step=self.step, **self.scores)
        self._lap = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint: what `--resume` needs, then the model."""
        if self.worker.leads:
            self._write_resume()
            write_model(self.job.run, self.backbone, self._model_record())
            self._lap = time.monotonic()

    def report(self) -> TrainReport:
        """Return how the training ended."""
        return TrainReport(
            run=str(self.job.run),
            finished=self.step == self.job.num_steps,
            step=self.step,
            num_steps=self.job.num_steps,
            num_samples=len(self.job.samples),
            num_held_out=len(self.job.held_out),
            loss=self._loss,
            scores=self.scores,
            clips_per_second=self._clips_per_second(),
            notes=tuple(self.notes),
        )

    def progress(self) -> AbstractContextManager[object]:
        """Return the progress display, shown by one worker alone."""
        if not self.worker.leads:
            return nullcontext()
        self._bar = Progress("train", "steps", self.job.num_steps, self.step)
        return self._bar

    # -- batches and workers ---------------------------------------------------------------------

    def _load(self, samples: SampleTable, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        return load_batches(
            samples,
            batches,
            self.objective.target,
            self.job.clip_shape,
            self.recipe.loader_threads,
            pin_memory=self.device.type == "cuda",
        )

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames = batch.frames_NTHWC.to(self.device, non_blocking=True)
        clips_NCTHW = normalise(frames, self.recipe.mean, self.recipe.std)
        return clips_NCTHW, batch.targets.to(self.device, non_blocking=True)

    def _average_over_workers(self, stop: bool) -> None:
        """Average gradients, running statistics and the loss; all stop if one was asked to."""
        asked = torch.tensor(float(stop), device=self.device)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        modules = (self.backbone, self.objective)
        statistics = [b for module in modules for b in module.buffers() if b.is_floating_point()]
        self.worker.average([*gradients, *statistics, self._losses[-1], asked])
        self.stopped = stop if self.worker.count == 1 else bool(asked > 0)

    # -- files -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the run's files; the first checkpoint keeps what `init` gave."""
        if self.worker.leads:
            self.job.run.mkdir(parents=True, exist_ok=True)
            self._metrics.begin()
            self._metrics.write(**self._settings())
            self._write_resume()

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.backbone.load_state_dict(state["backbone"])
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.scores, self._loss = state["step"], state["scores"], state["loss"]
        self._losses = [loss.to(self.device) for loss in state["losses"]]
        self._metrics.resume(state["metrics_bytes"])

    def _write_resume(self) -> None:
        epoch, batches = divmod(self.step, self.job.steps_per_epoch)
        state = {
            "step": self.step,
            "epoch": epoch,
            "sample_in_epoch": batches * self.recipe.batch_size,
            "seed": self.recipe.seed,  # with the step, it is the state of every random generator
            "recipe": self.recipe.to_dict(),
            "dataset_digest": self.job.dataset.digest,
            "classes": list(self.job.dataset.classes),
            "backbone": self.backbone.state_dict(),
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scores": self.scores,
            "loss": self._loss,
            "losses": self._losses,
            "metrics_bytes": self._metrics.num_bytes,
        }
        write_resume(self.job.run, state)

    def _model_record(self) -> dict[str, Any]:
        num_frames, height, width, _ = self.job.clip_shape
        return {
            "backbone": self.recipe.backbone,
            "arguments": self.recipe.backbone_arguments,
            "num_outputs": self.objective.num_outputs,
            "feature_dim": self.backbone.feature_dim,
            "objective": self.recipe.objective,
            "loss": self.objective.loss,
            "classes": list(self.job.dataset.classes),
            "frames": num_frames,
            "height": height,
            "width": width,
            "mean": list(self.recipe.mean),
            "std": list(self.recipe.std),
            "step": self.step,
            "num_steps": self.job.num_steps,
            "scores": self.scores,
            "dataset_digest": self.job.dataset.digest,
            "recipe_digest": self.recipe.digest,
            "torch": torch.__version__,
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "event": "settings",
            "recipe": self.recipe.to_dict(),
            "recipe_digest": self.recipe.digest,
            "dataset_digest": self.job.dataset.digest,
            "num_samples": len(self.job.samples),
            "num_held_out": len(self.job.held_out),
            "num_left_out": self.job.num_left_out,
            "num_steps": self.job.num_steps,
            "num_parameters": sum(parameter.numel() for parameter in self.parameters),
            "device": str(self.device),
            "bf16": uses_bf16(self.recipe, self.device),
            "workers": self.worker.count,
            "torch": torch.__version__,
            "notes": self.notes,
        }

    def _clips_per_second(self) -> float:
        num_clips = (self.step - self._first_step) * self.recipe.batch_size
        return num_clips / self._seconds if self._seconds else 0.0


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step of one worker: nothing random outlives a step."""
    stream = np.random.SeedSequence(seed, spawn_key=(step, rank))
    torch.manual_seed(int(stream.generate_state(1, np.uint64)[0]))


def uses_bf16(recipe: TrainRecipe, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16; CPUs without such units are 20x slower with it."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"

"""Train a backbone on shards: one loop for every backbone, objective and device.

What happens at step `s` depends on the recipe, the shards, the weights and `s` alone: the batch is
number `s` of a seeded order, and dropout is seeded anew at every step. So a run that was killed and
resumed ends with the bits of one that was not.
"""

import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests import UsageError

from .backbones import Backbone, channels_last
from .checkpoint import (
    build_backbone,
    keep_model,
    normalise,
    read_resume,
    write_model,
    write_resume,
)
from .initial_weights import load_initial_weights
from .job import TrainJob, choose_device, load_teachers, prepare_job
from .loader import Batch, SampleTable, epoch_batches, epoch_order, load_batches
from .metrics_file import MetricsFile
from .objectives import OBJECTIVES, Objective
from .parallel import Torchrun, Worker, check_same_step
from .ray_workers import gpus_at, run_on_ray
from .recipe import objective_arguments
from .records import TrainReport, model_record, settings_record, uses_bf16
from .schedule import build_optimiser, learning_rate
from .shard_cache import CACHE_GB
from .shared_layers import share_layers


def train_model(
    recipe_path: Path | str,
    shards: Path | str,
    out: Path | str,
    *,
    resume: bool = False,
    init: Path | str | None = None,
    teachers: Sequence[Path | str] = (),
    device: str | None = None,
    workers: int = 1,
    address: str | None = None,
    cache: Path | str | None = None,
    cache_gb: float = CACHE_GB,
) -> TrainReport:
    """Train the model of a recipe on a finished folder of shards.

    In a process that torchrun has started, it joins the others instead of starting workers.

    Args:
        recipe_path: TOML file with a `[train]` table.
        shards: Folder or URL written by `synth render`.
        out: The run's folder; must be new unless `resume`.
        resume: Go on with a run that was killed or interrupted; its weights replace `init`.
        init: Initial weights: a file or another run's folder.
        teachers: Runs that the objective learns from, in its order.
        device: "cpu" or "cuda"; CUDA where there is one if None.
        workers: Data-parallel processes, on Ray Train where there are several; each takes an equal
            share of every batch.
        address: A running Ray cluster that the workers run on.
        cache: Folder where shards of a URL lie while they are read, shared by the processes of a
            machine and kept; a temporary one, removed at the end, if None.
        cache_gb: Gigabytes (10^9 bytes) that they may take there.

    Raises:
        UsageError: A wrong recipe or argument, unfinished shards, an existing run, a loss that is
            no longer finite.
        ShardError: A shard that is missing, truncated, damaged or of another plan.
        CheckpointError: Weights, teachers or a run that do not fit the recipe, the shards or the
            classes.
    """
    group = Torchrun.of(os.environ)
    on_ray = group is None and (workers > 1 or address is not None)
    if group is not None and group.restarts:  # with the words of the first start
        resume = resume or Path(out).is_dir()

    def prepare(count: int, num_gpus: int) -> tuple[TrainJob, torch.device]:
        if group is not None and (workers, address) != (1, None):
            raise UsageError(
                f"torchrun has started {count} workers: leave --workers and --address out"
            )
        job = prepare_job(
            recipe_path, shards, out, resume, init, teachers, cache=cache, cache_gb=cache_gb
        )
        return job, choose_device(job.recipe, device, count, num_gpus)

    if group is not None:
        return group.run(fit, prepare)
    with gpus_at(address) as num_gpus:
        job, chosen = prepare(workers, num_gpus)
        return run_on_ray(fit, job, workers, chosen) if on_ray else fit(Worker(), chosen, job)


def fit(worker: Worker, device: torch.device, job: TrainJob) -> TrainReport:
    """Run one worker's part of a training: the loop itself."""
    training, recipe = Training(worker, device, job), job.recipe
    if training.step == job.num_steps:
        training.save()  # it was killed after its last step, perhaps before it wrote the model
    if training.step == 0 and recipe.validate_at_start:
        training.validate()
    with worker.watched(job.num_steps, training.step) as after_step:
        stop = False
        while training.step < job.num_steps and not training.stopped:
            for batch in training.rest_of_epoch():
                training.train_step(batch, stop)
                stop = after_step(training.step, training.note)
                if training.is_due(recipe.log_every, at_the_end=True):
                    training.log_step()
                if training.is_due(recipe.validate_every, at_the_end=True):
                    training.validate()
                if training.step in recipe.keep_at:
                    training.keep()  # before a checkpoint from which its step lies behind
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
        self.notes = list(job.notes)
        self._losses: list[torch.Tensor] = []
        self._loss = self._rate = math.nan
        self._epoch_losses: list[float] = []
        self._epoch_loss = torch.zeros((), device=device)  # sum over the present epoch's steps
        self._grad_norm = torch.tensor(math.nan)
        self._metrics = MetricsFile(job.run, worker.leads)
        self._build_model()
        self.optimiser = build_optimiser(self.recipe, self.parameters)
        state = read_resume(job.run)  # also of a run whose workers were started anew
        if state is not None:
            self._restore(state)
        check_same_step(worker, self.step, job.run, device)
        if state is None:
            self._begin()
        self._first_step, self._seconds, self._lap = self.step, 0.0, time.monotonic()

    def _build_model(self) -> None:
        recipe, classes = self.recipe, self.job.dataset.classes
        torch.manual_seed(recipe.seed)
        self.objective: Objective = OBJECTIVES[recipe.objective](
            len(classes), recipe.loss, objective_arguments(recipe, self.job.run)
        )
        self.objective.average = self.worker.mean
        self.backbone: Backbone = build_backbone(
            recipe.backbone, recipe.backbone_arguments, self.objective.num_outputs
        )
        if self.job.init is not None:
            outputs = self.objective.output_names(classes)
            self.notes += load_initial_weights(self.backbone, self.job.init, outputs)
        teachers = load_teachers(recipe, self.job.teachers, self.device)
        self.objective.bind(self.backbone, [model.backbone for model in teachers])
        for module in (self.objective, self.backbone):
            channels_last(module.to(self.device))
            share_layers(module, self.worker.rank, self.worker.count, self.device.type == "cuda")
        self.parameters = [*self.backbone.parameters(), *self.objective.parameters()]
        if recipe.compile and self.device.type == "cuda":
            self._compile()
        self._autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=uses_bf16(recipe, self.device)
        )

    def _compile(self) -> None:
        """Compile all networks: called as a whole, or for their features alone."""
        networks = [m for m in self.objective.modules() if isinstance(m, Backbone)]
        for network in (self.backbone, *networks):
            network.compile()
            network.features = torch.compile(network.features)  # type: ignore[method-assign]

    # -- the loop's verbs ------------------------------------------------------------------------

    def rest_of_epoch(self) -> Generator[Batch]:
        """Yield this worker's share of the batches from the present step to the epoch's end."""
        epoch, first = divmod(self.step, self.job.steps_per_epoch)
        recipe, samples = self.recipe, self.job.samples
        order = epoch_order(samples, recipe.seed, epoch, recipe.shuffle_shards)
        shares = epoch_batches(order, recipe.batch_size, self.worker.rank, self.worker.count)
        end = first + self.job.num_steps - self.step
        return self._load(samples, shares[first:end])

    def train_step(self, batch: Batch, stop: bool = False) -> None:
        """Take one optimiser step; `stop` asks all workers to end after it."""
        seed_step(self.recipe.seed, self.step)
        self._rate = learning_rate(
            self.recipe, self.step, self.job.num_steps, self.job.steps_per_epoch, self._epoch_losses
        )
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate
        clips, targets = self.to_device(batch)
        with self._autocast:
            loss = self.objective(self.backbone, clips, targets)
        self.optimiser.zero_grad()
        loss.backward()
        self._losses.append(loss.detach())
        self._average_over_workers(stop)
        limit = self.recipe.max_grad_norm or math.inf
        self._grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimiser.step()
        self.objective.after_step(self.backbone, self.worker.gather)
        self.step += 1
        self._count_epoch_loss()
        self._seconds += time.monotonic() - self._lap
        self._lap = time.monotonic()

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
        self.objective.eval()
        rows = np.arange(len(samples))
        predictions, targets, loss = [], [], 0.0
        for batch in self._load(samples, [rows[i : i + size] for i in rows[::size]]):
            clips, wanted = self.to_device(batch)
            with torch.inference_mode(), self._autocast:
                loss += float(self.objective(self.backbone, clips, wanted)) * len(wanted)
                predictions.append(self.objective.predict(self.backbone, clips).float().cpu())
            targets.append(batch.targets)
        found, expected = torch.cat(predictions).numpy(), torch.cat(targets).numpy()
        self.backbone.train()
        self.objective.train()
        self.scores = {"loss": loss / len(samples), **self.objective.score(found, expected)}
        self._metrics.write(event="validation", step=self.step, **self.scores)
        self._lap = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint: what `--resume` needs, then the model."""
        if self.worker.leads:
            self._write_resume()
            write_model(self.job.run, self.backbone, self._record())
            self._lap = time.monotonic()

    def keep(self) -> None:
        """Write the model as it is now into a folder of its own, where it stays."""
        if self.worker.leads:
            keep_model(self.job.run, self.step, self.backbone, self._record())
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
            rank=self.worker.rank,
        )

    @property
    def note(self) -> str:
        """What the user may want to see beside the progress."""
        return "" if math.isnan(self._loss) else f"loss {self._loss:.3f}"

    # -- batches and workers ---------------------------------------------------------------------

    def _load(self, samples: SampleTable, batches: Sequence[np.ndarray]) -> Generator[Batch]:
        return load_batches(
            samples,
            batches,
            self.objective.target,
            self.job.clip_shape,
            self.recipe.loader_threads,
            pin_memory=self.device.type == "cuda",
        )

    def to_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the normalised clips `(N, 3, T, H, W)` and targets of a batch, on the device."""
        frames = batch.frames_NTHWC.to(self.device, non_blocking=True)
        if frames.ndim == 6:  # pairs: query and key take turns
            frames = frames.flatten(0, 1)
        clips_NCTHW = normalise(frames, self.recipe.mean, self.recipe.std)
        return clips_NCTHW, batch.targets.to(self.device, non_blocking=True)

    def _average_over_workers(self, stop: bool) -> None:
        """Average gradients and the loss; all stop if one was asked to."""
        asked = torch.tensor(float(stop), device=self.device)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.worker.average([*gradients, self._losses[-1], asked])
        self.stopped = stop if self.worker.count == 1 else bool(asked > 0)

    def _count_epoch_loss(self) -> None:
        """Add the step's loss, the mean over the workers; close the epoch at its last step."""
        self._epoch_loss += self._losses[-1]
        if self.step % self.job.steps_per_epoch == 0:
            self._epoch_losses.append(float(self._epoch_loss) / self.job.steps_per_epoch)
            self._epoch_loss.zero_()

    # -- files -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the run's files; the first checkpoint keeps what `init` gave."""
        if self.worker.leads:
            self.job.run.mkdir(parents=True, exist_ok=True)
            self._metrics.begin()
            count = sum(p.numel() for p in self.parameters if p.requires_grad)
            self._metrics.write(
                **settings_record(self.job, count, self.device, self.worker.count, self.notes)
            )
            self._write_resume()

    def _record(self) -> dict[str, Any]:
        return model_record(self.job, self.backbone, self.objective, self.step, self.scores)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.backbone.load_state_dict(state["backbone"])
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.scores, self._loss = state["step"], state["scores"], state["loss"]
        self._losses = [loss.to(self.device) for loss in state["losses"]]
        self._epoch_losses = state["epoch_losses"]
        self._epoch_loss = state["epoch_loss"].to(self.device)
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
            "teacher_digests": list(self.job.teacher_digests),
            "backbone": self.backbone.state_dict(),
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scores": self.scores,
            "loss": self._loss,
            "losses": self._losses,
            "epoch_losses": self._epoch_losses,
            "epoch_loss": self._epoch_loss,
            "metrics_bytes": self._metrics.num_bytes,
        }
        write_resume(self.job.run, state)

    def _clips_per_second(self) -> float:
        num_clips = (self.step - self._first_step) * self.recipe.batch_size
        return num_clips / self._seconds if self._seconds else 0.0


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators for one step, the same in all workers; nothing random outlives it."""
    stream = np.random.SeedSequence(seed, spawn_key=(step, 0))  # (epoch,) is that of the order
    number = int(stream.generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # else torch.manual_seed notes the call stack for later
        torch.cuda.manual_seed_all(number)

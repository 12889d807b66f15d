"""Several workers that train one model: equal shares of every batch, averaged gradients.

One worker is the calling process itself; more are processes that torchrun started, or workers of
Ray Train (`ray_workers.py`). Tensors travel by NCCL between GPUs and by gloo between CPU processes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from manifests import Progress, SeamlineError, UsageError, stop_on_signal

PATIENCE = timedelta(hours=6)  # the others wait while rank 0 validates
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")

Job = TypeVar("Job")
Report = TypeVar("Report")
# Called after every step with the steps done and a note for the user: shall the run stop?
AfterStep = Callable[[int, str], bool]


@dataclass(frozen=True)
class Worker:
    """One of `count` workers; `rank` 0 alone validates, writes files and shows progress.

    Attributes:
        rank, count: Which worker, of how many.
        watch: Given the steps to do and done, opens what shows them to the user and hears whether
            the run shall stop; this process itself does if None.
    """

    rank: int = 0
    count: int = 1
    watch: Callable[[int, int], AbstractContextManager[AfterStep]] | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes."""
        return self.rank == 0

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace float tensors by their mean over the workers, in one message."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def mean(self, number: torch.Tensor) -> torch.Tensor:
        """Return the mean of a float tensor over the workers."""
        mean = number.clone()
        self.average([mean])
        return mean

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the workers' tensors of equal shape, joined along the first axis by rank."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def watched(self, num_steps: int, step: int) -> AbstractContextManager[AfterStep]:
        """Open the view of a run of `num_steps` that has done `step`."""
        return (self.watch or self._watched_here)(num_steps, step)

    @contextmanager
    def _watched_here(self, num_steps: int, step: int) -> Iterator[AfterStep]:
        with stop_on_signal() as stop:
            if not self.leads:
                yield lambda step, note: stop.is_set()
                return
            with Progress("train", "steps", num_steps, step) as bar:

                def after_step(step: int, note: str) -> bool:
                    bar.advance(note=note)
                    return stop.is_set()

                yield after_step


@dataclass(frozen=True)
class Torchrun:
    """The processes that torchrun started, of which this is one.

    Attributes:
        rank, local_rank: This process among all, and among those of its machine.
        count, local_count: How many there are.
        restarts: How often torchrun has started all of them anew after one died.
    """

    rank: int
    local_rank: int
    count: int
    local_count: int
    restarts: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Torchrun | None":
        """Return what the environment says, or None if torchrun has not started this process."""
        if any(name not in environment for name in TORCHRUN):
            return None
        numbers = (int(environment[name]) for name in TORCHRUN[:4])
        rank, local_rank, count, local_count = numbers
        restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
        return cls(rank, local_rank, count, local_count, restarts)

    def run(
        self,
        function: Callable[[Worker, torch.device, Job], Report],
        prepare: Callable[[int, int], tuple[Job, torch.device]],
    ) -> Report:
        """Join the others; rank 0 prepares the job, and all of them work on it.

        Args:
            function: The work of one worker.
            prepare: Given the numbers of workers and of GPUs, what they work on and on what device.

        Raises:
            SeamlineError: As `prepare` raises it, in rank 0; the other processes exit with status
                2, so that the user reads it once.
        """
        num_gpus = torch.cuda.device_count()  # as many on every machine
        if num_gpus:
            torch.cuda.set_device(self.local_rank % num_gpus)
        # torchrun's store outlives the processes: those that were started anew must not find the
        # addresses of the dead.
        store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if num_gpus else "gloo",
            store=dist.PrefixStore(f"start-{self.restarts}", store),
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )
        outcome: list[Any] = [None]
        if self.rank == 0:
            try:
                outcome = [prepare(self.count, num_gpus * self.count // self.local_count)]
            except SeamlineError as err:
                outcome = [err]
        dist.broadcast_object_list(outcome, device=torch.device("cpu"))
        if isinstance(outcome[0], SeamlineError):
            dist.destroy_process_group()
            raise outcome[0] if self.rank == 0 else SystemExit(2)
        job, device = outcome[0]
        if device.type == "cuda":
            device = torch.device("cuda", self.local_rank)
        report = function(Worker(self.rank, self.count), device, job)
        dist.destroy_process_group()
        return report


def check_same_step(worker: Worker, step: int, run: object, device: torch.device) -> None:
    """Raise UsageError unless all workers found the same checkpoint."""
    steps = worker.gather(torch.tensor([step], device=device)).tolist()
    if len(set(steps)) > 1:
        raise UsageError(
            f"all workers must see the run's folder, but they go on from steps "
            f"{', '.join(map(str, steps))} of {str(run)!r}: put it where all machines can read it"
        )

"""Workers on Ray Train: started, watched, and started anew when one dies."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch

from manifests import Progress, SeamlineError, UsageError, ray_cluster, stop_on_signal

from .job import TrainJob
from .parallel import PATIENCE, AfterStep, Worker
from .records import TrainReport

MAX_RESTARTS = 3
LOOK_SECONDS = 0.2  # between two looks at the progress


@dataclass(frozen=True)
class Place:
    """How far a group of workers is: the step it began at, the steps done, what else to say."""

    first_step: int
    step: int
    note: str


class Desk:
    """Where rank 0 leaves word of its progress and learns that the run shall stop: a Ray actor.

    Signals reach only the process that the user started, and only that one has the terminal.
    """

    def __init__(self) -> None:
        self._stop = False
        self._place: Place | None = None

    def leave(self, place: Place) -> bool:
        """Keep how far the workers are; return whether the run shall stop."""
        self._place = place
        return self._stop

    def look(self, stop: bool) -> Place | None:
        """Return what was left last; `stop` asks the run to stop."""
        self._stop = self._stop or stop
        return self._place


@contextmanager
def gpus_at(address: str | None) -> Iterator[int]:
    """Join a Ray cluster, if an address is given; yield the GPUs there, or else of this machine."""
    if address is None:
        yield torch.cuda.device_count()
        return
    with ray_cluster(address=address):
        yield int(ray.cluster_resources().get("GPU", 0))


def run_on_ray(
    function: Callable[[Worker, torch.device, TrainJob], TrainReport],
    job: TrainJob,
    count: int,
    device: torch.device,
) -> TrainReport:
    """Call `function(worker, device, job)` in `count` workers; return what rank 0 returned.

    When a worker dies, or fails for a reason that is not the user's, all are started anew, up to
    MAX_RESTARTS times: it is for `function` to go on from the run's last checkpoint. A local Ray is
    started unless this process has joined one.

    Args:
        function: The work of one worker.
        job: What it works on.
        count: Number of workers.
        device: "cuda" gives each worker a GPU of its own.

    Raises:
        SeamlineError, OSError: As raised in a worker, with its type; or workers that keep dying.
        UsageError: Too few CPUs or GPUs.
    """
    from ray.train import WorkerGroupError  # takes seconds, for which one worker need not wait

    cpus_each = 1 if ray.is_initialized() else max((os.cpu_count() or 1) // count, 1)
    with ray_cluster(cpus_each * count), stop_on_signal() as stop:
        _check_resources(count, device)
        desk: Any = ray.remote(num_cpus=0)(Desk).remote()
        with Progress("train", "steps", job.num_steps) as bar:
            shown = Place(0, 0, "")

            def look() -> None:
                nonlocal shown
                place = ray.get(desk.look.remote(stop.is_set())) or shown
                show(bar, shown, place)
                shown = place

            for restart in range(MAX_RESTARTS + 1):
                try:
                    return _run_group(function, job, count, device, cpus_each, desk, look)
                except WorkerGroupError as err:
                    failures = list(err.worker_failures.values())
                    for failure in failures:
                        if isinstance(failure, SeamlineError | OSError):
                            raise failure from None
                    if restart == MAX_RESTARTS:
                        raise
    raise AssertionError("the last group returns or raises")


def show(bar: Progress, shown: Place, place: Place) -> None:
    """Move the bar; steps lost with a worker are taken back."""
    began_anew = place.first_step != shown.first_step or place.step < shown.step
    begin = place.first_step if began_anew else shown.step
    bar.skip(begin - shown.step)
    bar.advance(place.step - begin, place.note)


def _check_resources(count: int, device: torch.device) -> None:
    found = ray.cluster_resources()
    for kind in ("CPU", "GPU") if device.type == "cuda" else ("CPU",):
        if found.get(kind, 0) < count:
            raise UsageError(
                f"there must be a {kind} for each worker, got {count} workers for "
                f"{found.get(kind, 0):g} {kind}s"
            )


def _run_group(
    function: Callable[[Worker, torch.device, TrainJob], TrainReport],
    job: TrainJob,
    count: int,
    device: torch.device,
    cpus_each: int,
    desk: Any,
    look: Callable[[], None],
) -> TrainReport:
    """Start the workers once; call `look` every so often until they end."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    on_cuda = device.type == "cuda"

    def work() -> Any:
        from ray.train import get_context
        from ray.train.torch import get_device

        @contextmanager
        def watch(num_steps: int, step: int) -> Iterator[AfterStep]:
            yield _AtDesk(desk, step)

        rank = get_context().get_world_rank()
        worker = Worker(rank, count, watch if rank == 0 else None)
        return function(worker, get_device() if on_cuda else device, job)

    pool = ThreadPoolExecutor(1, thread_name_prefix="ray-train")  # signals come to this one
    with tempfile.TemporaryDirectory() as folder:  # nothing of the run's is there
        trainer = TorchTrainer(
            work,
            torch_config=TorchConfig(
                "nccl" if on_cuda else "gloo", timeout_s=int(PATIENCE.total_seconds())
            ),
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu=on_cuda, resources_per_worker={"CPU": cpus_each}
            ),
            run_config=RunConfig(name="train", storage_path=folder),
        )
        try:
            group: Future[Any] = pool.submit(trainer.fit)
            while not group.done():
                wait([group], LOOK_SECONDS)
                look()
        finally:
            pool.shutdown(wait=False)
        return group.result().return_value


class _AtDesk:
    """What rank 0 calls after a step; it never waits for an answer."""

    def __init__(self, desk: Any, first_step: int) -> None:
        self._desk, self._first_step = desk, first_step
        self._answer, self._stop = None, False

    def __call__(self, step: int, note: str) -> bool:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._stop, self._answer = ray.get(self._answer), None
        if self._answer is None:
            self._answer = self._desk.leave.remote(Place(self._first_step, step, note))
        return self._stop

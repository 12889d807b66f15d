"""Several workers that train one model: equal shares of every batch, averaged gradients."""

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from manifests import SeamlineError

PATIENCE = timedelta(hours=6)  # the others wait while rank 0 validates


@dataclass(frozen=True)
class Worker:
    """One of `count` workers; `rank` 0 alone validates, writes files and shows progress."""

    rank: int = 0
    count: int = 1

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

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the workers' tensors of equal shape, joined along the first axis by rank."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)


def run_workers(count: int, device: torch.device, function: Callable[..., Any], *args: Any) -> Any:
    """Call `function(worker, device, *args)` in `count` processes; return what rank 0 returned.

    One worker is the calling process itself. Workers meet through a file, not a port; tensors
    travel by NCCL between GPUs and by gloo between CPU processes.

    Raises:
        SeamlineError: As raised in a worker, with its type; or a worker that died.
    """
    if count == 1:
        return function(Worker(), device, *args)
    results = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, _interrupts_are_theirs():
        try:
            setup = (count, Path(folder, "meeting"), device, results, function, args)
            mp.spawn(_work, setup, nprocs=count)
        except mp.ProcessExitedException as err:
            raise SeamlineError(f"a training worker died: {err}") from err
        except mp.ProcessRaisedException:
            if results.empty():  # not an error of the user's: its traceback is the message
                raise
            raise results.get() from None
    return results.get()


@contextmanager
def _interrupts_are_theirs() -> Iterator[None]:
    """Let Ctrl-C reach the workers alone: they save, and this process waits for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(
    rank: int,
    count: int,
    meeting: Path,
    device: torch.device,
    results: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    if device.type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // count, 1))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        f"file://{meeting}",
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
    )
    try:
        result = function(Worker(rank, count), device, *args)
        if rank == 0:
            results.put(result)
    except SeamlineError as err:
        results.put(err)
        raise
    finally:
        dist.destroy_process_group()

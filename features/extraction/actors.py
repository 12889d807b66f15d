"""Hand out the shards of a store to Ray actors, one per GPU or share of a node's processors.

A shard is filled by one actor at a time, which writes it itself: frames and vectors never pass
through Ray. Attempts are counted here; what an attempt left done stays done.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import torch

from manifests import Progress, SeamlineError, UsageError, first_line, ray_cluster

from ..store.writer import StoreWriter
from .encoder import Encoder, precision_of
from .extract_plan import ExtractPlan
from .shard_attempt import FailedAttempt, ShardAttempts
from .streams import Checkpoint

MAX_ATTEMPTS = 3
MAX_HANGS = 8  # videos of a shard that may hang or crash before the shard is given up
LOOK_SECONDS = 1.0
PARTS_PER_ACTOR = 2  # of what is left an actor takes this part at a time, so that all end together


def checkpoint_paths(checkpoint: Checkpoint | Mapping[str, Checkpoint]) -> dict[str, str]:
    """Return the folders of runs by stream name; that of a single one is "".

    Raises:
        UsageError: An `Encoder` is among them: it cannot leave its process.
    """
    named = checkpoint if isinstance(checkpoint, Mapping) else {"": checkpoint}
    paths = {}
    for name, source in named.items():
        if isinstance(source, Encoder):
            raise UsageError(
                f"actors open their encoders from folders, but {source.name!r} lives in this "
                "process: extract with actors=0"
            )
        paths[name] = str(Path(source).absolute())
    return paths


@dataclass(frozen=True)
class Attempt:
    """Shards that are tried together, and how they fared so far.

    Attributes:
        shards: Their numbers.
        number: Counted from 1.
        careful: Decode one video at a time, so that a dead process says which video killed it.
        suspect: The one video that was being decoded when a process died.
        failed: Videos that hang or crash, by id, with the reason.
    """

    shards: tuple[int, ...]
    number: int = 1
    careful: bool = False
    suspect: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)

    def after(self, failure: FailedAttempt, left: Sequence[int]) -> "list[Attempt] | None":
        """Return the attempts at the shards that are left, or None if there shall be none.

        Several shards go on one by one. A video that hangs, or crashes its process twice in a row,
        is rejected; that costs no attempt.
        """
        if len(self.shards) > 1:
            return [Attempt((shard,), failed=self.failed) for shard in left]
        culprit = failure.video_ids[0] if len(failure.video_ids) == 1 else ""
        if culprit and (failure.cause == "hang" or culprit == self.suspect):
            if len(self.failed) == MAX_HANGS:
                return None  # rather the disk of the videos than the videos
            failed = {**self.failed, culprit: failure.rejection}
            return [replace(self, suspect="", failed=failed)] if left else []
        if left and self.number == MAX_ATTEMPTS:
            return None
        careful = self.careful or failure.cause in ("hang", "crash")
        again = replace(self, number=self.number + 1, careful=careful, suspect=culprit)
        return [again] if left else []


@dataclass
class Crew:
    """What actors need to know, and how many there shall be.

    Attributes:
        checkpoints: Folders of runs by stream name.
        opening: How `open_streams` opens them.
        decode_seconds: A decoder that gives no frame for so long is ended.
        num_actors: None: one per GPU, or one per node where there is none. No more than there is
            room for.
        workers: Decoding threads of each; None: one per processor, at most 8.
        device: "cpu" or "cuda"; known once the cluster is.
        cores: Processors of each.
    """

    checkpoints: Mapping[str, str]
    opening: Mapping[str, Any]
    decode_seconds: float
    num_actors: int | None = None
    workers: int | None = None
    device: str = "cpu"
    cores: int = 1

    def fill(
        self, plan: ExtractPlan, writer: StoreWriter, missing: Sequence[int], progress: Progress
    ) -> dict[int, str]:
        """Fill the missing shards of a store; return those that failed, with the reason.

        Raises:
            SeamlineError: An error that no other attempt would change.
        """
        if not missing:
            return {}
        return _Shift(self, plan, writer, missing, progress).run()

    def start_actor(self, common: Mapping[str, Any]) -> Any:
        """Start an actor; it waits until the cluster has room for it."""
        remote: Any = ray.remote(ShardAttempts)
        options = remote.options(
            num_cpus=self.cores,
            num_gpus=1 if self.device == "cuda" else 0,
            max_restarts=0,
            max_concurrency=2,  # one fills shards, the other says how far it is
        )
        return options.remote(common, self.decode_seconds)


@contextmanager
def open_crew(crew: Crew, device: str | None, address: str | None) -> Iterator[tuple[str, str]]:
    """Start or join a Ray; yield the kind of device that computes, and its precision.

    Raises:
        UsageError: No cluster answers, or it lacks the device.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"the device must be 'cpu' or 'cuda', got {device!r}")
    with ray_cluster(None, address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        crew.device = device or ("cuda" if gpus else "cpu")
        rooms = [
            (int(node.get("CPU", 0)), int(node.get("GPU", 0)) if crew.device == "cuda" else None)
            for node in nodes
        ]
        crew.num_actors, crew.cores = share_out(rooms, crew.num_actors)
        if not crew.num_actors:
            raise UsageError(f"the device {crew.device!r} is not available in the cluster")
        precision = "float32"
        if crew.device == "cuda":
            ask = ray.remote(num_gpus=1)(_gpu_precision)
            precision = ray.get(ask.remote())
        yield crew.device, precision


def share_out(
    rooms: Sequence[tuple[int, int | None]], wanted: int | None = None
) -> tuple[int, int]:
    """Return how many actors there is room for, and the processors of each: as many as will do.

    # nodes of 8 and 3 processors: two actors have 4, both on the first; four have 2

    Args:
        rooms: Processors and GPUs of every node; None where no GPU is needed.
        wanted: Actors; None: one per GPU, or one per node where none is needed.
    """

    def num_actors(cores: int) -> int:
        return sum(
            cpus // cores if gpus is None else min(cpus // cores, gpus) for cpus, gpus in rooms
        )

    if wanted is None:
        wanted = sum(min(cpus, 1) if gpus is None else gpus for cpus, gpus in rooms)
    wanted = min(wanted, num_actors(1))
    most = max((cpus for cpus, _ in rooms), default=1)
    return wanted, next(c for c in range(max(most, 1), 0, -1) if c == 1 or num_actors(c) >= wanted)


def _gpu_precision() -> str:
    return precision_of(torch.device("cuda"))


class _Shift:
    """One run of a crew over the missing shards of a store."""

    def __init__(
        self,
        crew: Crew,
        plan: ExtractPlan,
        writer: StoreWriter,
        missing: Sequence[int],
        progress: Progress,
    ) -> None:
        assert crew.num_actors is not None
        self.crew, self.plan, self.writer, self.progress = crew, plan, writer, progress
        self.num_actors = min(crew.num_actors, len(missing))
        self.untried: deque[int] = deque(missing)
        self.again: deque[Attempt] = deque()
        self.running: dict[Any, tuple[Any, Attempt]] = {}
        self.failed: dict[int, str] = {}
        self.shown, self.num_done = 0, 0  # clips
        grid = plan.cut.grid
        self.common = {
            "store": str(writer.path.absolute()),
            "feature_dim": plan.spec.feature_dim,
            "checkpoints": dict(crew.checkpoints),
            "opening": dict(crew.opening),
            "device": crew.device,
            "precision": plan.spec.precision,
            "weights_digest": plan.spec.weights_digest,
            "versions": dict(plan.spec.versions),
            "cores": crew.cores,
            "grid": asdict(grid),
            "fps": plan.spec.fps,
            "batch": plan.batch,
        }

    def run(self) -> dict[int, str]:
        idle = [self.crew.start_actor(self.common) for _ in range(self.num_actors)]
        while True:
            while idle and (attempt := self._next()):
                self._begin(idle.pop(), attempt)
            idle.clear()  # no name holds them now, so they end: others may wait for their room
            if not self.running:
                return self.failed
            ready, _ = ray.wait(list(self.running), num_returns=1, timeout=LOOK_SECONDS)
            for reference in ready:
                idle.append(self._take_in(reference))
            self._show()

    def _begin(self, actor: Any, attempt: Attempt) -> None:
        self.running[actor.extract.remote(self._work(attempt))] = (actor, attempt)

    def _next(self) -> Attempt | None:
        """Return what to try next: many shards at first, so that actors don't wait between them."""
        if self.again:
            return self.again.popleft()
        size = max(len(self.untried) // (PARTS_PER_ACTOR * self.num_actors), 1)
        shards = tuple(self.untried.popleft() for _ in range(min(size, len(self.untried))))
        return Attempt(shards) if shards else None

    def _work(self, attempt: Attempt) -> dict[str, Any]:
        """Return the shards, and their videos, as JSON has them."""
        layout = self.plan.layout
        videos = [v for shard in attempt.shards for v in layout.videos_of(shard)]
        default = min(self.crew.cores, 8) if self.crew.workers is None else self.crew.workers
        return {
            "shards": list(attempt.shards),
            "videos": [asdict(self.plan.videos[v]) for v in videos],
            "stored": [asdict(self.plan.stored[v]) for v in videos],
            "shard_of": [int(layout.shard_V[v]) for v in videos],
            "shard_rows": layout.shard_rows,
            "num_shards": layout.num_shards,
            "failed": dict(attempt.failed),
            "workers": 1 if attempt.careful else default,
        }

    def _take_in(self, reference: Any) -> Any:
        """Count an attempt that has ended; return an actor that is idle."""
        actor, attempt = self.running.pop(reference)
        try:
            failure: FailedAttempt | None = ray.get(reference)
        except ray.exceptions.RayTaskError as err:
            raise SeamlineError(first_line(err.cause)) from err
        except ray.exceptions.RayError as err:  # the actor or its node is gone
            failure = FailedAttempt("lost", f"an actor was lost ({first_line(err)})")
            actor = self.crew.start_actor(self.common)
        left = [shard for shard in attempt.shards if not self.writer.shards.is_done(shard)]
        self.num_done += self.plan.num_clips([k for k in attempt.shards if k not in left])
        if failure is not None:
            following = attempt.after(failure, left)
            if following is None:
                self.failed |= dict.fromkeys(left, failure.reason)
            else:
                self.again += following
        elif left:  # all nodes must see the same folder
            raise SeamlineError(
                f"shard {left[0]} was filled, but is not in {str(self.writer.path)!r}: all nodes "
                "must see the same folder"
            )
        return actor

    def _show(self) -> None:
        """Show the clips that are computed, of shards in work as well."""
        asked = [actor.num_computed.remote() for actor, _ in self.running.values()]
        heard, _ = (
            ray.wait(asked, num_returns=len(asked), timeout=LOOK_SECONDS) if asked else ([], [])
        )
        now = self.num_done
        for reference in heard:
            try:
                now += ray.get(reference)
            except ray.exceptions.RayError:
                continue  # it is gone; its attempt says so
        self.progress.advance(max(now - self.shown, 0))
        self.shown = max(now, self.shown)

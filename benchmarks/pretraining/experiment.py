"""From a grid to nodes, and from finished nodes to the rows of `results.parquet`."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import UsageError, atomic_writer

from .cache import Node
from .comparisons import BASELINE
from .grid import FAMILIES, Grid, Method, merge
from .records import RESULT_FIELDS, read_scores
from .stages import SCORES
from .tasks import AVERAGED, CLASSES_GIVEN, TASKS

LINEAR, FRAMES, RETIMED = "linear", "frames", "retimed"
WHOLE = -1  # of the models that a run keeps, the last
SEEDS = 1_000  # a run of seed s starts from one of seed s + SEEDS; its turn 1 is s + 2 * SEEDS


class Scored(NamedTuple):
    """A task done with a method's encoder of one seed, as it was after so many steps."""

    method: Method
    seed: int
    steps: int
    task: str
    node: Node


@dataclass(frozen=True)
class Experiment:
    """What a grid asks to be made.

    Attributes:
        grid: The recipe.
        first_seed: Seed of the first run of every method; the others follow.

    Raises:
        UsageError: The grid names a task that there is not.
    """

    grid: Grid
    first_seed: int = 0

    def __post_init__(self) -> None:
        for task in self.grid.downstream.of(FAMILIES):
            if task not in TASKS:
                raise UsageError(f"a task must be one of {', '.join(TASKS)}, got {task!r}")

    @cached_property
    def videos(self) -> Node:
        """The demo's videos, with their tables."""
        return Node("videos", dataclasses.asdict(self.grid.videos), label="videos")

    def shards(self, method: Method, seed: int) -> Node:
        """Return the rendered samples of a method; methods with one `[synth]` table share them."""
        label = f"shards of {method.name}, seed {seed}"
        return Node("shards", self.grid.synth_of(method, seed), (self.videos,), label)

    def start(self, seed: int) -> Node:
        """Return the classification whose encoder methods start from."""
        settings = {"train": self.grid.train_of_start(seed + SEEDS), "has_init": False}
        shards = self.shards(self.grid.methods[0], seed + SEEDS)
        return Node("run", settings, (shards,), f"first classification, seed {seed}")

    def run(self, method: Method, seed: int, turn: int = 0) -> Node:
        """Return the training of a method; of another turn: other samples, the same start."""
        drawn = seed + SEEDS * (turn + 1) if turn else seed
        settings = {"train": self.grid.train_of(method, drawn), "has_init": method.is_from_start}
        init = (self.start(seed),) if method.is_from_start else ()
        teachers = (self.run(self.named(name), seed) for name in method.teachers)
        inputs = (self.shards(method, drawn), *init, *teachers)
        return Node("run", settings, inputs, f"training of {method.name}, seed {drawn}")

    def store(self, method: Method, seed: int, turn: int = 0) -> Node:
        """Return the features of all models that a run keeps, a stream each, decoded once."""
        settings = {
            "snippets": dataclasses.asdict(self.grid.snippets),
            "steps": self.grid.steps_of(method),
        }
        run = self.run(method, seed, turn)
        return Node("store", settings, (self.videos, run), f"features of {run.label}")

    def finetuned(self, method: Method, seed: int, turn: int = 0) -> Node:
        """Return the end-to-end fine-tuning of a method's encoder on annotated long videos."""
        downstream = self.grid.downstream
        synth = merge(self.grid.synth, downstream.finetune_synth)
        synth |= {"kinds": {"annotated": 1.0}, "subset": "train", "seed": seed}
        shards = Node("shards", synth, (self.videos,), "shards of annotated long videos")
        train = merge(self.grid.train, downstream.finetune) | {"objective": FRAMES, "seed": seed}
        run = self.run(method, seed, turn)
        settings = {"train": train, "has_init": True}
        return Node("run", settings, (shards, run), f"fine-tuning of {run.label}")

    def scored(self, methods: Sequence[str] = ()) -> Iterator[Scored]:
        """Yield everything to be scored: seed by seed, then method by method.

        A run that is stopped early has all methods of the first seeds.

        Args:
            methods: Only these, and the baseline that they are compared with; all if empty.

        Raises:
            UsageError: No such method.
        """
        names = [BASELINE, *(self.named(name).name for name in methods)]
        chosen = [m for m in self.grid.methods if not methods or m.name in names]
        for past in range(max(method.seeds for method in chosen)):
            seed = self.first_seed + past
            for method in (m for m in chosen if past < m.seeds):
                for number in range(-len(self.grid.steps_of(method)), 0):
                    yield self._scored(method, seed, number, LINEAR)
                for task in self.grid.downstream.of(method.families):
                    if not method.average or task in (*AVERAGED, FRAMES):
                        yield self._scored(method, seed, WHOLE, task)

    def _scored(self, method: Method, seed: int, number: int, task: str) -> Scored:
        """Return a task done with the model of that number among those that a run keeps."""
        parts = self._parts(method)
        steps = self.grid.budget.steps_scored[number]
        settings: dict[str, Any] = {
            "task": task,
            "seed": seed,
            "snippets": dataclasses.asdict(self.grid.snippets),
            "head": self.grid.downstream.heads.get(task, {}),
            "average": bool(method.average) and task in AVERAGED,
        }
        if task == FRAMES:
            inputs = [self.finetuned(part, seed, turn) for part, turn in parts]
        else:
            stores = [(part, self.store(part, seed, turn)) for part, turn in parts]
            if task in CLASSES_GIVEN:
                baseline = self.named(BASELINE)
                stores.append((baseline, self.store(baseline, seed)))
            inputs = [store for _, store in stores]
            settings["steps"] = [self.grid.steps_of(part)[number] for part, _ in stores]
            if task == RETIMED:
                inputs.append(self.run(method, seed))
        label = f"{task} of {method.name}, seed {seed}, {steps} steps"
        node = Node("scores", settings, (self.videos, *inputs), label)
        return Scored(method, seed, steps, task, node)

    def _parts(self, method: Method) -> list[tuple[Method, int]]:
        """Return what a method puts together, and how often each was named before; else itself."""
        return [
            (self.named(name), method.parts[:index].count(name))
            for index, name in enumerate(method.parts)
        ] or [(method, 0)]

    def named(self, name: str) -> Method:
        """Return a method by name; UsageError if there is none."""
        for method in self.grid.methods:
            if method.name == name:
                return method
        names = ", ".join(method.name for method in self.grid.methods)
        raise UsageError(f"a method must be one of {names}, got {name!r}")

    def rows(self, scored: Sequence[Scored], cache: Path) -> Iterator[dict[str, Any]]:
        """Yield a row per number and family: of each family, what is done in it."""
        for at in scored:
            families = [
                family
                for family in at.method.families
                if at.task in (LINEAR, *self.grid.downstream.of((family,)))
            ]
            for score in read_scores(at.node.folder(cache) / SCORES):
                for family in families:
                    yield {
                        "family": family,
                        "method": at.method.name,
                        "seed": at.seed,
                        "steps": at.steps,
                        "downstream": score.downstream,
                        "metric": score.metric,
                        "value": score.value,
                        "chance": score.chance,
                        "resampled": score.resampled_B,
                    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as the table of `results.parquet`."""
    return pa.Table.from_pylist(rows, RESULT_FIELDS)


def write_results(table: pa.Table, path: Path) -> None:
    """Write a table of results, atomically."""
    with atomic_writer(path) as file:
        pq.write_table(table, file)

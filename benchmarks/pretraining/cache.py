"""A folder of finished work, found again by what it was made from.

A node says how a folder is made: a stage, its settings, and the nodes it reads. Its digest covers
all three, so a changed recipe makes only what it changes, and a killed run goes on where it was.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from manifests import write_atomic

EXPERIMENT = 2
"""Raised whenever the same settings give other numbers than before."""
DONE = "node.json"

Stage = Callable[[Mapping[str, Any], Sequence[Path], Path], None]
"""Makes a folder from settings and the folders of the inputs; finds its own half-done work."""


@dataclass(frozen=True)
class Node:
    """One folder of the experiment.

    Attributes:
        stage: Name of the function that makes it.
        settings: Everything that the function is told; JSON.
        inputs: Nodes whose folders it reads, in the function's order.
        label: For people: what this is.
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: tuple["Node", ...] = ()
    label: str = ""

    @cached_property
    def digest(self) -> str:
        """The sha256 of everything that the folder depends on, but for the code."""
        parts = [EXPERIMENT, self.stage, self.settings, [node.digest for node in self.inputs]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()  # a plan minds the order

    def folder(self, cache: Path) -> Path:
        """Return where it lies in a cache."""
        return cache / f"{self.stage}-{self.digest[:16]}"

    def is_done(self, cache: Path) -> bool:
        """Return whether it is finished: the record is written last."""
        return (self.folder(cache) / DONE).exists()


def make_node(node: Node, cache: Path, stages: Mapping[str, Stage]) -> None:
    """Make the folder of a node whose inputs are finished, and write its record last."""
    folder = node.folder(cache)
    is_resumed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    cpu_started = sum(os.times()[:4])
    stages[node.stage](node.settings, [at.folder(cache) for at in node.inputs], folder)
    record = {
        "stage": node.stage,
        "settings": node.settings,
        "label": node.label,
        "cpu_seconds": None if is_resumed else sum(os.times()[:4]) - cpu_started,
        "digest": node.digest,
        "inputs": [at.digest for at in node.inputs],
    }
    write_atomic(folder / DONE, json.dumps(record, indent=1).encode())


def cpu_seconds(nodes: Sequence[Node], cache: Path) -> list[float]:
    """Return what finished folders took of the processors, children included.

    Those that were begun by a process that was killed are left out: part of theirs is not known.
    """
    found = [json.loads((at.folder(cache) / DONE).read_text())["cpu_seconds"] for at in nodes]
    return [seconds for seconds in found if seconds is not None]


def all_nodes(wanted: Sequence[Node]) -> list[Node]:
    """Return each node once, inputs before what is made from them."""
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.digest not in found:
            for at in node.inputs:
                visit(at)
            found[node.digest] = node

    for node in wanted:
        visit(node)
    return list(found.values())


def make_all(
    wanted: Sequence[Node],
    cache: Path,
    stages: Mapping[str, Stage],
    pool: Executor,
    jobs: int,
    tell: Callable[[Node], None],
) -> None:
    """Make what the cache lacks of `wanted` and of their inputs, several nodes side by side.

    Nodes start in the order in which they are wanted, so that a run which is stopped has whole
    methods rather than a bit of each.

    Args:
        wanted: What shall exist.
        cache: Folder of finished work.
        stages: Stage name -> function.
        pool: Where the functions run.
        jobs: Nodes at once.
        tell: Called after each node that was made.
    """
    nodes = all_nodes(wanted)
    waiting = [node for node in nodes if not node.is_done(cache)]
    done = {node.digest for node in nodes} - {node.digest for node in waiting}
    running: dict[Future[None], Node] = {}
    while waiting or running:
        for node in [at for at in waiting if all(i.digest in done for i in at.inputs)]:
            if len(running) == jobs:
                break
            waiting.remove(node)
            running[pool.submit(make_node, node, cache, stages)] = node
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            future.result()
            node = running.pop(future)
            done.add(node.digest)
            tell(node)

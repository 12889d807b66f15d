"""Does the pretraining pay? `python -m benchmarks.pretraining WORK [--scale small]`.

WORK keeps every finished part: a command that was killed goes on where it was, and one that is
repeated only reads. Writes `results.parquet`, `tables.md` and the figures into WORK; with `--docs`
also into the pages and pictures of that folder.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from manifests import Progress, SeamlineError, say_seconds

from .cache import all_nodes, make_all
from .experiment import Experiment, Scored, write_results
from .grid import read_grid
from .report import write_report
from .stages import STAGES, begin_worker

HERE = Path(__file__).parent


def main(options: argparse.Namespace) -> None:
    """Make what is missing, then the tables and figures."""
    recipe = HERE / f"{options.scale}.toml" if options.scale.isidentifier() else Path(options.scale)
    experiment = Experiment(read_grid(recipe), options.first_seed)
    scored = list(experiment.scored(options.only))
    started = time.monotonic()
    make(scored, options.work, options.jobs)
    num_rows = write_results(scored, options.work / "cache", options.work / "results.parquet")
    print(f"{num_rows:,} numbers in {options.work / 'results.parquet'}")
    write_report(experiment, scored, options.work, options.docs)
    print(f"done in {say_seconds(time.monotonic() - started)}")


def make(scored: Sequence[Scored], work: Path, jobs: int) -> None:
    """Make the nodes of all scores in `jobs` processes, each with its share of the cores."""
    cache, wanted = work / "cache", [at.node for at in scored]
    work.mkdir(parents=True, exist_ok=True)
    nodes = all_nodes(wanted)
    done = sum(node.is_done(cache) for node in nodes)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with (
        ProcessPoolExecutor(
            jobs,
            multiprocessing.get_context("spawn"),
            initializer=begin_worker,
            initargs=(threads, work / "log.txt"),
        ) as pool,
        Progress("experiment", "parts", len(nodes), done) as progress,
    ):
        make_all(wanted, cache, STAGES, pool, jobs, lambda node: progress.advance())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.pretraining")
    parser.add_argument("work", type=Path, help="folder of everything that is made; kept")
    parser.add_argument("--scale", default="small", help="small, full, or a recipe of your own")
    parser.add_argument("--only", nargs="*", default=(), help="these methods, beside none")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of every first run")
    parser.add_argument("--docs", type=Path, help="folder of pages whose tables are replaced")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: per core)")
    chosen = parser.parse_args(arguments)
    chosen.jobs = chosen.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    return chosen


if __name__ == "__main__":
    try:
        main(parse())
    except SeamlineError as err:
        sys.exit(f"error: {err}")

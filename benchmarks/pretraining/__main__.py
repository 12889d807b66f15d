"""Does the pretraining pay? `python -m benchmarks.pretraining WORK [--scale small]`.

WORK keeps every finished part: a command that was killed goes on where it was, and one that is
repeated only reads. Writes `results.parquet`, `tables.md` and the figures into WORK; with `--docs`
also into the pages and pictures of that folder. With `--only` it prints the tables of some methods
and writes none.
"""

import argparse
import fcntl
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from manifests import Progress, SeamlineError, UsageError, say_seconds

from .cache import all_nodes, make_all
from .comparisons import results_of
from .experiment import SEEDS, Experiment, Scored, table_of, write_results
from .grid import read_grid
from .report import make_tables, write_report
from .stages import STAGES, begin_worker

HERE = Path(__file__).parent


def main(options: argparse.Namespace) -> None:
    """Make what is missing, then the tables and figures."""
    recipe = HERE / f"{options.scale}.toml" if options.scale.isidentifier() else Path(options.scale)
    experiment = Experiment(read_grid(recipe), options.first_seed)
    scored = list(experiment.scored(options.only))
    started, cache = time.monotonic(), options.work / "cache"
    options.work.mkdir(parents=True, exist_ok=True)
    with alone(options.work):
        make(scored, options.work, options.jobs)
        rows = list(experiment.rows(scored, cache))
        print(f"{len(rows):,} numbers, made or read in {say_seconds(time.monotonic() - started)}")
        if options.only:
            print(make_tables(experiment, scored, cache, results_of(table_of(rows))))
        else:
            write_results(table_of(rows), options.work / "results.parquet")
            write_report(experiment, scored, options.work, options.docs, options.scale)


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Keep other commands off a folder; UsageError if one is at work there."""
    with open(work / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise UsageError(f"another command is at work in {str(work)!r}") from err
        yield


def make(scored: Sequence[Scored], work: Path, jobs: int) -> None:
    """Make the nodes of all scores in `jobs` processes, each with its share of the cores."""
    cache, wanted = work / "cache", [at.node for at in scored]
    nodes = all_nodes(wanted)
    done = sum(node.is_done(cache) for node in nodes)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # NumPy's
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
    parser.add_argument("--only", nargs="+", default=(), help="make and print these methods alone")
    parser.add_argument(
        "--first-seed", type=int, default=0, help=f"of every method, below {SEEDS}; with --only"
    )
    parser.add_argument("--docs", type=Path, help="folder of pages whose tables are replaced")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: per core)")
    chosen = parser.parse_args(arguments)
    if chosen.docs and chosen.only:
        parser.error("--docs takes the whole experiment: leave --only out")
    if chosen.first_seed and not (chosen.only and 0 < chosen.first_seed < SEEDS):
        parser.error(f"--first-seed must be from 0 to {SEEDS - 1}, and of methods named by --only")
    if chosen.jobs is not None and chosen.jobs < 1:
        parser.error(f"--jobs must be >= 1, got {chosen.jobs}")
    chosen.jobs = chosen.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    return chosen


if __name__ == "__main__":
    try:
        main(parse())
    except SeamlineError as err:
        sys.exit(f"error: {err}")

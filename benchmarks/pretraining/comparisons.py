"""The rows of `results.parquet` as what tables and figures ask for: means and differences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import UsageError

from .intervals import Interval, interval, paired
from .records import RESULT_FIELDS, Score

BASELINE = "classification"


class Metric(NamedTuple):
    """What was measured: a task downstream, and which number of it."""

    downstream: str
    metric: str


LINEAR = Metric("linear", "map")
# In the order of the tables, with their names there.
METRICS: Mapping[Metric, str] = {
    LINEAR: "linear mAP",
    Metric("linear", "map_25"): "linear, 25 frames",
    Metric("linear", "map_single"): "linear, one action",
    Metric("linear", "map_multi"): "linear, several",
    Metric("linear", "map_boundary"): "linear, boundary",
    Metric("linear", "map_non_boundary"): "linear, elsewhere",
    Metric("pdan", "map"): "PDAN mAP",
    Metric("tgm", "map"): "TGM mAP",
    Metric("frames", "map"): "fine-tuned mAP",
    Metric("gtad", "map"): "G-TAD mAP",
    Metric("gtad", "map_50"): "G-TAD mAP@0.5",
    Metric("bmn", "ar_10"): "BMN AR@10",
    Metric("bmn", "ar_50"): "BMN AR@50",
    Metric("bmn", "auc"): "BMN AUC",
    Metric("neighbours", "boundary_auc"): "boundary AUC",
    Metric("retimed", "equivariance"): "equivariance",
}
# What a family is judged by, first of all; those that were not measured are left out.
MAIN_METRICS: Mapping[str, tuple[Metric, ...]] = {
    "ssdet": (LINEAR, Metric("pdan", "map")),
    "bsp": (Metric("gtad", "map"), Metric("bmn", "ar_10")),
    "pal": (Metric("gtad", "map"), Metric("bmn", "ar_10")),
}
FAMILY_NAMES: Mapping[str, str] = {"ssdet": "SSDet", "bsp": "BSP", "pal": "PAL"}


class Cell(NamedTuple):
    """A number of a method: which one, after how many gradient steps."""

    family: str
    method: str
    metric: Metric
    steps: int


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that was measured.

    Attributes:
        scores: By cell and seed.
    """

    scores: Mapping[Cell, Mapping[int, Score]]

    def steps(self, family: str) -> list[int]:
        """Return after how many steps a family was measured, ascending; the last is the whole."""
        found = {cell.steps for cell in self.scores if cell.family == family}
        if not found:
            families = sorted({cell.family for cell in self.scores})
            raise UsageError(f"the results hold no family {family!r}, only {families}")
        return sorted(found)

    def check(self, family: str, methods: Iterable[str]) -> None:
        """Raise UsageError where a method that is asked for was not measured."""
        found = {cell.method for cell in self.scores if cell.family == family}
        for method in methods:
            if method not in found:
                raise UsageError(
                    f"the results hold no method {method!r} of family {family!r}, only "
                    f"{sorted(found)}"
                )

    def num_seeds(self, family: str, method: str) -> set[int]:
        """Return of how many seeds the numbers of a method are, at the whole budget."""
        whole = self.steps(family)[-1]
        return {
            len(scores)
            for cell, scores in self.scores.items()
            if (cell.family, cell.method, cell.steps) == (family, method, whole)
        }

    def metrics(self, family: str) -> list[Metric]:
        """Return what was measured in a family, in the order of `METRICS`."""
        found = {cell.metric for cell in self.scores if cell.family == family}
        if unnamed := found - METRICS.keys():
            raise UsageError(f"the results hold metrics that have no name: {sorted(unnamed)}")
        return [metric for metric in METRICS if metric in found]

    def main_metrics(self, family: str) -> list[Metric]:
        """Return what a family is judged by, as far as it was measured."""
        measured = self.metrics(family)
        return [metric for metric in MAIN_METRICS.get(family, (LINEAR,)) if metric in measured]

    def mean(self, family: str, method: str, metric: Metric, steps: int) -> Interval | None:
        """Return a method's mean with its interval; None where it was not measured."""
        scores = self.scores.get(Cell(family, method, metric, steps), {})
        return interval(*_arrays(scores[seed] for seed in sorted(scores))) if scores else None

    def difference(
        self, family: str, method: str, metric: Metric, steps: int, over: str = BASELINE
    ) -> Interval | None:
        """Return how much better a method is than another, of the seeds that both have."""
        own, base = self._pairs(family, method, metric, steps, over)
        return paired(*_arrays(own), *_arrays(base)) if own else None

    def relative_gain(
        self, family: str, method: str, metric: Metric, steps: int, over: str = BASELINE
    ) -> float | None:
        """Return the mean difference as a share of the other's mean, of the same seeds."""
        own, base = self._pairs(family, method, metric, steps, over)
        return float(_arrays(own)[0].mean() / _arrays(base)[0].mean()) - 1 if own else None

    def chance(self, family: str, metric: Metric, steps: int) -> float | None:
        """Return what scores dealt at random get; None where there is no such thing."""
        known = [
            score.chance
            for cell, scores in self.scores.items()
            if (cell.family, cell.metric, cell.steps) == (family, metric, steps)
            for score in scores.values()
            if score.chance is not None
        ]
        return float(np.mean(known)) if known else None

    def _pairs(
        self, family: str, method: str, metric: Metric, steps: int, over: str
    ) -> tuple[list[Score], list[Score]]:
        """Return the scores of a method and of another, seed by seed; none beside itself."""
        own = self.scores.get(Cell(family, method, metric, steps), {})
        base = self.scores.get(Cell(family, over, metric, steps), {})
        seeds = sorted(own.keys() & base.keys()) if method != over else []
        return [own[seed] for seed in seeds], [base[seed] for seed in seeds]


def read_results(path: Path) -> Results:
    """Read `results.parquet`.

    Raises:
        UsageError: It is no such table, or has two rows for one number of one encoder.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as err:
        raise UsageError(f"not a table of results: {err} ({str(path)!r})") from err
    return results_of(table)


def results_of(table: pa.Table) -> Results:
    """Return the rows of a table of results, by cell and seed.

    Raises:
        UsageError: A column is missing, or there are two rows for one number of one encoder.
    """
    columns = RESULT_FIELDS.names
    if missing := [name for name in columns if name not in table.column_names]:
        raise UsageError(f"a table of results has the columns {columns}, not {missing}")
    resampled = table["resampled"].combine_chunks()
    scores: dict[Cell, dict[int, Score]] = {}
    for number, row in enumerate(table.drop_columns(["resampled"]).to_pylist()):
        metric = Metric(row["downstream"], row["metric"])
        cell = Cell(row["family"], row["method"], metric, row["steps"])
        of_cell = scores.setdefault(cell, {})
        if row["seed"] in of_cell:
            raise UsageError(f"the results hold two rows of seed {row['seed']} of {tuple(cell)}")
        resampled_B = resampled[number].values.to_numpy(zero_copy_only=False)
        of_cell[row["seed"]] = Score(*metric, row["value"], row["chance"], resampled_B)
    return Results(scores)


def _arrays(scores: Iterable[Score]) -> tuple[np.ndarray, np.ndarray]:
    """Return values `(S,)` and resampled values `(S, B)`."""
    scores = list(scores)
    return np.array([s.value for s in scores]), np.stack([s.resampled_B for s in scores])

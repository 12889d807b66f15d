"""Tables, figures and costs of a finished experiment, and the pages that show them."""

from collections.abc import Sequence
from pathlib import Path

from manifests import write_atomic

from .comparisons import read_results
from .experiment import Experiment, Scored
from .grid import FAMILIES
from .papers import read_papers
from .tables import write_tables


def write_report(
    experiment: Experiment, scored: Sequence[Scored], work: Path, docs: Path | None
) -> None:
    """Write `tables.md` and the figures; put them into the pages of `docs`, if given."""
    results = read_results(work / "results.parquet")
    names = {at.method.name for at in scored}
    methods = {
        family: [
            method.name
            for method in experiment.grid.methods
            if family in method.families and method.name in names
        ]
        for family in FAMILIES
    }
    methods = {family: chosen for family, chosen in methods.items() if chosen}
    write_atomic(work / "tables.md", write_tables(results, methods, read_papers()).encode())

"""Tables, figures and costs of a finished experiment, and the pages that show them."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features import Annotations, FeatureStore, compare_boundaries, compare_similarity
from manifests import read_segments, write_atomic

from ..marks import replace_between
from .cache import all_nodes, cpu_seconds
from .comparisons import BASELINE, Results, read_results
from .experiment import Experiment, Scored
from .figures import draw_curves, draw_gains, draw_headline
from .grid import FAMILIES
from .papers import read_papers
from .stages import STORE
from .tables import markdown, write_tables

SIMILAR = (BASELINE, "moco", "pal")
BOUNDARIES = (BASELINE, "boundaries")
TEST = "test"


def write_report(
    experiment: Experiment, scored: Sequence[Scored], work: Path, docs: Path | None, scale: str
) -> None:
    """Write tables and figures; put them into the pages of `docs`, if given."""
    results = read_results(work / "results.parquet")
    tables = make_tables(experiment, scored, results)
    costs = make_costs(experiment, scored, work / "cache")
    write_atomic(work / "tables.md", f"{tables}\n\n{costs}\n".encode())
    for folder in [work, *([docs] if docs else [])]:
        draw(experiment, scored, results, work / "cache", folder)
    if docs:
        replace_between(docs / "proof.md", "table", f"{machine(scale)}\n\n{tables}")
        replace_between(docs / "choosing.md", "costs", f"{machine(scale)}\n\n{costs}")


def make_tables(experiment: Experiment, scored: Sequence[Scored], results: Results) -> str:
    """Return the tables of all families, with the papers' gains and the controls beside ours."""
    controls = {method.name: method.control for method in experiment.grid.methods if method.control}
    return write_tables(results, methods_by_family(experiment, scored), read_papers(), controls)


def draw(
    experiment: Experiment,
    scored: Sequence[Scored],
    results: Results,
    cache: Path,
    folder: Path,
) -> None:
    """Draw every figure that the methods allow, as `proof-*.png`."""
    methods = methods_by_family(experiment, scored)
    draw_gains(results, methods, folder / "proof-gains.png")
    draw_curves(results, methods, folder / "proof-curves.png")
    most = max(method.seeds for method in experiment.grid.methods)
    main = {
        family: [
            name
            for name in names
            if (method := experiment.named(name)).seeds == most
            and set(method.parts or [name]) != {BASELINE}  # one classification, or several
        ]
        for family, names in methods.items()
    }
    if all(main.values()):
        draw_headline(results, main, folder / "proof-headline.png")
    drawn = {at.method.name for at in scored}
    annotations = Annotations.of(
        read_segments(experiment.videos.folder(cache) / "segments.parquet")
    )
    if drawn.issuperset(SIMILAR):
        compare_similarity(
            stores(experiment, SIMILAR, cache),
            annotations.video_ids(TEST)[0],
            folder / "proof-similarity.png",
            annotations=annotations,
        )
    if drawn.issuperset(BOUNDARIES):
        compare_boundaries(
            stores(experiment, BOUNDARIES, cache),
            annotations,
            folder / "proof-boundaries.png",
            subset=TEST,
        )


def stores(experiment: Experiment, names: Sequence[str], cache: Path) -> dict[str, FeatureStore]:
    """Return the features of the first seed of methods, by name."""
    steps = experiment.grid.budget.steps
    return {
        name: FeatureStore.open(
            experiment.store(experiment.named(name), experiment.first_seed, steps).folder(cache)
            / STORE
        )
        for name in names
    }


def make_costs(experiment: Experiment, scored: Sequence[Scored], cache: Path) -> str:
    """Return a table of the processor time of rendering and training, per run of a method."""
    seeds: dict[str, set[int]] = {}
    for at in scored:
        if not at.method.parts:
            seeds.setdefault(at.method.name, set()).add(at.seed)
    rows = []
    for name, numbers in seeds.items():
        runs = [experiment.run(experiment.named(name), seed) for seed in sorted(numbers)]
        trained = [cpu_seconds(run, cache) for run in runs]
        rendered = [cpu_seconds(run.inputs[0], cache) for run in runs]
        rows.append([f"`{name}`", *(f"{np.mean(s):.0f} s" for s in (rendered, trained))])
    total = sum(cpu_seconds(node, cache) for node in all_nodes([s.node for s in scored]))
    note = f"The whole experiment took {total / 3600:.1f} hours of processor time."
    return f"{markdown(['method', 'render', 'train'], rows)}\n\n{note}"


def machine(scale: str) -> str:
    """Return what it ran on, and the command."""
    command = f"python -m benchmarks.pretraining WORK --scale {scale}"
    return f"{os.cpu_count()} cores, {platform.machine()}, `{command}`:"


def methods_by_family(experiment: Experiment, scored: Sequence[Scored]) -> dict[str, list[str]]:
    """Return the names of the methods of each family that were scored, in the grid's order."""
    names = {at.method.name for at in scored}
    methods = {
        family: [
            method.name
            for method in experiment.grid.methods
            if family in method.families and method.name in names
        ]
        for family in FAMILIES
    }
    return {family: chosen for family, chosen in methods.items() if chosen}

"""Tables, figures and costs of a finished experiment, and the pages that show them."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
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
from .stages import RUN, STORE, stream_name
from .tables import UNKNOWN, markdown, write_tables

SIMILAR = (BASELINE, "moco", "pal")
BOUNDARIES = (BASELINE, "boundaries")
START = "start"
TEST = "test"


def write_report(
    experiment: Experiment, scored: Sequence[Scored], work: Path, docs: Path | None, scale: str
) -> None:
    """Write tables and figures; put them into the pages of `docs`, if given."""
    results = read_results(work / "results.parquet")
    tables = make_tables(experiment, scored, work / "cache", results)
    costs = make_costs(experiment, scored, work / "cache")
    write_atomic(work / "tables.md", f"{tables}\n\n{costs}\n".encode())
    for folder in [work, *([docs] if docs else [])]:
        draw(experiment, scored, results, work / "cache", folder)
    if docs:
        replace_between(docs / "proof.md", "table", f"{machine(scale)}\n\n{tables}")
        replace_between(docs / "choosing.md", "costs", f"{machine(scale)}\n\n{costs}")


def make_tables(
    experiment: Experiment, scored: Sequence[Scored], cache: Path, results: Results
) -> str:
    """Return the tables of all families, and what was learnt of every pretext itself."""
    controls = {method.name: method.control for method in experiment.grid.methods if method.control}
    methods = methods_by_family(experiment, scored)
    tables = write_tables(results, methods, read_papers(), controls)
    return f"{tables}\n\n### The pretexts themselves\n\n{make_pretexts(experiment, scored, cache)}"


def make_pretexts(experiment: Experiment, scored: Sequence[Scored], cache: Path) -> str:
    """Return a table of the objectives' own scores on held-out clips, means of the seeds."""
    whole = experiment.grid.budget.steps
    found: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = {}
    for method, seeds in seeds_by_method(scored).items():
        for seed in seeds:
            run = experiment.run(experiment.named(method), seed).folder(cache) / RUN
            for step, name, score, chance in held_out_scores(run):
                of_score = found.setdefault((method, name), {})
                of_score.setdefault(step, []).append((score, chance))
    rows = []
    for (method, name), of_step in found.items():
        if whole in of_step:
            (end, chance), half = np.mean(of_step[whole], axis=0), of_step.get(whole // 2)
            before = f"{np.mean(half, axis=0)[0]:.3f}" if half else UNKNOWN
            rows.append([f"`{method}`", name, f"{chance:.3f}", before, f"{end:.3f}"])
    header = ["method", "held-out score", "chance", f"{whole // 2:,} steps", f"{whole:,} steps"]
    return markdown(header, rows, num_texts=2)


def held_out_scores(run: Path) -> Iterator[tuple[int, str, float, float]]:
    """Yield step, name, score and chance of what a run scored on its held-out clips.

    What has no chance to be compared with is left out: losses, and scores of single classes.
    """
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "validation":
            for name in event:
                if f"{name}_chance" in event:
                    yield (
                        event["step"],
                        name.replace("_", " "),
                        event[name],
                        event[f"{name}_chance"],
                    )


def seeds_by_method(scored: Sequence[Scored]) -> dict[str, list[int]]:
    """Return of which seeds each method that is trained was scored."""
    seeds: dict[str, set[int]] = {}
    for at in scored:
        if not at.method.parts:
            seeds.setdefault(at.method.name, set()).add(at.seed)
    return {name: sorted(numbers) for name, numbers in seeds.items()}


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
            if experiment.named(name).seeds == most and name not in (BASELINE, START)
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
            experiment.store(experiment.named(name), experiment.first_seed).folder(cache) / STORE
        ).select([stream_name(steps)])
        for name in names
    }


def make_costs(experiment: Experiment, scored: Sequence[Scored], cache: Path) -> str:
    """Return a table of the processor time of rendering and training, per run of a method."""
    rows = []
    for name, seeds in seeds_by_method(scored).items():
        runs = [experiment.run(experiment.named(name), seed) for seed in seeds]
        took = [cpu_seconds(nodes, cache) for nodes in ([run.inputs[0] for run in runs], runs)]
        rows.append([f"`{name}`", *(f"{np.mean(s):.0f} s" if s else UNKNOWN for s in took)])
    nodes = all_nodes([at.node for at in scored])
    known = cpu_seconds(nodes, cache)
    note = (
        f"{len(known):,} of {len(nodes):,} parts: {sum(known) / 3600:.1f} hours of processor time"
    )
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

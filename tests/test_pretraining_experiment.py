"""The pretraining experiment: equal budgets, work found again, and the whole of it in small."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch

import benchmarks.pretraining as package
from benchmarks.pretraining import stages
from benchmarks.pretraining.__main__ import alone, main, parse
from benchmarks.pretraining.cache import Node, all_nodes, make_all
from benchmarks.pretraining.experiment import Experiment
from benchmarks.pretraining.grid import Grid, frames_of_sample, merge, read_grid
from benchmarks.pretraining.records import Score, write_scores
from benchmarks.pretraining.stages import write_recipe
from manifests import UsageError, read_recipe_table
from train import load_initial_weights
from train.backbones.tsm import TSM, TSMArguments

HERE = Path(package.__file__).parent
SCALES = ("small", "full")
TINY = """
[grid]
methods = "methods.toml"
train = {backbone = "tsm", backbone_arguments = {depth = 18, width = 8}, optimiser = "adamw", \
learning_rate = 1e-3, validation_fraction = 0.0, loader_threads = 1}

[grid.videos]
seed = 0
num_train_per_class = 1
num_untrimmed = 4
untrimmed_seconds = 10.0
trimmed_frames = [40, 48]

[grid.budget]
steps = 4
frames_per_step = 32
frames_per_video = 32
start_steps = 2

[grid.snippets]
fps = "15/2"
snippet_len = 8
snippet_stride = 8

[grid.synth]
frames = 8
frame_stride = 2
short_side = [36, 40]
crop = 32

[grid.downstream]
ssdet = ["frames"]
bsp = ["gtad", "retimed"]
heads.gtad = {epochs = 1, arguments = {temporal_scale = 8, hidden_dim = 8}}
finetune = {batch_size = 2, steps = 1}
finetune_synth = {samples_per_video = 2}
"""
METHODS = """
[methods.classification]
families = ["ssdet", "bsp"]
seeds = 2
synth = {kinds = {clip = 1}}
train = {objective = "classification"}

[methods.freeze]
families = ["ssdet"]
seeds = 1
is_from_start = false
synth = {kinds = {freeze = 1}}
train = {objective = "detection"}

[methods.ensemble]
families = ["ssdet"]
seeds = 1
average = ["classification", "freeze"]

[methods.twice]
families = ["ssdet"]
seeds = 2
concat = ["classification", "classification"]

[methods.still]
families = ["bsp"]
seeds = 1
synth = {kinds = {clip = 1}}
train = {objective = "classification", steps = 1}
"""


@pytest.mark.parametrize("scale", SCALES)
def test_every_method_has_the_same_budget(scale: str) -> None:
    """Steps, frames per step and rendered frames per video are one for all that learn."""
    grid = read_grid(HERE / f"{scale}.toml")
    spent = set()
    for method in grid.methods:
        if "steps" in method.train:
            assert method.train["learning_rate"] < 1e-9
        elif not method.parts:
            synth, train = grid.synth_of(method, 0), grid.train_of(method, 0)
            frames = frames_of_sample(synth)
            rendered = frames * synth["samples_per_video"]
            spent.add((train["steps"], frames * train["batch_size"], rendered))
            assert train["keep_at"] == [train["steps"] // 4, train["steps"] // 2]
    assert len(spent) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_main_rows_have_five_seeds_and_all_others_three(scale: str) -> None:
    grid = read_grid(HERE / f"{scale}.toml")
    assert {method.seeds for method in grid.methods} == {3, 5}
    for family in ("ssdet", "bsp", "pal"):
        methods = [method for method in grid.methods if family in method.families]
        assert methods[0].name == "classification"
        assert sum(method.seeds == 5 for method in methods) >= 3


def test_methods_with_equal_clips_share_shards_and_runs() -> None:
    experiment = Experiment(read_grid(HERE / "small.toml"))

    def shards(name: str, seed: int = 0) -> str:
        return experiment.run(experiment.named(name), seed).inputs[0].digest

    assert shards("classification") == shards("frame_labels")
    assert shards("boundaries") == shards("regression")
    assert shards("classification") != shards("classification", 1)
    assert shards("freeze") != shards("freeze_x2")
    for name, starts in (("freeze", True), ("distillation", True), ("pal_scratch", False)):
        inputs = experiment.run(experiment.named(name), 1).inputs
        assert (experiment.start(1) in inputs) == starts
        assert experiment.start(0) not in inputs
    nodes = all_nodes([scored.node for scored in experiment.scored()])
    runs = {node.digest for node in nodes if node.stage == "run"}
    teachers = experiment.run(experiment.named("distillation"), 0).inputs[2:]
    assert {teacher.digest for teacher in teachers} <= runs


def test_a_method_named_again_is_trained_again_from_the_same_start() -> None:
    """Three classifications share as much as freeze, mixup and cutmix do: the start alone."""
    experiment = Experiment(read_grid(HERE / "small.toml"))
    nodes = {(at.method.name, at.seed, at.task): at.node for at in experiment.scored()}
    members = [
        store.inputs[1]
        for seed in range(5)
        for store in nodes["classification_x3", seed, "linear"].inputs[1:]
    ]
    assert len({run.digest for run in members}) == len({run.inputs[0].digest for run in members})
    assert len(members) == len({run.digest for run in members}) == 15
    assert [run.inputs[1] for run in members[3:6]] == [experiment.start(1)] * 3
    assert members[3] == experiment.run(experiment.named("classification"), 1)
    fine_tuned = nodes["classification_x3", 1, "frames"].inputs[1:]
    assert [run.inputs[1] for run in fine_tuned] == members[3:6]
    *pair, classes = nodes["classification_x2", 1, "gtad"].inputs[1:]
    assert [store.inputs[1] for store in pair] == members[3:5]
    assert classes.inputs[1] == members[3]


def test_a_run_is_told_its_start_and_its_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs of a distillation reach the trainer by their roles, in the objective's order."""
    experiment = Experiment(read_grid(HERE / "small.toml"))
    student = experiment.run(experiment.named("distillation"), 1)
    told: dict[str, Any] = {}

    def train(recipe: Path, shards: Path, out: Path, **roles: Any) -> SimpleNamespace:
        told.update(roles, shards=shards)
        return SimpleNamespace(finished=True)

    monkeypatch.setattr(stages, "train_model", train)
    monkeypatch.setattr(stages, "write_encoder", lambda run, path: told.update(start=run))
    stages.make_run(student.settings, [tmp_path / at.digest for at in student.inputs], tmp_path)
    runs = [experiment.run(experiment.named(name), 1) for name in ("classification", "boundaries")]
    start, *teachers = [tmp_path / node.digest / "run" for node in (experiment.start(1), *runs)]
    assert (told["start"], told["teachers"]) == (start, teachers)
    assert told["init"] == tmp_path / "encoder.safetensors"
    assert told["shards"] == tmp_path / student.inputs[0].digest / "shards"
    stages.make_run({**student.settings, "has_init": False}, [tmp_path, start.parent], tmp_path)
    assert (told["init"], told["teachers"]) == (None, [start])


def test_a_digest_covers_stage_settings_and_inputs() -> None:
    base = Node("a", {"x": 1})
    others = [
        Node("b", {"x": 1}),
        Node("a", {"x": 2}),
        Node("a", {"x": 1}, (Node("b", {}),)),
        Node("a", {"x": 1}, (Node("b", {"y": 0}),)),
    ]
    assert len({node.digest for node in [base, *others]}) == 5
    assert Node("a", {"x": 1}, label="another name").digest == base.digest


def test_a_failed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Inputs come first, nothing is made twice, and a failure costs only its own node."""
    made: list[str] = []
    breaks = {"c"}

    def stage(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
        if settings["name"] in breaks:
            raise RuntimeError("broken")
        assert all((at / "node.json").exists() for at in inputs)
        made.append(settings["name"])

    a, b = Node("s", {"name": "a"}), Node("s", {"name": "b"})
    c = Node("s", {"name": "c"}, (a, b))
    d = Node("s", {"name": "d"}, (a, c))

    def run() -> list[str]:
        told: list[str] = []
        with ThreadPoolExecutor(2) as pool:
            make_all(
                [d], tmp_path, {"s": stage}, pool, 2, lambda n: told.append(n.settings["name"])
            )
        return told

    with pytest.raises(RuntimeError, match="broken"):
        run()
    assert sorted(made) == ["a", "b"]
    breaks.clear()
    assert run() == ["c", "d"]
    assert made[2:] == ["c", "d"]
    assert run() == []


def test_tables_are_merged_but_kinds_replaced() -> None:
    merged = merge(
        {"kinds": {"clip": 1}, "pal": {"num_clips": 4, "beta": [0, 1]}, "crop": 8},
        {"kinds": {"pal": 1}, "pal": {"beta": [1, 1]}},
    )
    assert merged == {"kinds": {"pal": 1}, "pal": {"num_clips": 4, "beta": [1, 1]}, "crop": 8}


def test_recipes_are_written_as_they_are_read(tmp_path: Path) -> None:
    table = {"a": 1, "b": [0.5, 2], "c": {"d": True, "e": {"f": "g\\h"}}, "i": 1e-12}
    write_recipe(tmp_path / "r.toml", synth=table, train={"seed": 0})
    assert read_recipe_table(tmp_path / "r.toml", "synth") == table


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 4", "steps = 4\nstep = 5", "did you mean 'steps'"),
        ("frames_per_step = 32", "frames_per_step = 12", "multiple of the 8 frames"),
        ("frames_per_video = 32", "frames_per_video = 12", "multiple of the 8 frames"),
        ("[grid.snippets]", "[grid.snippet]", "'snippet' is unknown in"),
        ('methods = "methods.toml"', 'methods = "other.toml"', "no such recipe"),
        ("[methods.classification]", "[methods.other]", "the first method must be"),
        ('["classification", "freeze"]', '["ensemble"]', "of 'ensemble', before it"),
        ("seeds = 2\nsynth", "seeds = 0\nsynth", "seeds must be >= 1"),
        ("seeds = 2\nsynth", 'seeds = 2\ncontrol = "x"\nsynth', "the control of 'c.*, got 'x'"),
        ('average = ["cl', 'train = {steps = 1}\naverage = ["cl', "trains nothing of its own"),
        ("start_steps = 2", "start_steps = 0", "start_steps must be >= 1"),
        ('average = ["c', 'concat = ["freeze"]\naverage = ["c', "not both"),
        ("synth = {kinds = {freeze = 1}}", "synth = {}", "needs kinds in synth"),
        ('ssdet = ["frames"]', 'ssdet = ["frame"]', "a task must be one of"),
        (
            "frames_per_video = 32",
            "frames_per_video = 32\nscore_at = [0.1, 1.0]",
            "different steps",
        ),
        ("frames_per_video = 32", "frames_per_video = 32\nscore_at = [1.0, 0.5]", "ascend to 1"),
    ],
)
def test_wrong_recipes(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        list(Experiment(write_grid(tmp_path, old, new)).scored())


def test_one_command_at_a_time(tmp_path: Path) -> None:
    write_grid(tmp_path)
    with alone(tmp_path), pytest.raises(UsageError, match="another command is at work"):
        main(parse([str(tmp_path), "--scale", str(tmp_path / "tiny.toml")]))


def test_parts_of_the_experiment_change_no_page(tmp_path: Path) -> None:
    for wrong in (
        ("--docs", str(tmp_path), "--only", "freeze"),
        ("--first-seed", "5"),
        ("--only", "freeze", "--first-seed", "1000"),
        ("--only", "freeze", "--first-seed", "-1"),
        ("--only",),
        ("--jobs", "0"),
    ):
        with pytest.raises(SystemExit):
            parse([str(tmp_path), *wrong])
    with pytest.raises(UsageError, match="a method must be one of classification, freeze"):
        list(Experiment(write_grid(tmp_path)).scored(["frieze"]))


def test_some_methods_come_with_what_they_are_compared_with(tmp_path: Path) -> None:
    scored = Experiment(write_grid(tmp_path)).scored(["freeze"])
    assert {at.method.name for at in scored} == {"classification", "freeze"}


def test_families_have_the_tasks_that_they_ask_for(tmp_path: Path) -> None:
    """A method of two families is scored once, and has rows where the family does the task."""
    experiment = Experiment(write_grid(tmp_path, 'ssdet = ["frames"]', 'ssdet = ["pdan"]'))
    scored = [at for at in experiment.scored() if at.method.name == "classification"]
    for at in scored:
        at.node.folder(tmp_path).mkdir()
        score = Score(at.task, "map", 0.5, None, np.zeros(2, np.float32))
        write_scores(at.node.folder(tmp_path) / "scores.json", [score])
    found = {(row["family"], row["downstream"]) for row in experiment.rows(scored, tmp_path)}
    assert found == {
        *(("ssdet", "linear"), ("ssdet", "pdan")),
        *(("bsp", "linear"), ("bsp", "gtad"), ("bsp", "retimed")),
    }


def test_encoders_are_handed_on_without_their_class_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = TSM(3, TSMArguments(depth=18, width=8))
    monkeypatch.setattr(stages, "load_run", lambda run: SimpleNamespace(backbone=backbone))
    stages.write_encoder(tmp_path, tmp_path / "encoder.safetensors")
    kept = safetensors.torch.load_file(tmp_path / "encoder.safetensors")
    lost = backbone.state_dict().keys() - kept.keys()
    assert lost == {"new_fc.weight", "new_fc.bias"}
    assert all(weight.equal(backbone.state_dict()[name]) for name, weight in kept.items())
    notes = load_initial_weights(
        TSM(3, TSMArguments(depth=18, width=8)), tmp_path / "encoder.safetensors", "abc"
    )
    assert "class layer" in " ".join(notes)


@pytest.mark.slow
def test_the_whole_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A killed run goes on, a second one only reads, and a changed method makes only its own."""
    write_grid(tmp_path)
    work = tmp_path / "work"
    arguments = [str(work), "--scale", str(tmp_path / "tiny.toml"), "--jobs", "2"]
    kill_after(arguments, work, num_nodes=4)
    kept = records(work)
    main(parse(arguments))
    assert kept.items() <= records(work).items()
    rows = pq.read_table(work / "results.parquet").to_pylist()
    found = {(row["method"], row["seed"], row["steps"], row["downstream"]) for row in rows}
    linear = {(m, s, n, "linear") for m, s in SEEDS for n in (1, 2, 4)}
    still = {("still", 0, 4, task) for task in ("linear", "gtad", "retimed")}
    places = {("classification", s, 4, task) for s in (0, 1) for task in ("gtad", "retimed")}
    assert found == linear | {(m, s, 4, "frames") for m, s in SEEDS} | still | places
    assert {len(row["resampled"]) for row in rows} == {1000}
    assert "`freeze`" in (work / "tables.md").read_text()
    assert (work / "proof-gains.png").exists()
    before = records(work)
    digest = (work / "results.parquet").read_bytes()
    main(parse(arguments))
    assert records(work) == before
    assert (work / "results.parquet").read_bytes() == digest
    write_grid(tmp_path, "kinds = {freeze = 1}", "kinds = {freeze = 1}, freeze = {segments = 2}")
    main(parse(arguments))
    new = [record["stage"] for name, record in records(work).items() if name not in before]
    assert sorted(set(new)) == ["run", "scores", "shards", "store"]
    assert new.count("shards") == 1
    capsys.readouterr()


SEEDS = [("classification", 0), ("classification", 1), ("freeze", 0), ("ensemble", 0)]
SEEDS += [("twice", 0), ("twice", 1)]


def records(work: Path) -> dict[str, dict[str, Any]]:
    """Return the record of every finished part of an experiment."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (work / "cache").glob("*/node.json")
    }


def kill_after(arguments: Sequence[str], work: Path, num_nodes: int) -> None:
    """Run the experiment in processes of its own and kill all of them when some parts are made."""
    command = [sys.executable, "-m", "benchmarks.pretraining", *arguments]
    process = subprocess.Popen(command, cwd=HERE.parents[1], start_new_session=True)
    try:
        end = time.monotonic() + 240
        while len(records(work)) < num_nodes:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_grid(folder: Path, old: str = "", new: str = "") -> Grid:
    """Write a small recipe and its methods, with one text replaced, and read it."""
    assert old in TINY + METHODS
    (folder / "tiny.toml").write_text(TINY.replace(old, new) if old else TINY)
    (folder / "methods.toml").write_text(METHODS.replace(old, new) if old else METHODS)
    return read_grid(folder / "tiny.toml")

"""The training loop: learning, exact resume, and wrong use."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import CLASSES, write_moving_shards

from manifests import CheckpointError, UsageError
from train import channels_last, load_run, read_train_recipe, train_model
from train.loop import Training, seed_step
from train.schedule import build_optimiser, learning_rate

pytestmark = pytest.mark.slow

BASE: dict[str, Any] = {
    "batch_size": 4,
    "learning_rate": 0.05,
    "steps": 6,
    "validation_fraction": 0.2,
    "checkpoint_every": 2,
    "log_every": 2,
    "max_grad_norm": 5.0,
    "backbone_arguments": {
        "depth_factor": 0.2,
        "width_factor": 0.4,
        "feature_dim": 16,
        "dropout": 0.2,
    },
}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write a recipe; the values None leave a key out."""
    lines = []
    for key, value in {**BASE, **changes}.items():
        if isinstance(value, dict):
            value = "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + "}"
        elif value is not None:
            value = json.dumps(value)
        if value is not None:
            lines.append(f"{key} = {value}")
    path = folder / f"recipe-{len(list(folder.glob('recipe-*')))}.toml"
    path.write_text("[train]\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from a second thread, and lose much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_shards(tmp_path_factory.mktemp("made") / "out", 20)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("clips_per_second", None)
    return lines


def test_a_run_writes_what_it_promises(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = train_model(write_recipe(tmp_path), shards, run, device="cpu")
    assert report.finished
    assert (report.step, report.num_steps) == (6, 6)
    assert (report.num_samples, report.num_held_out) == (16, 4)
    assert math.isfinite(report.loss)
    assert sorted(path.name for path in run.iterdir()) == [
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "resume.pt",
    ]
    model = load_run(run)
    assert model.record["classes"] == list(CLASSES)
    assert [model.record[key] for key in ("frames", "height", "width")] == [4, 32, 32]
    assert model.record["num_outputs"] == 5
    lines = metrics(run)
    events = [(line["event"], line.get("step")) for line in lines]
    assert events == [
        ("settings", None),
        ("step", 2),
        ("step", 4),
        ("step", 6),
        ("validation", 6),
    ]
    assert {"loss", "frame_map", "frame_map_chance"} <= lines[-1].keys()
    assert report.scores == {k: v for k, v in lines[-1].items() if k not in ("event", "step")}


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_stopped_and_resumed_is_bit_identical(
    shards: Path, tmp_path: Path, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(
        tmp_path, optimiser=optimiser, steps=9, warmup_steps=2, validate_every=3, log_every=2
    )
    train_model(recipe, shards, tmp_path / "whole", device="cpu")
    once = Training.train_step

    def interrupted(self: Any, batch: Any, stop: bool = False) -> None:
        once(self, batch, stop)
        if self.step == 5:  # between two checkpoints and in the middle of an epoch
            raise MemoryError

    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(MemoryError):
        train_model(recipe, shards, tmp_path / "cut", device="cpu")
    monkeypatch.undo()
    assert load_run(tmp_path / "cut").record["step"] == 4
    report = train_model(recipe, shards, tmp_path / "cut", resume=True, device="cpu")
    assert report.finished
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def run_in_process(
    recipe: Path, shards: Path, run: Path, resume: bool = False
) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from train import train_model; "
        "train_model(*sys.argv[1:4], resume=sys.argv[4] == 'True', device='cpu')"
    )
    arguments = [str(recipe), str(shards), str(run), str(resume)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


@pytest.mark.slow
def test_killed_at_any_time_and_resumed_is_bit_identical(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, steps=40, checkpoint_every=1)
    assert run_in_process(recipe, shards, tmp_path / "whole").wait() == 0
    rng, num_kills = np.random.default_rng(0), 0
    while True:
        run = tmp_path / "cut"
        process = run_in_process(recipe, shards, run, resume=run.exists())
        begin = time.monotonic()
        while process.poll() is None and not (run / "resume.pt").exists():
            time.sleep(0.01)
        started = (run / "resume.pt").stat().st_mtime_ns
        while process.poll() is None and (run / "resume.pt").stat().st_mtime_ns == started:
            time.sleep(0.01)  # it makes headway every time
        time.sleep(rng.uniform(0, 0.2))
        assert time.monotonic() - begin < 60
        if process.poll() is None and num_kills < 4:
            process.send_signal(signal.SIGKILL)
            num_kills += 1
        if process.wait() == 0:
            break
    assert num_kills >= 2
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_an_interrupt_saves_and_ends(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, steps=8, checkpoint_every=100)
    once = Training.train_step

    def interrupt(self: Any, batch: Any, stop: bool = False) -> None:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            stop = True
        once(self, batch, stop)

    before = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", interrupt)
        report = train_model(recipe, shards, tmp_path / "run", device="cpu")
    assert signal.getsignal(signal.SIGINT) is before
    assert not report.finished
    assert report.step == 3
    assert load_run(tmp_path / "run").record["step"] == 3
    assert train_model(recipe, shards, tmp_path / "run", resume=True, device="cpu").finished


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["classification", "detection"])
def test_it_learns_a_handful_of_clips(tmp_path: Path, objective: str) -> None:
    out = write_moving_shards(tmp_path / "out", 16, num_frames=8)
    recipe = write_recipe(
        tmp_path,
        objective=objective,
        steps=80,
        batch_size=8,
        learning_rate=0.01,
        optimiser="adamw",
        warmup_steps=5,
        validation_fraction=0.0,
        log_every=5,
    )
    train_model(recipe, out, tmp_path / "run", device="cpu")
    losses = [line["loss"] for line in metrics(tmp_path / "run") if line["event"] == "step"]
    assert losses[0] > 1.0  # ln 4 = 1.39 for guessing
    assert losses[-1] < 0.25


def test_epochs_are_whole_passes(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, steps=None, epochs=2, batch_size=5)
    report = train_model(recipe, shards, tmp_path / "run", device="cpu")
    assert report.num_steps == 2 * (16 // 5)


def test_initial_weights_come_from_a_run(shards: Path, tmp_path: Path) -> None:
    first = write_recipe(tmp_path, steps=2)
    train_model(first, shards, tmp_path / "first", device="cpu")
    second = write_recipe(tmp_path, steps=1, learning_rate=1e-12, objective="classification")
    report = train_model(second, shards, tmp_path / "second", init=tmp_path / "first", device="cpu")
    assert "the class layer starts anew" in report.notes[0]  # one output more for background
    state_first, state_second = (
        load_run(tmp_path / name).backbone.state_dict() for name in ("first", "second")
    )
    name = "blocks.0.conv.conv_t.weight"
    torch.testing.assert_close(state_first[name], state_second[name])


def test_a_resumed_run_keeps_its_initial_weights(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `init` gave is in the very first checkpoint: `--resume` does not need the file."""
    train_model(write_recipe(tmp_path, steps=2), shards, tmp_path / "first", device="cpu")
    recipe = write_recipe(tmp_path, steps=3, checkpoint_every=100)
    options = {"init": tmp_path / "first", "device": "cpu"}
    train_model(recipe, shards, tmp_path / "whole", **options)  # type: ignore[arg-type]
    monkeypatch.setattr(Training, "train_step", _out_of_memory)
    with pytest.raises(MemoryError):
        train_model(recipe, shards, tmp_path / "cut", **options)  # type: ignore[arg-type]
    monkeypatch.undo()
    train_model(recipe, shards, tmp_path / "cut", resume=True, device="cpu")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def _out_of_memory(*args: Any) -> None:
    raise MemoryError


def test_existing_and_missing_runs(shards: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, steps=1), tmp_path / "run"
    with pytest.raises(UsageError, match="there is no run to resume"):
        train_model(recipe, shards, run, resume=True)
    assert not run.exists()
    train_model(recipe, shards, run, device="cpu")
    with pytest.raises(UsageError, match=r"exists: go on with --resume"):
        train_model(recipe, shards, run)
    before = weights(run)
    assert train_model(recipe, shards, run, resume=True, device="cpu").finished
    assert weights(run) == before


def test_resuming_something_else(shards: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, steps=1), tmp_path / "run"
    train_model(recipe, shards, run, device="cpu")
    other = write_recipe(tmp_path, steps=1, learning_rate=0.5)
    with pytest.raises(CheckpointError, match=r"learning_rate = 0\.05, the recipe says 0\.5"):
        train_model(other, shards, run, resume=True)
    more = write_moving_shards(tmp_path / "more", 24)
    with pytest.raises(CheckpointError, match="trained on other shards"):
        train_model(recipe, more, run, resume=True)
    renamed = write_moving_shards(tmp_path / "renamed", 20, classes=("a", "b", "c", "d"))
    with pytest.raises(CheckpointError, match="trained on 4 other classes"):
        train_model(recipe, renamed, run, resume=True)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="shorter than when the run was saved"):
        train_model(recipe, shards, run, resume=True, device="cpu")


def test_wrong_use_writes_nothing(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"batch_size": 17}, {}, r"at most the number of training samples, got 17 for 16"),
        ({"precision": "bf16"}, {"device": "cpu"}, "needs a CUDA device"),
        ({}, {"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({}, {"workers": 3, "device": "cpu"}, "workers must be >= 1 and divide batch_size"),
        ({"kinds": ["freeze"]}, {}, "no samples of kind 'freeze', only clip"),
    ]
    for changes, options, message in cases:
        with pytest.raises(UsageError, match=message):
            train_model(write_recipe(tmp_path, **changes), shards, run, **options)
    with pytest.raises(UsageError, match="no such folder of shards"):
        train_model(write_recipe(tmp_path), tmp_path / "absent", run)
    assert not run.exists()


def test_clips_too_small_for_the_backbone_are_said_before_anything_is_written(
    shards: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, backbone="i3d", backbone_arguments={"width": 0.125})
    with pytest.raises(UsageError, match="'i3d' takes clips of at least 8 frames of 32x32, got 4"):
        train_model(recipe, shards, tmp_path / "run")
    flow = {"width": 0.125, "in_channels": 2}
    recipe = write_recipe(tmp_path, backbone="i3d", backbone_arguments=flow)
    with pytest.raises(UsageError, match="shards have 3 channels, but in_channels is 2"):
        train_model(recipe, shards, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_explodes_is_said(shards: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, learning_rate=1e30, max_grad_norm=0.0)
    with pytest.raises(UsageError, match="the loss must stay finite, got nan at step"):
        train_model(recipe, shards, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"unknown key 'epoch' in \[train\], did you mean 'epochs'\?"),
        ({"epochs": 3}, "either steps or epochs"),
        ({"steps": "many"}, r"train\.steps must be a whole number, got 'many'"),
        ({"objective": "detect"}, "objective must be one of 'classification', 'detection'"),
        ({"loss": "mse"}, "loss must be one of 'cross_entropy', 'bce', got 'mse'"),
        ({"backbone": "x4d"}, "backbone must be one of 'x3d', .*got 'x4d'"),
        ({"backbone_arguments": {"width": 2.0}}, "unknown key 'width'.*'width_factor'"),
        ({"backbone_arguments": {"size": "XL"}}, "size must be one of 'XS', 'S', 'M', 'L'"),
        ({"schedule": "step"}, "milestones belong to schedule 'step'"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"momentum": -0.5}, r"momentum must be in \[0, 1\), got -0.5"),
        ({"gamma": -2.0}, "gamma and std must be > 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\), got 1.0"),
        ({"optimiser": "lamb"}, "optimiser must be one of 'sgd', 'adam', 'adamw', got 'lamb'"),
    ],
)
def test_recipe_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_train_recipe(write_recipe(tmp_path, **changes))
    assert "recipe-0.toml" in str(error.value)


def test_recipe_digest_follows_what_it_says(tmp_path: Path) -> None:
    base = read_train_recipe(write_recipe(tmp_path))
    same = read_train_recipe(write_recipe(tmp_path, momentum=0.9))  # the default, spelt out
    other = read_train_recipe(write_recipe(tmp_path, momentum=0.8))
    assert base.digest == same.digest
    assert base.digest != other.digest


def test_learning_rate_by_hand(tmp_path: Path) -> None:
    recipe = read_train_recipe(write_recipe(tmp_path, learning_rate=8.0, warmup_steps=4))
    rates = [learning_rate(recipe, step, 12) for step in (0, 1, 3, 4, 8)]
    assert rates == pytest.approx([2, 4, 8, 8, 4])  # half way down the cosine
    assert 0 < learning_rate(recipe, 11, 12) < 0.5
    steps = read_train_recipe(
        write_recipe(tmp_path, learning_rate=1.0, schedule="step", milestones=[2, 4], gamma=0.5)
    )
    assert [learning_rate(steps, step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_norms_and_biases_have_no_decay(tmp_path: Path) -> None:
    recipe = read_train_recipe(write_recipe(tmp_path, weight_decay=0.1))
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    decayed, spared = build_optimiser(recipe, layers.parameters()).param_groups
    assert decayed["weight_decay"] == 0.1
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 3


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_one_call_updates_all_weights_as_one_by_one(tmp_path: Path, optimiser: str) -> None:
    """Against torch's loop over tensors, on weights whose channels stand last in memory."""
    recipe = read_train_recipe(write_recipe(tmp_path, optimiser=optimiser, weight_decay=0.1))
    updated = []
    for fused in (True, False):
        torch.manual_seed(0)
        wide, deep = torch.nn.Conv3d(3, 8, 3), torch.nn.Conv3d(8, 8, 3, groups=8)
        layers = torch.nn.Sequential(torch.nn.BatchNorm3d(3), wide, deep)
        channels_last(layers)
        assert wide.weight.is_contiguous(memory_format=torch.channels_last_3d)
        built = build_optimiser(recipe, layers.parameters())
        for group in built.param_groups:
            group["fused"] = fused
        for _ in range(5):
            built.zero_grad()
            layers(torch.randn(2, 3, 7, 7, 7)).square().mean().backward()
            built.step()
        updated.append(torch.cat([p.detach().flatten() for p in layers.parameters()]))
    torch.testing.assert_close(*updated, rtol=1e-5, atol=1e-6)


def test_a_run_saved_without_the_one_call_goes_on_without_it(tmp_path: Path) -> None:
    """A checkpoint says how its weights are updated: an older run ends with the same bits."""
    recipe = read_train_recipe(write_recipe(tmp_path, optimiser="adamw"))
    built, older = (build_optimiser(recipe, torch.nn.Linear(2, 3).parameters()) for _ in range(2))
    for group in older.param_groups:
        group["fused"] = None  # torch's default, as it was
    built.load_state_dict(older.state_dict())
    assert [group["fused"] for group in built.param_groups] == [None, None]


def test_a_seeded_step_is_that_of_torch() -> None:
    stream = np.random.SeedSequence(7, spawn_key=(3, 0))
    torch.manual_seed(int(stream.generate_state(1, np.uint64)[0]))
    expected = torch.rand(5)
    seed_step(7, 3)
    assert torch.equal(torch.rand(5), expected)


def test_every_step_has_its_own_random_numbers() -> None:
    drawn = []
    for step in (0, 1, 2, 0):
        seed_step(7, step)
        drawn.append(float(torch.rand(1)))
    assert len(set(drawn)) == 3
    assert drawn[3] == drawn[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_it_learns_on_a_gpu(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 16, num_frames=8)
    recipe = write_recipe(
        tmp_path,
        steps=80,
        batch_size=8,
        learning_rate=0.01,
        optimiser="adamw",
        validation_fraction=0.0,
        compile=True,
    )
    report = train_model(recipe, out, tmp_path / "run")
    assert report.loss < 0.25
    (settings, *_) = metrics(tmp_path / "run")
    assert settings["device"] == "cuda"
    assert settings["bf16"]

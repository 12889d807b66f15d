"""Data-parallel training: N workers end as one does, on Ray Train and under torchrun.

Equal means equal but for the order in which float32 numbers are added.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from made_processes import below
from made_runs import SMALL_X3D, step_losses, write_small_recipe
from made_shards import write_moving_shards, write_pasted_pairs
from ray.cluster_utils import Cluster

from manifests import Progress, ShardError, UsageError
from train import load_run, train_model
from train.checkpoint import read_resume
from train.parallel import Torchrun, Worker, check_same_step
from train.ray_workers import Place, show

NUM_STEPS = 40
CHECKPOINT_EVERY = 5
# Seen after these steps: 1.5e-7 of a loss, 1e-6 in a weight. Where a training is unstable, as this
# one at ten times the learning rate, rounding grows from step to step.
LEARNING_RATE = 0.001
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-6, 1e-5
TRAIN = "import sys, cli; sys.argv[0] = 'train'; cli.train()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a recipe with dropout and batch norm, and the run `one` of one worker."""
    folder = tmp_path_factory.mktemp("parallel")
    write_moving_shards(folder / "shards", 20)
    recipe = write_small_recipe(
        folder,
        "detection",
        steps=NUM_STEPS,
        learning_rate=LEARNING_RATE,
        checkpoint_every=CHECKPOINT_EVERY,
        backbone_arguments={**SMALL_X3D, "dropout": 0.3},
    )
    recipe.rename(folder / "recipe.toml")
    train_model(folder / "recipe.toml", folder / "shards", folder / "one", device="cpu")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Return the address of a Ray cluster of two nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        yield nodes.address
        nodes.shutdown()


def words(folder: Path, run: Path, *more: object) -> list[str]:
    """Return the words of a `train` command."""
    options = ["--shards", folder / "shards", "--out", run, "--device", "cpu", *more]
    return list(map(str, [folder / "recipe.toml", *options]))


def torchrun(count: int, *arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Start `train` under torchrun, as the user would: here the command is not on the PATH."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    launch += ["--max-restarts", str(restarts), "--no-python", sys.executable, "-c", TRAIN]
    return subprocess.Popen(
        [sys.executable, *launch, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_until(condition: Callable[[], bool], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def losses_so_far(run: Path) -> int:
    """Return how many losses a run has written down; 0 before it has begun."""
    return len(step_losses(run)) if (run / "metrics.jsonl").exists() else 0


def check_equal(run: Path, one: Path) -> None:
    """Compare the losses and the weights of two finished runs."""
    assert step_losses(run) == pytest.approx(step_losses(one), rel=LOSS_TOLERANCE)
    states = [load_run(path).backbone.state_dict() for path in (run, one)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        torch.testing.assert_close(states[0][name], tensor, rtol=0, atol=WEIGHT_TOLERANCE)


# -- on Ray Train --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_two_end_as_one(
    folder: Path, tmp_path: Path, cluster: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker dies in mid-epoch; the run goes on from its checkpoint, and ends by itself."""
    run, killed = tmp_path / "run", []

    def kill() -> None:
        wait_until(lambda: losses_so_far(run) >= 8)
        killed.append(below(os.getpid(), b"ray::RayTrainWorker")[-1])
        os.kill(killed[-1], signal.SIGKILL)

    recipe, shards = folder / "recipe.toml", folder / "shards"
    killer = threading.Thread(target=kill)
    killer.start()
    report = train_model(recipe, shards, run, device="cpu", workers=2, address=cluster)
    killer.join()
    assert len(killed) == 1
    assert report.finished
    assert report.loss == pytest.approx(step_losses(folder / "one")[-1], rel=LOSS_TOLERANCE)
    check_equal(run, folder / "one")
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert all(line.startswith("train: ") for line in stderr.splitlines()), stderr


@pytest.mark.slow
def test_an_error_in_a_worker_keeps_its_type(tmp_path: Path, cluster: str) -> None:
    out = write_moving_shards(tmp_path / "out", 8)
    path = out / "shard-000001.tar"
    path.write_bytes(bytes(path.stat().st_size))
    recipe, run = write_small_recipe(tmp_path, "detection", validation_fraction=0.0), tmp_path / "r"
    with pytest.raises(ShardError, match=r"shard-000001\.tar") as error:
        train_model(recipe, out, run, device="cpu", workers=2, address=cluster)
    assert len(str(error.value).splitlines()) == 1
    assert (run / "resume.pt").exists()  # a worker said it: the first shard was sound


@pytest.mark.slow
def test_more_workers_than_the_cluster_holds(folder: Path, tmp_path: Path, cluster: str) -> None:
    recipe, run = folder / "recipe.toml", tmp_path / "run"
    with pytest.raises(UsageError, match="a CPU for each worker, got 4 workers for 2 CPUs"):
        train_model(recipe, folder / "shards", run, device="cpu", workers=4, address=cluster)
    assert not run.exists()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_another_number_of_workers(
    folder: Path, tmp_path: Path
) -> None:
    """Ctrl-C reaches all processes of the terminal; the step is finished and saved.

    What the workers read in other numbers, `test_loader.py` asks.
    """
    run = tmp_path / "run"
    command = [sys.executable, "-c", TRAIN, *words(folder, run, "--workers", 2)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: driver.poll() is not None or losses_so_far(run) >= 3)
    os.killpg(driver.pid, signal.SIGINT)
    _, stderr = driver.communicate(timeout=200)
    assert driver.returncode == 1, stderr
    lines = stderr.splitlines()
    assert lines[-1].startswith("interrupted: go on with `train ")
    assert all(line.startswith("train: ") for line in lines[:-1]), stderr
    state = read_resume(run)
    assert state is not None
    assert 6 <= state["step"] < NUM_STEPS
    recipe, shards = folder / "recipe.toml", folder / "shards"
    assert train_model(recipe, shards, run, resume=True, device="cpu").finished
    check_equal(run, folder / "one")


def test_steps_lost_with_a_worker_are_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    places = [Place(4, 5, ""), Place(4, 9, ""), Place(8, 8, ""), Place(8, 10, "loss 1.000")]
    shown = Place(0, 0, "")
    with Progress("train", "steps", 12) as bar:
        for place in places:
            show(bar, shown, place)
            shown = place
    assert capsys.readouterr().err.startswith("train: 10/12 steps")


# -- under torchrun ------------------------------------------------------------------------------


def test_what_torchrun_says_of_a_process() -> None:
    said = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    assert Torchrun.of(said) is None
    said["MASTER_ADDR"] = "localhost"
    assert Torchrun.of(said) == Torchrun(3, 1, 4, 2, 0)
    assert Torchrun.of(said | {"TORCHELASTIC_RESTART_COUNT": "2"}) == Torchrun(3, 1, 4, 2, 2)


def test_workers_that_see_other_folders_are_told() -> None:
    class Elsewhere(Worker):
        def gather(self, tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat([tensor, torch.zeros_like(tensor)])

    with pytest.raises(UsageError, match=r"they go on from steps 5, 0 of 'run'"):
        check_same_step(Elsewhere(0, 2), 5, "run", torch.device("cpu"))


@pytest.mark.slow
def test_two_processes_fill_the_queue_of_one(tmp_path: Path) -> None:
    """PAL: keys, momentum encoder and queue are those of one worker."""
    write_pasted_pairs(tmp_path / "shards", 8, num_clips=4)
    recipe = write_small_recipe(
        tmp_path,
        "pal",
        steps=3,
        learning_rate=LEARNING_RATE,
        validation_fraction=0.0,
        objective_arguments={"num_clips": 4, "projection_dim": 8, "queue": 8},
    )
    recipe = recipe.rename(tmp_path / "recipe.toml")
    agent = torchrun(2, *words(tmp_path, tmp_path / "two"))
    train_model(recipe, tmp_path / "shards", tmp_path / "one", device="cpu")
    _, stderr = agent.communicate(timeout=200)
    assert agent.returncode == 0, stderr
    one, two = (read_resume(tmp_path / name) for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert int(two["objective"]["queue.num_enqueued"]) == 12
    for part in ("backbone", "objective"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(two[part][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_torchrun_restarts_and_rank_0_alone_reports(folder: Path, tmp_path: Path) -> None:
    """A killed process makes torchrun start both anew: they go on, without --resume."""
    run = tmp_path / "run"
    agent = torchrun(2, *words(folder, run, "--json"), restarts=1)
    wait_until(lambda: agent.poll() is not None or losses_so_far(run) >= 8)
    os.kill(below(agent.pid, b"cli.train")[-1], signal.SIGKILL)
    stdout, stderr = agent.communicate(timeout=200)
    assert agent.returncode == 0, stderr
    report = json.loads(stdout)
    assert (report["finished"], report["rank"]) == (True, 0)
    check_equal(run, folder / "one")


@pytest.mark.slow
def test_sigterm_ends_torchrun_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = torchrun(2, *words(folder, run))
    wait_until(lambda: agent.poll() is not None or losses_so_far(run) >= 2)
    agent.terminate()
    _, stderr = agent.communicate(timeout=200)
    assert agent.returncode != 0
    assert stderr.count("interrupted: go on with `train ") == 1, stderr
    state = read_resume(run)
    assert state is not None
    assert 4 <= state["step"] < NUM_STEPS


@pytest.mark.slow
def test_wrong_use_of_torchrun_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    sentence = "workers must be >= 1 and divide batch_size, got 3 for 4"
    agent = torchrun(3, *words(folder, tmp_path / "run"))
    stdout, stderr = agent.communicate(timeout=200)
    assert agent.returncode != 0
    assert stdout == ""
    assert [line for line in stderr.splitlines() if line.startswith("Error: ")] == [
        line for line in stderr.splitlines() if sentence in line
    ]
    assert stderr.count(sentence) == 1
    assert not (tmp_path / "run").exists()


def test_what_torchrun_has_started_starts_no_workers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    for name, value in (said | {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}).items():
        monkeypatch.setenv(name, value)
    recipe, shards, run = folder / "recipe.toml", folder / "shards", tmp_path / "run"
    with pytest.raises(UsageError, match="has started 1 workers: leave --workers and --address"):
        train_model(recipe, shards, run, device="cpu", workers=2)
    assert not run.exists()

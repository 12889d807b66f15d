"""Kills of workers, nodes and drivers on a real Ray: a second run ends with the planned bytes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from made_dataset import digests, render_many_shards
from ray.cluster_utils import Cluster

from synth import render_plan
from synth.shards import read_record

pytestmark = pytest.mark.slow

DRIVER = """
import sys
from synth import render_plan
sys.exit(not render_plan(sys.argv[1], sys.argv[2], workers=2).is_complete)
"""
WORKER = b"ray::render_shard"  # as a worker calls itself while it renders


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of 60 shards, and the shards of an uninterrupted run without Ray."""
    return render_many_shards(
        tmp_path_factory.mktemp("kills"), "samples_per_shard = 6\ngroup_videos = 3"
    )


def is_whole(out: Path) -> None:
    """Nothing partial stands under a final name: every done record fits its tar."""
    for path in out.glob("shard-*.json"):
        record = read_record(path)
        assert record is not None
        assert record["bytes"] == path.with_suffix(".tar").stat().st_size


def start(dataset: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DRIVER, str(dataset / "plan"), str(out)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def rendering(driver: int) -> list[int]:
    """Return the processes below a driver that are in the middle of a shard."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            pid, fields = int(path.name), (path / "stat").read_text().rpartition(")")[2].split()
            parents[pid], titles[pid] = int(fields[1]), (path / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile

    def is_below(pid: int) -> bool:
        return pid == driver or (pid in parents and is_below(parents[pid]))

    return [pid for pid, title in titles.items() if WORKER in title and is_below(pid)]


@pytest.mark.parametrize("seed", range(2))
def test_killed_workers(dataset: Path, tmp_path: Path, seed: int) -> None:
    """Workers are killed in the middle of a shard; the driver makes good for it by itself."""
    rng, out = np.random.default_rng(seed), tmp_path / "out"
    driver = start(dataset, out)
    wait_until(lambda: len(list(out.glob("shard-*.json"))) >= 2)
    kills = 0
    while driver.poll() is None and kills < 4:
        workers = rendering(driver.pid)
        if workers:
            os.kill(workers[int(rng.integers(len(workers)))], signal.SIGKILL)
            kills += 1
        time.sleep(float(rng.uniform(0.3, 0.8)))
        is_whole(out)
    assert driver.wait(timeout=120) == 0
    assert kills > 0
    assert digests(out) == digests(dataset / "shards")


@pytest.mark.parametrize("seed", range(2))
def test_killed_drivers(dataset: Path, tmp_path: Path, seed: int) -> None:
    """The driver is killed again and again; what it had made stays, the next one goes on."""
    rng, out = np.random.default_rng(seed), tmp_path / "out"
    for kill in range(1, 4):
        driver = start(dataset, out)
        more = 4 * kill + int(rng.integers(4))
        while driver.poll() is None and len(list(out.glob("*.json"))) < more:
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        is_whole(out)
    assert render_plan(dataset / "plan", out, workers=0).is_complete
    assert digests(out) == digests(dataset / "shards")


def test_two_drivers_on_one_output(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    drivers = [start(dataset, out) for _ in range(2)]
    assert [driver.wait(timeout=180) for driver in drivers] == [0, 0]
    assert digests(out) == digests(dataset / "shards")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_killed_node(dataset: Path, tmp_path: Path, cluster: Cluster) -> None:
    out = tmp_path / "out"
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def kill_later() -> None:
        wait_until(lambda: len(list(out.glob("shard-*.json"))) >= 4)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill_later)
    killer.start()
    report = render_plan(dataset / "plan", out, address=cluster.address)
    killer.join()
    assert report.is_complete
    assert digests(out) == digests(dataset / "shards")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        render_plan(dataset / "plan", out, workers=0)

"""Kill workers, decoders, nodes and drivers at random moments; compare every byte afterwards.

Run as a program it repeats every scenario and prints what it counted:

    python tests/kill_suite.py --seeds 20
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from made_dataset import digests, render_many_shards
from made_processes import below, is_alive
from made_s3 import new_bucket, run_s3_server
from ray.cluster_utils import Cluster

from manifests import file_sizes, read_many, to_path
from synth import render_plan
from synth.shards import parse_record

DRIVER = """
import sys
from synth import render_plan
report = render_plan(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
sys.exit(not report.is_complete)
"""
WORKER = b"ray::attempt_shard"  # as a worker calls itself while it watches over a shard
RENDERER = b"manifests.workers import serve"  # its child, which decodes and encodes
CHANGES = "samples_per_shard = 6\ngroup_videos = 3"  # of the recipe: 60 shards
PATIENCE = 120.0


@dataclass
class Case:
    """One run of a scenario.

    Attributes:
        dataset: A folder with a plan, and the shards of an uninterrupted run without Ray.
        out: Where to render, a folder or a URL.
        rng: Says when and whom to kill.
        kills, runs: How many processes were killed or stopped, how many drivers were started.
        num_bytes: Bytes that were compared and found equal.
    """

    dataset: Path
    out: str
    rng: np.random.Generator
    kills: int = 0
    runs: int = 0
    num_bytes: int = 0

    def start(self, workers: int = 2) -> subprocess.Popen[bytes]:
        """Start a driver in a process of its own."""
        self.runs += 1
        command = [sys.executable, "-c", DRIVER, str(self.dataset / "plan"), self.out, str(workers)]
        log = open(self.dataset / "driver.log", "ab")  # noqa: SIM115 - for whoever looks for a cause
        return subprocess.Popen(command, stderr=log)

    def finish(self) -> None:
        """Render what is missing, without Ray."""
        self.runs += 1
        assert render_plan(self.dataset / "plan", self.out, workers=0).is_complete

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(pid, number)
        self.kills += 1

    def num_done(self) -> int:
        return len(file_sizes(to_path(self.out), "shard-", ".json"))

    def wait_for_shards(self, count: int, driver: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until so many shards are done, or the driver has ended."""
        end = time.monotonic() + PATIENCE
        while self.num_done() < count and (driver is None or driver.poll() is None):
            assert time.monotonic() < end
            time.sleep(0.01)

    def check_whole(self) -> None:
        """Nothing partial stands under a final name: every done record fits its tar."""
        folder = to_path(self.out)
        names = list(file_sizes(folder, "shard-", ".json"))
        records = read_many([folder / name for name in names])
        sizes = file_sizes(folder, "shard-", ".tar")
        for name, content in zip(names, records, strict=True):
            assert content is not None
            record = parse_record(content, folder / name)
            assert sizes[name.replace(".json", ".tar")] == record["bytes"]

    def check_bytes(self) -> None:
        """Compare every file with the uninterrupted run."""
        expected, found = digests(self.dataset / "shards"), digests(self.out)
        assert sorted(found) == sorted(expected)
        assert found == expected
        self.num_bytes = sum(len(content or b"") for content in found.values())


# -- scenarios -----------------------------------------------------------------------------------


def _kill_below(case: Case, title: bytes) -> None:
    driver = case.start()
    case.wait_for_shards(2, driver)
    while driver.poll() is None and case.kills < 3:
        victims = below(driver.pid, title)
        if victims:
            case.kill(victims[int(case.rng.integers(len(victims)))])
        time.sleep(float(case.rng.uniform(0.2, 0.8)))
        case.check_whole()
    assert driver.wait(timeout=PATIENCE) in (0, 1)  # 1: one shard was hit three times
    if driver.returncode == 1:
        case.finish()


def workers(case: Case) -> None:
    """Ray's workers die while they watch over a shard; the driver makes good for it by itself."""
    _kill_below(case, WORKER)


def renderers(case: Case) -> None:
    """The processes that decode and encode die in the middle of a shard."""
    _kill_below(case, RENDERER)


def drivers(case: Case) -> None:
    """The driver dies again and again; what it had made stays, the next one goes on."""
    for _ in range(2):
        driver = case.start()
        case.wait_for_shards(case.num_done() + 1 + int(case.rng.integers(6)), driver)
        time.sleep(float(case.rng.uniform(0, 0.1)))
        case.kill(driver.pid)
        driver.wait()
        case.check_whole()
    case.finish()


def signals(case: Case) -> None:
    """SIGINT or SIGTERM: what is begun is finished, the exit status says what is missing."""
    number = (signal.SIGINT, signal.SIGTERM)[int(case.rng.integers(2))]
    driver = case.start()
    case.wait_for_shards(1 + int(case.rng.integers(12)), driver)
    case.kill(driver.pid, number)
    assert driver.wait(timeout=PATIENCE) == 1
    case.check_whole()
    assert file_sizes(to_path(case.out), ".shard-", ".part") == {}
    case.finish()


def zombie(case: Case) -> None:
    """A writer falls asleep in the middle of a shard and wakes up when others have finished."""
    late = case.start(workers=0)
    case.wait_for_shards(1 + int(case.rng.integers(12)), late)
    time.sleep(float(case.rng.uniform(0, 0.05)))
    case.kill(late.pid, signal.SIGSTOP)
    case.finish()
    os.kill(late.pid, signal.SIGCONT)
    assert late.wait(timeout=PATIENCE) == 0  # all it wanted to make is there


def two_drivers(case: Case) -> None:
    """Two drivers render into one folder; one dies."""
    first, second = case.start(), case.start()
    case.wait_for_shards(2 + int(case.rng.integers(8)), first)
    case.kill(first.pid)
    first.wait()
    assert second.wait(timeout=PATIENCE) == 0


def node(case: Case) -> None:
    """A node of a cluster dies in the middle; the others go on."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        victim = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        moment = 2 + int(case.rng.integers(12))

        def kill_later() -> None:
            case.wait_for_shards(moment)
            cluster.remove_node(victim, allow_graceful=False)
            case.kills += 1

        killer = threading.Thread(target=kill_later)
        killer.start()
        case.runs += 1
        assert render_plan(case.dataset / "plan", case.out, address=cluster.address).is_complete
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()


def late_node(case: Case) -> None:
    """A node falls silent in the middle of its shards, is given up, and wakes up at the end."""
    soon = {"health_check_period_ms": 500, "health_check_timeout_ms": 500}
    soon |= {"health_check_initial_delay_ms": 0, "health_check_failure_threshold": 4}
    soon |= {"grpc_client_keepalive_time_ms": 2000, "grpc_client_keepalive_timeout_ms": 2000}
    arguments = {"num_cpus": 1, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    asleep: list[int] = []
    try:
        victim = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        raylet = victim.all_processes["raylet"][0].process.pid
        moment = 2 + int(case.rng.integers(12))

        def stop_later() -> None:
            case.wait_for_shards(moment)
            asleep.extend([raylet, *below(raylet, b"")])
            for pid in asleep:
                case.kill(pid, signal.SIGSTOP)

        killer = threading.Thread(target=stop_later)
        killer.start()
        case.runs += 1
        assert render_plan(case.dataset / "plan", case.out, address=cluster.address).is_complete
        killer.join()
    finally:
        for pid in asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + 5
        while any(map(is_alive, asleep)) and time.monotonic() < end:
            time.sleep(0.05)  # those that were in a shard finish it now
        ray.shutdown()
        cluster.shutdown()


def full_disk(case: Case) -> None:
    """The disk fills; what was done stays, and the rest follows once there is room."""
    size = sum(path.stat().st_size for path in (case.dataset / "shards").iterdir())
    part = float(case.rng.uniform(0.2, 0.8))
    with small_disk(case.out, int(size * part)) as resize:
        case.runs += 1
        report = render_plan(case.dataset / "plan", case.out, workers=int(case.rng.integers(2)))
        assert not report.is_complete
        assert set(report.failed.values()) != set()
        assert all("No space left on device" in why for why in report.failed.values())
        case.kills += len(report.failed)
        case.check_whole()
        assert file_sizes(to_path(case.out), ".shard-", ".part") == {}
        resize(4 * size)
        case.finish()
        case.check_bytes()


@contextmanager
def small_disk(folder: str, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a disk of `size` bytes at `folder`; PermissionError where that is not allowed."""

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.strip())

    Path(folder).mkdir(parents=True, exist_ok=True)
    mount(f"size={size}")
    try:
        yield lambda size: mount("remount", f"size={size}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


REMOTE = (workers, renderers, drivers, signals, zombie, two_drivers, node)
LOCAL = (*REMOTE, late_node, full_disk)


def run_scenario(scenario: Callable[[Case], None], dataset: Path, out: str, seed: int) -> Case:
    """Run a scenario once and compare the bytes; AssertionError says what was found."""
    case = Case(dataset, out, np.random.default_rng(seed))
    scenario(case)
    if not case.num_bytes:
        case.check_bytes()
    assert case.kills
    return case


def make_dataset(folder: Path) -> Path:
    """Plan 60 shards, and render them without Ray and without interruption."""
    folder.mkdir(exist_ok=True)
    return render_many_shards(folder, CHANGES)


def main() -> None:
    """Run every scenario with many seeds and print a table of what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of every scenario")
    seeds = range(parser.parse_args().seeds)
    print("Every byte of every output is compared with a run that nobody disturbed.\n")
    print("| output | scenario | seeds | kills | drivers | bytes compared and equal |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, run_s3_server():
        dataset = make_dataset(Path(folder, "dataset"))
        places = (("folder", LOCAL, folder), ("s3://", REMOTE, new_bucket()))
        for name, scenarios, place in places:
            for scenario in scenarios:
                cases = []
                for seed in seeds:
                    out = f"{place}/{scenario.__name__}-{seed}"
                    cases.append(run_scenario(scenario, dataset, out, seed))
                print(
                    f"| {name} | {scenario.__name__} | {len(cases)} "
                    f"| {sum(case.kills for case in cases)} | {sum(case.runs for case in cases)} "
                    f"| {sum(case.num_bytes for case in cases):,} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Clusters of two nodes on this machine, started by the files that docs/cluster.md shows."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_dataset import digests, render_many_shards

import cli

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "docs" / "cluster"
SMALL_NODE = ("--num-cpus", "1", "--object-store-memory", "100000000")
OWN_AGENT = ("--dashboard-agent-listen-port", "0")  # the default belongs to one Ray per machine
SRUN = (
    '#!/bin/bash\necho "$@" >> "$FAKE_LOG.srun"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
)
SCONTROL = '#!/bin/bash\necho "$@" >> "$FAKE_LOG.scontrol"\n'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of 60 shards, and the shards of an uninterrupted run without Ray."""
    return render_many_shards(
        tmp_path_factory.mktemp("cluster"), "samples_per_shard = 6\ngroup_videos = 3"
    )


@pytest.fixture
def session() -> Iterator[Path]:
    """A folder for Ray: paths of its sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment() -> dict[str, str]:
    """What a shell on a node has: the commands on its path, a token, no other Ray."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{mine['PATH']}"
    return mine | {
        "PATH": path,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


@contextmanager
def started(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, which ends with the block."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def wait_until(condition: Callable[[], bool], log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def num_done(out: Path) -> int:
    return len(list(out.glob("shard-*.json")))


def free_ports() -> int:
    """Return the first of three ports in a row that nobody listens on, as the sbatch file has."""
    while True:
        first = 20_000 + 3 * secrets.randbelow(4_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + 3):
                    stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
        return first


@pytest.mark.slow
def test_ray_jobs(
    dataset: Path, tmp_path: Path, session: Path, environment: dict[str, str]
) -> None:
    """A job is stopped and submitted again; the head makes no shard, the other node all."""
    port, out, log = free_ports(), tmp_path / "out", tmp_path / "log"
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port + 1}"
    node = [str(FILES / "ray-node.sh")]
    ports = f"--port {port} --dashboard-port {port + 1} --ray-client-server-port {port + 2}".split()
    head = [
        "--head",
        *ports,
        *SMALL_NODE,
        *OWN_AGENT,
        "--num-cpus",
        "0",
        "--temp-dir",
        f"{session}/head",
    ]
    other = [
        "--address",
        f"localhost:{port}",
        *SMALL_NODE,
        *OWN_AGENT,
        "--temp-dir",
        f"{session}/other",
    ]
    job = [str(dataset / "plan"), str(out)]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    with (
        started(node + head, environment, log),
        started([*node, *other, "--resources", '{"other": 1}'], environment, log),
    ):
        wait_until(lambda: log.read_text().count("Ray runtime started") == 2, log)
        driver = ["synth", "render", *job, "--address", "auto"]  # on the node that makes shards
        submit = ["--submission-id", "first", "--no-wait", "--entrypoint-resources", '{"other": 1}']
        environment["RAY_AUTH_MODE"] = "token"

        def is_submitted() -> bool:
            """Submit, once Ray's agents are up."""
            done = run("ray", "job", "submit", *submit, "--", *driver)
            assert done.returncode == 0 or "No available agent" in done.stderr, done.stderr
            return done.returncode == 0

        wait_until(is_submitted, log)
        wait_until(lambda: num_done(out) >= 3, log)
        run("ray", "job", "stop", "first")
        assert 3 <= num_done(out) < 60
        again = run(str(FILES / "ray-job.sh"), *job)
        assert again.returncode == 0, again.stdout + again.stderr
    assert "360 of 360 samples rendered" in again.stdout
    assert digests(out) == digests(dataset / "shards")


@pytest.fixture
def slurm(tmp_path: Path, session: Path, environment: dict[str, str]) -> dict[str, str]:
    """What a batch script finds in a Slurm job of two nodes; `srun` runs here."""
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    return environment | {
        "PATH": f"{fakes}{os.pathsep}{environment['PATH']}",
        "FAKE_LOG": str(tmp_path / "called"),
        "TMPDIR": str(session),
        "SLURMD_NODENAME": "localhost",
        "SLURM_JOB_ID": str((free_ports() - 20_000) // 3),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_MEM_PER_NODE": "4000",
    }


@pytest.mark.slow
def test_slurm(dataset: Path, tmp_path: Path, session: Path, slurm: dict[str, str]) -> None:
    """The time of a job is over; it goes back to the queue and ends what it began."""
    out, log = tmp_path / "out", tmp_path / "log"
    script = ["bash", str(FILES / "render.sbatch"), str(dataset / "plan"), str(out)]
    with started(script, slurm, log) as job:
        wait_until(lambda: num_done(out) >= 3 or job.poll() is not None, log)
        assert job.poll() is None, log.read_text()
        os.kill(job.pid, signal.SIGTERM)  # of the batch shell alone, as `--signal=B:` has it
        assert job.wait(timeout=60) == 1, log.read_text()
    assert "interrupted: what was begun is finished" in log.read_text()
    assert 3 <= num_done(out) < 60
    asked = (tmp_path / "called.scontrol").read_text().split()
    assert asked == ["requeue", slurm["SLURM_JOB_ID"]]
    assert list(session.iterdir()) == []
    slurm |= {"SLURM_RESTART_COUNT": "1", "SLURM_JOB_NUM_NODES": "1"}
    with started(script, slurm, log) as job:
        assert job.wait(timeout=120) == 0, log.read_text()
    assert digests(out) == digests(dataset / "shards")
    (called,) = (tmp_path / "called.srun").read_text().splitlines()
    assert "--nodes=1 --ntasks=1 " in called
    assert " --exclude=localhost " in called


@pytest.mark.parametrize("name", ["ray-node.sh", "ray-job.sh", "render.sbatch"])
def test_scripts_are_valid_bash(name: str) -> None:
    checked = subprocess.run(["bash", "-n", FILES / name], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_slurm_reads_every_option() -> None:
    """`sbatch` reads its options from the comments before the first command."""
    head, _, rest = (FILES / "render.sbatch").read_text().partition("set -euo pipefail")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", head, re.MULTILINE))
    assert "#SBATCH" not in rest
    assert options.keys() >= {"nodes", "ntasks-per-node", "cpus-per-task", "mem", "time", "requeue"}
    assert options["signal"].startswith("B:TERM@")


def read_job() -> dict[str, Any]:
    job = yaml.safe_load((FILES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = job["spec"]
    return spec


def test_rayjob_has_the_fields_of_kuberay() -> None:
    """Fields of KubeRay's RayJob, ray.io/v1, releases 1.5 to 1.7; Kubernetes drops unknown ones."""
    spec = read_job()
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert spec.keys() <= {
        *("entrypoint", "rayClusterSpec", "backoffLimit", "activeDeadlineSeconds"),
        *("shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submissionMode"),
    }
    assert spec["shutdownAfterJobFinishes"] or not spec["ttlSecondsAfterFinished"]
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    assert workers.keys() == {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    }
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["envFrom"] == [{"secretRef": {"name": "seamline-s3"}}]


def test_image_and_job_agree() -> None:
    dockerfile = (FILES / "Dockerfile").read_text()
    cluster = read_job()["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    (image,) = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert f'"ray[default]=={cluster["rayVersion"]}"' in dockerfile
    assert f"--tag {image} " in dockerfile


def test_image_holds_the_whole_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setup = project["tool"]["setuptools"]
    needed = {package.partition(".")[0] for package in setup["packages"]}
    needed |= {f"{module}.py" for module in setup["py-modules"]}
    needed |= {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    copies = re.findall(r"^COPY (.*) \S+$", (FILES / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copies for name in line.split()} == needed


def shown_commands() -> list[str]:
    """Return the `synth render` commands of the files."""
    texts = [(FILES / name).read_text() for name in ("ray-job.sh", "render.sbatch")]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith("#")]
    return [line for line in [*lines, read_job()["entrypoint"]] if "synth render" in line]


def test_commands_have_options_of_synth() -> None:
    known = {name for option in cli.render.params for name in option.opts}
    commands = shown_commands()
    assert len(commands) == 3
    for command in commands:
        options = re.findall(r" (--[a-z-]+)", command.partition("synth render")[2])
        assert {"--address"} <= set(options) <= known

"""Signals: what is begun is finished, the exit status says that the rest is missing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_dataset import digests, render_many_shards

from synth import render_plan

RENDER = "import sys, cli; sys.argv[0] = 'synth'; cli.synth()"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of many small shards, and the shards of an uninterrupted run."""
    return render_many_shards(tmp_path_factory.mktemp("interrupt"), "samples_per_shard = 3")


def interrupt(dataset: Path, out: Path, workers: int, number: signal.Signals) -> str:
    """Send a signal after a few shards and return what the command complains about."""
    command = [sys.executable, "-c", RENDER, "render", str(dataset / "plan"), str(out)]
    command += ["--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while len(list(out.glob("shard-*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    return stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "number"), [(0, signal.SIGINT), (0, signal.SIGTERM), (2, signal.SIGTERM)]
)
def test_what_is_begun_is_finished(
    dataset: Path, tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    assert "interrupted: what was begun is finished" in interrupt(dataset, out, workers, number)
    whole, found = digests(dataset / "shards"), digests(out)
    assert 9 <= len(found) < len(whole)
    assert len(found) % 3 == 0  # tar, index and record of each
    assert found.items() <= whole.items()
    report = render_plan(dataset / "plan", out, workers=0)
    assert report.is_complete
    assert report.done_before == len(found) // 3
    assert digests(out) == whole

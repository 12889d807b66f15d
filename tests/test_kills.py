"""Kills at random moments on a real Ray, in a folder and in an object store: the planned bytes."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_suite import (
    LOCAL,
    Case,
    drivers,
    make_dataset,
    run_scenario,
    small_disk,
)

from synth import render_plan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of 60 shards, and the shards of an uninterrupted run without Ray."""
    return make_dataset(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize("scenario", LOCAL)
def test_kills(dataset: Path, tmp_path: Path, scenario: Callable[[Case], None]) -> None:
    try:
        run_scenario(scenario, dataset, str(tmp_path / "out"), seed=0)
    except PermissionError as err:
        pytest.skip(f"no disk of its own may be mounted here ({err})")


def test_kills_in_an_object_store(dataset: Path, bucket: str) -> None:
    """The other scenarios there are those of `make kills`."""
    run_scenario(drivers, dataset, f"{bucket}/out", seed=1)


def test_a_read_only_output(dataset: Path, tmp_path: Path) -> None:
    """Said before anything is rendered."""
    out = tmp_path / "out"
    try:
        with small_disk(str(out), 2**20):
            command = ["mount", "-o", "remount,ro", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            with pytest.raises(OSError, match="Read-only file system"):
                render_plan(dataset / "plan", out)
    except PermissionError:
        if os.geteuid() == 0:
            pytest.skip("no disk of its own may be mounted here")
        out.chmod(0o500)
        with pytest.raises(PermissionError):
            render_plan(dataset / "plan", out)

"""Calling a function in children that may crash."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import SeamlineError
from manifests.workers import Crash, map_in_children


def scripted(value: Any, folder: str = "") -> dict[str, Any]:
    """Do in a child what `value` says."""
    if value == "exit":
        os._exit(7)
    if value == "raise":
        raise ValueError("an error that nobody expected")
    if value == "abort":
        os.abort()
    if value == "alarm":
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        while True:
            pass
    if value == "sleep":
        time.sleep(60)
    if value == "exit once" and not os.path.exists(f"{folder}/tried"):
        Path(folder, "tried").touch()
        os._exit(7)
    print("noise")
    return {"value": value, "process": os.getpid()}


def replies(*values: Any, num_workers: int = 2, **options: Any) -> dict[int, Any]:
    items = [{"value": value} | options for value in values]
    found = list(map_in_children(scripted, items, num_workers))
    assert sorted(index for index, _ in found) == list(range(len(values)))
    return dict(found)


@settings(max_examples=3, deadline=None)
@given(
    values=st.lists(st.text() | st.integers() | st.none(), max_size=8), workers=st.integers(1, 3)
)
@pytest.mark.slow
def test_every_item_gets_its_own_reply(values: list, workers: int) -> None:
    found = replies(*values, num_workers=workers)
    assert [found[index]["value"] for index in range(len(values))] == values
    assert len({reply["process"] for reply in found.values()} | {os.getpid()}) <= workers + 1


@pytest.mark.slow
def test_a_crash_costs_one_item(capfd) -> None:
    found = replies("a", "exit", "b", "abort", "raise", "alarm", "c", 3)
    assert [found[index]["value"] for index in (0, 2, 6, 7)] == ["a", "b", "c", 3]
    assert found[1] == Crash(7)
    assert found[3] == Crash(-signal.SIGABRT)
    assert found[4] == Crash(1, "ValueError: an error that nobody expected")
    assert found[4].cause == "ValueError: an error that nobody expected"
    assert found[5] == Crash(-signal.SIGALRM)
    output = capfd.readouterr()
    assert output.out == ""  # stdout is for results
    assert (
        output.err.count("ValueError: an error that nobody expected") == 2
    )  # tried twice, never hidden


@pytest.mark.slow
def test_an_item_gets_a_second_try(tmp_path: Path) -> None:
    assert replies("exit once", folder=str(tmp_path))[0]["value"] == "exit once"


def test_a_crash_says_how() -> None:
    assert Crash(3).cause == "exit status 3"
    assert Crash(-signal.SIGKILL).cause == "killed"
    assert Crash(-signal.SIGSEGV).cause == "segmentation fault"


def test_a_child_that_cannot_start_is_no_fault_of_the_item(monkeypatch) -> None:
    monkeypatch.setattr(scripted, "__qualname__", "no_such_function")
    with pytest.raises(SeamlineError, match="a worker process must start, but it ended with"):
        replies("a")


@pytest.mark.slow
def test_no_child_outlives_its_caller() -> None:
    before = set(_children())
    found = map_in_children(scripted, [{"value": "a"}, {"value": "sleep"}, {"value": "sleep"}], 2)
    next(found)
    assert len(set(_children()) - before) == 2
    found.close()
    assert set(_children()) <= before


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

"""One attempt at a shard: children that hang, crash or grow, and what becomes of their shards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_dataset import digests, make_sources, write_recipe
from made_processes import is_alive
from made_silence import silent_server

from manifests import UsageError
from synth import read_status, render_plan, write_plan
from synth.attempt import FailedAttempt, Limits, attempt_shard, memory_of
from synth.dispatch import MAX_ATTEMPTS, MAX_HANGS, Attempt
from synth.plan_files import PLAN_SCHEMA, read_plan, read_plan_sources
from synth.render import ShardTask

GENEROUS = Limits(600.0, 2**32)


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """A URL whose server takes connections and never says a word: whoever reads it waits."""
    with silent_server() as url:
        yield url


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, silent: str) -> Path:
    """A plan of videos one of which never comes."""
    folder, path = tmp_path_factory.mktemp("plan"), silent
    sources = make_sources(folder)
    table = pq.read_table(sources)
    rows = table.to_pylist()
    rows[2] |= {"path": path, "decoder": "pyav", "num_bytes": 0}
    pq.write_table(table.from_pylist(rows, table.schema), folder / "sources.parquet")
    write_plan(write_recipe(folder), folder / "sources.parquet", folder / "plan")
    return folder / "plan"


def task_that_shows(path: str, plan_folder: Path, out: Path) -> ShardTask:
    plan = read_plan(plan_folder)
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    for shard, rows in plan.shards():
        shown = {source["video_id"] for row in rows["sources"].to_pylist() for source in row}
        if path in {videos[video_id].path for video_id in shown}:
            return ShardTask(shard, rows, videos, str(out), "filmstrip", plan.digest)
    raise AssertionError("no shard shows the video")


@pytest.fixture
def task(tmp_path: Path, silent: str, plan: Path) -> ShardTask:
    """A task one of whose videos never comes."""
    (tmp_path / "out").mkdir()
    return task_that_shows(silent, plan, tmp_path / "out")


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended_and_named(task: ShardTask) -> None:
    outcome = attempt_shard(task, Limits(0.5, 2**32))
    assert isinstance(outcome, FailedAttempt)
    assert (outcome.cause, outcome.reason) == (
        "hang",
        "decoding was stopped: it did not end in 0.5 s",
    )
    assert task.videos[outcome.video_id].path.endswith("silent.mp4")
    assert list(Path(task.out).glob("shard-*")) == []


@pytest.mark.slow
def test_a_process_that_grows_too_large_is_ended(task: ShardTask) -> None:
    outcome = attempt_shard(task, Limits(600.0, 2**24))
    assert isinstance(outcome, FailedAttempt)
    assert outcome.cause == "memory"
    assert outcome.reason.startswith("a render process must stay below 0.02 GB, but grew to 0.")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_dies_says_how_and_where(
    task: ShardTask, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The child is killed while it waits for the video; who kills it with SIGKILL is not it."""
    from synth import attempt

    def kill_the_decoder(renderer: Any, seconds: float) -> bool:
        video_id, _ = renderer_of[0].decoding()
        if video_id and task.videos[video_id].path.endswith("silent.mp4"):
            os.kill(renderer.process.pid, number)
            time.sleep(0.2)
        return original(renderer, seconds)

    original = attempt.ChildProcess.has_replied
    renderer_of = [attempt._Renderer()]
    monkeypatch.setattr(attempt, "_IDLE", list(renderer_of))
    monkeypatch.setattr(attempt.ChildProcess, "has_replied", kill_the_decoder)
    outcome = attempt_shard(task, GENEROUS)
    assert isinstance(outcome, FailedAttempt)
    if number == signal.SIGKILL:
        assert outcome == FailedAttempt("memory", "a render process died: killed")
    else:
        assert (outcome.cause, outcome.reason) == (
            "crash",
            "a render process died: segmentation fault",
        )
        assert task.videos[outcome.video_id].path.endswith("silent.mp4")


@pytest.mark.slow
def test_a_machine_that_slept_accuses_no_video(
    task: ShardTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher looks away for longer than the deadline: that is one look, not a hang."""
    from synth import attempt

    looks = 0

    def slept(child: Any, seconds: float) -> bool:
        nonlocal looks
        looks += 1
        if looks == 6:
            time.sleep(3)
        if looks == 9:
            os.kill(child.process.pid, signal.SIGKILL)
        return original(child, seconds)

    original = attempt.ChildProcess.has_replied
    monkeypatch.setattr(attempt.ChildProcess, "has_replied", slept)
    outcome = attempt_shard(task, Limits(2.5, 2**32))
    assert outcome == FailedAttempt("memory", "a render process died: killed")


@pytest.mark.slow
def test_an_output_that_a_node_does_not_see(task: ShardTask, tmp_path: Path) -> None:
    outcome = attempt_shard(replace(task, out=str(tmp_path / "not mounted")), GENEROUS)
    assert isinstance(outcome, FailedAttempt)
    assert outcome.cause == "error"
    assert "all nodes must see it" in outcome.reason
    assert not (tmp_path / "not mounted").exists()


@pytest.mark.slow
def test_sources_that_are_away_are_no_rejections(task: ShardTask, tmp_path: Path) -> None:
    """A disk that is not mounted, a store that refuses: the shard waits, no video is blamed."""
    (tmp_path / "out").mkdir(exist_ok=True)
    videos = {
        video_id: replace(video, path="/not/mounted/video.mp4")
        for video_id, video in task.videos.items()
    }
    outcome = attempt_shard(replace(task, videos=videos), GENEROUS)
    assert isinstance(outcome, FailedAttempt)
    assert (outcome.cause, outcome.video_id) == ("error", "")
    assert "/not/mounted/video.mp4: its folder is not there" in outcome.reason
    assert list(Path(task.out).glob("shard-*")) == []


@pytest.mark.slow
def test_an_output_that_takes_nothing_is_said(task: ShardTask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    videos = {video_id: replace(v, status="rejected") for video_id, v in task.videos.items()}
    outcome = attempt_shard(replace(task, out=str(tmp_path / "file"), videos=videos), GENEROUS)
    assert isinstance(outcome, FailedAttempt)
    assert outcome.cause == "error"
    assert "file" in outcome.reason


def test_memory_is_read_from_the_system() -> None:
    now, most = memory_of(os.getpid(), "VmRSS"), memory_of(os.getpid(), "VmHWM")
    assert 2**20 < now <= most
    assert memory_of(2**30, "VmRSS") == 0


# -- what follows a failure, without processes --------------------------------------------------

TASK = ShardTask(0, pa.Table.from_pylist([], PLAN_SCHEMA), {}, "out", "raw", "")


def follow(*failures: FailedAttempt) -> Attempt | None:
    attempt: Attempt | None = Attempt(TASK)
    for failure in failures:
        assert attempt is not None
        attempt = attempt.after(failure)
    return attempt


def test_an_error_is_tried_three_times() -> None:
    error = FailedAttempt("error", "why")
    assert MAX_ATTEMPTS == 3
    assert follow(error, error) == Attempt(TASK, 3)
    assert follow(error, error, error) is None


def test_a_hanging_video_is_rejected_and_costs_no_attempt() -> None:
    hangs = [FailedAttempt("hang", "too long", f"v{k}") for k in range(MAX_HANGS)]
    attempt = follow(*hangs)
    assert attempt is not None
    assert attempt.number == 1
    assert attempt.task.failed == {f"v{k}": "too long" for k in range(MAX_HANGS)}
    assert follow(*hangs, FailedAttempt("hang", "too long", "another")) is None
    killed = follow(*hangs, FailedAttempt("memory", "killed"))
    assert killed is not None  # a kill is tried again, whatever hung before
    assert killed.number == 2


def test_a_video_is_rejected_when_its_decoder_crashes_twice_in_a_row() -> None:
    crash, other = FailedAttempt("crash", "died", "v"), FailedAttempt("crash", "died", "w")
    attempt = follow(crash, crash)
    assert attempt is not None
    assert attempt.task.failed == {"v": "the decoder crashed: died"}
    assert follow(crash, other) == Attempt(TASK, 3, "w")
    assert follow(crash, FailedAttempt("error", "why")) == Attempt(TASK, 3)
    nothing = FailedAttempt("crash", "died")  # between two videos: nobody is to blame
    assert follow(nothing, nothing) == Attempt(TASK, 3)


def test_what_lacked_memory_is_tried_alone() -> None:
    memory, error = FailedAttempt("memory", "too large"), FailedAttempt("error", "why")
    assert follow(memory) == Attempt(TASK, 2, alone=True)
    assert follow(memory, error) == Attempt(TASK, 3, alone=True)
    assert follow(memory, memory, memory) is None


def test_a_full_disk_is_not_tried_again() -> None:
    assert follow(FailedAttempt("disk", "No space left on device")) is None


# -- the whole job -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("silent", "two_workers")
def test_a_source_that_hangs_is_rejected_and_the_rest_rendered(plan: Path, tmp_path: Path) -> None:
    report = render_plan(plan, tmp_path / "out", workers=2, decode_seconds=4)
    assert report.is_complete
    assert 0 < report.rejected < report.planned == report.rendered + report.rejected
    assert set(report.reasons) == {"decoding was stopped"}
    assert sum(read_status(tmp_path / "out").reasons.values()) == report.rejected
    assert not list((tmp_path / "out").glob(".*"))
    once = digests(tmp_path / "out")
    again = render_plan(plan, tmp_path / "out", workers=2, decode_seconds=4)
    assert (again.done_before, again.rejected) == (again.num_shards, report.rejected)
    assert digests(tmp_path / "out") == once


@pytest.mark.slow
@pytest.mark.usefixtures("silent", "two_workers")
def test_a_shard_that_never_fits_in_memory_is_reported(task: ShardTask, plan: Path) -> None:
    """Whoever waits for the video is found to be above the limit, three times."""
    one, out = Path(task.out, "plan.parquet"), Path(task.out, "out")
    pq.write_table(task.rows, one)
    sources = plan.parent / "sources.parquet"
    report = render_plan(one.parent, out, workers=2, memory_gb=0.02, sources=sources)
    (reason,) = report.failed.values()
    assert "must stay below 0.02 GB" in reason


@pytest.mark.slow
@pytest.mark.usefixtures("silent", "two_workers")
def test_more_memory_than_any_node_has_is_refused(plan: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower --memory-gb"):
        render_plan(plan, tmp_path / "out", workers=2, memory_gb=1e6)


@pytest.mark.parametrize(
    "options", [{"decode_seconds": 0}, {"memory_gb": 0}, {"memory_gb": float("inf")}]
)
def test_limits_must_be_positive(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"needs more than|must be a number above"):
        render_plan(tmp_path, tmp_path / "out", **options)


ORPHAN = """
import os, signal, sys
from manifests import ChildProcess
from test_attempt import sleep
child = ChildProcess(sleep)
child.receive()
child.send({})
print(child.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def sleep() -> dict[str, Any]:
    time.sleep(600)
    return {}


@pytest.mark.slow
def test_a_child_does_not_outlive_its_parent() -> None:
    command = [sys.executable, "-c", ORPHAN]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    child = json.loads(done.stdout)
    end = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.05)

"""Actors: shards that are tried again, decoders that hang or crash, kills at any moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from made_processes import below, is_alive
from made_silence import silent_server
from made_videos import encode, stamped_frames
from test_extract import write_tiny_run

import features.extraction.actors as actors_module
import features.extraction.extract_plan as plan_module
import features.extraction.shard_attempt as attempt_module
from features import FeatureStore, extract_features, verify_store
from features.extraction.actors import MAX_ATTEMPTS, MAX_HANGS, Attempt, checkpoint_paths, share_out
from features.extraction.extract_plan import plan_cut, plan_extraction
from features.extraction.shard_attempt import FailedAttempt, ShardAttempts
from features.extraction.streams import open_streams
from features.store.layout import plan_layout
from features.store.writer import StoreWriter
from manifests import (
    SeamlineError,
    SourceVideo,
    UsageError,
    probe_video,
    ray_cluster,
    read_sources,
    write_sources,
)

HANG = FailedAttempt("hang", "no frame came", ("v",))
CRASH = FailedAttempt("crash", "died", ("v",))
LOST = FailedAttempt("lost", "killed")


def follow(first: Attempt, *failures: FailedAttempt) -> Attempt | None:
    """Return the attempt at shard 7 after some failures."""
    attempt = first
    for failure in failures:
        following = attempt.after(failure, [7])
        if following is None:
            return None
        (attempt,) = following
    return attempt


def test_several_shards_go_on_one_by_one_without_what_is_done():
    attempt = Attempt((5, 6, 7), failed={"w": "why"})
    following = [Attempt((5,), failed={"w": "why"}), Attempt((7,), failed={"w": "why"})]
    assert attempt.after(LOST, [5, 7]) == following
    assert attempt.after(LOST, []) == []
    assert Attempt((7,), MAX_ATTEMPTS).after(LOST, []) == []


def test_a_shard_is_tried_a_bounded_number_of_times():
    assert follow(Attempt((7,)), LOST, LOST) == Attempt((7,), 3)
    assert follow(Attempt((7,)), LOST, LOST, LOST) is None


def test_a_video_is_rejected_when_it_hangs_or_crashes_twice():
    hung = Attempt((7,), failed={"v": "no frame came"})
    assert follow(Attempt((7,)), HANG) == hung
    assert follow(Attempt((7,)), CRASH) == Attempt((7,), 2, careful=True, suspect="v")
    crashed = Attempt((7,), 2, careful=True, failed={"v": "the decoder crashed: died"})
    assert follow(Attempt((7,)), CRASH, CRASH) == crashed
    both = FailedAttempt("hang", "no frame came", ("v", "w"))  # one holds the other up
    assert follow(Attempt((7,)), both) == Attempt((7,), 2, careful=True)
    other = FailedAttempt("crash", "died", ("w",))
    assert follow(Attempt((7,)), CRASH, other) == Attempt((7,), 3, careful=True, suspect="w")
    many = Attempt((7,), failed={f"v{k}": "why" for k in range(MAX_HANGS)})
    assert follow(many, HANG) is None


def test_folders_of_runs_travel_and_nothing_else(tmp_path):
    assert checkpoint_paths(tmp_path / "run") == {"": str(tmp_path / "run")}
    assert checkpoint_paths({"a": "x"}) == {"a": str(Path("x").absolute())}


def test_actors_share_what_the_nodes_have():
    assert share_out([(2, None)], 5) == (2, 1)
    assert share_out([(16, None)]) == (1, 16)
    assert share_out([(4, None), (8, None)]) == (2, 4)  # 6 each would fit one node only
    assert share_out([(8, None), (3, None)], 4) == (4, 2)
    assert share_out([(8, 8), (56, 0)]) == (8, 1)  # processors without GPUs are of no use
    assert share_out([(16, 2), (16, 2)], 8) == (4, 8)
    assert share_out([(16, 4), (4, 4)]) == (8, 1)
    assert share_out([(0, None), (4, None)]) == (1, 4)
    assert [share_out(rooms)[0] for rooms in ([(4, 0)], [(0, 2)], [])] == [0, 0, 0]


@pytest.mark.slow
def test_actors_that_find_no_room_at_first_get_that_of_others(tmp_path, monkeypatch, small_shards):
    """Two actors where one fits: the shards that the other waits with are filled too."""
    monkeypatch.setattr(actors_module, "share_out", lambda rooms, wanted: (wanted, 1))
    write_tiny_run(tmp_path / "run")
    path = encode(tmp_path / "v.mp4", stamped_frames(40))
    videos = [replace(probe_video(str(path)), video_id=f"v{number}") for number in range(3)]
    monkeypatch.chdir(tmp_path)
    with ray_cluster(1):
        report = extract_features(videos, "run", "s.zarr", snippet_stride=1, actors=2)
    assert report.ok
    assert report.digest == expected_digest(videos, tmp_path)


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """A URL whose server takes connections and never says a word: whoever reads it waits."""
    with silent_server() as url:
        yield url


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every 64 rows a shard of their own."""
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))


@pytest.fixture
def videos(tmp_path: Path, silent: str, small_shards: None) -> list[SourceVideo]:
    """Four videos, each with a shard of its own, the second of which never comes; and a run."""
    write_tiny_run(tmp_path / "run")
    made = []
    for number, num_frames in enumerate((40, 50, 60, 45)):
        path = encode(tmp_path / f"v{number}.mp4", stamped_frames(num_frames))
        made.append(replace(probe_video(str(path)), video_id=f"v{number}"))
    made[1] = replace(made[1], path=silent, decoder="pyav")
    return made


def expected_digest(videos: list[SourceVideo], folder: Path) -> str:
    """Return the digest of a store in whose place of the silent video nothing is."""
    gone = [replace(v, path="gone.mp4") if "://" in v.path else v for v in videos]
    return extract_features(gone, folder / "run", folder / "expected.zarr", snippet_stride=1).digest


class Attempts:
    """A store, and one actor without Ray that fills it."""

    def __init__(self, videos: list[SourceVideo], folder: Path, seconds: float) -> None:
        streams = open_streams(folder / "run", "cpu")
        cut = plan_cut(streams, None, 1, None, "pad", "left")
        self.plan = plan_extraction(videos, streams, cut, 2, "cpu", "float32")
        self.writer = StoreWriter(
            folder / "s.zarr", self.plan.spec, self.plan.stored, self.plan.layout
        )
        spec = self.plan.spec
        self.common: dict[str, Any] = {
            "store": str(folder / "s.zarr"),
            "feature_dim": spec.feature_dim,
            "checkpoints": checkpoint_paths(folder / "run"),
            "opening": {},
            "device": "cpu",
            "precision": spec.precision,
            "weights_digest": spec.weights_digest,
            "versions": dict(spec.versions),
            "cores": 1,
            "grid": asdict(cut.grid),
            "fps": None,
            "batch": 2,
        }
        self.actor = ShardAttempts(self.common, seconds)

    def extract(self, shards: list[int], failed: dict[str, str]) -> FailedAttempt | None:
        plan = self.plan
        work = {
            "shards": shards,
            "videos": [asdict(plan.videos[shard]) for shard in shards],
            "stored": [asdict(plan.stored[shard]) for shard in shards],
            "shard_of": shards,
            "shard_rows": plan.layout.shard_rows,
            "num_shards": plan.layout.num_shards,
            "failed": failed,
            "workers": 2,
        }
        return self.actor.extract(work)


def test_a_cluster_that_is_not_there_is_named(tmp_path, videos):
    with pytest.raises(UsageError, match="no Ray cluster answers"):
        extract_features(videos, tmp_path / "run", tmp_path / "s", address="127.0.0.1:1")


@pytest.mark.slow
def test_a_hanging_decoder_is_ended_and_its_video_rejected(tmp_path, videos):
    attempts = Attempts(videos, tmp_path, 1.0)
    hung = attempts.extract([0, 1], {})
    assert hung == FailedAttempt("hang", "decoding was stopped: no frame came for 1 s", ("v1",))
    assert attempts.writer.missing_shards() == [1, 2, 3]  # what was done is done
    assert attempts.extract([1, 2, 3], {"v1": hung.rejection}) is None
    attempts.writer.finish()
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert store.index["reason"][1].as_py() == hung.reason
    assert store.digest == expected_digest(videos, tmp_path)
    attempts.common["weights_digest"] = "other"
    attempts.actor = ShardAttempts(attempts.common, 1.0)
    with pytest.raises(SeamlineError, match="all nodes must have the same weights_digest"):
        attempts.extract([0], {})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_dead_process_says_what_it_decoded_unless_it_was_killed(
    tmp_path, videos, monkeypatch, number
):
    attempts = Attempts(videos, tmp_path, 60.0)
    looked = attempt_module.ChildProcess.has_replied

    def killing(child: Any, seconds: float) -> bool:
        if "v1" in attempts.actor._read_note().get("decoding", {}):
            os.kill(child.process.pid, number)
            time.sleep(0.2)
        return looked(child, seconds)

    monkeypatch.setattr(attempt_module.ChildProcess, "has_replied", killing)
    failure = attempts.extract([1], {})
    if number == signal.SIGKILL:
        assert failure == FailedAttempt("lost", "a process died: killed")
    else:
        assert failure == FailedAttempt("crash", "a process died: segmentation fault", ("v1",))
    assert attempts.extract([0], {}) is None  # by the next process


@pytest.mark.slow
@pytest.mark.usefixtures("silent", "two_workers")
def test_actors_end_with_the_same_bytes_whoever_dies(tmp_path, videos):
    """One video hangs, and in the middle of that the actor that waits for it is killed."""
    killed: list[int] = []

    def kill_an_actor() -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not killed:
            time.sleep(0.05)
            if len(list((tmp_path / "s.zarr").glob("commits/*.json"))) == 3:
                killed.extend(below(os.getpid(), b"ray::ShardAttempts")[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_an_actor)
    thread.start()
    report = extract_features(
        videos, tmp_path / "run", tmp_path / "s.zarr", snippet_stride=1, actors=1, decode_seconds=3
    )
    thread.join()
    assert killed
    assert dict(report.rejected) == {"v1": "decoding was stopped: no frame came for 3 s"}
    assert report.digest == expected_digest(videos, tmp_path)
    assert verify_store(tmp_path / "s.zarr").ok
    assert report.num_extracted == sum(video.num_frames - 3 for video in videos)


@pytest.mark.slow
@pytest.mark.usefixtures("silent", "two_workers")
def test_a_shard_that_always_kills_is_reported_and_the_others_stand(tmp_path, videos, monkeypatch):
    def doomed(actor: ShardAttempts, work: Any) -> FailedAttempt | None:
        if 1 in work["shards"]:
            return FailedAttempt("lost", "a process died: killed")
        return extract(actor, work)

    extract = ShardAttempts.extract
    monkeypatch.setattr(ShardAttempts, "extract", doomed)
    report = extract_features(
        videos, tmp_path / "run", tmp_path / "s.zarr", snippet_stride=1, actors=2
    )
    assert report.failed == {1: "a process died: killed"}
    assert not report.ok
    assert report.digest == ""
    assert len(list((tmp_path / "s.zarr").glob("commits/*.json"))) == 3
    monkeypatch.undo()
    gone = [replace(v, path="gone.mp4") if "://" in v.path else v for v in videos]
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))
    again = extract_features(gone, tmp_path / "run", tmp_path / "s.zarr", snippet_stride=1)
    assert again.digest == expected_digest(videos, tmp_path)


DRIVER = """
import sys
import features.extraction.extract_plan as p
from features.store.layout import plan_layout
from manifests import read_sources
p.plan_layout = lambda counts: plan_layout(counts, 64)
from features import extract_features
extract_features(read_sources({table!r}), {run!r}, {store!r}, snippet_stride=1, actors=1)
"""


@pytest.mark.slow
def test_a_killed_driver_takes_its_actors_along(tmp_path, videos):
    write_sources(tmp_path / "sources.parquet", videos, [])
    videos = list(read_sources(tmp_path / "sources.parquet"))
    script = DRIVER.format(
        table=str(tmp_path / "sources.parquet"),
        run=str(tmp_path / "run"),
        store=str(tmp_path / "s.zarr"),
    )
    log = tmp_path / "log"
    with open(log, "wb") as file:
        driver = subprocess.Popen([sys.executable, "-c", script], stderr=file)
    try:
        deadline = time.monotonic() + 200
        while len(list((tmp_path / "s.zarr").glob("commits/*.json"))) < 1:
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        started = below(driver.pid, b"fill_in_child")
        assert started
    finally:
        driver.kill()
        driver.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    gone = [replace(v, path="gone.mp4") if "://" in v.path else v for v in videos]
    report = extract_features(gone, tmp_path / "run", tmp_path / "s.zarr", snippet_stride=1)
    assert report.num_extracted == sum(video.num_frames - 3 for video in videos[1:])
    assert report.digest == expected_digest(videos, tmp_path)

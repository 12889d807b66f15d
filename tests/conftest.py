"""Fixtures that several test modules need, and the order in which `-n` runs the modules."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from made_s3 import new_bucket, run_s3_server
from made_videos import MadeVideos
from xdist.scheduler import LoadFileScheduling

from manifests import ray_cluster

# No deadline: on a machine that has more to do, any example may take long.
settings.register_profile("suite", deadline=None)
settings.register_profile("quick", max_examples=15, deadline=None)  # of `make quick`
settings.load_profile("suite")
SHARED = Path(__file__).resolve().parents[2] / "shared"
# These start Ray and look at the clock: one after another, in one process of `-n`, they don't wait
# for one another, and leave the other processes their cores.
CLUSTERS = (
    *("test_kills", "test_actors", "test_cluster", "test_attempt"),
    *("test_job", "test_verify", "test_interrupt", "test_render_metrics"),
)
FIRST = (*CLUSTERS, "test_train_parallel")  # these take longest


class ClustersTogether(LoadFileScheduling):
    """Hand out whole modules, but those of CLUSTERS as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        module: str = super()._split_scope(nodeid)
        return "clusters" if Path(module).stem in CLUSTERS else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Schedule `--dist loadfile`, in the order of collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return ClustersTogether(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the modules for `-n`: FIRST, then those with most slow tests; the end is fine."""
    if not hasattr(config, "workerinput"):
        return
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def place(item: pytest.Item) -> tuple[int, int, str]:
        name = item.path.stem
        rank = FIRST.index(name) if name in FIRST else len(FIRST)
        return rank, -num_slow[item.path], str(item.path)

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared real material beside the checkout; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared folder with real clips is absent ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def made_videos(tmp_path_factory: pytest.TempPathFactory) -> MadeVideos:
    """Return made video files by name (`made_videos["vfr"]`), each built once per session."""
    return MadeVideos(tmp_path_factory.mktemp("made_videos"))


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """Start a Ray that the tests of a module share: to start one takes longer than most tests."""
    with ray_cluster(2):
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """Point this process and its children at a server on loopback that speaks S3."""
    with run_s3_server():
        yield


@pytest.fixture
def bucket(s3_server: None) -> str:
    """Return the URL of a new, empty bucket (`s3://...`)."""
    return new_bucket()

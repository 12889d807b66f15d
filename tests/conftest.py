"""Fixtures that several test modules need: real clips, made video files, an S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from made_s3 import new_bucket, run_s3_server
from made_videos import MadeVideos

settings.register_profile("quick", max_examples=15)  # of `make quick`; the suite draws 100
SHARED = Path(__file__).resolve().parents[2] / "shared"


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """Point this process and its children at a server on loopback that speaks S3."""
    with run_s3_server():
        yield


@pytest.fixture
def bucket(s3_server: None) -> str:
    """Return the URL of a new, empty bucket (`s3://...`)."""
    return new_bucket()

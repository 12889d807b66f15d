"""Fixtures that several test modules need: the shared real clips, and made video files."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared real material beside the checkout; skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared folder with real clips is absent ({SHARED})")
    return SHARED

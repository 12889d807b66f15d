"""The profile of `make fuzz`, and what it prints at its end."""

import pytest
from hypothesis import HealthCheck, settings
from material import Target, make_targets
from sandbox import COUNTS, is_long

settings.register_profile(
    "fuzz", max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    """Return a valid file of every kind, and what reads it."""
    return make_targets(tmp_path_factory.mktemp("fuzz"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print, for every target, how many files were read and how many refused."""
    if not is_long() or not COUNTS:
        return
    terminalreporter.section("files made to harm")
    width = max(map(len, COUNTS))
    terminalreporter.write_line(f"{'':{width}}  {'tried':>8} {'refused':>8} {'read':>8}")
    for name, count in sorted(COUNTS.items()):
        row = f"{count.total():8,} {count['refused']:8,} {count['read']:8,}"
        terminalreporter.write_line(f"{name:{width}}  {row}")
    total = sum(count.total() for count in COUNTS.values())
    terminalreporter.write_line(f"{'together':{width}}  {total:8,}")

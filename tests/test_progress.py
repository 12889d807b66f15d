"""Progress on stderr: plain lines off a terminal, rates without what earlier runs did."""

import pytest

from manifests import Progress


def test_plain_lines_end_with_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("render", "samples", 4, every_seconds=0.0) as progress:
        progress.skip(1)
        progress.advance(2, "1 rejected")
        progress.advance()
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("render: 3/4 samples, ")
    assert first.endswith(" s left 1 rejected")
    assert second.endswith(", done")
    assert last.endswith(", done")


def test_skipped_units_do_not_count_towards_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("render", "samples", 9) as progress:
        progress.skip(5)
    assert "5/9 samples, 0.0/s, waiting" in capsys.readouterr().err

"""Progress on stderr: plain lines off a terminal, rates of late without what earlier runs did."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_clock import FakeClock

from manifests import Progress, say_seconds
from manifests.progress import MARKS, Meter, say_rate


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_without_a_terminal_come_once_a_minute(
    clock: FakeClock, errors: Callable[[], list[str]]
) -> None:
    with Progress("render", "samples", 1000, parts=("shards", 100, 0), clock=clock) as progress:
        for _ in range(100):
            clock.now += 2
            progress.advance(10, "1 rejected", parts=1)
    assert errors() == [
        "render: 300/1,000 samples (30/100 shards), 5.00 samples/s, 0.50 shards/s, 2 min left, "
        "1 rejected",
        "render: 600/1,000 samples (60/100 shards), 5.00 samples/s, 0.50 shards/s, 80 s left, "
        "1 rejected",
        "render: 900/1,000 samples (90/100 shards), 5.00 samples/s, 0.50 shards/s, 20 s left, "
        "1 rejected",
        "render: 1,000/1,000 samples (100/100 shards), 5.00 samples/s, 0.50 shards/s, "
        "done in 3 min, 1 rejected",
    ]


def test_one_that_is_not_finished_stops(clock: FakeClock, errors: Callable[[], list[str]]) -> None:
    with Progress("verify", "shards", 9, clock=clock) as progress:
        progress.advance(3)
        clock.now += 30
    assert errors() == ["verify: 3/9 shards, 0.10 shards/s, stopped after 30 s"]


def test_what_was_done_before_has_no_part_in_the_rate(
    clock: FakeClock, errors: Callable[[], list[str]]
) -> None:
    with Progress(
        "render", "samples", 900, 100, parts=("shards", 90, 10), every_seconds=0, clock=clock
    ) as progress:
        clock.now += 50  # looking for what is done
        progress.skip(600, parts=60)
        clock.now += 10
        progress.advance(20)
        clock.now += 10
        progress.advance(20)
    first, second, _ = errors()
    assert (
        first == "render: 720/900 samples (70/90 shards), 2.00 samples/s, time left not known yet"
    )
    assert second == "render: 740/900 samples (70/90 shards), 2.00 samples/s, 80 s left"


def test_all_that_was_done_before_is_done(errors: Callable[[], list[str]]) -> None:
    with Progress("render", "samples", 9) as progress:
        progress.skip(9)
    assert errors() == ["render: 9/9 samples, done"]


def test_time_left_waits_for_the_first_wave_of_many_workers(clock: FakeClock) -> None:
    """The first of 100 workers says a hundredth of the rate."""
    meter = Meter("samples", 100_000, clock=clock)
    clock.now += 40
    meter.advance(10)
    assert meter.seconds_left is None
    for _ in range(99):
        clock.now += 0.1
        meter.advance(10)
    assert meter.seconds_left is None
    clock.now = 1000 + 80
    assert meter.seconds_left == pytest.approx(99_000 / (1000 / 80))


def test_rate_of_late_forgets_a_slow_night(clock: FakeClock) -> None:
    meter = Meter("samples", 10**6, clock=clock)
    for _ in range(1000):
        clock.now += 30
        meter.advance(3)
    for _ in range(1000):
        clock.now += 1
        meter.advance(3)
    assert meter.rate == pytest.approx(3, rel=0.05)
    assert meter.mean_rate == pytest.approx(6000 / 31_000)


def test_rate_falls_while_nothing_is_finished(clock: FakeClock) -> None:
    meter = Meter("samples", 100, clock=clock)
    clock.now += 10
    meter.advance(10)
    rates = []
    for _ in range(5):
        clock.now += 100
        rates.append(meter.rate)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(10 / 510)


@given(
    st.lists(
        st.tuples(st.floats(0, 500), st.integers(0, 1000), st.booleans()), min_size=1, max_size=200
    )
)
def test_meter_counts_all_and_remembers_little(
    steps: list[tuple[float, int, bool]],
) -> None:
    clock = FakeClock()
    total = sum(count for _, count, _ in steps)
    meter = Meter("samples", total, clock=clock)
    for seconds, count, is_skipped in steps:
        clock.now += seconds
        (meter.skip if is_skipped else meter.advance)(count)
        assert len(meter._marks) <= MARKS
        assert meter.rate >= 0
        assert meter.seconds_left is None or meter.seconds_left >= 0
    assert meter.done == total


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.44, "0.4 s"),
        (0.96, "1 s"),
        (41.4, "41 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7170, "2 h 00 min"),
        (7169, "119 min"),
        (7500, "2 h 05 min"),
        (86_400, "24 h 00 min"),
        (172_799, "2 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert say_seconds(seconds) == words


@given(st.floats(0, 1e8))
def test_durations_in_words_are_near(seconds: float) -> None:
    factors = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    parts = re.findall(r"([\d.]+) (\w+)", say_seconds(seconds))
    said = sum(float(number) * factors[unit] for number, unit in parts)
    half_unit = 0.05 if seconds < 0.95 else factors[parts[-1][1]] / 2
    assert abs(said - seconds) <= half_unit * 1.001


@pytest.mark.parametrize(
    ("per_second", "words"),
    [
        (1234.56, "1,234.6 shards/s"),
        (87.34, "87.3 shards/s"),
        (0.17, "0.17 shards/s"),
        (0.03, "1.80 shards/min"),
        (0.001, "3.60 shards/h"),
    ],
)
def test_rates_in_words(per_second: float, words: str) -> None:
    assert say_rate(per_second, "shards") == words


SCRIPT = """
import fcntl, struct, sys, termios
from manifests import Progress
if sys.argv[1] != "0":
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[1]), 0, 0))
with Progress("render", "samples", 4, parts=("shards", 2, 0)) as progress:
    progress._pause = 0
    progress.advance(2, "1 rejected", parts=1)
    progress.advance(2, parts=1)
"""


@pytest.mark.parametrize("columns", [60, 0])
def test_a_terminal_gets_a_bar_on_one_line(columns: int) -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT, str(columns)], stderr=theirs, check=True)
    os.close(theirs)
    screen = os.read(ours, 65536).decode()
    os.close(ours)
    *shown, last = screen.split("\r\x1b[2K")[1:]
    assert len(shown) == 3
    assert all(len(line) < (columns or 10_000) for line in shown)
    assert shown[1].startswith("████████████░░░░░░░░░░░░ render: 2/4 samples")
    assert re.search(r"\(2/2 shards\), .*, done in .* s, 1 rejected\r\n$", last)
    assert "\n" not in "".join(shown)

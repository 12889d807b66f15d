"""What a run of the render job remembers: everything that counts, in little memory."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_clock import FakeClock
from made_results import made_report, made_result

from synth.render_log import (
    EXAMPLES,
    MAX_BUCKETS,
    MAX_FAILED,
    MAX_NODES,
    MAX_REASONS,
    MAX_RETRIES,
    NUM_SLOWEST,
    OTHERS,
    Bucket,
    RenderLog,
    Timeline,
    say_reasons,
)


class FakeMetrics:
    """Sums of what was exported."""

    def __init__(self) -> None:
        self.rendered = self.done = self.retried = self.failed = 0
        self.rejected: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.shards_left = self.samples_left = -1

    def finish(
        self, rendered: int, reasons: Mapping[str, int], seconds: float, peak_bytes: int
    ) -> None:
        self.done += 1
        self.rendered += rendered
        self.rejected.update(reasons)
        self.seconds.append(seconds)

    def retry(self) -> None:
        self.retried += 1

    def fail(self) -> None:
        self.failed += 1

    def left(self, shards: int, samples: int) -> None:
        self.shards_left, self.samples_left = shards, samples


def test_note_says_what_people_need() -> None:
    clock = FakeClock()
    log = RenderLog(79, 790, clock)
    assert log.note() == ""
    log.found(vars(made_report(0, reasons={"too short": 1})))
    assert log.note() == "1 rejected (1 too short)"
    clock.now += 41
    log.finish(made_result(17, 41.3, reasons={"cannot be read as video": 2}))
    log.finish(made_result(18, 3.0))
    assert log.note() == (
        "3 rejected (2 cannot be read as video, 1 too short), slowest shard 17: 41 s"
    )
    log.retry(19, "a render process died: SIGSEGV")
    log.fail(19, "a render process died: SIGSEGV")
    assert log.note() == (
        "3 rejected (2 cannot be read as video, 1 too short), 1 shard failed, 1 tried again, "
        "slowest shard 17: 41 s"
    )


def test_reasons_beyond_three_are_counted_together() -> None:
    reasons = {"a": 1, "b": 5, "c": 4, "d": 3, "e": 1}
    assert say_reasons(reasons) == "5 b, 4 c, 3 d, 2 for 2 other reasons"
    assert say_reasons({"a": 1, "b": 5, "c": 4, "d": 3}) == "5 b, 4 c, 3 d, 1 for 1 other reason"


def test_counts_are_those_of_all_runs_and_rates_those_of_this() -> None:
    clock = FakeClock()
    log = RenderLog(4, 40, clock)
    clock.now += 30  # looking for what is done
    log.found(vars(made_report(0, reasons={"x": 4})))
    assert not log.has_worked
    clock.now += 20
    log.finish(made_result(1, 20.0, reasons={"x": 1, "y": 2}))
    assert (log.rendered, log.rejected, log.rejected_now) == (13, 7, 3)
    assert (log.found_samples, log.done_samples) == (10, 10)
    assert log.reasons == {"x": 5, "y": 2}
    assert log.examples == {"x": [0, 1], "y": [1]}
    assert log.seconds == 20
    assert log.has_worked
    assert log.num_bytes == 10_000


def test_work_is_spread_over_the_time_it_took() -> None:
    """A shard of 10 samples from second 1 to 5, one of 6 from 3 to 6, in buckets of 2 s."""
    timeline = Timeline(width_seconds=2.0)
    timeline.add(1.0, 5.0, 10, Bucket(shards=1, rejected=3, peak_bytes=7))
    timeline.add(3.0, 6.0, 6, Bucket(shards=1, peak_bytes=5))
    assert timeline.buckets == [
        Bucket(samples=2.5, busy_seconds=1.0),
        Bucket(samples=7.0, busy_seconds=3.0),
        Bucket(samples=6.5, busy_seconds=3.0, shards=1, rejected=3, peak_bytes=7),
        Bucket(shards=1, peak_bytes=5),
    ]
    assert [length for length, _ in timeline.stretches(7.5)] == [2.0, 2.0, 2.0, 1.5]
    assert timeline.stretches(6.2)[-1] == (
        pytest.approx(2.2),
        Bucket(samples=6.5, busy_seconds=3.0, shards=2, rejected=3, peak_bytes=7),
    )
    assert timeline.stretches(11.5)[3:] == [
        (2, Bucket(shards=1, peak_bytes=5)),
        (2, Bucket()),
        (1.5, Bucket()),
    ]


@given(
    st.lists(
        st.tuples(st.floats(0, 50_000), st.floats(0, 5_000), st.integers(0, 500)),
        min_size=1,
        max_size=60,
    )
)
def test_buckets_get_wider_and_lose_nothing(shards: list[tuple[float, float, int]]) -> None:
    timeline = Timeline()
    for start, length, samples in shards:
        timeline.add(start, start + length, samples, Bucket(shards=1, peak_bytes=samples))
        assert len(timeline.buckets) <= MAX_BUCKETS
    end = max(start + length for start, length, _ in shards)
    assert end < len(timeline.buckets) * timeline.width_seconds <= 2 * max(end, 30) + 1
    for buckets in (timeline.buckets, [bucket for _, bucket in timeline.stretches(end)]):
        total = sum(buckets, Bucket())
        assert total.shards == len(shards)
        assert total.samples == pytest.approx(sum(samples for *_, samples in shards))
        assert total.busy_seconds == pytest.approx(sum(length for _, length, _ in shards))
        assert total.peak_bytes == max(samples for *_, samples in shards)
    assert sum(length for length, _ in timeline.stretches(end)) == pytest.approx(max(end, 1e-3))


def test_memory_does_not_grow_with_the_run() -> None:
    clock, rng = FakeClock(), random.Random(1)
    log = RenderLog(20_000, 200_000, clock)
    took = []
    for shard in range(20_000):
        clock.now += 3
        took.append((rng.uniform(0, 100), shard))
        log.finish(made_result(shard, took[-1][0], reasons={f"r{shard}": 1}, node=f"n{shard}"))
        log.retry(shard, f"reason {shard}: more")
        log.fail(shard, "gone")
    assert [(made.seconds, made.shard) for made in log.slowest] == sorted(took)[::-1][:NUM_SLOWEST]
    assert len(log.timeline.buckets) <= MAX_BUCKETS
    assert len(log.reasons) == len(log.examples) == len(log.retried) == MAX_REASONS + 1
    assert log.reasons[OTHERS] == 20_000 - MAX_REASONS
    assert max(map(len, log.examples.values())) == EXAMPLES
    assert len(log.nodes) == MAX_NODES + 1
    assert len(log.failed) == MAX_FAILED
    assert len(log.last_retries) == MAX_RETRIES
    assert log.num_failed == log.num_retried == 20_000


def test_metrics_get_every_event() -> None:
    log, metrics = RenderLog(200, 2000), FakeMetrics()
    log.found(vars(made_report(0)))
    log.export(metrics)
    assert (metrics.shards_left, metrics.samples_left) == (199, 1990)
    for shard in range(1, 100):
        log.finish(made_result(shard, reasons={f"r{shard}": 1, f"s{shard}": 2}))
    log.retry(100, "crashed")
    log.fail(100, "crashed")
    assert (metrics.done, metrics.rendered) == (99, 99 * 7)
    assert metrics.rejected == log.reasons
    assert metrics.rejected[OTHERS] == 99 * 3 - 25 * 3
    assert (metrics.retried, metrics.failed) == (1, 1)
    assert (metrics.shards_left, metrics.samples_left) == (100, 1000)
    assert metrics.seconds == [5.0] * 99

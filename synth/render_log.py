"""What happened so far in one run of the render job: counts, rates, rejections, slow and failed
shards, over time.

The driver feeds it one finished shard at a time. Its memory does not grow with the run: 240 buckets
of time that get wider, the 10 slowest shards, the first 100 failed ones, the last 50 tries that
failed, 50 reasons and 256 nodes; what is beyond is counted together under "others".
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from time import monotonic
from typing import Any

from manifests import say_seconds

from .attempt import ShardResult
from .render_metrics import RenderMetrics

MAX_BUCKETS = 240
FIRST_BUCKET_SECONDS = 0.125  # a power of two: borders stay exact
NUM_SLOWEST = 10
MAX_FAILED = 100
MAX_RETRIES = 50
MAX_REASONS = 50
MAX_NODES = 256
EXAMPLES = 3
OTHERS = "others"
REASONS_IN_NOTE = 3


@dataclass(frozen=True)
class Bucket:
    """What happened in a stretch of time.

    Attributes:
        samples, busy_seconds: Samples, and seconds of work; those of a shard are spread over the
            time that its worker needed.
        shards, rejected: Finished shards and their rejected samples, when they were finished.
        peak_bytes: The highest peak memory of a worker that finished a shard.
    """

    samples: float = 0.0
    busy_seconds: float = 0.0
    shards: int = 0
    rejected: int = 0
    peak_bytes: int = 0

    def __add__(self, other: "Bucket") -> "Bucket":
        return Bucket(
            self.samples + other.samples,
            self.busy_seconds + other.busy_seconds,
            self.shards + other.shards,
            self.rejected + other.rejected,
            max(self.peak_bytes, other.peak_bytes),
        )


@dataclass
class Timeline:
    """Buckets from the start of a run; where MAX_BUCKETS do not reach, two become one."""

    width_seconds: float = FIRST_BUCKET_SECONDS
    buckets: list[Bucket] = field(default_factory=list)

    def add(self, start: float, end: float, samples: int, finished: Bucket) -> None:
        """Add a shard that was made from second `start` to `end` of the run, `0 <= start <= end`.

        Args:
            start, end: In seconds.
            samples: To spread over this time, as the time itself.
            finished: What to count at its end.
        """
        self._reach(end)
        first, last = int(start / self.width_seconds), int(end / self.width_seconds)
        self.buckets[last] += finished
        if start == end:
            self.buckets[last] += Bucket(samples=samples)
            return
        for k in range(first, last + 1):
            within = min(end, (k + 1) * self.width_seconds) - max(start, k * self.width_seconds)
            self.buckets[k] += Bucket(samples * within / (end - start), within)

    def stretches(self, seconds: float) -> list[tuple[float, Bucket]]:
        """Return the length of each bucket of a run of `seconds`, and what happened in it.

        The last one reaches to the end; less than half a bucket there is part of the one before.
        """
        self._reach(seconds)
        width, shown = self.width_seconds, list(self.buckets)
        starts = [k * width for k in range(len(shown))]
        if len(shown) > 1 and seconds - starts[-1] < width / 2:
            shown[-2:] = [shown[-2] + shown[-1]]
            starts.pop()
        ends = [*starts[1:], max(seconds, 1e-3)]
        return [(e - s, b) for s, e, b in zip(starts, ends, shown, strict=True)]

    def _reach(self, seconds: float) -> None:
        while seconds >= MAX_BUCKETS * self.width_seconds:
            pairs = zip_longest(self.buckets[::2], self.buckets[1::2], fillvalue=Bucket())
            self.buckets = [left + right for left, right in pairs]
            self.width_seconds *= 2
        missing = int(seconds / self.width_seconds) + 1 - len(self.buckets)
        self.buckets.extend([Bucket()] * missing)


@dataclass(frozen=True, order=True)
class ShardTime:
    """How long the worker of a shard needed, in seconds, and where."""

    seconds: float
    shard: int
    samples: int
    node: str


@dataclass
class NodeWork:
    """What one node did: finished shards, their samples, seconds of work, highest peak memory."""

    shards: int = 0
    samples: int = 0
    busy_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class FailedTry:
    """A try to render a shard that failed `seconds` after the start of the run."""

    seconds: float
    shard: int
    reason: str


class RenderLog:
    """Everything that is worth knowing of a run while it goes on and when it has ended.

    Args:
        num_shards, num_samples: Of the whole plan.
        clock: Gives seconds.

    Attributes:
        started: When the run began.
        found_shards: Shards that an earlier run finished.
        done_shards: Shards that this run finished.
        found_samples, done_samples: Their planned samples.
        rendered, rejected: Samples over all runs.
        rejected_now: Samples that this run rejected.
        reasons: Rejected samples by reason over all runs.
        examples: A few shards by reason.
        timeline: This run over time.
        failed, num_failed: The first shards that were given up, with the reason, and how many.
        retried, num_retried: Tries by reason that failed and were followed by another.
        last_retries: The last of them.
        nodes: Work by node.
        peak_bytes: The highest peak memory of a worker.
        num_bytes: Of the tars that this run wrote.
        versions: Of the tools that made the shards.
        metrics: Ray's own, where Ray is connected.
    """

    def __init__(
        self, num_shards: int, num_samples: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self.num_shards, self.num_samples = num_shards, num_samples
        self._clock = clock
        self._start = clock()
        self.started = datetime.now(UTC)
        self.found_shards = self.found_samples = self.done_shards = self.done_samples = 0
        self.rendered = self.rejected = self.rejected_now = 0
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, list[int]] = {}
        self.timeline = Timeline()
        self.failed: dict[int, str] = {}
        self.num_failed = 0
        self.retried: Counter[str] = Counter()
        self.last_retries: deque[FailedTry] = deque(maxlen=MAX_RETRIES)
        self.nodes: dict[str, NodeWork] = {}
        self.peak_bytes = self.num_bytes = 0
        self.versions: Mapping[str, str] = {}
        self.metrics: RenderMetrics | None = None
        self._slowest: list[ShardTime] = []

    def found(self, record: Mapping[str, Any]) -> None:
        """Count a shard that an earlier run finished, by its done record."""
        self.found_shards += 1
        self.found_samples += record["planned"]
        self._count(record)
        if not self.done_shards:  # the search is no part of the work
            self._start = self._clock()

    def finish(self, result: ShardResult) -> None:
        """Count a shard that is finished now."""
        record, node = vars(result.report), result.node
        seconds, peak_bytes = result.seconds, result.peak_bytes
        reasons = self._count(record)
        end = self.seconds
        self.done_shards += 1
        self.done_samples += record["planned"]
        self.rejected_now += record["rejected"]
        self.peak_bytes = max(self.peak_bytes, peak_bytes)
        self.num_bytes += record["bytes"]
        self.versions = record["versions"]
        finished = Bucket(shards=1, rejected=record["rejected"], peak_bytes=peak_bytes)
        self.timeline.add(max(end - seconds, 0.0), end, record["planned"], finished)
        made = ShardTime(seconds, record["shard"], record["planned"], node)
        (heapq.heappush if len(self._slowest) < NUM_SLOWEST else heapq.heappushpop)(
            self._slowest, made
        )
        work = self.nodes.setdefault(_known(node, self.nodes, MAX_NODES), NodeWork())
        work.shards += 1
        work.samples += record["planned"]
        work.busy_seconds += seconds
        work.peak_bytes = max(work.peak_bytes, peak_bytes)
        if self.metrics:
            self.metrics.finish(record["rendered"], reasons, seconds, peak_bytes)
            self._show_left()

    def retry(self, shard: int, reason: str) -> None:
        """Count a try that failed and is followed by another."""
        self.retried[_known(reason, self.retried, MAX_REASONS)] += 1
        self.last_retries.append(FailedTry(self.seconds, shard, reason))
        if self.metrics:
            self.metrics.retry()

    def fail(self, shard: int, reason: str) -> None:
        """Count a shard that is given up."""
        self.num_failed += 1
        if len(self.failed) < MAX_FAILED:
            self.failed[shard] = reason
        if self.metrics:
            self.metrics.fail()

    def export(self, metrics: RenderMetrics) -> None:
        """Keep Ray's metrics up to date from now on."""
        self.metrics = metrics
        self._show_left()

    @property
    def seconds(self) -> float:
        """Return how long the run has taken."""
        return self._clock() - self._start

    @property
    def slowest(self) -> list[ShardTime]:
        """Return the slowest shards of this run, the slowest first."""
        return sorted(self._slowest, reverse=True)

    @property
    def num_retried(self) -> int:
        """Return how many tries failed and were followed by another."""
        return self.retried.total()

    @property
    def shards_left(self) -> int:
        """Return how many shards are neither done nor given up."""
        return self.num_shards - self.found_shards - self.done_shards - self.num_failed

    @property
    def has_worked(self) -> bool:
        """Return whether this run tried to render anything."""
        return bool(self.done_shards or self.num_failed or self.num_retried)

    def note(self) -> str:
        """Return what a line of progress says beside counts and rates."""
        parts = []
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected ({say_reasons(self.reasons)})")
        if self.num_failed:
            parts.append(f"{self.num_failed:,} shard{'s' * (self.num_failed > 1)} failed")
        if self.num_retried:
            parts.append(f"{self.num_retried:,} tried again")
        if self._slowest:
            slowest = max(self._slowest)
            parts.append(f"slowest shard {slowest.shard}: {say_seconds(slowest.seconds)}")
        return ", ".join(parts)

    def _count(self, record: Mapping[str, Any]) -> Counter[str]:
        """Count the samples of a done record; return its rejected ones by known reason."""
        self.rendered += record["rendered"]
        self.rejected += record["rejected"]
        reasons: Counter[str] = Counter()
        for name, count in record["reasons"].items():
            reason = _known(name, self.reasons, MAX_REASONS)
            reasons[reason] += count
            self.reasons[reason] += count
            shards = self.examples.setdefault(reason, [])
            if len(shards) < EXAMPLES and record["shard"] not in shards:
                shards.append(record["shard"])
        return reasons

    def _show_left(self) -> None:
        if self.metrics:
            samples = self.num_samples - self.found_samples - self.done_samples
            self.metrics.left(self.num_shards - self.found_shards - self.done_shards, samples)


def say_reasons(reasons: Mapping[str, int]) -> str:
    """Return the commonest reasons with their counts.

    # "2 cannot be read as video, 1 too short, 4 for 2 other reasons"
    """
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ranked[:REASONS_IN_NOTE], ranked[REASONS_IN_NOTE:]
    parts = [f"{count:,} {reason}" for reason, count in shown]
    if rest:
        many = "s" * (len(rest) > 1)
        parts.append(f"{sum(count for _, count in rest):,} for {len(rest)} other reason{many}")
    return ", ".join(parts)


def _known(name: str, names: Mapping[str, Any], limit: int) -> str:
    """Return `name`, or OTHERS if it is new and there are enough names already."""
    return name if name in names or len(names) < limit else OTHERS

"""The render job in Ray's own metrics, which every node of a cluster serves to Prometheus.

They are kept by the driver alone: one finished shard is one update, so that they cost nothing.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

SHARD_SECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # bounds of the histogram


class RenderMetrics:
    """Counters, gauges and a histogram of one run; Ray must be connected."""

    def __init__(self) -> None:
        self._rendered = Counter("seamline_samples_rendered", "Samples rendered by this run.")
        self._rejected = Counter(
            "seamline_samples_rejected", "Samples rejected by this run.", ("reason",)
        )
        self._done = Counter("seamline_shards_done", "Shards finished by this run.")
        self._retried = Counter(
            "seamline_shards_retried", "Tries that failed and were followed by another."
        )
        self._failed = Counter("seamline_shards_failed", "Shards given up by this run.")
        self._shards_left = Gauge("seamline_shards_left", "Shards of the plan that are not done.")
        self._samples_left = Gauge(
            "seamline_samples_left", "Samples of the plan in shards that are not done."
        )
        self._seconds = Histogram(
            "seamline_shard_seconds",
            "Seconds that a worker needed for a shard.",
            boundaries=[float(bound) for bound in SHARD_SECONDS],
        )
        # The sum that Ray gives of a histogram is one of the middles of its buckets.
        self._worker_seconds = Counter(
            "seamline_worker_seconds", "Seconds of work in the shards finished by this run."
        )
        self._peak_bytes = Gauge(
            "seamline_worker_peak_bytes", "Peak memory of the worker that finished a shard last."
        )

    def finish(
        self, rendered: int, reasons: Mapping[str, int], seconds: float, peak_bytes: int
    ) -> None:
        """Count a finished shard: its rendered samples, and the rejected ones by reason."""
        self._done.inc()
        if rendered:
            self._rendered.inc(rendered)
        for reason, count in reasons.items():
            self._rejected.inc(count, tags={"reason": reason})
        self._seconds.observe(seconds)
        if seconds > 0:
            self._worker_seconds.inc(seconds)
        self._peak_bytes.set(peak_bytes)

    def retry(self) -> None:
        """Count a try that failed and is followed by another."""
        self._retried.inc()

    def fail(self) -> None:
        """Count a shard that is given up."""
        self._failed.inc()

    def left(self, shards: int, samples: int) -> None:
        """Set how much of the plan is not done."""
        self._shards_left.set(shards)
        self._samples_left.set(samples)

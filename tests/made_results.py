"""Made results of the render job for tests."""

from collections.abc import Mapping

from synth.attempt import ShardResult
from synth.render import ShardReport


def made_report(
    shard: int, planned: int = 10, reasons: Mapping[str, int] | None = None
) -> ShardReport:
    """Return the done record of a shard."""
    reasons = dict(reasons or {})
    rejected = sum(reasons.values())
    return ShardReport(
        shard=shard,
        plan_digest="p" * 64,
        codec="filmstrip",
        planned=planned,
        rendered=planned - rejected,
        rejected=rejected,
        reasons=reasons,
        rejected_sources={},
        kinds={"clip": planned - rejected},
        bytes=1000 * planned,
        sha256="0" * 64,
        index_sha256="1" * 64,
        versions={"numpy": "2.0"},
    )


def made_result(
    shard: int,
    seconds: float = 5.0,
    planned: int = 10,
    reasons: Mapping[str, int] | None = None,
    node: str = "a",
    peak_bytes: int = 10**8,
) -> ShardResult:
    """Return what a worker says of a shard that it finished."""
    return ShardResult(made_report(shard, planned, reasons), seconds, peak_bytes, node)

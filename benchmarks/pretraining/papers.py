"""What the papers report, to set beside what is measured here: relative gains, not scores."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from manifests import UsageError, build_record

from .comparisons import BASELINE

PAPERS_PATH = Path(__file__).with_name("papers.toml")
RENAMED = {BASELINE: "reference"}  # the key of a gain's reference says which it is


@dataclass(frozen=True)
class PaperGain:
    """What a paper reports of a method and of what it is compared with.

    Attributes:
        family: As in the results.
        method: As in the results.
        over: The method that it is compared with.
        benchmark: Data set, head and metric, in the paper's words.
        reference: What `over` scores.
        value: What the method scores.
        source: Paper and table.
    """

    family: str
    method: str
    over: str
    benchmark: str
    reference: float
    value: float
    source: str

    @property
    def relative_gain(self) -> float:
        """Return the gain as a share of the reference."""
        return self.value / self.reference - 1


def read_papers(path: Path = PAPERS_PATH) -> list[PaperGain]:
    """Read the papers' numbers: `[[gains]]` over classification, `[[ablations]]` over others.

    Raises:
        UsageError: It is no TOML, or an entry has a missing, an unknown or a wrong key.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UsageError(f"the papers' numbers cannot be read: {err} ({str(path)!r})") from err
    gains = [
        {"over": BASELINE} | {RENAMED.get(key, key): value for key, value in gain.items()}
        for gain in tables.get("gains", ())
    ]
    ablations = tables.get("ablations", ())
    return [build_record(PaperGain, gain, "gains", path) for gain in [*gains, *ablations]]

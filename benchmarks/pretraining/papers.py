"""What the papers report, to set beside what is measured here: relative gains, not scores."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from manifests import UsageError, build_record

PAPERS_PATH = Path(__file__).with_name("papers.toml")


@dataclass(frozen=True)
class PaperGain:
    """What a paper reports of a method and of classification.

    Attributes:
        family: As in the results.
        method: As in the results.
        benchmark: Data set, head and metric, in the paper's words.
        classification: What the paper's encoder pretrained on classification scores.
        value: What the method scores.
        source: Paper and table.
    """

    family: str
    method: str
    benchmark: str
    classification: float
    value: float
    source: str

    @property
    def relative_gain(self) -> float:
        """Return the gain as a share of what classification scores."""
        return self.value / self.classification - 1


def read_papers(path: Path = PAPERS_PATH) -> list[PaperGain]:
    """Read the papers' numbers: `[[gains]]` of a TOML file, in its order.

    Raises:
        UsageError: It is no TOML, or an entry has a missing, an unknown or a wrong key.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UsageError(f"the papers' numbers cannot be read: {err} ({str(path)!r})") from err
    return [build_record(PaperGain, gain, "gains", path) for gain in tables.get("gains", ())]

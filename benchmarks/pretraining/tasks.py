"""What is done with an encoder, by name: the tasks that a grid's `[downstream]` lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from features import FeatureStore
from manifests import SnippetGrid, UsageError, read_sources

from .downstream import (
    bmn_scores,
    boundary_score,
    ensemble_scores,
    equivariance_score,
    frames_scores,
    gtad_scores,
    linear_scores,
    pdan_scores,
    tgm_scores,
)
from .grid import Snippets
from .records import Score


@dataclass(frozen=True)
class Encoded:
    """An encoder and what it made of the long videos.

    Attributes:
        store: Features; those of several encoders side by side. None where none were extracted.
        runs: Training runs: that of the encoder, or the fine-tuned ones.
        sources: Table of the long videos.
        segments: Their annotation.
        snippets: How the features were extracted.
        seed: Of whatever is trained on top.
    """

    store: FeatureStore | None
    runs: Sequence[Path]
    sources: Path
    segments: pa.Table
    snippets: Snippets
    seed: int

    @property
    def features(self) -> FeatureStore:
        """The features; UsageError if the task is given none."""
        if self.store is None:
            raise UsageError("this task needs features, but got fine-tuned runs")
        return self.store


def _frames(encoded: Encoded) -> list[Score]:
    grid = SnippetGrid(encoded.snippets.snippet_len, encoded.snippets.snippet_stride)
    sources = read_sources(encoded.sources)
    return frames_scores(encoded.runs, sources, encoded.segments, grid, encoded.snippets.rate)


def _equivariance(encoded: Encoded) -> list[Score]:
    (run,) = encoded.runs
    sources = read_sources(encoded.sources)
    return equivariance_score(run, encoded.features, sources, encoded.segments)


TASKS: dict[str, Callable[[Encoded], list[Score]]] = {
    "linear": lambda e: linear_scores(e.features, e.segments, e.seed),
    "pdan": lambda e: pdan_scores(e.features, e.segments, e.seed),
    "tgm": lambda e: tgm_scores(e.features, e.segments, e.seed),
    "gtad": lambda e: gtad_scores(e.features, e.segments, e.seed),
    "bmn": lambda e: bmn_scores(e.features, e.segments, e.seed),
    "neighbours": lambda e: boundary_score(e.features, e.segments),
    "retimed": _equivariance,
    "frames": _frames,
}
AVERAGED: dict[str, Callable[[Sequence[FeatureStore], pa.Table, int], list[Score]]] = {
    "linear": ensemble_scores,
}
"""Tasks in which the probabilities of heads on several stores can be averaged."""

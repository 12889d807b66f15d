"""What is done with an encoder, by name: the tasks that a grid's `[downstream]` lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from features import FeatureStore
from manifests import SnippetGrid, read_sources

from .downstream import (
    bmn_scores,
    boundary_score,
    equivariance_score,
    frame_head_scores,
    frames_scores,
    gtad_scores,
    linear_scores,
)
from .grid import Snippets
from .records import Score


@dataclass(frozen=True)
class Encoded:
    """Encoders and what they made of the long videos.

    Attributes:
        stores: Features of each; of a task of `CLASSES_GIVEN` the last are those of the classes.
        runs: Training runs, where a task needs them: that of the encoder, or the fine-tuned ones.
        sources: Table of the long videos.
        segments: Their annotation.
        snippets: How the features were extracted.
        head: Settings of the head that is trained on top.
        seed: Of its training.
    """

    stores: Sequence[FeatureStore]
    runs: Sequence[Path]
    sources: Path
    segments: pa.Table
    snippets: Snippets
    head: Mapping[str, Any]
    seed: int

    @property
    def features(self) -> FeatureStore:
        """The features of all encoders side by side."""
        return side_by_side(self.stores)


def side_by_side(stores: Sequence[FeatureStore]) -> FeatureStore:
    """Return the features of several encoders as one row."""
    first, *others = stores
    for other in others:
        first = first.concat(other)
    return first


def _frames(encoded: Encoded) -> list[Score]:
    grid = SnippetGrid(encoded.snippets.snippet_len, encoded.snippets.snippet_stride)
    sources = read_sources(encoded.sources)
    return frames_scores(encoded.runs, sources, encoded.segments, grid, encoded.snippets.rate)


def _equivariance(encoded: Encoded) -> list[Score]:
    (run,) = encoded.runs
    sources = read_sources(encoded.sources)
    return equivariance_score(run, encoded.features, sources, encoded.segments)


def _linear(encoded: Encoded, stores: Sequence[FeatureStore]) -> list[Score]:
    return linear_scores(stores, encoded.segments, encoded.seed)


def _frame_head(head: str, encoded: Encoded, stores: Sequence[FeatureStore]) -> list[Score]:
    return frame_head_scores(head, stores, encoded.segments, encoded.seed, encoded.head)


def _gtad(encoded: Encoded) -> list[Score]:
    *stores, classes = encoded.stores
    store = side_by_side(stores)
    return gtad_scores(store, classes, encoded.segments, encoded.seed, encoded.head)


TASKS: dict[str, Callable[[Encoded], list[Score]]] = {
    "linear": lambda e: _linear(e, [e.features]),
    "pdan": lambda e: _frame_head("pdan", e, [e.features]),
    "tgm": lambda e: _frame_head("tgm", e, [e.features]),
    "gtad": _gtad,
    "bmn": lambda e: bmn_scores(e.features, e.segments, e.seed, e.head),
    "neighbours": lambda e: boundary_score(e.features, e.segments),
    "retimed": _equivariance,
    "frames": _frames,
}
AVERAGED: dict[str, Callable[[Encoded], list[Score]]] = {
    "linear": lambda e: _linear(e, e.stores),
    "pdan": lambda e: _frame_head("pdan", e, e.stores),
    "tgm": lambda e: _frame_head("tgm", e, e.stores),
}
"""Tasks in which the probabilities of heads on several stores can be averaged."""
CLASSES_GIVEN = ("gtad",)
"""Tasks of places: one classifier names them for all encoders of a seed."""

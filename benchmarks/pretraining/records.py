"""What the experiment measures: one number of one encoder, and the same on resampled videos."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests import write_atomic

NUM_RESAMPLES = 1_000
RESULT_FIELDS = pa.schema(
    [
        ("family", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int32()),
        ("steps", pa.int32()),
        ("downstream", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("chance", pa.float64()),
        ("resampled", pa.list_(pa.float32())),
    ]
)
"""The columns of `results.parquet`: a row per number of an encoder, its resamples beside it."""


@dataclass(frozen=True)
class Score:
    """One number that says how well an encoder serves a task; higher is better.

    Attributes:
        downstream: What was trained on the features, or done with them.
        metric: Which number of it.
        value: The number, of all test videos.
        chance: The number that scores dealt at random would get; None where there is no such thing.
        resampled_B: float32 `(B,)`, the same number where test video `v` counts
            `video_weights(...)[b, v]` times.
    """

    downstream: str
    metric: str
    value: float
    chance: float | None
    resampled_B: np.ndarray


def video_weights(num_videos: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw how often each test video counts in each resample; the same for every encoder.

    Returns:
        int16 `(B, V)`; every row sums to `num_videos`.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    shares = np.full(num_videos, 1 / num_videos)
    return rng.multinomial(num_videos, shares, num_resamples).astype(np.int16)


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write scores, atomically."""
    rows = [
        dataclasses.asdict(score) | {"resampled_B": score.resampled_B.tolist()} for score in scores
    ]
    write_atomic(path, json.dumps(rows).encode())


def read_scores(path: Path) -> list[Score]:
    """Read what `write_scores` wrote."""
    return [
        Score(**row | {"resampled_B": np.array(row["resampled_B"], np.float32)})
        for row in json.loads(path.read_text())
    ]

"""Made results of the pretraining experiment: methods of known gain, seeds and videos that vary."""

import itertools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pretraining.records import RESULT_FIELDS, video_weights

NUM_VIDEOS = 30
STEPS = (300, 600, 1200)
# What a method adds to classification on the linear probe, at the whole budget.
GAINS: Mapping[str, Mapping[str, float]] = {
    "ssdet": {
        **{"classification": 0.0, "frame_labels": 0.01, "freeze": 0.1, "freeze_x2": 0.08},
        **{"mixup": -0.08, "mixup_hard": -0.02, "cutmix_window": 0.06, "cutmix_view": 0.03},
        **{"joint_single": 0.09, "joint": 0.11, "ensemble": 0.14},
    },
    "bsp": {
        **{"classification": 0.0, "cuts": 0.01, "speeds": 0.02, "boundaries": 0.03},
        **{"regression": -0.01, "two_stream": 0.06, "two_head": 0.02, "distillation": 0.05},
    },
    "pal": {
        **{"classification": 0.0, "moco": -0.15, "dense": -0.05, "dense_scale": -0.03},
        **{"paste_same": 0.02, "pal": 0.07, "temporal_0": 0.03, "temporal_1": 0.06},
        **{"temporal_3": 0.05, "beta_0_0.4": 0.02, "beta_0_1": 0.05},
    },
}
METHODS = {family: tuple(gains) for family, gains in GAINS.items()}
MAIN = {"freeze", "mixup", "cutmix_window", "joint", "ensemble", "two_stream", "moco", "pal"}
FRAMES = (
    *(("linear", "map"), ("linear", "map_25"), ("linear", "map_single"), ("linear", "map_multi")),
    *(("linear", "map_boundary"), ("linear", "map_non_boundary"), ("pdan", "map"), ("tgm", "map")),
    ("frames", "map"),
)
SEGMENTS = (
    *(("gtad", "map"), ("gtad", "map_50"), ("bmn", "ar_10"), ("bmn", "ar_50"), ("bmn", "auc")),
)
OTHERS = (("neighbours", "boundary_auc"), ("retimed", "equivariance"))
MEASURED = {
    "ssdet": FRAMES,
    "bsp": (("linear", "map"), *SEGMENTS),
    "pal": (("linear", "map"), *SEGMENTS, *OTHERS),
}


def made_table(
    num_resamples: int = 200, methods: Mapping[str, Sequence[str]] = METHODS
) -> pa.Table:
    """Return a table of results: 5 seeds of main rows, 3 of others; learning curves of linear."""
    weights_BV = video_weights(NUM_VIDEOS, num_resamples) / NUM_VIDEOS
    rows = [
        made_row(family, method, seed, steps, task, weights_BV)
        for family, names in methods.items()
        for method, task, steps in itertools.product(names, MEASURED[family], STEPS)
        for seed in range(5 if method in MAIN | {"classification"} else 3)
        if steps == STEPS[-1] or task == ("linear", "map")
    ]
    return pa.Table.from_pylist(rows, RESULT_FIELDS)


def made_row(
    family: str, method: str, seed: int, steps: int, task: tuple[str, str], weights_BV: np.ndarray
) -> dict[str, object]:
    """Return one row: a value per video, the same hard videos for all, averaged and resampled."""
    level = 0.5 if task[0] in ("linear", "pdan", "tgm", "frames", "neighbours") else 0.3
    learned = 1 - 0.5 * 0.3 ** (4 * steps / STEPS[-1] - (0.3 if method != "mixup" else 1))
    own = np.random.default_rng(zlib.crc32(f"{method}{seed}{task}".encode()))
    hard_V = 0.08 * np.random.default_rng(zlib.crc32(str(task).encode())).normal(size=NUM_VIDEOS)
    true = (level + GAINS[family][method]) * learned + 0.02 * own.normal()
    values_V = true + hard_V + 0.02 * own.normal(size=NUM_VIDEOS)
    return {
        **{"family": family, "method": method, "seed": seed, "steps": steps},
        **{"downstream": task[0], "metric": task[1], "value": float(values_V.mean())},
        "chance": 0.115 if task[0] in ("linear", "pdan", "tgm", "frames") else None,
        "resampled": (weights_BV @ values_V).astype(np.float32),
    }


def write_made(path: Path) -> Path:
    """Write a table of results."""
    pq.write_table(made_table(), path)
    return path

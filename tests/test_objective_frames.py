"""Frame-level multi-label detection: the loss against a slow loop, scores, and a training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_runs import check_shards, train_small
from made_shards import CLASSES, moving_clip, write_pasted_pairs, write_samples

from manifests import UsageError
from synth import ShardSample
from synth.codecs import encode_raw
from train import load_run
from train.objectives.frames import Frames, frames_loss

LABELS_CT = [[1, 1, 1, 0], [0, 1, 1, 1]]  # two actions that overlap


def annotated_meta(class_ids: list[int]) -> dict[str, object]:
    labels = LABELS_CT[: len(class_ids)]
    return {"kind": "annotated", "num_frames": 4, "class_ids": class_ids, "weights": labels}


def write_annotated_shards(out: Path, num_samples: int = 20) -> Path:
    samples = [
        (
            {"npy": encode_raw(moving_clip(number % 4, number))},
            annotated_meta(sorted({number % 4, (number + 1) % 4})),
            (f"v{number}",),
        )
        for number in range(num_samples)
    ]
    return write_samples(out, samples, samples_per_shard=4, classes=CLASSES)


def bce(logit: float, label: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -(label * math.log(probability) + (1 - label) * math.log(1 - probability))


@given(st.integers(0, 999))
def test_loss_is_the_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(2, 3, 5)) * 2, (rng.random((2, 3, 5)) < 0.3).astype(float)
    per_frame, per_clip = [], []
    for n in range(2):
        for c in range(3):
            per_frame += [bce(logits[n, c, t], labels[n, c, t]) for t in range(5)]
            per_clip.append(bce(max(logits[n, c]), max(labels[n, c])))
    expected = np.mean(per_frame) + np.mean(per_clip)
    got = frames_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(got) == pytest.approx(expected, rel=1e-4)


def test_target_keeps_actions_that_overlap() -> None:
    target = Frames(4).target(ShardSample("00000000", {}, annotated_meta([1, 3])))
    expected = np.zeros((4, 4))
    expected[[1, 3]] = LABELS_CT
    np.testing.assert_array_equal(target, expected)
    assert target.dtype == np.float32
    nothing = Frames(4).target(ShardSample("00000000", {}, annotated_meta([])))
    np.testing.assert_array_equal(nothing, np.zeros((4, 4)))


def test_perfect_predictions_score_one() -> None:
    targets = np.zeros((1, 4, 4))
    targets[0, [1, 3]] = LABELS_CT
    scores = Frames(4).score(targets, targets)
    assert scores == {"frame_map": 1, "frame_map_chance": 0.75}
    assert Frames(4).score(targets, np.zeros((1, 4, 4))) == {}


def test_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'frames' needs single clips .* kind 'pal'"):
        check_shards("frames", write_pasted_pairs(tmp_path / "pairs", 4))


def test_it_trains(tmp_path: Path) -> None:
    report = train_small(tmp_path, "frames", write_annotated_shards(tmp_path / "out"))
    assert report.finished
    assert {"frame_map", "frame_map_chance"} <= report.scores.keys()
    assert load_run(tmp_path / "run").record["num_outputs"] == 4

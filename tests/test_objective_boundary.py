"""Boundary classification: targets, the loss against a slow loop, scores, and a training."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_boundaries import boundary_sample, write_boundary_shards
from made_runs import SMALL_X3D, check_shards, step_losses, train_small
from made_shards import write_moving_shards, write_pasted_pairs

from manifests import ShardError, UsageError
from synth import BOUNDARY_CLASSES
from train import load_run
from train.backbones import X3D, X3DArguments
from train.objectives.boundary import Boundary, boundary_target


def test_target_by_hand() -> None:
    np.testing.assert_array_equal(boundary_target(boundary_sample(2)), [0, 0, 1, 0])
    none = boundary_sample(2, boundary_class=None)
    np.testing.assert_array_equal(boundary_target(none), np.zeros(4))
    assert boundary_target(none).dtype == np.float32


@pytest.mark.parametrize("wrong", [4, -1, 1.0, "diff_class", True])
def test_a_wrong_boundary_class_is_said(wrong: object) -> None:
    with pytest.raises(ShardError, match=r"boundary_class must be .* \[0, 3\], got .* 00000007"):
        boundary_target(boundary_sample(2, boundary_class=wrong))


def test_it_accepts_samples_with_a_boundary_class() -> None:
    assert Boundary.accepts(boundary_sample(0))
    assert not Boundary.accepts(boundary_sample(0, boundary_class=None))
    assert not Boundary.accepts(boundary_sample(0, kind="pal"))


def test_loss_is_the_slow_loop() -> None:
    torch.manual_seed(0)
    objective = Boundary(7)
    backbone = X3D(objective.num_outputs, X3DArguments(**SMALL_X3D)).eval()
    clips = torch.randn(3, 3, 4, 32, 32)
    classes = [2, 0, 3]
    targets = np.stack([objective.target(boundary_sample(number)) for number in classes])
    scores_NC = backbone(clips).tolist()
    total = 0.0
    for scores, number in zip(scores_NC, classes, strict=True):
        total += math.log(sum(math.exp(score) for score in scores)) - scores[number]
    got = objective(backbone, clips, torch.from_numpy(targets))
    assert float(got.detach()) == pytest.approx(total / 3, rel=1e-5)


def test_scores_by_hand() -> None:
    targets = np.eye(4)[[0, 0, 1, 2]]
    assert Boundary(7).score(targets, targets) == {
        "accuracy": 1,
        "accuracy_chance": 0.5,
        "accuracy_diff_class": 1,
        "accuracy_same_class": 1,
        "accuracy_diff_speed": 1,
    }
    found = Boundary(7).score(np.eye(4)[[0, 1, 1, 3]], targets)
    assert found["accuracy"] == 0.5
    assert found["accuracy_diff_class"] == 0.5
    assert found["accuracy_diff_speed"] == 0


def test_other_shards_are_refused(tmp_path: Path) -> None:
    message = r"'boundary' needs samples with a boundary class \(kind 'boundary'\), .* kind 'clip'"
    with pytest.raises(UsageError, match=message):
        check_shards("boundary", write_moving_shards(tmp_path / "clips", 4))
    with pytest.raises(UsageError, match=r"'boundary' needs samples with .* of kind 'pal'"):
        check_shards("boundary", write_pasted_pairs(tmp_path / "pairs", 4))


def test_it_trains(tmp_path: Path) -> None:
    shards = write_boundary_shards(tmp_path / "out")
    report = train_small(tmp_path, "boundary", shards)
    assert report.finished
    assert {"accuracy", "accuracy_chance"} <= report.scores.keys()
    record = load_run(tmp_path / "run").record
    assert record["num_outputs"] == 4
    assert record["classes"] == list(BOUNDARY_CLASSES)  # so that no other objective takes the head


@pytest.mark.slow
def test_it_learns_a_handful_of_clips(tmp_path: Path) -> None:
    shards = write_boundary_shards(tmp_path / "out", 16)
    options: dict[str, Any] = {"batch_size": 8, "optimiser": "adamw", "validation_fraction": 0.0}
    train_small(tmp_path, "boundary", shards, steps=100, log_every=10, **options)
    losses = step_losses(tmp_path / "run")
    assert losses[0] > 1.0  # ln 4 = 1.39 for guessing
    assert losses[-1] < 0.3

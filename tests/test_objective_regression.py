"""Boundary regression: heat maps, the loss against a slow loop, scores, and a training."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_boundaries import boundary_sample, write_boundary_shards
from made_runs import SMALL_X3D, check_shards, step_losses, train_small
from made_shards import write_moving_shards

from manifests import ShardError, UsageError
from train.backbones import X3D, X3DArguments
from train.objectives.boundary_regression import (
    BoundaryRegression,
    change_points,
    heat_map,
    smooth_l1,
)


def test_heat_map_by_hand() -> None:
    expected = [math.exp(-9 / 16), math.exp(-1 / 16), math.exp(-1 / 16), math.exp(-9 / 16)]
    np.testing.assert_allclose(heat_map(2.5, 4), expected, rtol=1e-6)
    np.testing.assert_array_equal(heat_map(None, 4), np.zeros(4))
    assert heat_map(None, 4).dtype == heat_map(2.5, 4).dtype == np.float32


@given(st.integers(2, 40), st.data())
def test_heat_map_is_the_slow_loop(tau: int, data: st.DataObject) -> None:
    mu = data.draw(st.integers(1, 2 * tau - 1)) + 0.5
    expected = [math.exp(-((t - mu) ** 2) / (2 * tau)) for t in range(1, 2 * tau + 1)]
    got = heat_map(mu, 2 * tau)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-30)
    assert change_points(got[None]) == mu


def test_smooth_l1_is_the_slow_loop() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(scale=2, size=(3, 8))
    heat = np.stack([heat_map(mu, 8) for mu in (2.5, None, 4.5)])
    terms = []
    for found, wanted in zip(outputs.ravel(), heat.ravel(), strict=True):
        distance = abs(found - wanted)
        terms.append(0.5 * distance**2 if distance < 1 else distance - 0.5)
    assert min(terms) < 0.5 < max(terms)
    got = smooth_l1(torch.from_numpy(outputs), torch.from_numpy(heat))
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-5)


def test_target_follows_the_sample() -> None:
    objective = BoundaryRegression(7)
    np.testing.assert_array_equal(objective.target(boundary_sample(0)), heat_map(4.5, 8))
    np.testing.assert_array_equal(objective.target(boundary_sample(3)), np.zeros(8))


@pytest.mark.parametrize("wrong", [0.5, 9, "4.5", True, math.nan, math.inf])
def test_a_wrong_change_point_is_said(wrong: object) -> None:
    with pytest.raises(ShardError, match=r"change_point must be in \[1, 8\].* sample 00000007"):
        BoundaryRegression(7).target(boundary_sample(0, change_point=wrong))


def test_it_fits_a_backbone() -> None:
    torch.manual_seed(0)
    objective = BoundaryRegression(7)
    backbone = X3D(objective.num_outputs, X3DArguments(**SMALL_X3D)).eval()
    clips = torch.randn(2, 3, 8, 32, 32)
    targets = torch.from_numpy(np.stack([objective.target(boundary_sample(n)) for n in (0, 3)]))
    outputs = objective.predict(backbone, clips)
    assert outputs.shape == targets.shape
    loss = objective(backbone, clips, targets)
    assert float(loss.detach()) == pytest.approx(float(smooth_l1(outputs, targets).detach()))


def test_perfect_predictions_have_no_error() -> None:
    places = [2.5, 4.5, 4.5, 6.5, None]
    heat = np.stack([heat_map(mu, 8) for mu in places])
    assert BoundaryRegression(7).score(heat, heat) == {
        "change_point_error": 0,
        "change_point_error_chance": 1,  # 4.5 is the best constant: 2, 0, 0, 2 frames off
        "change_ap": 1,
        "change_ap_chance": 0.8,
    }


def test_scores_by_hand() -> None:
    targets = np.stack([heat_map(2.5, 8), heat_map(None, 8)])
    outputs = np.zeros((2, 8))
    outputs[0, 4:6] = 0.4  # between frames 5 and 6
    outputs[1, 0] = 0.9
    found = BoundaryRegression(7).score(outputs, targets)
    assert found["change_point_error"] == 3
    assert found["change_ap"] == 0.5  # the sample without a change point has the higher peak
    assert BoundaryRegression(7).score(outputs, np.zeros((2, 8))) == {}


def test_other_shards_are_refused(tmp_path: Path) -> None:
    message = r"'boundary_regression' needs samples with a change point.*\(kind 'boundary'\).*clip"
    with pytest.raises(UsageError, match=message):
        check_shards("boundary_regression", write_moving_shards(tmp_path / "clips", 4))


def test_it_trains(tmp_path: Path) -> None:
    shards = write_boundary_shards(tmp_path / "out")
    report = train_small(tmp_path, "boundary_regression", shards)
    assert report.finished
    assert math.isfinite(report.scores["change_point_error"])


@pytest.mark.slow
def test_it_learns_a_handful_of_clips(tmp_path: Path) -> None:
    shards = write_boundary_shards(tmp_path / "out", 16)
    options: dict[str, Any] = {"batch_size": 8, "optimiser": "adamw", "validation_fraction": 0.0}
    train_small(tmp_path, "boundary_regression", shards, steps=100, log_every=10, **options)
    losses = step_losses(tmp_path / "run")
    assert losses[-1] < losses[0] / 4

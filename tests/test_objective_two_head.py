"""Two heads: targets that may be absent, the loss against a slow loop, scores, and a training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from made_boundaries import boundary_sample, write_boundary_shards
from made_runs import check_shards, train_small, write_small_recipe
from made_shards import write_moving_shards, write_pasted_pairs

from manifests import UsageError
from synth import ShardSample
from train import load_run, read_train_recipe
from train.objectives.two_head import TwoHead, TwoHeadArguments, two_head_loss


def cross_entropy(scores: list[float], targets: list[float]) -> float:
    total = math.log(sum(math.exp(score) for score in scores))
    return sum(q * (total - score) for q, score in zip(targets, scores, strict=True))


def test_target_packs_both_heads() -> None:
    both = boundary_sample(1, class_ids=[2], weights=[[1.0] * 8])
    np.testing.assert_array_equal(TwoHead(3).target(both), [0, 0, 1, 0, 1, 0, 0])
    clip = boundary_sample(1, class_ids=[2], weights=[[1.0] * 8], boundary_class=None)
    np.testing.assert_array_equal(TwoHead(3).target(clip), [0, 0, 1, 0, 0, 0, 0])
    unlabelled = boundary_sample(1, class_ids=[], weights=[])
    np.testing.assert_array_equal(TwoHead(3).target(unlabelled), [0, 0, 0, 0, 1, 0, 0])
    assert TwoHead(3).target(both).dtype == np.float32


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_loss_is_the_slow_loop(weight: float) -> None:
    rows: list[list[float]] = [
        [0.25, 0, 0.75, 0, 1, 0, 0],  # both
        [1, 0, 0, 0, 0, 0, 0],  # no boundary class
        [0, 0, 0, 0, 0, 0, 1],  # no action class
        [0, 0, 0, 0, 0, 1, 0],
    ]
    scores: list[list[float]] = (np.random.default_rng(0).normal(size=(4, 7)) * 3).tolist()
    classes, boundaries = [], []
    for targets, found in zip(rows, scores, strict=True):
        if sum(targets[:3]):
            classes.append(cross_entropy(found[:3], targets[:3]))
        if sum(targets[3:]):
            boundaries.append(cross_entropy(found[3:], targets[3:]))
    assert (len(classes), len(boundaries)) == (2, 3)
    expected = np.mean(classes) + weight * np.mean(boundaries)
    got = two_head_loss(torch.tensor(scores), torch.tensor(rows), weight)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_perfect_predictions_score_one() -> None:
    targets = np.zeros((4, 7))
    targets[:, :3] = np.eye(3)[[0, 1, 1, 2]]
    targets[:3, 3:] = np.eye(4)[[0, 0, 3]]  # the last sample has no boundary class
    scores = TwoHead(3).score(targets, targets)
    assert scores == {
        "accuracy": 1,
        "accuracy_chance": 0.5,
        "boundary_accuracy": 1,
        "boundary_accuracy_chance": pytest.approx(2 / 3),
        "boundary_accuracy_diff_class": 1,
        "boundary_accuracy_same_speed": 1,
    }


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"boundary_weight must be >= 0, got -1"):
        TwoHeadArguments(boundary_weight=-1)
    recipe = write_small_recipe(tmp_path, "two_head", objective_arguments={"boundary": 1})
    with pytest.raises(UsageError, match=r"unknown key 'boundary'.*'boundary_weight'"):
        read_train_recipe(recipe)


def test_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'two_head' needs single clips, .* of kind 'pal'"):
        check_shards("two_head", write_pasted_pairs(tmp_path / "pairs", 4))


def test_clips_may_stand_beside_boundary_samples(tmp_path: Path) -> None:
    check_shards("two_head", write_boundary_shards(tmp_path / "boundaries", 4))
    clip, boundary = ShardSample("a", {}, {"kind": "clip"}), boundary_sample(0)
    assert TwoHead.accepts(clip)
    assert TwoHead.suffices([clip, boundary])
    with pytest.raises(UsageError, match=r"some with a boundary class .* samples of kind 'clip'"):
        check_shards("two_head", write_moving_shards(tmp_path / "clips", 4))


def test_it_trains(tmp_path: Path) -> None:
    shards = write_boundary_shards(tmp_path / "out")
    report = train_small(tmp_path, "two_head", shards, objective_arguments={"boundary_weight": 0.5})
    assert report.finished
    expected = {"accuracy", "accuracy_chance", "boundary_accuracy", "boundary_accuracy_chance"}
    assert expected <= report.scores.keys()
    model = load_run(tmp_path / "run")
    assert model.record["num_outputs"] == 4 + 4  # both heads are in the run's weights
    probabilities = TwoHead(4).predict(model.backbone, torch.zeros(2, 3, 8, 32, 32)).detach()
    torch.testing.assert_close(probabilities[:, :4].sum(1), torch.ones(2))
    torch.testing.assert_close(probabilities[:, 4:].sum(1), torch.ones(2))

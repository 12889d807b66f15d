"""Objectives: targets, losses against slow loops, and validation scores."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manifests import ShardError
from synth import LabelTrack, ShardSample
from train.backbones import X3D, X3DArguments
from train.objectives import OBJECTIVES, average_precision, mean_average_precision
from train.objectives.classification import Classification, clip_distribution, soft_cross_entropy
from train.objectives.detection import (
    Detection,
    binary_cross_entropy,
    dense_weights,
    mixture_cross_entropy,
)
from train.objectives.scores import accuracy_scores

# A mixture of classes 1 and 3 over five frames; frame 2 is half background, frame 4 all of it.
TRACK = LabelTrack(
    np.array([1, 3]), np.array([[1.0, 0.75, 0.5, 0.0, 0.0], [0.0, 0.25, 0.0, 1.0, 0.0]])
)
FROZEN = LabelTrack(np.array([2]), np.zeros((1, 4)))


def sample(track: LabelTrack) -> ShardSample:
    meta = {
        "num_frames": track.num_frames,
        "class_ids": track.class_ids.tolist(),
        "weights": track.weights_CT.tolist(),
    }
    return ShardSample("00000000", {}, meta)


@st.composite
def tracks(draw: Any) -> LabelTrack:
    ids = sorted(draw(st.sets(st.integers(0, 4), max_size=3)))
    num_frames = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    parts = rng.dirichlet(np.ones(len(ids) + 1), num_frames).T[: len(ids)]
    return LabelTrack(np.array(ids, np.int64), parts.reshape(len(ids), num_frames))


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(x - max(logits)) for x in logits]
    return [power / sum(powers) for power in powers]


def test_clip_distribution_by_hand() -> None:
    # means: 2.25 / 5 and 1.25 / 5; background is left out, so 2.25 / 3.5 and 1.25 / 3.5
    np.testing.assert_allclose(clip_distribution(TRACK, 4), [0, 2.25 / 3.5, 0, 1.25 / 3.5])
    np.testing.assert_array_equal(clip_distribution(FROZEN, 4), np.zeros(4))


def test_one_softmax_cannot_say_that_a_frame_has_two_classes() -> None:
    meta = {"num_frames": 2, "class_ids": [0, 1], "weights": [[1, 1], [1, 0]], "kind": "annotated"}
    both = ShardSample("00000000", {}, meta)
    with pytest.raises(ShardError, match="choose objective 'frames', or loss 'bce'"):
        OBJECTIVES["detection"](2).target(both)
    np.testing.assert_array_equal(OBJECTIVES["detection"](2, "bce").target(both), [[1, 1], [1, 0]])


def test_dense_weights_by_hand() -> None:
    dense = dense_weights(TRACK, 4, with_background=True)
    expected = np.zeros((5, 5))
    expected[1] = [1, 0.75, 0.5, 0, 0]
    expected[3] = [0, 0.25, 0, 1, 0]
    expected[4] = [0, 0, 0.5, 0, 1]
    np.testing.assert_array_equal(dense, expected)
    np.testing.assert_array_equal(dense_weights(TRACK, 4, with_background=False), expected[:4])


@given(tracks())
def test_targets_are_distributions(track: LabelTrack) -> None:
    dense = dense_weights(track, 5, with_background=True)
    np.testing.assert_allclose(dense.sum(0), 1, atol=1e-5)
    clip = clip_distribution(track, 5)
    assert clip.sum() == pytest.approx(1 if track.weights_CT.sum() > 0 else 0, abs=1e-5)


@given(st.lists(tracks().filter(lambda track: track.num_frames >= 3), min_size=1, max_size=3))
def test_mixture_cross_entropy_is_the_slow_loop(batch: list[LabelTrack]) -> None:
    weights = np.stack([dense_weights(track.take(np.arange(3)), 5, True) for track in batch])
    logits = np.random.default_rng(len(batch)).normal(size=weights.shape) * 3
    total = 0.0
    for n in range(len(batch)):
        for t in range(3):
            probabilities = softmax(list(logits[n, :, t]))
            for c in range(6):
                total += weights[n, c, t] * -math.log(probabilities[c])
    got = mixture_cross_entropy(torch.from_numpy(logits), torch.from_numpy(weights))
    assert float(got) == pytest.approx(total / (3 * len(batch)), rel=1e-4)


def test_binary_cross_entropy_is_the_slow_loop() -> None:
    weights = np.stack([dense_weights(TRACK, 4, False)] * 2)
    logits = np.random.default_rng(0).normal(size=weights.shape)
    terms = []
    for w, x in zip(weights.ravel(), logits.ravel(), strict=True):
        p = 1 / (1 + math.exp(-x))
        terms.append(-(w * math.log(p) + (1 - w) * math.log(1 - p)))
    got = binary_cross_entropy(torch.from_numpy(logits), torch.from_numpy(weights))
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-5)


def test_soft_cross_entropy_leaves_out_clips_without_a_class() -> None:
    targets = np.stack([clip_distribution(TRACK, 4), clip_distribution(FROZEN, 4)])
    logits = np.random.default_rng(1).normal(size=(2, 4))
    probabilities = softmax(list(logits[0]))
    expected = -sum(q * math.log(p) for q, p in zip(targets[0], probabilities, strict=True))
    got = soft_cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(got) == pytest.approx(expected, rel=1e-5)
    assert float(soft_cross_entropy(torch.from_numpy(logits), torch.zeros(2, 4))) == 0


def test_soft_cross_entropy_of_workers_averages_to_that_of_the_batch() -> None:
    """Two workers with 1 and 3 clips that have a class: each divides by 2."""
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32))
    targets = torch.eye(3).repeat(3, 1)[:8]
    targets[[0, 2, 3, 5]] = 0
    shares = [
        soft_cross_entropy(logits[rows], targets[rows], lambda count: torch.tensor(2.0))
        for rows in (slice(0, 4), slice(4, 8))
    ]
    assert float(sum(shares) / 2) == pytest.approx(float(soft_cross_entropy(logits, targets)))


def test_number_of_outputs() -> None:
    assert Classification(7).num_outputs == 7
    assert Detection(7).num_outputs == 8
    assert Detection(7, "bce").num_outputs == 7
    with pytest.raises(ValueError, match="loss must be one of cross_entropy, bce, got 'mse'"):
        Detection(7, "mse")


@pytest.mark.parametrize(
    ("name", "loss"),
    [("classification", "cross_entropy"), ("detection", "cross_entropy"), ("detection", "bce")],
)
def test_objective_fits_a_backbone(name: str, loss: str) -> None:
    torch.manual_seed(0)
    objective = OBJECTIVES[name](4, loss)
    arguments = X3DArguments(depth_factor=0.2, width_factor=0.3, feature_dim=8)
    backbone = X3D(objective.num_outputs, arguments)
    clips = torch.randn(2, 3, 5, 32, 32)
    targets = torch.from_numpy(np.stack([objective.target(sample(TRACK))] * 2))
    assert targets.dtype == torch.float32
    loss_value = objective(backbone, clips, targets)
    loss_value.backward()
    assert loss_value.ndim == 0
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    predictions = objective.predict(backbone, clips).detach()
    assert predictions.shape == targets.shape
    assert predictions.min() >= 0
    assert predictions.max() <= 1
    scores = objective.score(predictions.numpy(), targets.numpy())
    assert all(0 <= score <= 1 for score in scores.values())


def test_perfect_predictions_score_one() -> None:
    detection = Detection(4)
    targets = np.stack([dense_weights(TRACK, 4, True)])
    scores = detection.score(targets, targets)
    assert scores["frame_map"] == 1
    # classes 1 and 3 have positives on 3 and 1 of 5 frames
    assert scores["frame_map_chance"] == pytest.approx((3 / 5 + 1 / 5) / 2)
    classification = Classification(4)
    clips = np.stack([clip_distribution(TRACK, 4), clip_distribution(FROZEN, 4)])
    # one clip counts, and its heaviest class is 1: always saying 1 would be right
    assert classification.score(clips, clips) == {"accuracy": 1, "accuracy_chance": 1}
    assert classification.score(np.eye(4)[[3, 3]], clips) == {"accuracy": 0, "accuracy_chance": 1}


def test_accuracy_by_hand() -> None:
    targets = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    predictions = np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0], [9, 0, 0]])
    # right, right (one of the two heaviest), wrong, wrong, no class; classes 0 and 1 suit 2 of 4
    assert accuracy_scores(predictions, targets) == {"accuracy": 0.5, "accuracy_chance": 0.5}


def test_nothing_to_score() -> None:
    nothing = np.zeros((1, 4))
    assert Classification(4).score(nothing, nothing) == {}
    frames = np.stack([dense_weights(FROZEN, 4, True)])
    assert Detection(4).score(frames, frames) == {}


def test_average_precision_by_hand() -> None:
    # ranks 1 and 3 are positive: (1/1 + 2/3) / 2
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx(5 / 6)
    # all tied: the precision is the share of positives, in any order
    for positive in ([True, False, False, False], [False, False, False, True]):
        assert average_precision(np.ones(4), np.array(positive)) == pytest.approx(0.25)


@given(st.integers(0, 999), st.integers(1, 30), st.integers(2, 6))
def test_average_precision_is_the_slow_loop(seed: int, count: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, levels, count) / levels, rng.random(count) < 0.4
    positive[rng.integers(count)] = True
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        hits = (taken & positive).sum()
        area += (hits / positive.sum() - recall) * hits / taken.sum()
        recall = hits / positive.sum()
    assert average_precision(scores, positive) == pytest.approx(area)


def test_mean_average_precision_skips_classes_without_positives() -> None:
    scores = np.array([[0.9, 0.1], [0.1, 0.2]])
    assert mean_average_precision(scores, np.array([[True, False], [False, False]])) == 1

"""Momentum contrast: InfoNCE against a slow loop, the ring of keys, the moving weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from train.objectives.contrast import (
    ContrastArguments,
    KeyQueue,
    info_nce,
    momentum_update,
    occurrences,
    region_features,
    retrieval_scores,
)


def unit_vectors(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    vectors = rng.normal(size=shape)
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).float()


@given(
    st.integers(0, 999),
    st.integers(1, 4),
    st.integers(1, 6),
    st.floats(0.05, 2.0),
)
def test_info_nce_is_the_slow_loop(seed: int, count: int, size: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    queries, keys = unit_vectors(rng, count, 3), unit_vectors(rng, count, 3)
    negatives, usable = unit_vectors(rng, size, 3), torch.from_numpy(rng.random(size) < 0.6)
    total = 0.0
    for n in range(count):
        positive = math.exp(float(queries[n].double() @ keys[n].double()) / temperature)
        others = [
            math.exp(float(queries[n].double() @ negatives[j].double()) / temperature)
            for j in range(size)
            if usable[j]
        ]
        total += -math.log(positive / (positive + sum(others)))
    got = info_nce(queries, keys, negatives, temperature, usable)
    assert float(got) == pytest.approx(total / count, rel=1e-4, abs=1e-5)


@given(st.integers(0, 999))
def test_info_nce_does_not_depend_on_the_order_or_number_of_unusable_keys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, keys, negatives = (unit_vectors(rng, count, 4) for count in (3, 3, 5))
    loss = info_nce(queries, keys, negatives, 0.1)
    shuffled = negatives[torch.from_numpy(rng.permutation(5))]
    assert float(info_nce(queries, keys, shuffled, 0.1)) == pytest.approx(float(loss), rel=1e-5)
    longer = torch.cat([negatives, torch.zeros(2, 4)])
    usable = torch.arange(7) < 5
    masked = info_nce(queries, keys, longer, 0.1, usable)
    assert float(masked) == pytest.approx(float(loss), rel=1e-5)


def test_info_nce_at_its_ends() -> None:
    query, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # as near to four negatives as to its key: one of five
    assert float(info_nce(query, query, query.repeat(4, 1), 0.07)) == pytest.approx(math.log(5))
    assert float(info_nce(query, query, other, 0.07)) == pytest.approx(math.exp(-1 / 0.07), rel=0.2)
    nothing = torch.zeros(4, dtype=torch.bool)
    assert float(info_nce(query, other, torch.zeros(4, 2), 0.07, nothing)) == 0


def test_info_nce_of_nothing_to_compare_with_has_a_zero_gradient() -> None:
    query = torch.tensor([[0.6, 0.8]], requires_grad=True)
    nothing = torch.zeros(3, dtype=torch.bool)
    info_nce(query, torch.tensor([[1.0, 0.0]]), torch.zeros(3, 2), 0.07, nothing).backward()
    assert query.grad is not None
    assert query.grad.tolist() == [[0.0, 0.0]]


def test_info_nce_keeps_its_digits_under_autocast() -> None:
    rng = np.random.default_rng(0)
    parts = unit_vectors(rng, 8, 16), unit_vectors(rng, 8, 16), unit_vectors(rng, 32, 16)
    exact = info_nce(*parts, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(*parts, 0.07), exact)


def test_key_queue_by_hand() -> None:
    queue = KeyQueue(4, 1)
    assert queue.filled_Q.tolist() == [False] * 4
    queue.enqueue(torch.tensor([[1.0], [2.0]]), torch.tensor([7, 8]))
    assert queue.keys_QD.flatten().tolist() == [1, 2, 0, 0]
    assert queue.filled_Q.tolist() == [True, True, False, False]
    queue.enqueue(torch.tensor([[3.0], [4.0]]), torch.tensor([7, 9]))
    queue.enqueue(torch.tensor([[5.0], [6.0]]), torch.tensor([5, 6]))
    assert queue.keys_QD.flatten().tolist() == [5, 6, 3, 4]
    assert queue.filled_Q.all()
    assert int(queue.num_enqueued) == 6


@given(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=6))
def test_key_queue_holds_the_newest_keys(size: int, batches: list[int]) -> None:
    queue, pushed = KeyQueue(size, 1), []
    for number, batch in enumerate(batches):
        keys = [100.0 * number + n for n in range(min(batch, size))]
        queue.enqueue(torch.tensor(keys)[:, None], torch.tensor(keys).long())
        pushed += keys
    held = queue.keys_QD[queue.filled_Q].flatten().tolist()
    assert sorted(held) == pushed[-size:]


def test_key_queue_goes_on_after_its_state_was_loaded() -> None:
    keys = torch.arange(6.0)[:, None]
    whole, first, second = KeyQueue(4, 1), KeyQueue(4, 1), KeyQueue(4, 1)
    whole.enqueue(keys[:3], torch.arange(3))
    first.enqueue(keys[:3], torch.arange(3))
    second.load_state_dict(first.state_dict())
    for queue in (whole, second):
        queue.enqueue(keys[3:], torch.arange(3, len(keys)))
    assert all(map(torch.equal, whole.state_dict().values(), second.state_dict().values()))
    assert second.keys_QD.flatten().tolist() == [4, 5, 2, 3]


def test_momentum_update_by_hand() -> None:
    leader, follower = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        leader.weight.fill_(3.0)
        follower.weight.fill_(1.0)
    leader(torch.tensor([[0.0], [2.0]]))  # running mean 0.1, one batch
    momentum_update(follower, leader, 0.75)
    assert follower.weight.tolist() == [1.5]  # 0.75 * 1 + 0.25 * 3
    assert leader.weight.tolist() == [3]
    assert float(follower.running_mean) == 0  # type: ignore[arg-type]
    assert follower.weight.grad_fn is None


@settings(deadline=None)  # torch's first call takes its time
@given(st.integers(0, 99), st.floats(0, 0.999), st.integers(1, 5))
def test_momentum_update_is_the_sum_over_all_steps(seed: int, momentum: float, steps: int) -> None:
    torch.manual_seed(seed)
    leader, follower = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = follower.weight.detach().double()
    for _ in range(steps):
        with torch.no_grad():
            leader.weight.normal_()
        expected = momentum * expected + (1 - momentum) * leader.weight.detach().double()
        momentum_update(follower, leader, momentum)
    torch.testing.assert_close(follower.weight.detach().double(), expected, rtol=1e-4, atol=1e-5)


def test_region_features_by_hand() -> None:
    right, up = [1.0, 0.0], [0.0, 1.0]
    vectors = torch.tensor([[right, up, up, right]] * 2)
    first, last = torch.tensor([2.0, 1.0]), torch.tensor([3.0, 2.0])
    half = math.sqrt(0.5)
    torch.testing.assert_close(
        region_features(vectors, first, last), torch.tensor([[0.0, 1.0], [half, half]])
    )


@given(st.integers(0, 999), st.integers(1, 6))
def test_region_features_are_unit_vectors_of_the_region_alone(seed: int, num_clips: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng, 3, num_clips, 4)
    ends = np.sort(rng.integers(1, num_clips + 1, (2, 3)), axis=0)
    first, last = torch.from_numpy(ends).float()
    regions = region_features(vectors, first, last)
    torch.testing.assert_close(regions.norm(dim=1), torch.ones(3))
    for n in range(3):
        mean = vectors[n, ends[0, n] - 1 : ends[1, n]].mean(0)
        torch.testing.assert_close(regions[n], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_retrieval_scores() -> None:
    eye, videos = np.eye(4), np.arange(4.0)
    perfect = {"retrieval_accuracy": 1.0, "retrieval_accuracy_chance": 0.25}
    assert retrieval_scores(eye, eye, videos) == perfect
    assert retrieval_scores(eye, eye[[1, 0, 2, 3]], videos)["retrieval_accuracy"] == 0.5
    # collapsed vectors are no knowledge
    same = np.ones((4, 2))
    assert retrieval_scores(same, same, videos)["retrieval_accuracy"] == 0.25


def test_retrieval_is_among_64() -> None:
    keys = np.tile(np.eye(64), (3, 1))[:150]  # each key thrice, but once in a block
    videos = np.arange(150.0)
    assert retrieval_scores(keys, keys, videos) == {
        "retrieval_accuracy": 1.0,
        "retrieval_accuracy_chance": 1 / 64,
    }
    rest = keys.copy()
    rest[128:] = 0  # what no whole block holds does not count
    assert retrieval_scores(rest, keys, videos)["retrieval_accuracy"] == 1.0


def test_samples_of_one_video_are_no_wrong_answers() -> None:
    # eight samples of each of 64 videos, as a shard holds them: all know their video, no more
    keys = np.repeat(np.eye(64), 8, axis=0)
    videos = np.repeat(np.arange(64.0), 8)
    assert retrieval_scores(keys, keys, videos) == {
        "retrieval_accuracy": 1.0,
        "retrieval_accuracy_chance": 1 / 64,
    }
    few = retrieval_scores(keys[:16], keys[:16], videos[:16])  # two videos: nine answers
    assert few == {"retrieval_accuracy": 1.0, "retrieval_accuracy_chance": pytest.approx(1 / 9)}


def test_occurrences_by_hand() -> None:
    assert occurrences(np.array([7.0, 3, 7, 7, 3])).tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queue": 0}, "queue must be >= 1, got 0"),
        ({"projection_dim": 0}, "projection_dim must be >= 1, got 0"),
        ({"temperature": 0.0}, r"temperature must be > 0, got 0\.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1\.0"),
    ],
)
def test_wrong_arguments(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastArguments(**changes)  # type: ignore[arg-type]

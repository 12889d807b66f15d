"""PAL: which weights learn, what the queue sees, exact resume."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import moving_clip, pasted_pair, write_pasted_pairs, write_shards
from torch import nn

from manifests import ShardError, UsageError
from synth import ShardSample, constant_track
from train import load_run, train_model
from train.backbones import X3D, X3DArguments
from train.checkpoint import read_resume
from train.job import NOTHING_HELD_OUT
from train.loop import Training
from train.objectives.contrast import region_features
from train.objectives.pal import ClipHead, Pal, PalArguments, split_clips

TINY = {"depth_factor": 0.2, "width_factor": 0.3, "feature_dim": 16}
SETTINGS = PalArguments(projection_dim=8, queue=8, momentum=0.9, num_clips=4)


def write_recipe(path: Path, **changes: Any) -> Path:
    recipe: dict[str, Any] = {
        "objective": "pal",
        "objective_arguments": {"projection_dim": 8, "queue": 8, "momentum": 0.9, "num_clips": 4},
        "backbone_arguments": TINY,
        "batch_size": 4,
        "learning_rate": 0.01,
        "optimiser": "adam",
        "schedule": "constant",
        "steps": 6,
        "validation_fraction": 0.2,
        "checkpoint_every": 3,
        "log_every": 2,
    }
    recipe |= changes
    lines = ["[train]", *(f"{k} = {json.dumps(v)}" for k, v in recipe.items() if k[-1] != "s")]
    lines.append(f"steps = {recipe['steps']}")
    for table in ("objective_arguments", "backbone_arguments"):
        lines.append(f"[train.{table}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in recipe[table].items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def made_batch(count: int, num_clips: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [pasted_pair(seed, num_clips) for seed in range(count)]
    frames = torch.from_numpy(np.stack([pair[0] for pair in pairs])).flatten(0, 1)
    regions = [
        [m["s"][0], m["e"][0], m["s"][1], m["e"][1], video] for video, (_, m, _) in enumerate(pairs)
    ]
    return frames.float().div(255).permute(0, 4, 1, 2, 3), torch.tensor(regions).float()


@pytest.fixture
def model() -> tuple[Pal, X3D]:
    torch.manual_seed(0)
    objective, backbone = Pal(0, None, SETTINGS), X3D(0, X3DArguments(**TINY))  # type: ignore[arg-type]
    objective.bind(backbone)
    objective.train()
    return objective, backbone


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def take_step(objective: Pal, backbone: X3D, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    weights = [p for p in [*backbone.parameters(), *objective.parameters()] if p.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=0.01)
    loss = objective(backbone, *made_batch(4))
    loss.backward()
    optimiser.step()
    objective.after_step(backbone, alone)
    return loss.detach()


def test_split_clips_keeps_the_frames_in_order() -> None:
    videos = torch.arange(2 * 3 * 6 * 2 * 2).view(2, 3, 6, 2, 2)
    clips = split_clips(videos, 3)
    assert clips.shape == (6, 3, 2, 2, 2)
    for n, j in itertools.product(range(2), range(3)):
        assert torch.equal(clips[3 * n + j], videos[n, :, 2 * j : 2 * j + 2])
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_a_clips_vector_sees_one_neighbour_more_with_every_layer(num_layers: int) -> None:
    torch.manual_seed(0)
    head = ClipHead(32, 16, num_layers)
    features = torch.randn(2, 9, 32)
    alone = ClipHead(32, 16, 0)
    alone.projection.load_state_dict(head.projection.state_dict())
    if num_layers == 1:  # the convolutions start as the identity
        torch.testing.assert_close(head(features), alone(features))
    for layer in head.temporal:
        if isinstance(layer, nn.Conv1d):
            nn.init.normal_(layer.weight)
    vectors = head(features)
    assert vectors.shape == (2, 9, 16)
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones(2, 9))
    features[0, 4] += 1
    moved = (head(features) != vectors).any(2)
    assert moved[0].nonzero().flatten().tolist() == list(range(4 - num_layers, 5 + num_layers))
    assert not moved[1].any()


def test_the_gradient_reaches_the_query_side_alone(model: tuple[Pal, X3D]) -> None:
    objective, backbone = model
    take_step(objective, backbone)  # the queue is empty before
    for parameter in [*backbone.parameters(), *objective.parameters()]:
        parameter.grad = None
    objective(backbone, *made_batch(4)).backward()
    for module in (backbone, objective.head.projection, objective.head.temporal):
        assert all(p.grad is not None for p in module.parameters())
        assert any(p.grad.abs().max() > 0 for p in module.parameters())  # type: ignore[union-attr]
    for module in (objective.key_backbone, objective.key_head):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())


def test_the_momentum_encoder_follows(model: tuple[Pal, X3D]) -> None:
    objective, backbone = model
    name = "blocks.0.conv.conv_t.weight"
    before = objective.key_backbone.state_dict()[name].clone()
    assert torch.equal(before, backbone.state_dict()[name])
    take_step(objective, backbone)
    take_step(objective, backbone)
    now, leader = (net.state_dict()[name] for net in (objective.key_backbone, backbone))
    assert not torch.equal(now, before)
    assert (now - before).norm() < 0.2 * (leader - before).norm()


def test_the_momentum_encoder_has_norms_of_its_own(model: tuple[Pal, X3D]) -> None:
    """Keys use their batch's statistics in training, and the running ones of such later."""
    objective, backbone = model
    take_step(objective, backbone)
    clips, regions = made_batch(3)
    objective(backbone, clips, regions)
    together = objective._new_keys[0]
    objective(backbone, clips[4:], regions[2:])
    assert not torch.allclose(objective._new_keys[0][0], together[2], atol=1e-3)
    norm, leader = (net.blocks[0].norm for net in (objective.key_backbone, backbone))
    assert int(norm.num_batches_tracked) == int(leader.num_batches_tracked) == 3
    assert not torch.equal(norm.running_mean, leader.running_mean)
    objective.eval()
    before = norm.running_mean.clone()
    objective(backbone, clips, regions)
    assert torch.equal(norm.running_mean, before)


def test_a_query_is_the_region_of_the_first_video_and_a_key_that_of_the_second(
    model: tuple[Pal, X3D],
) -> None:
    objective, backbone = model
    clips, _ = made_batch(1)
    regions = torch.tensor([[2.0, 2.0, 2.0, 3.0, 0.0]])
    backbone.eval()
    objective.train()  # else no key is kept for the queue
    objective.key_backbone.eval()
    objective(backbone, clips, regions)
    vectors = objective.predict(backbone, clips)  # the momentum encoder is still a copy
    key = vectors[0, 1, 1:3].mean(0)
    torch.testing.assert_close(objective._new_keys[0][0], key / key.norm(), rtol=1e-4, atol=1e-5)


def test_the_queue_grows_by_what_training_saw(model: tuple[Pal, X3D]) -> None:
    objective, backbone = model
    assert float(take_step(objective, backbone)) == 0  # nothing to be told apart from yet
    assert int(objective.queue.num_enqueued) == 4
    keys = objective._new_keys[0]
    torch.testing.assert_close(objective.queue.keys_QD[:4], keys)
    assert float(take_step(objective, backbone)) > 0
    objective.eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    with torch.inference_mode():
        objective(backbone, *made_batch(3))
        predictions = objective.predict(backbone, made_batch(3)[0])
    assert predictions.shape == (3, 2, 4, 8)
    assert all(torch.equal(before[k], v) for k, v in objective.state_dict().items())
    assert len(objective._new_keys[0]) == 4


def pal_sample(**meta: Any) -> ShardSample:
    made = {"kind": "pal", "num_frames": 64, "clip_len": 8, "s": [2, 3], "e": [2, 7], **meta}
    return ShardSample("00000007", {}, made)


def test_target() -> None:
    target = Pal(0).target(pal_sample())
    assert target.dtype == np.float32
    assert target[:4].tolist() == [2, 2, 3, 7]


def test_the_target_tells_action_videos_apart() -> None:
    leaves = [{"op": "clip", "source": number} for number in range(3)]
    paste = {"op": "paste", "inputs": [{"op": "concat", "inputs": leaves[:2]}, leaves[2]]}
    made: dict[str, Any] = {"tree": {"op": "pair", "inputs": [paste, paste]}}
    numbers = [
        Pal(0).target(pal_sample(**made, sources=[{"video_id": name} for name in names]))[4]
        for names in ("abx", "cdx", "aby")
    ]
    assert numbers[0] == numbers[1] != numbers[2]
    assert all(number == int(number) < 2**24 for number in numbers)


@pytest.mark.parametrize(
    "meta",
    [
        {"s": [3, 3], "e": [2, 7]},
        {"s": [0, 3]},
        {"e": [2, 9]},
        {"s": None},
        {"s": [2], "e": [2]},
        {"s": [2.0, 3]},
        {"s": [True, 3]},
    ],
)
def test_a_sample_without_regions_is_named(meta: dict[str, Any]) -> None:
    with pytest.raises(ShardError, match="sample 00000007 needs a region with 1 <= s <= e <= 8"):
        Pal(0).target(pal_sample(**meta))


def test_a_sample_with_other_clips_is_named() -> None:
    with pytest.raises(ShardError, match="got 8 for sample 00000007 of 64 frames in clips of 16"):
        Pal(0).target(pal_sample(clip_len=16))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="num_clips must be >= 3, got 2"):
        PalArguments(num_clips=2)
    with pytest.raises(ValueError, match="temporal_layers must be 0, 1, 2 or 3, got 4"):
        PalArguments(temporal_layers=4)
    with pytest.raises(ValueError, match="queue must be a multiple of batch_size, got 16384 for 6"):
        Pal.check(PalArguments(), 6)
    Pal.check(PalArguments(), 512)


def test_perfect_vectors_are_retrieved() -> None:
    # four samples; the action's vector stands at the region, noise elsewhere
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 2, 8, 4)).astype(np.float32)
    vectors[:, 0, 1:3] = np.eye(4)[:, None]
    vectors[:, 1, 4:7] = np.eye(4)[:, None]
    regions = np.array([[2, 3, 5, 7, video] for video in range(4)], np.float32)
    scores = Pal(0).score(vectors, regions)
    assert scores == {"retrieval_accuracy": 1.0, "retrieval_accuracy_chance": 0.25}


def test_wrong_use_writes_nothing(tmp_path: Path) -> None:
    run, shards = tmp_path / "run", write_pasted_pairs(tmp_path / "pairs", 8, num_clips=4)
    recipe = write_recipe(tmp_path / "odd.toml", batch_size=3)
    with pytest.raises(UsageError, match=r"queue must be a multiple of batch_size, got 8 for 3"):
        train_model(recipe, shards, run, device="cpu")
    clips = [(moving_clip(0, 0), constant_track(0, 4), ("v",), "clip")] * 8
    single = write_shards(tmp_path / "single", clips)
    recipe = write_recipe(tmp_path / "recipe.toml")
    with pytest.raises(UsageError, match=r"'pal' needs pairs of composed videos \(kind 'pal'\)"):
        train_model(recipe, single, run, device="cpu")
    assert not run.exists()


@pytest.mark.slow
def test_stopped_and_resumed_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights alone would not show a queue or a momentum encoder that began anew."""
    shards = write_pasted_pairs(tmp_path / "out", 14, num_clips=4)
    recipe = write_recipe(tmp_path / "recipe.toml", validate_every=3)
    report = train_model(recipe, shards, tmp_path / "whole", device="cpu")
    assert {"loss", "retrieval_accuracy", "retrieval_accuracy_chance"} == report.scores.keys()
    once = Training.train_step

    def interrupted(self: Any, batch: Any, stop: bool = False) -> None:
        if self.step == 3:
            raise MemoryError
        once(self, batch, stop)

    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(MemoryError):
        train_model(recipe, shards, tmp_path / "cut", device="cpu")
    monkeypatch.undo()
    assert load_run(tmp_path / "cut").record["step"] == 3
    train_model(recipe, shards, tmp_path / "cut", resume=True, device="cpu")
    whole, cut = (read_resume(tmp_path / name) for name in ("whole", "cut"))
    assert whole is not None
    assert cut is not None
    assert int(whole["objective"]["queue.num_enqueued"]) == 24
    for part in ("backbone", "objective"):
        assert whole[part].keys() == cut[part].keys()
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, cut[part][name]), name
    assert load_run(tmp_path / "whole").record["frames"] == 2  # of one clip


def test_a_run_says_that_nothing_is_held_out(tmp_path: Path) -> None:
    """A pair shows three videos: one held-out video is never all that a pair shows."""
    shards = write_pasted_pairs(tmp_path / "out", 8, num_clips=4)
    recipe = write_recipe(tmp_path / "recipe.toml", validation_fraction=0.01, steps=1)
    report = train_model(recipe, shards, tmp_path / "run", device="cpu")
    assert (report.num_held_out, report.scores) == (0, {})
    assert report.notes == (NOTHING_HELD_OUT,)


def test_negatives_are_keys_of_other_videos() -> None:
    """The slow loop: own key first, then those of queue and batch, own video left out."""
    torch.manual_seed(0)
    settings = {"projection_dim": 8, "queue": 8, "num_clips": 4}
    objective = Pal(0, None, PalArguments(**settings, batch_negatives=True))
    backbone = X3D(0, X3DArguments(**TINY)).eval()  # type: ignore[arg-type]
    objective.bind(backbone)
    in_queue = [7, 1, 8, 2, 1]
    objective.queue.enqueue(
        nn.functional.normalize(torch.randn(5, 8), dim=1), torch.tensor(in_queue)
    )
    clips, targets = made_batch(4)
    videos = [0, 1, 2, 0]
    targets[:, 4] = torch.tensor(videos)
    objective.key_backbone.eval()
    queries, keys = (
        region_features(
            objective._encode(network, head, clips[view::2]),
            targets[:, 2 * view],
            targets[:, 2 * view + 1],
        )
        for view, (network, head) in enumerate(
            [(backbone, objective.head), (objective.key_backbone, objective.key_head)]
        )
    )
    losses = []
    for n, video in enumerate(videos):
        others = [objective.queue.keys_QD[q] for q in range(5) if in_queue[q] != video]
        others += [keys[m] for m in range(4) if videos[m] != video]
        rows = torch.stack([keys[n], *others])
        losses.append(-(rows @ queries[n] / 0.07).log_softmax(0)[0])
    torch.testing.assert_close(objective(backbone, clips, targets), torch.stack(losses).mean())

"""The manifold variant: the rendered operations on feature maps, drawn alike, in training alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shards import write_moving_shards
from torch import nn

from manifests import UsageError
from synth import LabelTrack, draw_freeze, draw_overlap
from synth.cutmix import (
    cutmix_view_frames,
    cutmix_view_labels,
    cutmix_window_frames,
    cutmix_window_labels,
)
from synth.freeze import freeze_frames, freeze_labels
from synth.mixup import mixup_frames, mixup_labels
from train import load_run, train_model
from train.backbones import X3D, Backbone, X3DArguments
from train.loop import Training, seed_step
from train.objectives.detection import Detection, DetectionArguments, dense_weights
from train.objectives.manifold import (
    FEWEST_FRAMES,
    MapMixture,
    draw_mixture,
    draw_partners,
    mix_labels,
    mix_maps,
)

OPERATIONS: tuple[Any, ...] = tuple(FEWEST_FRAMES)
TINY = X3DArguments(depth_factor=0.2, width_factor=0.3, feature_dim=8, dropout=0.0)


def random_track(rng: np.random.Generator, num_frames: int, num_classes: int = 4) -> LabelTrack:
    parts = rng.dirichlet(np.ones(num_classes + 1), num_frames).T[:num_classes]
    return LabelTrack(np.arange(num_classes), parts)


def rendered(
    operation: str,
    rng: np.random.Generator,
    clips: list[np.ndarray],
    tracks: list[LabelTrack],
    delta: float,
) -> tuple[list[np.ndarray], list[LabelTrack]]:
    """Draw and render as the synthesis does: partners first, then each sample in turn."""
    partners = draw_partners(rng, len(clips))
    num_frames, width = len(clips[0]), clips[0].shape[2]
    frames, labels = [], []
    for n, partner in enumerate(partners):
        pair, pair_tracks = (clips[n], clips[partner]), (tracks[n], tracks[partner])
        if operation == "freeze":
            intervals = draw_freeze(rng, num_frames)
            frames.append(freeze_frames(clips[n], intervals))
            labels.append(freeze_labels(tracks[n], intervals))
        elif operation == "cutmix_view":
            frames.append(cutmix_view_frames(*pair, delta * width))
            labels.append(cutmix_view_labels(*pair_tracks))
        else:
            overlap = draw_overlap(rng, num_frames)
            if operation == "mixup":
                frames.append(mixup_frames(*pair, overlap))
                labels.append(mixup_labels(*pair_tracks, overlap))
            else:
                frames.append(cutmix_window_frames(*pair, overlap, delta * width))
                labels.append(cutmix_window_labels(*pair_tracks, overlap, delta * width, width))
    return frames, labels


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(2, 5), st.integers(4, 9), st.integers(1, 10))
def test_it_is_the_rendered_operation(
    operation: Any, seed: int, num_samples: int, num_frames: int, half_width: int
) -> None:
    rng, width, delta = np.random.default_rng(seed), 2 * half_width, 1 / 16
    clips = [rng.integers(0, 256, (num_frames, 3, width, 3), np.uint8) for _ in range(num_samples)]
    tracks = [random_track(rng, num_frames) for _ in range(num_samples)]
    frames, labels = rendered(operation, np.random.default_rng(seed), clips, tracks, delta)

    shape = (num_samples, num_frames, width)
    mixture = draw_mixture(np.random.default_rng(seed), operation, shape)
    maps = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).double()
    mixed_NTHWC = mix_maps(maps, mixture).permute(0, 2, 3, 4, 1).numpy()
    assert np.abs(mixed_NTHWC - np.stack(frames)).max() <= 0.5 + 1e-4  # rendered ones are rounded

    for with_background in (True, False):
        dense = [dense_weights(track, 4, with_background) for track in tracks]
        got = mix_labels(torch.from_numpy(np.stack(dense)), mixture, with_background).numpy()
        expected = [dense_weights(track, 4, with_background) for track in labels]
        np.testing.assert_allclose(got, np.stack(expected), atol=1e-6)
        assert got.min() >= -1e-6
        assert got.max() <= 1 + 1e-6


def test_a_frozen_map_by_hand() -> None:
    # frames 0 1 2 3 of the first sample, 4 5 6 7 of the second; r=2, m=3 and r=1, m=2
    maps = torch.arange(8.0).view(2, 1, 4, 1, 1)
    own = np.array([[0, 1, 1, 1], [0, 0, 1, 2]])
    frozen = np.array([[0, 1, 1, 1], [1, 1, 0, 0]], bool)
    mixture = MapMixture(np.array([1, 0]), own, own, np.ones((2, 4, 1)), None, frozen)
    assert mix_maps(maps, mixture).flatten().tolist() == [0, 1, 1, 1, 4, 4, 5, 6]
    labels = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 0, 0]]] * 2)
    got = mix_labels(labels, mixture, with_background=True)
    assert got[0].tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    assert got[1].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_labels_follow_an_odd_width() -> None:
    """Of 7 columns the transient view gives 4 to the left clip: so do the labels."""
    mixture = draw_mixture(np.random.default_rng(0), "cutmix_view", (2, 4, 7), delta=0.0)
    labels = torch.stack([torch.ones(1, 4), torch.zeros(1, 4)])
    got = mix_labels(labels, mixture, with_background=False)
    torch.testing.assert_close(got[:, 0, 0], torch.tensor([4 / 7, 3 / 7]))


@given(st.integers(0, 999), st.integers(2, 9))
def test_nobody_is_his_own_partner(seed: int, num_samples: int) -> None:
    partners = draw_partners(np.random.default_rng(seed), num_samples)
    assert sorted(partners) == list(range(num_samples))
    assert (partners != np.arange(num_samples)).all()
    assert draw_partners(np.random.default_rng(seed), 1).tolist() == [0]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_shortest_clips_can_be_drawn(operation: Any) -> None:
    num_frames = FEWEST_FRAMES[operation]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mixture = draw_mixture(rng, operation, (2, num_frames, 3), min_overlap=0.5)
        assert mixture.own_NT.shape == (2, num_frames)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_flow_by_the_shares(operation: Any) -> None:
    maps = torch.randn(3, 2, 6, 4, 5, requires_grad=True)
    mixture = draw_mixture(np.random.default_rng(1), operation, (3, 6, 5))
    mixed = mix_maps(maps, mixture)
    assert mixed.shape == maps.shape
    mixed.sum().backward()
    assert maps.grad is not None
    # every shown pixel hands out weight 1 altogether
    assert float(maps.grad.sum()) == pytest.approx(mixed.numel(), rel=1e-5)


def hooks(backbone: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in backbone.modules())


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_only_training_mixes(loss: str) -> None:
    torch.manual_seed(0)
    mixing = Detection(4, loss, DetectionArguments(manifold=OPERATIONS))
    plain = Detection(4, loss)
    backbone = X3D(mixing.num_outputs, TINY).eval()
    clips = torch.randn(3, 3, 6, 32, 32)
    track = random_track(np.random.default_rng(0), 6)
    targets = torch.from_numpy(np.stack([dense_weights(track, 4, mixing.with_background)] * 3))
    before, expected = targets.clone(), plain(backbone, clips, targets).item()
    mixing.eval()
    assert mixing(backbone, clips, targets).item() == expected
    mixing.train()
    seen = set()
    for step in range(8):
        seed_step(0, step)
        value = mixing(backbone, clips, targets)
        seed_step(0, step)
        assert mixing(backbone, clips, targets).item() == value.item()  # by the step's seed alone
        seen.add(value.item())
    value.backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert len(seen) == 8
    assert expected not in seen
    assert hooks(backbone) == 0
    torch.testing.assert_close(targets, before)


def test_every_stage_and_operation_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every stage the map has the stage's own width; the raw input is one of the stages."""
    objective = Detection(2, arguments=DetectionArguments(manifold=OPERATIONS))
    backbone, drawn = X3D(objective.num_outputs, TINY), set()

    def watch(rng: Any, operation: Any, shape: tuple[int, int, int], *numbers: float) -> Any:
        drawn.add((operation, shape[2]))
        return draw_mixture(rng, operation, shape, *numbers)

    monkeypatch.setattr("train.objectives.detection.draw_mixture", watch)
    objective.bind(backbone)
    for step in range(60):
        seed_step(0, step)
        objective(backbone, torch.randn(2, 3, 4, 32, 32), torch.rand(2, 3, 4))
    assert {operation for operation, _ in drawn} == set(OPERATIONS)
    assert {width for _, width in drawn} == {32, 16, 8, 4, 2}


class Pooled(Backbone):
    """A network without a map that has all frames."""

    classifier = "layer"
    Arguments = X3DArguments
    __init__ = nn.Module.__init__

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        return clips_NCTHW.mean((2, 3, 4))

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        return self.features(clips_NCTHW)


def write_recipe(folder: Path, arguments: dict[str, Any], **changes: Any) -> Path:
    values = {"batch_size": 4, "learning_rate": 0.05, "steps": 6, "validation_fraction": 0.2}
    values |= {"checkpoint_every": 2, "log_every": 2, **changes}
    tables = {
        "backbone_arguments": {"depth_factor": 0.2, "width_factor": 0.3, "feature_dim": 8},
        "objective_arguments": arguments,
    }
    lines = ["[train]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    for name, table in tables.items():
        lines.append(f"[train.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path = folder / f"recipe-{len(list(folder.glob('*.toml')))}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_shards(tmp_path_factory.mktemp("manifold") / "out", 12)


def test_wrong_use_is_one_sentence(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both: dict[str, Any] = {"manifold": ["freeze", "mixup"]}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"manifold": ["blur"]}, {}, "manifold must be a list, each one of 'freeze', 'mixup'"),
        (both | {"delta": 0.6}, {}, r"delta must be in \[0, 0\.5\], got 0\.6"),
        (both, {"batch_size": 1}, "batch_size must be >= 2, got 1"),
        (both, {"compile": True}, "set compile = false"),
        (
            both,
            {"objective": "classification"},
            "'manifold' in .*, which has no keys",
        ),
    ]
    for arguments, changes, message in cases:
        with pytest.raises(UsageError, match=message):
            train_model(write_recipe(tmp_path, arguments, **changes), shards, tmp_path / "run")
    recipe = write_recipe(tmp_path, both, batch_size=2)
    with pytest.raises(UsageError, match="batch_size must be >= 2, got 1 in each of 2 workers"):
        train_model(recipe, shards, tmp_path / "run", workers=2)
    short = write_moving_shards(tmp_path / "short", 12, num_frames=3)
    with pytest.raises(UsageError, match="samples of at least 4 frames, got 3"):
        train_model(write_recipe(tmp_path, both), short, tmp_path / "run")
    monkeypatch.setattr(X3D, "stages", ())
    with pytest.raises(UsageError, match="whose stages give maps of all frames, but X3D has none"):
        train_model(write_recipe(tmp_path, both), shards, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_pools_time_cannot_be_bound() -> None:
    with pytest.raises(ValueError, match="but Pooled has none: choose x3d"):
        Detection(2, arguments=DetectionArguments(manifold=("mixup",))).bind(Pooled())
    Detection(2).bind(Pooled())


@pytest.mark.slow
def test_a_resumed_run_draws_the_same(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, {"manifold": list(OPERATIONS)})
    report = train_model(recipe, shards, tmp_path / "whole", device="cpu")
    assert np.isfinite(report.loss)
    assert "frame_map" in report.scores
    once = Training.train_step

    def interrupted(self: Any, batch: Any, stop: bool = False) -> None:
        once(self, batch, stop)
        if self.step == 3:  # one step after a checkpoint
            raise MemoryError

    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(MemoryError):
        train_model(recipe, shards, tmp_path / "cut", device="cpu")
    monkeypatch.undo()
    train_model(recipe, shards, tmp_path / "cut", resume=True, device="cpu")
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    arguments = load_run(tmp_path / "whole").record["objective_arguments"]
    assert arguments == {"manifold": list(OPERATIONS)}
    plain = write_recipe(tmp_path, {})
    train_model(plain, shards, tmp_path / "plain", device="cpu")
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != files[0].read_bytes()

"""Feature distillation: the loss against a slow loop, frozen teachers, and exact resume."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_boundaries import write_boundary_shards
from made_runs import (
    SMALL_X3D,
    check_shards,
    cut_and_resume,
    step_losses,
    train_small,
    write_small_recipe,
)
from made_shards import write_pasted_pairs

from manifests import CheckpointError, UsageError
from train import load_run, train_model
from train.backbones import BACKBONES, X3D, X3DArguments
from train.checkpoint import build_backbone
from train.objectives.distillation import (
    Distillation,
    DistillationArguments,
    class_scores,
    squared_distance,
)

SMALL: dict[str, dict[str, Any]] = {
    "x3d": SMALL_X3D,
    "i3d": {"width": 0.125},
    "tsm": {"depth": 18, "width": 8},
    "resnet3d": {"depth": 18, "width": 8},
}


def small_x3d(num_outputs: int) -> X3D:
    return X3D(num_outputs, X3DArguments(**{**SMALL_X3D, "feature_dim": 5}))


def bound(weight: float = 1.0) -> tuple[Distillation, X3D, list[X3D]]:
    """Return an objective of 3 classes with its student and two teachers."""
    torch.manual_seed(0)
    objective = Distillation(3, arguments=DistillationArguments(weight))
    student, teachers = small_x3d(3), [small_x3d(3), small_x3d(4)]
    objective.bind(student, teachers)
    return objective, student, teachers


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boundary_shards(tmp_path_factory.mktemp("made") / "out")


@pytest.fixture(scope="module")
def teachers(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Train the two teachers for a few steps."""
    folder = tmp_path_factory.mktemp("teachers")
    for objective in ("classification", "boundary"):
        train_small(folder, objective, shards, name=objective, steps=2)
    return [folder / "classification", folder / "boundary"]


def test_squared_distance_by_hand() -> None:
    found, taught = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert float(squared_distance(found, taught)) == (4 + 10) / 2


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_loss_is_the_slow_loop(weight: float) -> None:
    objective, student, teachers = bound(weight)
    student.eval()
    clips = torch.randn(4, 3, 4, 32, 32)
    targets = np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0], [0, 0, 1]], np.float32)
    student_ND = student.features(clips).detach().double().numpy()
    distances = []
    for teacher, layer in zip(teachers, objective.projections, strict=True):
        wanted_ND = teacher.features(clips).detach().double().numpy()
        weights, bias = (p.detach().double().numpy() for p in layer.parameters())
        for wanted, own in zip(wanted_ND, student_ND, strict=True):
            for d in range(5):
                projected = bias[d] + sum(weights[d, j] * own[j] for j in range(5))
                distances.append((wanted[d] - projected) ** 2)
    entropies = []
    for scores, target in zip(student(clips).tolist(), targets, strict=True):
        if target.sum():
            total = math.log(sum(math.exp(score) for score in scores))
            entropies.append(sum(q * (total - s) for q, s in zip(target, scores, strict=True)))
    expected = weight * sum(distances) / 4 + np.mean(entropies)
    got = objective(student, clips, torch.from_numpy(targets))
    assert float(got.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_one_pass_gives_the_scores_of_forward(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, SMALL[name], 3).eval()
    clips = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        scores = class_scores(backbone, backbone.features(clips))
        torch.testing.assert_close(scores, backbone(clips))


def test_teachers_are_frozen_and_no_part_of_the_module() -> None:
    objective, student, teachers = bound()
    objective.train()
    student.train()
    assert sorted(objective.state_dict()) == [
        f"projections.{n}.{part}" for n in (0, 1) for part in ("bias", "weight")
    ]
    assert sum(p.numel() for p in objective.parameters()) == 2 * (5 * 5 + 5)
    before = [{k: v.clone() for k, v in teacher.state_dict().items()} for teacher in teachers]
    loss = objective(student, torch.randn(2, 3, 4, 32, 32), torch.eye(3)[:2])
    loss.backward()
    assert all(p.grad is not None for p in [*student.parameters(), *objective.parameters()])
    for teacher, weights in zip(teachers, before, strict=True):
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
        for name, weight in teacher.state_dict().items():  # running statistics too
            assert torch.equal(weight, weights[name])


def test_perfect_predictions_score_one() -> None:
    objective, _, _ = bound()
    targets = np.eye(3)[[0, 1, 1, 2]]
    predictions = np.hstack([targets, np.ones((4, 2))])
    assert objective.score(predictions, targets) == {
        "accuracy": 1,
        "accuracy_chance": 0.5,
        "cosine_classification": 1,
        "cosine_boundary": 1,
    }


def test_a_student_that_is_its_teachers_has_no_distance() -> None:
    objective, student, _ = bound()
    objective.bind(student.eval(), [student, student])
    for parameter in objective.parameters():
        torch.nn.init.eye_(parameter) if parameter.ndim == 2 else torch.nn.init.zeros_(parameter)
    clips = torch.randn(2, 3, 4, 32, 32)
    predictions = objective.predict(student, clips).detach()
    torch.testing.assert_close(predictions[:, 3:], torch.ones(2, 2))
    without_class = torch.zeros(2, 3)
    assert float(objective(student, clips, without_class).detach()) == 0


def test_wrong_use_is_said(shards: Path, teachers: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feature_weight must be >= 0, got nan"):
        DistillationArguments(math.nan)
    with pytest.raises(UsageError, match=r"'distillation' needs single clips .* kind 'pal'"):
        check_shards("distillation", write_pasted_pairs(tmp_path / "pairs", 4))
    message = r"takes 2 --teacher runs \(classification, then boundary\), got 1"
    with pytest.raises(UsageError, match=message):
        train_small(tmp_path, "distillation", shards, teachers[:1])
    with pytest.raises(CheckpointError, match="the classification teacher must be a run of"):
        train_small(tmp_path, "distillation", shards, teachers[::-1])
    other = {**SMALL_X3D, "feature_dim": 8}
    with pytest.raises(CheckpointError, match="a teacher must have the arguments of the recipe"):
        train_small(tmp_path, "distillation", shards, teachers, backbone_arguments=other)
    assert not (tmp_path / "run").exists()


def test_a_teacher_may_spell_out_defaults_and_drop_other_shares(
    shards: Path, teachers: list[Path], tmp_path: Path
) -> None:
    spelt_out = {**SMALL_X3D, "bottleneck_factor": 2.25, "dropout": 0.3}
    train_small(tmp_path, "distillation", shards, teachers, backbone_arguments=spelt_out, steps=1)


@pytest.mark.slow
def test_a_resumed_run_is_bit_identical(shards: Path, teachers: list[Path], tmp_path: Path) -> None:
    recipe = write_small_recipe(tmp_path, "distillation")
    report = train_model(recipe, shards, tmp_path / "whole", teachers=teachers, device="cpu")
    assert {"accuracy", "cosine_classification", "cosine_boundary"} <= report.scores.keys()
    cut_and_resume(recipe, shards, tmp_path / "cut", teachers)
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert cut == whole
    assert step_losses(tmp_path / "cut") == step_losses(tmp_path / "whole")
    assert load_run(tmp_path / "cut").record["num_outputs"] == 4


@pytest.mark.slow
def test_it_learns_the_teachers_features(
    shards: Path, teachers: list[Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"optimiser": "adamw", "log_every": 10}
    report = train_small(tmp_path, "distillation", shards, teachers, steps=60, **options)
    assert report.scores["cosine_classification"] > 0.8  # near 0 for random projections
    assert report.scores["cosine_boundary"] > 0.8
    losses = step_losses(tmp_path / "run")
    assert losses[-1] < losses[0] / 2

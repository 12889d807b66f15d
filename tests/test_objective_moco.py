"""MoCo on single clips: PAL's machinery without regions and without a temporal head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import write_clip_pairs, write_pasted_pairs
from test_objective_pal import TINY, write_recipe

from manifests import UsageError
from synth import ShardSample
from train import load_run, train_model
from train.backbones import X3D, X3DArguments
from train.objectives.contrast import info_nce
from train.objectives.moco import Moco, MocoArguments

SETTINGS = {"projection_dim": 8, "queue": 8, "momentum": 0.9}


def test_the_loss_is_the_info_nce_of_whole_clips() -> None:
    torch.manual_seed(0)
    objective = Moco(0, None, MocoArguments(**SETTINGS))  # type: ignore[arg-type]
    backbone = X3D(0, X3DArguments(**TINY)).eval()  # type: ignore[arg-type]
    objective.bind(backbone)
    assert not len(objective.head.temporal)
    objective.queue.enqueue(
        torch.nn.functional.normalize(torch.randn(6, 8), dim=1), torch.arange(100, 106)
    )
    clips = torch.rand(6, 3, 4, 32, 32)
    samples = [ShardSample(key, {}, {}) for key in "012"]
    targets = torch.from_numpy(np.stack([objective.target(sample) for sample in samples]))
    vectors = objective.head.projection(backbone.features(clips))
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    expected = info_nce(unit[0::2], unit[1::2], objective.queue.keys_QD[:6], 0.07)
    torch.testing.assert_close(objective(backbone, clips, targets), expected)
    predictions = objective.predict(backbone, clips)
    torch.testing.assert_close(predictions, unit.view(3, 2, 1, 8))
    scores = objective.score(predictions.detach().numpy(), targets.numpy())
    assert scores["retrieval_accuracy_chance"] == 1 / 3


def test_it_trains_on_pairs_of_clips_alone(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "recipe.toml", objective="moco", objective_arguments=SETTINGS, steps=4
    )
    shards = write_clip_pairs(tmp_path / "out", 12)
    report = train_model(recipe, shards, tmp_path / "run", device="cpu")
    assert report.finished
    assert report.scores["retrieval_accuracy_chance"] == 1 / report.num_held_out
    assert load_run(tmp_path / "run").record["frames"] == 4
    composed = write_pasted_pairs(tmp_path / "composed", 8)
    message = r"'moco' needs pairs of single clips \(kind 'clip_pair'\), but .* of kind 'pal'"
    with pytest.raises(UsageError, match=message):
        train_model(recipe, composed, tmp_path / "other", device="cpu")

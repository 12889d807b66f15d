"""`keep_at`: the model as it was on the way, loadable as the run is, the same after a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import train_small, write_small_recipe
from made_shards import write_moving_shards, write_pasted_pairs

import train.checkpoint
from manifests import CheckpointError, UsageError, write_atomic
from train import TrainRecipe, load_run, read_train_recipe, train_model
from train.checkpoint import read_resume, write_resume
from train.loop import Training

PAL = {
    "objective_arguments": {"projection_dim": 8, "queue": 8, "momentum": 0.9, "num_clips": 4},
    "loss": "info_nce",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_shards(tmp_path_factory.mktemp("made") / "out", 20)


def kept(run: Path) -> dict[str, bytes]:
    """Return the content of every file that a run kept, by its name in the run's folder."""
    files = [path for path in sorted(run.glob("step-*/*")) if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def write_times(run: Path) -> dict[str, int]:
    return {path.parent.name + path.name: path.stat().st_mtime_ns for path in run.glob("step-*/*")}


def test_a_kept_model_is_that_of_a_run_that_ends_there(shards: Path, tmp_path: Path) -> None:
    """Without a schedule, a run of three steps is the first half of one of six."""
    keep: dict[str, Any] = {"schedule": "constant", "keep_at": [3, 6]}
    train_small(tmp_path, "classification", shards, name="long", steps=6, **keep)
    train_small(tmp_path, "classification", shards, name="short", steps=3, schedule="constant")
    assert list(kept(tmp_path / "long")) == [
        "step-000003/model.json",
        "step-000003/model.safetensors",
        "step-000006/model.json",
        "step-000006/model.safetensors",
    ]
    for step, ended in ((3, tmp_path / "short"), (6, tmp_path / "long")):
        model, end = load_run(tmp_path / f"long/step-00000{step}"), load_run(ended)
        assert model.digest == end.digest
        assert model.record["step"] == step
        different = {"num_steps", "recipe_digest", "scores"} if step == 3 else set()
        assert model.record.keys() == end.record.keys()
        for key in end.record.keys() - different:
            assert model.record[key] == end.record[key]


def test_a_kept_model_initialises_another_run(shards: Path, tmp_path: Path) -> None:
    train_small(tmp_path, "classification", shards, steps=2, keep_at=[1])
    recipe = write_small_recipe(tmp_path, "classification", steps=1, learning_rate=1e-12)
    first = tmp_path / "run/step-000001"
    report = train_model(recipe, shards, tmp_path / "next", init=first, device="cpu")
    assert not report.notes  # the class layer, too
    name = "blocks.0.conv.conv_t.weight"
    states = [load_run(path).backbone.state_dict()[name] for path in (first, tmp_path / "next")]
    torch.testing.assert_close(*states)


@pytest.mark.parametrize(
    ("dies_at", "step"),  # step 3 is no checkpoint, step 4 is one
    [("train_step", 3), ("keep", 3), ("train_step", 4), ("keep", 4), ("save", 4)],
)
def test_killed_and_resumed_keeps_the_same_and_writes_nothing_twice(
    shards: Path, tmp_path: Path, dies_at: str, step: int
) -> None:
    recipe = write_small_recipe(
        tmp_path, "detection", keep_at=[1, 3, 4, 6], validate_every=2, checkpoint_every=2
    )
    train_model(recipe, shards, tmp_path / "whole", device="cpu")
    verb = getattr(Training, dies_at)

    def dying(self: Any, *args: Any) -> None:
        verb(self, *args)
        if self.step == step:
            raise MemoryError

    run = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, dies_at, dying)
        with pytest.raises(MemoryError):
            train_model(recipe, shards, run, device="cpu")
    before = write_times(run)
    assert "step-000001model.json" in before
    assert train_model(recipe, shards, run, resume=True, device="cpu").finished
    assert kept(run) == kept(tmp_path / "whole")
    assert before.items() <= write_times(run).items()


def test_killed_between_weights_and_record(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no record yet is no model, and is written again."""
    recipe = write_small_recipe(tmp_path, "classification", keep_at=[3])
    train_model(recipe, shards, tmp_path / "whole", device="cpu")

    def dying(path: Path, content: bytes) -> None:
        if path.parts[-2:] == ("step-000003", "model.json"):
            raise MemoryError
        write_atomic(path, content)

    monkeypatch.setattr(train.checkpoint, "write_atomic", dying)
    with pytest.raises(MemoryError):
        train_model(recipe, shards, tmp_path / "cut", device="cpu")
    monkeypatch.undo()
    assert list(kept(tmp_path / "cut")) == ["step-000003/model.safetensors"]
    with pytest.raises(CheckpointError, match="not a training run"):
        load_run(tmp_path / "cut/step-000003")
    train_model(recipe, shards, tmp_path / "cut", resume=True, device="cpu")
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def test_of_pal_the_query_encoder_is_kept(tmp_path: Path) -> None:
    out = write_pasted_pairs(tmp_path / "out", 8, num_clips=4)
    options: dict[str, Any] = {"schedule": "constant", "validation_fraction": 0.0, **PAL}
    train_small(tmp_path, "pal", out, name="long", steps=4, keep_at=[2], **options)
    train_small(tmp_path, "pal", out, name="short", steps=2, **options)
    model = load_run(tmp_path / "long/step-000002")
    assert model.digest == load_run(tmp_path / "short").digest
    state = read_resume(tmp_path / "short")
    assert state is not None
    for name, weight in model.backbone.state_dict().items():
        torch.testing.assert_close(weight, state["backbone"][name])


@pytest.mark.parametrize(
    ("length", "keep_at", "message"),
    [
        ("steps = 6", [2, 7], r"keep_at must be steps from 1 to 6, .*, got 7 \(recipe '.*toml'"),
        ("steps = 6", [0], "keep_at must be steps from 1 to 6, .*, got 0"),
        ("epochs = 2", [8, 9], "keep_at must be steps from 1 to 8, .*, got 9"),
        ("steps = 6", [2.5], r"train\.keep_at must be a list, each a whole number, got \[2\.5\]"),
    ],
)
def test_steps_that_never_come_are_refused(
    shards: Path, tmp_path: Path, length: str, keep_at: list[float], message: str
) -> None:
    recipe = write_small_recipe(tmp_path, "classification", keep_at=keep_at)
    recipe.write_text(recipe.read_text().replace("steps = 6", length))
    with pytest.raises(UsageError, match=message):
        train_model(recipe, shards, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_the_key_goes_on(shards: Path, tmp_path: Path) -> None:
    """It kept nothing, which is what a recipe without the key says."""
    recipe, run = write_small_recipe(tmp_path, "classification", steps=2), tmp_path / "run"
    train_model(recipe, shards, run, device="cpu")
    state = read_resume(run)
    assert state is not None
    del state["recipe"]["keep_at"]
    write_resume(run, state)
    assert train_model(recipe, shards, run, resume=True, device="cpu").finished
    keeping = write_small_recipe(tmp_path, "classification", steps=2, keep_at=[1])
    with pytest.raises(CheckpointError, match=r"keep_at = \[\], the recipe says \[1\]"):
        train_model(keeping, shards, run, resume=True, device="cpu")


def test_digests_of_before_the_key_hold(tmp_path: Path) -> None:
    recipe = TrainRecipe(batch_size=4, learning_rate=0.5, steps=2)
    assert recipe.digest == "17363c2098ab5534319768145f1b24b0ae919b97b554bd245bae63204f204119"
    empty = write_small_recipe(tmp_path, "classification", keep_at=[])
    absent = write_small_recipe(tmp_path, "classification")
    keeping = write_small_recipe(tmp_path, "classification", keep_at=[1])
    digests = [read_train_recipe(path).digest for path in (empty, absent, keeping)]
    assert digests[0] == digests[1] != digests[2]

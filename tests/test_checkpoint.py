"""The files of a run: round trips, damage, and weights from elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from manifests import CheckpointError
from train.backbones import X3D, X3DArguments
from train.checkpoint import (
    load_initial_weights,
    load_run,
    normalise,
    read_resume,
    write_model,
    write_resume,
)

ARGUMENTS = {"depth_factor": 0.2, "width_factor": 0.3, "feature_dim": 8}
CLASSES = ["run", "jump", "fall"]


def tiny(num_outputs: int = 3, seed: int = 0) -> X3D:
    torch.manual_seed(seed)
    return X3D(num_outputs, X3DArguments(**ARGUMENTS))  # type: ignore[arg-type]


def record(**changes: Any) -> dict[str, Any]:
    return {
        "backbone": "x3d",
        "arguments": ARGUMENTS,
        "num_outputs": 3,
        "classes": CLASSES,
        "mean": [0.45] * 3,
        "std": [0.225] * 3,
        **changes,
    }


@torch.inference_mode()
def test_round_trip(tmp_path: Path) -> None:
    backbone = tiny().to(memory_format=torch.channels_last_3d)
    write_model(tmp_path, backbone, record())
    loaded = load_run(tmp_path)
    assert not loaded.backbone.training
    assert loaded.record["classes"] == CLASSES
    assert loaded.digest == loaded.record["weights_sha256"]
    clips = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(loaded.backbone(clips), backbone.eval()(clips))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a training run: there is no .*model\.json"):
        load_run(tmp_path)
    write_model(tmp_path, tiny(), record())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no readable model\.safetensors"):
        load_run(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    write_model(tmp_path, tiny(), record())
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or from another run"):
        load_run(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a model record"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "x4d"},
        {"num_outputs": 4},
        {"arguments": {**ARGUMENTS, "depth": 1}},
        {"arguments": {**ARGUMENTS, "feature_dim": 9}},
    ],
)
def test_record_of_another_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_model(tmp_path, tiny(), record(**changes))
    with pytest.raises(CheckpointError, match=r"do not fit the model of its model\.json"):
        load_run(tmp_path)


def test_normalise_is_the_formula() -> None:
    frames = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    clips = normalise(frames, mean, std)
    assert clips.shape == (2, 3, 3, 4, 5)
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    for colour in range(3):
        expected = (frames[..., colour].double() / 255 - mean[colour]) / std[colour]
        torch.testing.assert_close(clips[:, colour].double(), expected, rtol=1e-5, atol=1e-5)


def test_resume_round_trip(tmp_path: Path) -> None:
    assert read_resume(tmp_path) is None
    write_resume(tmp_path, {"step": 3, "weights": {"a": torch.ones(2)}, "recipe": {"x": [1, "y"]}})
    state = read_resume(tmp_path)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["weights"]["a"], torch.ones(2))
    path = tmp_path / "resume.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"resume\.pt' is damaged"):
        read_resume(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_and_cut_checkpoints_raise_one_type(tmp_path: Path) -> None:
    """Old and new formats of torch.save, damaged at random: weights or CheckpointError."""
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pt"
    num_refused, backbone = 0, tiny()
    for zipped in (True, False):
        torch.save({"a": torch.ones(4)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(150):
            content = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(content)
            try:
                load_initial_weights(backbone, path, CLASSES)
            except CheckpointError:
                num_refused += 1
    assert num_refused == 300  # even undamaged it would not fit the backbone


class Unsafe:
    """Something that only unrestricted loading would bring back."""


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04junk", b"\x80\x02junk"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_initial_weights(tiny(), tmp_path / name, CLASSES)


def test_only_weights_are_loaded(tmp_path: Path) -> None:
    torch.save({"model_state": Unsafe()}, tmp_path / "weights.pyth")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        load_initial_weights(tiny(), tmp_path / "weights.pyth", CLASSES)
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="a table of names and tensors"):
        load_initial_weights(tiny(), tmp_path / "list.pt", CLASSES)
    with pytest.raises(CheckpointError, match="no such weights"):
        load_initial_weights(tiny(), tmp_path / "absent.pt", CLASSES)


@pytest.mark.parametrize("wrapper", ["model_state", "state_dict", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_initial_weights_in_any_wrapping(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    source, target = tiny(seed=1), tiny(seed=2)
    state: dict[str, Any] = {prefix + k: v for k, v in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pyth")
    assert load_initial_weights(target, tmp_path / "w.pyth", CLASSES) == []
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_class_layer_of_another_size_starts_anew(tmp_path: Path) -> None:
    source, target = tiny(400, seed=1), tiny(seed=2)
    before = target.blocks[5].proj.weight.clone()  # type: ignore[union-attr,operator]
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    (note,) = load_initial_weights(target, tmp_path / "w.safetensors", CLASSES)
    assert "has 400 classes of its own" in note
    assert torch.equal(target.blocks[5].proj.weight, before)  # type: ignore[union-attr,arg-type]
    name = "blocks.4.res_blocks.0.branch2.conv_a.weight"
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_run_with_other_classes_gives_all_but_the_class_layer(tmp_path: Path) -> None:
    write_model(tmp_path, tiny(seed=1), record())
    assert load_initial_weights(tiny(seed=2), tmp_path, CLASSES) == []
    (note,) = load_initial_weights(tiny(seed=2), tmp_path, ["a", "b", "c"])
    assert "the class layer starts anew" in note


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["blocks.0.extra"] = torch.ones(1)
    del state["blocks.0.norm.weight"]
    state["blocks.0.norm.bias"] = torch.ones(99)
    torch.save(state, tmp_path / "w.pt")
    names = "blocks.0.extra, blocks.0.norm.bias, blocks.0.norm.weight"
    with pytest.raises(CheckpointError, match=f"{names}$"):
        load_initial_weights(tiny(), tmp_path / "w.pt", CLASSES)


def test_record_is_plain_json(tmp_path: Path) -> None:
    write_model(tmp_path, tiny(), record())
    assert json.loads((tmp_path / "model.json").read_text())["arguments"] == ARGUMENTS

"""The files of a run: round trips and damage."""

import hashlib
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from bounds import memory_bound

from manifests import CheckpointError
from train.backbones import X3D, X3DArguments
from train.checkpoint import (
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


def test_record_is_plain_json(tmp_path: Path) -> None:
    write_model(tmp_path, tiny(), record())
    assert json.loads((tmp_path / "model.json").read_text())["arguments"] == ARGUMENTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", ["x3d"]),
        ("arguments", [1]),
        ("num_outputs", 2**40),
        ("num_outputs", "3"),
        ("num_outputs", -1),
        ("num_outputs", True),
        ("classes", "run"),
        ("classes", [1]),
        ("mean", 0.5),
        ("mean", ["a"]),
        ("mean", []),
        ("std", [0.0, 1, 1]),
        ("std", [float("nan")] * 3),
        ("frames", -1),
        ("height", 1.5),
        ("width", 10**30),
        ("weights_sha256", None),
    ],
)
def test_fields_that_no_record_has_are_named(tmp_path: Path, name: str, value: Any) -> None:
    write_model(tmp_path, tiny(), record())
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CheckpointError, match=f"not a model record, look at {name}"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_outputs": 2**23},
        {"arguments": {**ARGUMENTS, "feature_dim": 2**30}},
        {"arguments": {**ARGUMENTS, "feature_dim": 2**70}},
        {"arguments": {**ARGUMENTS, "width_factor": 1e6}},
        {"arguments": {**ARGUMENTS, "width_factor": 1e300}},
        {"arguments": {**ARGUMENTS, "width_factor": float("nan")}},
        {"arguments": {**ARGUMENTS, "depth_factor": 1e9}},
        {"arguments": {**ARGUMENTS, "depth_factor": float("inf")}},
        {"backbone": "i3d", "arguments": {"width": 1e5}},
        {"backbone": "i3d", "arguments": {"width": float("inf")}},
        {"backbone": "tsm", "arguments": {"width": 2**25}},
        {"backbone": "resnet3d", "arguments": {"width": 2**62}},
    ],
)
def test_a_record_of_an_absurd_network_takes_no_memory(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_model(tmp_path, tiny(), record(**changes))
    with memory_bound(2**26), pytest.raises(CheckpointError, match="do not fit the model"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**63).to_bytes(8, "little"),
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        *(
            len(header).to_bytes(8, "little") + header + bytes(16)
            for header in (
                b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}',
                b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
                b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}',
                b'{"a":{"dtype":"Q1","shape":[4],"data_offsets":[0,16]}}',
                b'{"a":' * 50_000,
            )
        ),
    ],
    ids=lambda content: repr(content[8:48]),
)
def test_weights_that_lie_about_their_size_take_no_memory(tmp_path: Path, content: bytes) -> None:
    write_model(tmp_path, tiny(), record())
    (tmp_path / "model.safetensors").write_bytes(content)
    signed = {**record(), "weights_sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "model.json").write_text(json.dumps(signed))
    with memory_bound(2**26), pytest.raises(CheckpointError, match="do not fit the model"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", [*record(), "weights_sha256"])
def test_fields_that_are_missing_are_named(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, tiny(), record())
    path = tmp_path / "model.json"
    said = json.loads(path.read_text())
    del said[name]
    path.write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=f"not a model record, look at {name}"):
        load_run(tmp_path)


class Calls:
    """What a pickle of it does when it is read: write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "weights": Calls(tmp_path / "called")}, tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        read_resume(tmp_path)
    assert not (tmp_path / "called").exists()


def test_a_tar_of_weights_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "resume.pt", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_: pytest.fail("a folder was made"))
    with pytest.raises(CheckpointError, match="is damaged or holds more than weights"):
        read_resume(tmp_path)

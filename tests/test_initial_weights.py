"""Weights from elsewhere: public checkpoints in their own wrapping, other runs, damaged files."""

import re
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from manifests import CheckpointError
from train.backbones import BACKBONES, X3D, Backbone, X3DArguments
from train.backbones.x3d import SSDET_BLOCK, SSDET_OUTSIDE
from train.checkpoint import write_model
from train.initial_weights import load_initial_weights, read_weights

pytestmark = pytest.mark.slow

ARGUMENTS: dict[str, Any] = {"depth_factor": 0.2, "width_factor": 0.3, "feature_dim": 8}
SMALL: dict[str, dict[str, Any]] = {
    "x3d": ARGUMENTS,
    "i3d": {"width": 0.125},
    "tsm": {"depth": 18, "width": 8},
    "resnet3d": {"depth": 50, "width": 4},
}
CLASSES = ["run", "jump", "fall"]
Weights = dict[str, torch.Tensor]


def small(name: str, num_outputs: int = 3, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    backbone = BACKBONES[name]
    return backbone(num_outputs, backbone.Arguments(**SMALL[name]))


def tiny(num_outputs: int = 3, seed: int = 0) -> X3D:
    torch.manual_seed(seed)
    return X3D(num_outputs, X3DArguments(**ARGUMENTS))


def record(num_outputs: int = 3) -> dict[str, Any]:
    return {
        "backbone": "x3d",
        "arguments": ARGUMENTS,
        "num_outputs": num_outputs,
        "classes": CLASSES,
        "mean": [0.45] * 3,
        "std": [0.225] * 3,
    }


def assert_same(target: Backbone, weights: Weights) -> None:
    for name, weight in target.state_dict().items():
        assert torch.equal(weight, weights[name]), name


# -- as they are found in the wild ---------------------------------------------------------------


def of_pytorchvideo(weights: Weights, path: Path) -> Path:
    torch.save({"model_state": weights, "epoch": 299, "cfg": "TRAIN: ..."}, path / "X3D_M.pyth")
    return path / "X3D_M.pyth"


def of_piergiaj(weights: Weights, path: Path) -> Path:
    """A plain table in the format of 2017, when norms did not count batches."""
    old = OrderedDict((k, v) for k, v in weights.items() if not k.endswith("num_batches_tracked"))
    torch.save(old, path / "rgb_imagenet.pt", _use_new_zipfile_serialization=False)
    return path / "rgb_imagenet.pt"


def of_mit_han_lab(weights: Weights, path: Path) -> Path:
    wrapped = {
        "epoch": 50,
        "arch": "resnet50",
        "state_dict": OrderedDict(("module." + name, v) for name, v in weights.items()),
        "optimizer": {"param_groups": [{"lr": np.float64(0.01) * 0.1 ** sum(np.array([True]))}]},
        "best_prec1": np.float32(74.1),
    }
    torch.save(wrapped, path / "TSM_kinetics.pth.tar")
    return path / "TSM_kinetics.pth.tar"


def of_mit_han_lab_without_dropout(weights: Weights, path: Path) -> Path:
    renamed = {name.replace("new_fc", "base_model.fc"): v for name, v in weights.items()}
    return of_mit_han_lab(renamed, path)


def of_kenshohara(weights: Weights, path: Path) -> Path:
    scheduler = {"milestones": [50], "last_epoch": 200, "verbose": False}
    wrapped = {"epoch": 200, "arch": "resnet-50", "state_dict": weights, "scheduler": scheduler}
    torch.save(wrapped, path / "r3d50_K_200ep.pth")
    return path / "r3d50_K_200ep.pth"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x3d", of_pytorchvideo),
        ("i3d", of_piergiaj),
        ("tsm", of_mit_han_lab),
        ("tsm", of_mit_han_lab_without_dropout),
        ("resnet3d", of_kenshohara),
        ("resnet3d", of_mit_han_lab),
    ],
)
def test_public_checkpoints(tmp_path: Path, name: str, write: Any) -> None:
    source, target = small(name, seed=1).state_dict(), small(name, seed=2)
    assert load_initial_weights(target, write(source, tmp_path), CLASSES) == []
    assert_same(target, source)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x3d", of_pytorchvideo),
        ("i3d", of_piergiaj),
        ("tsm", of_mit_han_lab_without_dropout),
        ("resnet3d", of_kenshohara),
    ],
)
def test_class_layer_of_public_checkpoints(tmp_path: Path, name: str, write: Any) -> None:
    path = write(small(name, 400, seed=1).state_dict(), tmp_path)
    target = small(name, seed=2)
    before = {k: v.clone() for k, v in target.state_dict().items() if target.classifier in k}
    (note,) = load_initial_weights(target, path, CLASSES)
    assert note == f"the class layer starts anew: {str(path)!r} has 400 classes of its own"
    for layer, weight in before.items():
        assert torch.equal(target.state_dict()[layer], weight)
    (note,) = load_initial_weights(small(name, 0), path, CLASSES)
    assert note == f"the class layer of {str(path)!r}, for 400 classes, is left out"
    torch.save(small(name, 0).state_dict(), path)
    (note,) = load_initial_weights(small(name), path, CLASSES)
    assert "has no classes of its own" in note
    assert load_initial_weights(small(name, 0), path, CLASSES) == []


def of_ssdet(weights: Weights, path: Path) -> Path:
    """A training checkpoint of SSDet: norms of 8 splits, and one that X3D has not."""
    named = {}
    for name, weight in weights.items():
        block = re.match(r"blocks\.(\d)\.res_blocks\.(\d+)\.", name)
        start = f"layer{block[1]}.{block[2]}." if block else ""
        rest = name[block.end() :] if block else name
        for theirs, ours in (SSDET_BLOCK if block else SSDET_OUTSIDE).items():
            if rest.startswith(ours + "."):
                part = rest.removeprefix(ours + ".")
                of_norm = part.startswith(("running", "num_"))
                named[f"{start}{theirs}.{'bn.' * of_norm}{part}"] = weight
    width = len(weights["blocks.1.res_blocks.0.branch1_conv.weight"])
    named["layer1.0.downsample.1.weight"] = torch.full((width,), (1 + 1e-5) ** 0.5)
    named["layer1.0.downsample.1.bias"] = torch.zeros(width)
    named["layer1.0.downsample.1.bn.running_mean"] = torch.zeros(width)
    named["layer1.0.downsample.1.bn.running_var"] = torch.ones(width)
    named["layer1.0.downsample.1.bn.num_batches_tracked"] = torch.tensor(0)
    named["layer1.0.downsample.1.split_bn.running_mean"] = torch.zeros(8 * width)
    torch.save({"model_state_dict": named, "optimizer_state_dict": {}}, path / "x3d.pt")
    return path / "x3d.pt"


def test_ssdet(tmp_path: Path) -> None:
    source, target = small("x3d", seed=1).state_dict(), small("x3d", seed=2)
    path = of_ssdet(source, tmp_path)
    notes = load_initial_weights(target, path, CLASSES)
    assert notes == [
        "1 statistics of split_bn are left out: those of bn are used",
        "the norm of layer1.0.downsample is folded into the layers beside it",
    ]
    for name, weight in target.state_dict().items():
        torch.testing.assert_close(weight, source[name])


WRAPPINGS: list[tuple[str, ...]] = [
    (),
    ("model_state",),
    ("state_dict",),
    ("model_state_dict",),
    ("model",),
    ("model", "state_dict"),
    ("state_dict", "model", "model_state"),
]


@pytest.mark.parametrize("wrappers", WRAPPINGS)
@pytest.mark.parametrize("prefix", ["module.", "", "module._orig_mod.", "module.module."])
def test_initial_weights_in_any_wrapping(
    tmp_path: Path, wrappers: tuple[str, ...], prefix: str
) -> None:
    source, target = tiny(seed=1).state_dict(), tiny(seed=2)
    state: dict[str, Any] = {prefix + name: weight for name, weight in source.items()}
    for wrapper in wrappers:
        state = {wrapper: state, "epoch": 3}
    torch.save(state, tmp_path / "w.pyth")
    assert load_initial_weights(target, tmp_path / "w.pyth", CLASSES) == []
    assert_same(target, source)


def test_table_wrapped_in_itself(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["model"] = state
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="a table of names and tensors"):
        read_weights(tmp_path / "w.pt")


# -- what does not fit ---------------------------------------------------------------------------


def test_class_layer_of_another_size_starts_anew(tmp_path: Path) -> None:
    source, target = tiny(400, seed=1), tiny(seed=2)
    before = target.get_submodule(target.classifier).weight.clone()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    (note,) = load_initial_weights(target, tmp_path / "w.safetensors", CLASSES)
    assert "has 400 classes of its own" in note
    assert torch.equal(target.get_submodule(target.classifier).weight, before)
    name = "blocks.4.res_blocks.0.branch2.conv_a.weight"
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_run_with_other_classes_gives_all_but_the_class_layer(tmp_path: Path) -> None:
    write_model(tmp_path, tiny(seed=1), record())
    assert load_initial_weights(tiny(seed=2), tmp_path, CLASSES) == []
    (note,) = load_initial_weights(tiny(seed=2), tmp_path, ["a", "b", "c"])
    assert "the class layer starts anew" in note
    write_model(tmp_path, tiny(0, seed=1), record(0))
    (note,) = load_initial_weights(tiny(seed=2), tmp_path, ["a", "b", "c"])
    assert "has no classes of its own" in note
    assert load_initial_weights(tiny(0, seed=2), tmp_path, ["a", "b", "c"]) == []


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["blocks.0.extra"] = torch.ones(1)
    del state["blocks.0.norm.weight"]
    state["blocks.0.norm.bias"] = torch.ones(99)
    torch.save(state, tmp_path / "w.pt")
    says = (
        r"missing: blocks\.0\.norm\.weight; unknown: blocks\.0\.extra; "
        r"of another shape: blocks\.0\.norm\.bias$"
    )
    with pytest.raises(CheckpointError, match=says):
        load_initial_weights(tiny(), tmp_path / "w.pt", CLASSES)


def test_weights_of_another_backbone(tmp_path: Path) -> None:
    torch.save(small("i3d").state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError, match=r"missing: blocks\.0.* and \d+ more; unknown: Conv3d_1a.* more$"
    ):
        load_initial_weights(tiny(), tmp_path / "w.pt", CLASSES)


# -- reading safely ------------------------------------------------------------------------------


class Unsafe:
    """Something that only unrestricted loading would bring back."""


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04junk", b"\x80\x02junk"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_initial_weights(tiny(), tmp_path / name, CLASSES)


UNSAFE = [Unsafe(), Unsafe, print, np.zeros(2), np.float64, np.datetime64(0, "s")]


@pytest.mark.parametrize("extra", UNSAFE)
def test_only_weights_and_numbers_are_loaded(tmp_path: Path, extra: Any) -> None:
    torch.save({"model_state": tiny().state_dict(), "extra": extra}, tmp_path / "weights.pyth")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        load_initial_weights(tiny(), tmp_path / "weights.pyth", CLASSES)


def test_no_weights(tmp_path: Path) -> None:
    for content in ([torch.ones(1)], {1: torch.ones(1)}, {"a": 1}):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="a table of names and tensors"):
            load_initial_weights(tiny(), tmp_path / "w.pt", CLASSES)
    with pytest.raises(CheckpointError, match="no such weights"):
        load_initial_weights(tiny(), tmp_path / "absent.pt", CLASSES)
    torch.save({}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"missing: blocks.* more$"):
        load_initial_weights(tiny(), tmp_path / "w.pt", CLASSES)


def test_numbers_of_numpy_1(tmp_path: Path) -> None:
    """NumPy 1 pickled its numbers under a name that NumPy 2 still keeps, but no longer writes."""
    numbers = [np.float64(0.5), np.float32(1), np.int64(7), np.bool_(True)]
    torch.save({"state_dict": {"a": torch.ones(2)}, "best": numbers}, tmp_path / "new.pt")
    with (
        zipfile.ZipFile(tmp_path / "new.pt") as new,
        zipfile.ZipFile(tmp_path / "old.pt", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        assert any(b"numpy.core.multiarray" in old.read(name) for name in old.namelist())
    assert torch.equal(read_weights(tmp_path / "old.pt")["a"], torch.ones(2))
    assert torch.equal(read_weights(tmp_path / "new.pt")["a"], torch.ones(2))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_and_cut_checkpoints_raise_one_type(tmp_path: Path) -> None:
    """Old and new formats of torch.save, damaged at random: weights or CheckpointError."""
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pt"
    num_refused, backbone = 0, tiny()
    for zipped in (True, False):
        best = {"a": torch.ones(4), "best": np.float64(0.5)}
        torch.save(best, path, _use_new_zipfile_serialization=zipped)
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


def test_any_suffix(tmp_path: Path) -> None:
    source = tiny(seed=1).state_dict()
    torch.save(source, tmp_path / "w.pt")
    for name in ("w.pth", "w.pyth", "w.pth.tar", "w.tar", "w"):
        shutil.copy(tmp_path / "w.pt", tmp_path / name)
        target = tiny(seed=2)
        assert load_initial_weights(target, tmp_path / name, CLASSES) == []
        assert_same(target, source)

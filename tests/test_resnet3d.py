"""3D-ResNet against the published table and a walk through its weights."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity import rule_weight, shapes_of
from torch.nn import functional

from train.backbones import ResNet3D, ResNet3DArguments

RULE = {"salt": "", "gain_for_ndim_ge_2": 1.0}
WIDTHS, BLOCKS_50 = (64, 128, 256, 512), (3, 4, 6, 3)


def test_names_and_shapes_are_those_of_the_checkpoints() -> None:
    """Table 1 of the paper, with the names of the public 3D-ResNet-50."""
    expected = {"conv1.weight": [64, 3, 7, 7, 7], "fc.weight": [400, 2048], "fc.bias": [400]}
    norms, width_in = {"bn1": 64}, 64
    for index, (inner, num_blocks) in enumerate(zip(WIDTHS, BLOCKS_50, strict=True)):
        for number in range(num_blocks):
            block = f"layer{index + 1}.{number}"
            expected[f"{block}.conv1.weight"] = [inner, width_in, 1, 1, 1]
            expected[f"{block}.conv2.weight"] = [inner, inner, 3, 3, 3]
            expected[f"{block}.conv3.weight"] = [4 * inner, inner, 1, 1, 1]
            norms |= {f"{block}.bn1": inner, f"{block}.bn2": inner, f"{block}.bn3": 4 * inner}
            if number == 0:
                expected[f"{block}.downsample.0.weight"] = [4 * inner, width_in, 1, 1, 1]
                norms[f"{block}.downsample.1"] = 4 * inner
            width_in = 4 * inner
    for norm, width in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{norm}.{part}"] = [width]
        expected[f"{norm}.num_batches_tracked"] = []
    assert shapes_of(ResNet3D(400)) == expected


def walk(weights: Mapping[str, torch.Tensor], clips_NCTHW: torch.Tensor, depth: int) -> Any:
    """Return the last maps, computed from the weights alone."""

    def norm(maps: torch.Tensor, name: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(maps, *(weights[f"{name}.{part}"] for part in parts))

    def conv(maps: torch.Tensor, name: str, stride: Any = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        return functional.conv3d(maps, kernel, None, stride, kernel.shape[-1] // 2)

    maps = norm(conv(clips_NCTHW, "conv1", (1, 2, 2)), "bn1").relu()
    maps = functional.max_pool3d(maps, 3, 2, 1)
    strided = 1 if depth == 18 else 2  # the convolution of a block that halves the maps
    for layer in range(1, 5):
        number = 0
        while f"layer{layer}.{number}.conv1.weight" in weights:
            block, stride = f"layer{layer}.{number}", 2 if layer > 1 and number == 0 else 1
            inner, last = maps, 2 if depth == 18 else 3
            for index in range(1, last + 1):
                inner = conv(inner, f"{block}.conv{index}", stride if index == strided else 1)
                inner = norm(inner, f"{block}.bn{index}")
                inner = inner.relu() if index < last else inner
            if f"{block}.downsample.0.weight" in weights:
                maps = norm(conv(maps, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            maps, number = (inner + maps).relu(), number + 1
    return maps


def tiny(depth: Any = 50) -> ResNet3D:
    model = ResNet3D(5, ResNet3DArguments(depth=depth, width=4)).eval()
    shapes = shapes_of(model)
    model.load_state_dict({name: rule_weight(RULE, name, shapes[name]) for name in shapes})
    return model


@pytest.mark.parametrize("depth", [18, 50])
@torch.inference_mode()
def test_features_and_scores_are_those_of_the_walk(depth: Any) -> None:
    torch.manual_seed(0)
    model, clips = tiny(depth), torch.randn(2, 3, 40, 48, 64)
    maps = walk(model.state_dict(), clips, depth)
    assert maps.shape == (2, model.feature_dim, 3, 2, 2)
    vectors = maps.mean((2, 3, 4))
    torch.testing.assert_close(model.features(clips), vectors)
    weights, bias = model.fc.weight, model.fc.bias
    torch.testing.assert_close(model(clips), vectors @ weights.T + bias)
    frames = model.features(clips, per_frame=True)
    steps = maps.mean((3, 4))  # of frames 0, 16 and 32
    torch.testing.assert_close(frames[..., 16], steps[..., 1])
    torch.testing.assert_close(frames[..., 20], (steps[..., 1] * 12 + steps[..., 2] * 4) / 16)
    torch.testing.assert_close(frames[..., 39], steps[..., 2])
    torch.testing.assert_close(model(clips, per_frame=True), model.fc(frames.mT).mT)


@pytest.mark.parametrize("shape", [(1, 16, 16), (8, 112, 112), (17, 33, 40)])
@torch.inference_mode()
def test_shapes_per_clip_and_per_frame(shape: tuple[int, int, int]) -> None:
    model, clips = tiny(), torch.randn(2, 3, *shape)
    assert model.features(clips).shape == (2, 128)
    assert model.features(clips, per_frame=True).shape == (2, 128, shape[0])
    assert model(clips).shape == (2, 5)
    assert model(clips, per_frame=True).shape == (2, 5, shape[0])


@pytest.mark.parametrize(("field", "value"), [("dropout", 1.0), ("width", 0)])
def test_arguments_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ResNet3DArguments(**{field: value})  # type: ignore[arg-type]

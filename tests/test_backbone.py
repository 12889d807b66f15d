"""What every backbone shares: stages, the class layer, layout, interpolation over frames."""

from typing import Any

import numpy as np
import pytest
import torch

from train.backbones import BACKBONES, Backbone, channels_last
from train.backbones.backbone import round_width, spread_over_frames

SMALL = {
    "x3d": {"depth_factor": 0.4, "width_factor": 0.5, "feature_dim": 32},
    "i3d": {"width": 0.125},
    "tsm": {"depth": 18, "width": 8},
    "resnet3d": {"depth": 18, "width": 4},
}
CLIP = (3, 16, 32, 40)


def small(name: str, num_outputs: int = 5) -> Backbone:
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    return backbone(num_outputs, backbone.Arguments(**SMALL[name])).eval()


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_class_layer_holds_all_that_depends_on_the_classes(name: str) -> None:
    with_5, with_0 = small(name), small(name, 0)
    weights, layer = with_5.state_dict(), with_5.classifier
    assert len(weights[f"{layer}.weight"]) == len(weights[f"{layer}.bias"]) == 5
    with_0.load_state_dict({k: v for k, v in weights.items() if not k.startswith(layer)})
    clips = torch.randn(2, *CLIP)
    for per_frame in (False, True):
        assert torch.equal(with_0.features(clips, per_frame), with_5.features(clips, per_frame))


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_stages_take_all_frames(name: str) -> None:
    model, seen = small(name), {}
    for stage in model.stages:
        module = model.get_submodule(stage)
        module.register_forward_pre_hook(
            lambda _module, given, stage=stage: seen.update({stage: given[0].shape})
        )
    model(torch.randn(2, *CLIP))
    assert tuple(seen) == model.stages
    assert all(len(shape) == 5 and shape[2] == CLIP[1] for shape in seen.values())


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_channels_last_changes_the_layout_alone(name: str) -> None:
    model, clips = small(name), torch.randn(2, *CLIP)
    expected = model(clips)
    channels_last(model)
    for weight in model.parameters():
        if weight.dim() in (4, 5):
            assert weight.movedim(1, -1).is_contiguous()
    got = model(clips.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_every_weight(name: str) -> None:
    model, clips = small(name).train(), torch.randn(2, *CLIP)
    (model(clips).square().sum() + model(clips, per_frame=True).square().sum()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_frames"), [("i3d", 200), ("i3d", 201), ("i3d", 203), ("resnet3d", 288)]
)
def test_what_a_frame_gets_is_centred_on_it(
    name: str, num_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from the ends of a clip, and with a network made linear: exactly so."""

    def mean_over_time(maps: torch.Tensor, *window: Any, **_: Any) -> torch.Tensor:
        kernel, stride, padding = (np.broadcast_to(x, 3).tolist() for x in window[:3])
        thin, pads = (kernel[0], 1, 1), (padding[0], 0, 0)
        return torch.nn.functional.avg_pool3d(maps, thin, stride, pads, ceil_mode=True)

    monkeypatch.setattr(torch, "relu", lambda maps: maps)
    monkeypatch.setattr(torch.nn.functional, "max_pool3d", mean_over_time)
    model = small(name, 0).double()
    for weight in model.parameters():
        weight.data = torch.full_like(weight, 1 / weight[0].numel())
    clips = torch.ones(1, 3, num_frames, 32, 32, dtype=torch.float64, requires_grad=True)
    vectors = model.features(clips, per_frame=True).sum((0, 1))
    for frame in range(num_frames // 2 - 8, num_frames // 2 + 9, 3):
        (seen,) = torch.autograd.grad(vectors[frame], clips, retain_graph=True)
        shares = seen.sum((0, 1, 3, 4)) / seen.sum()
        assert float(shares @ torch.arange(num_frames).double()) == pytest.approx(frame)


def test_spread_over_frames() -> None:
    vectors = torch.tensor([[[0.0, 8.0, 4.0]]])  # one feature at frames 1.5, 5.5, 9.5
    got = spread_over_frames(vectors, 12, 1.5, 4)[0, 0].tolist()
    assert got == [0, 0, 1, 3, 5, 7, 7.5, 6.5, 5.5, 4.5, 4, 4]
    assert spread_over_frames(vectors[..., :1], 3, 7.5, 16)[0, 0].tolist() == [0, 0, 0]


def test_spread_over_frames_is_torch_interpolation_where_steps_divide_the_clip() -> None:
    vectors = torch.randn(2, 3, 4)
    expected = torch.nn.functional.interpolate(vectors, 32, mode="linear")
    torch.testing.assert_close(spread_over_frames(vectors, 32, 3.5, 8), expected)


def test_round_width() -> None:
    for width, factor, expected in ((12, 2.0, 24), (54, 0.0625, 8), (216, 0.0625, 16)):
        assert round_width(width, factor) == expected
    assert round_width(432, 0.0625) == 32
    assert round_width(12, 1.0) == 16

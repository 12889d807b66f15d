"""I3D against numbers of the public implementation, at its own input size and at smaller ones."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import Parity, shapes_of, watch

from manifests import UsageError
from train.backbones import I3D, I3DArguments
from train.backbones.i3d import first_centre, same_padding

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "in_channels"),
    [("i3d_rgb", 3), pytest.param("i3d_flow", 2, marks=pytest.mark.slow)],
)
@torch.inference_mode()
def test_matches_the_public_model(shared: Path, name: str, in_channels: int) -> None:
    parity = Parity(shared, name)
    model = I3D(400, I3DArguments(in_channels=in_channels)).eval()
    model.load_state_dict(parity.weights())
    assert shapes_of(model) == parity.record["state_dict"]
    layers = {tap: tap for tap in parity.record["taps"] if tap != "avg_pool"}
    taps = watch(model, layers | {"avg_pool": "dropout"})  # dropout passes on what was pooled
    logits = model(parity.clips())
    got = {
        "logits": logits,
        "features": model.features(parity.clips()),
        "blocky_logits": model(parity.clips(blocky=True)),
    }
    assert got.keys() == parity.record["outputs"].keys()
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    assert max(errors.values()) <= parity.limit, errors


def tiny(in_channels: int = 3) -> I3D:
    torch.manual_seed(0)
    return I3D(5, I3DArguments(in_channels=in_channels, width=0.125)).eval()


@pytest.mark.parametrize("shape", [(8, 32, 32), (9, 33, 47), (21, 56, 40)])
@torch.inference_mode()
def test_shapes_per_clip_and_per_frame(shape: tuple[int, int, int]) -> None:
    model, clips = tiny(), torch.randn(2, 3, *shape)
    assert model.feature_dim == 128
    assert model.features(clips).shape == (2, 128)
    assert model.features(clips, per_frame=True).shape == (2, 128, shape[0])
    assert model(clips).shape == (2, 5)
    assert model(clips, per_frame=True).shape == (2, 5, shape[0])


@torch.inference_mode()
def test_scores_are_the_class_layer_of_the_features() -> None:
    model, clips = tiny(), torch.randn(2, 3, 30, 40, 32)
    layer = model.get_submodule(model.classifier)
    scores = layer(model.features(clips)[..., None, None, None]).flatten(1)
    torch.testing.assert_close(scores, model(clips))
    frames = layer(model.features(clips, per_frame=True)[..., None, None]).flatten(2)
    torch.testing.assert_close(frames, model(clips, per_frame=True))


@torch.inference_mode()
def test_small_maps_are_pooled_whole() -> None:
    """8 frames of 112x112, the input of PAL, leave 1x4x4 places."""
    model, clips = tiny(), torch.randn(1, 3, 8, 112, 112)
    taps = watch(model, {"last": "Mixed_5c"})
    vectors = model.features(clips)
    assert taps["last"].shape == (1, 128, 1, 4, 4)
    torch.testing.assert_close(vectors, taps["last"].mean((2, 3, 4)))


@torch.inference_mode()
def test_frames_get_the_vectors_that_saw_them() -> None:
    """24 frames give 3 steps and 2 windows, centred on frames 9 and 17."""
    model, clips = tiny(), torch.randn(1, 3, 24, 32, 32)
    taps = watch(model, {"last": "Mixed_5c"})
    frames = model.features(clips, per_frame=True)[0]
    steps = taps["last"][0, :, :, 0, 0]
    first, second = steps[:, :2].mean(1), steps[:, 1:].mean(1)
    torch.testing.assert_close(frames[:, 0], first)
    torch.testing.assert_close(frames[:, 9], first)
    torch.testing.assert_close(frames[:, 12], (first * 5 + second * 3) / 8)
    torch.testing.assert_close(frames[:, 17], second)
    torch.testing.assert_close(frames[:, 23], second)


def test_first_centre() -> None:
    assert first_centre(8) == 5
    assert first_centre(16) == first_centre(64) == 9
    assert first_centre(9) == 6  # 0 and 0, as 9 and 5 are odd; then 2, and 6 with the window


@given(st.integers(1, 300), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_gives_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    kernel = max(kernel, stride)
    before, after = same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


@torch.inference_mode()
@pytest.mark.parametrize("size", [7, 8, 9, 10])
def test_pooling_is_that_of_a_padded_copy(size: int) -> None:
    maps = torch.rand(1, 2, size, size, size)
    pads = [pad for _ in range(3) for pad in same_padding(size, 3, 2)]
    expected = torch.nn.functional.max_pool3d(torch.nn.functional.pad(maps, pads), 3, 2)
    assert torch.equal(tiny().get_submodule("MaxPool3d_4a_3x3")(maps), expected)


@torch.inference_mode()
def test_clips_that_do_not_fit() -> None:
    for shape in ((1, 3, 7, 32, 32), (1, 3, 8, 31, 32), (1, 2, 8, 32, 32)):
        with pytest.raises(UsageError, match="at least 8 frames of 32x32, got"):
            tiny()(torch.zeros(shape))
    assert tiny(in_channels=2)(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("field", "value"), [("dropout", -0.1), ("width", 0.0), ("in_channels", 0)]
)
def test_arguments_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        I3DArguments(**{field: value})  # type: ignore[arg-type]

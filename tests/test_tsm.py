"""TSM against numbers of the public implementation, and the shift by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import Parity, shapes_of, watch

from train.backbones import TSM, TSMArguments
from train.backbones.tsm import _Shift, shift

LAST_BLOCKS: dict[Any, dict[str, str]] = {  # a layer's output is that of its last block
    18: {f"layer{i + 1}": f"layer{i + 1}.1" for i in range(4)},
    50: {f"layer{i + 1}": f"layer{i + 1}.{n - 1}" for i, n in enumerate((3, 4, 6, 3))},
}


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
@torch.inference_mode()
def test_matches_the_public_model(shared: Path, depth: Any) -> None:
    parity = Parity(shared, f"tsm_resnet{depth}")
    model = TSM(400, TSMArguments(depth=depth)).eval()
    model.load_state_dict(parity.weights())
    assert shapes_of(model) == parity.record["state_dict"]
    blocks = {f"base_model.{tap}": f"base_model.{name}" for tap, name in LAST_BLOCKS[depth].items()}
    taps = watch(model, {tap: blocks.get(tap, tap) for tap in parity.record["taps"]})
    clips, blocky = parity.clips(), parity.clips(blocky=True)
    got = {
        "logits": model(clips),
        "segment_features": model.features(clips, per_frame=True).mT,
        "segment_logits": model(clips, per_frame=True).mT,
        "blocky_logits": model(blocky),
        "blocky_segment_features": model.features(blocky, per_frame=True).mT,
    }
    assert got.keys() == parity.record["outputs"].keys()
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    assert max(errors.values()) <= parity.limit, errors


def test_shift() -> None:
    """Channels 1 to 8 of frames 1 to 3, quarters: 2 come from the next, 2 from the last frame."""
    frames, channels = torch.arange(1, 4), 10 * torch.arange(1, 9)
    maps = (frames[:, None] + channels).float()[None, :, :, None, None]
    assert shift(maps, 4)[0, :, :, 0, 0].tolist() == [
        [12, 22, 0, 0, 51, 61, 71, 81],
        [13, 23, 31, 41, 52, 62, 72, 82],
        [0, 0, 32, 42, 53, 63, 73, 83],
    ]
    assert torch.equal(shift(maps[:, :1], 4)[0, 0, :4], torch.zeros(4, 1, 1))


def test_gradient_of_the_shift() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 9, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: _Shift.apply(m, 4), (maps,))
    inner = (_Shift.apply(maps, 4) * (weights := torch.randn_like(maps))).sum()
    (found,) = torch.autograd.grad(inner, maps)
    (expected,) = torch.autograd.grad((shift(maps, 4) * weights).sum(), maps)
    assert torch.equal(found, expected)


def tiny(depth: Any = 18) -> TSM:
    torch.manual_seed(0)
    return TSM(5, TSMArguments(depth=depth, width=8)).eval()


@pytest.mark.parametrize("depth", [18, 50])
@torch.inference_mode()
def test_shapes_per_clip_and_per_frame(depth: Any) -> None:
    model, clips = tiny(depth), torch.randn(2, 3, 6, 40, 32)
    assert model.feature_dim == {18: 64, 50: 256}[depth]
    assert model.features(clips).shape == (2, model.feature_dim)
    assert model.features(clips, per_frame=True).shape == (2, model.feature_dim, 6)
    assert model(clips).shape == (2, 5)
    assert model(clips, per_frame=True).shape == (2, 5, 6)


@torch.inference_mode()
def test_scores_are_the_class_layer_of_the_features() -> None:
    model, clips = tiny(), torch.randn(2, 3, 6, 40, 32)
    torch.testing.assert_close(model.new_fc(model.features(clips)), model(clips))
    frames = model.new_fc(model.features(clips, per_frame=True).mT).mT
    torch.testing.assert_close(frames, model(clips, per_frame=True))
    torch.testing.assert_close(frames.mean(2), model(clips))


@torch.inference_mode()
def test_one_shift_per_block_reaches_one_frame_further() -> None:
    """8 blocks: what changes 9 frames away is never seen, what changes near by is."""
    model, clips = tiny(), torch.randn(1, 3, 12, 32, 32)
    before = model.features(clips, per_frame=True)
    for frame, reached in ((1, True), (9, False)):
        changed = clips.clone()
        changed[:, :, frame] += 1
        after = model.features(changed, per_frame=True)
        assert torch.equal(before[..., 0], after[..., 0]) != reached


@torch.inference_mode()
def test_clips_of_the_loop_are_not_copied() -> None:
    """Clips with channels last in memory enter the first convolution as they are."""
    clips = torch.randn(2, 4, 32, 32, 3).permute(0, 4, 1, 2, 3)
    model, seen = tiny(), []
    model.base_model.conv1.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    model(clips)
    assert seen[0].data_ptr() == clips.data_ptr()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("field", "value"), [("dropout", 1.0), ("width", 7), ("shift_div", 1)])
def test_arguments_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        TSMArguments(**{field: value})  # type: ignore[arg-type]

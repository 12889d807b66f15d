"""X3D against numbers of the public implementations, and its per-frame output."""

from pathlib import Path

import pytest
import torch
from parity import Parity, shapes_of, watch

from train.backbones import X3D, X3DArguments
from train.backbones.x3d import ssdet_name

CASES = [
    "x3d_m_small",
    "x3d_s_13x160",
    pytest.param("x3d_m_16x224", marks=pytest.mark.slow),
]
POOLED = "blocks.5.pool.pool"  # a module there, one line of a method here


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_matches_the_public_model(shared: Path, name: str) -> None:
    parity = Parity(shared, name)
    model = X3D(400).eval()
    model.load_state_dict(parity.weights())
    assert shapes_of(model) == parity.record["state_dict"]
    taps = watch(model, {tap: tap for tap in parity.record["taps"] if tap != POOLED})
    clips = parity.clips()
    vectors = model.features(clips)
    taps[POOLED] = taps["blocks.5.pool.pre_norm"].relu().mean((2, 3, 4), keepdim=True)
    got = {
        "logits": model(clips),
        "features_2048": vectors,
        "stage4_mean_hw": taps["blocks.4"].mean((3, 4)),
        "softmax_before_average": model.get_submodule(model.classifier)(vectors).softmax(1),
        "blocky_logits": model(parity.clips(blocky=True)),
    }
    assert got.keys() == parity.record["outputs"].keys()
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    assert max(errors.values()) <= parity.limit, errors


def test_names_of_ssdet_are_those_of_its_table(shared: Path) -> None:
    mapping = Parity(shared, "ssdet_x3d_m_loc").record["mapping_from_pytorchvideo"]
    assert {name: ssdet_name(name) for name in mapping["table"].values()} == {
        theirs: ours for ours, theirs in mapping["table"].items()
    }
    assert ssdet_name("layer5.0.conv1.weight") == "layer5.0.conv1.weight"


SSDET_TAPS = {
    "bn1": "blocks.0.norm",
    "layer1.0": "blocks.1.res_blocks.0",
    "layer1": "blocks.1",
    "layer2": "blocks.2",
    "layer3": "blocks.3",
    "layer4": "blocks.4",
    "bn5": "blocks.5.pool.pre_norm",
    "fc1": "blocks.5.pool.post_conv",
}


@torch.inference_mode()
def test_matches_ssdet_with_weights_of_its_own(shared: Path) -> None:
    """All weights drawn under SSDet's names, the norm of the first shortcut among them."""
    parity = Parity(shared, "ssdet_x3d_m_loc")
    weights, notes = X3D.from_public(parity.weights())
    assert [note.split()[-1] for note in notes] == ["used", "it"]  # split_bn; the folded norm
    model = X3D(157).eval()
    model.load_state_dict(weights)
    taps = watch(model, SSDET_TAPS)
    clips = parity.clips()
    got = {
        "logits": model(clips, per_frame=True),
        "features_2048": model.features(clips, per_frame=True),
        "blocky_logits": model(parity.clips(blocky=True), per_frame=True),
    }
    taps["avgpool"] = taps["bn5"].relu().mean((3, 4), keepdim=True)
    assert got.keys() == parity.record["outputs"].keys()
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    assert max(errors.values()) <= parity.limit, errors


@torch.inference_mode()
def test_matches_ssdet_with_weights_of_pytorchvideo(shared: Path) -> None:
    parity = Parity(shared, "ssdet_x3d_m_loc")
    model = X3D(157).eval()
    model.load_state_dict(parity.weights(shapes_of(model)))
    got = {
        "logits": model(parity.clips(), per_frame=True),
        "features_2048_mean_t": model.features(parity.clips(), per_frame=True).mean(2),
    }
    errors = parity.errors(got, prefix="mapped/")
    assert max(errors.values()) <= parity.limit, errors


def test_incomplete_weights_of_ssdet_keep_what_cannot_be_folded(shared: Path) -> None:
    given = Parity(shared, "ssdet_x3d_m_loc").weights()
    given["layer1.0.downsample.1.weight"] = torch.ones(3)
    weights, notes = X3D.from_public(given)
    assert len(notes) == 1
    assert weights["blocks.1.res_blocks.0.branch1_norm.weight"].shape == (3,)


def tiny() -> X3D:
    torch.manual_seed(0)
    return X3D(5, X3DArguments(depth_factor=0.4, width_factor=0.5, feature_dim=32)).eval()


@torch.inference_mode()
def test_shapes_per_clip_and_per_frame() -> None:
    model, clips = tiny(), torch.randn(2, 3, 6, 40, 32)
    assert model(clips).shape == (2, 5)
    assert model(clips, per_frame=True).shape == (2, 5, 6)
    assert model.features(clips).shape == (2, 32)
    assert model.features(clips, per_frame=True).shape == (2, 32, 6)
    assert model.feature_dim == 32


@torch.inference_mode()
def test_scores_are_the_class_layer_of_the_features() -> None:
    model, clips = tiny(), torch.randn(2, 3, 6, 40, 32)
    layer = model.get_submodule(model.classifier)
    torch.testing.assert_close(layer(model.features(clips)), model(clips))
    frames = layer(model.features(clips, per_frame=True).mT).mT
    torch.testing.assert_close(frames, model(clips, per_frame=True))


@torch.inference_mode()
def test_one_frame_looks_the_same_per_clip_and_per_frame() -> None:
    model, clips = tiny(), torch.randn(2, 3, 1, 40, 32)
    torch.testing.assert_close(model(clips), model(clips, per_frame=True)[..., 0])


def test_sizes_have_the_published_depths() -> None:
    for size, depths in (("XS", [3, 5, 11, 7]), ("M", [3, 5, 11, 7]), ("L", [5, 10, 25, 15])):
        model = X3D(2, X3DArguments(size=size))  # type: ignore[arg-type]
        assert [len(stage.res_blocks) for stage in model.blocks[1:5]] == depths


@pytest.mark.parametrize(
    ("field", "value"), [("dropout", 1.0), ("width_factor", 0), ("depth_factor", -1.0)]
)
def test_arguments_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        X3DArguments(**{field: value})  # type: ignore[arg-type]

"""X3D against numbers of the public implementations, and its per-frame output."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train.backbones import X3D, X3DArguments
from train.backbones.x3d import round_width


def rule_weights(record: dict[str, Any], names: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Fill the listed names by the weight rule of the fixtures."""
    rule, weights = record["weights"], {}
    for name, shape in names.items():
        digest = hashlib.sha256((rule["salt"] + name).encode()).digest()
        x = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(tuple(shape))
        if name.endswith("num_batches_tracked"):
            x = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            x = 1 + 0.1 * abs(x)
        elif name.endswith("running_mean"):
            x = 0.1 * x
        elif len(shape) < 2:
            x = 1 + 0.1 * x if name.split(".")[-1] == "weight" else 0.1 * x
        else:
            x = x * rule["gain_for_ndim_ge_2"] / np.sqrt(np.prod(shape[1:]))
        weights[name] = torch.from_numpy(np.asarray(x)).to(
            torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        )
    return weights


def fixture_clips(record: dict[str, Any], blocky: bool) -> torch.Tensor:
    shape = record["input"]["shape"]
    if not blocky:
        rng = np.random.default_rng(record["input"]["seed"])
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    n, c, t, h, w = shape
    rng = np.random.default_rng(record["input_blocky"]["seed"])
    coarse = rng.standard_normal((n, c, -(-t // 4), -(-h // 16), -(-w // 16)))
    for axis, times in ((2, 4), (3, 16), (4, 16)):
        coarse = coarse.repeat(times, axis)
    return torch.from_numpy(coarse[:, :, :t, :h, :w].astype(np.float32).copy())


def tolerance(record: dict[str, Any]) -> float:
    return max(20 * record["tolerance"]["worst_noise_over_std"], 1e-5)


def error_over_std(got: torch.Tensor, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.numpy() - expected).max() / expected.std())


def build(num_outputs: int, record: dict[str, Any], names: dict[str, list[int]]) -> X3D:
    model = X3D(num_outputs)
    model.load_state_dict(rule_weights(record, names))  # strict: the same names and shapes
    return model.eval()


CASES = [
    "x3d_m_small",
    "x3d_s_13x160",
    pytest.param("x3d_m_16x224", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_matches_the_public_model(shared: Path, name: str) -> None:
    record = json.loads((shared / "parity" / f"{name}.json").read_text())
    expected = np.load(shared / "parity" / f"{name}.npz")
    model = build(400, record, record["state_dict"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == record[
        "state_dict"
    ]
    clips = fixture_clips(record, blocky=False)
    maps = clips
    for block in model.blocks[:5]:
        maps = block(maps)
    vectors = model.features(clips)
    head = model.blocks[5]
    got = {
        "logits": model(clips),
        "features_2048": vectors,
        "stage4_mean_hw": maps.mean((3, 4)),
        "softmax_before_average": head.proj(vectors).softmax(1),
        "blocky_logits": model(fixture_clips(record, blocky=True)),
    }
    limit = tolerance(record)
    errors = {key: error_over_std(got[key], expected[f"out/{key}"]) for key in record["outputs"]}
    assert set(errors) == set(got)
    assert max(errors.values()) <= limit, errors


@torch.inference_mode()
def test_per_frame_output_matches_ssdet(shared: Path) -> None:
    """SSDet's X3D, with weights given under PyTorchVideo's names, scores every frame the same."""
    record = json.loads((shared / "parity" / "ssdet_x3d_m_loc.json").read_text())
    expected = np.load(shared / "parity" / "ssdet_x3d_m_loc.npz")
    names = {key: list(value.shape) for key, value in X3D(157).state_dict().items()}
    model = build(157, record, names)
    clips = fixture_clips(record, blocky=False)
    limit = tolerance(record)
    assert error_over_std(model(clips, per_frame=True), expected["mapped/logits"]) <= limit
    mean = model.features(clips, per_frame=True).mean(2)
    assert error_over_std(mean, expected["mapped/features_2048_mean_t"]) <= limit


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


def test_round_width() -> None:
    for width, factor, expected in ((12, 2.0, 24), (54, 0.0625, 8), (216, 0.0625, 16)):
        assert round_width(width, factor) == expected
    assert round_width(432, 0.0625) == 32
    assert round_width(12, 1.0) == 16


@pytest.mark.parametrize(
    ("field", "value"), [("dropout", 1.0), ("width_factor", 0), ("depth_factor", -1.0)]
)
def test_arguments_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        X3DArguments(**{field: value})  # type: ignore[arg-type]

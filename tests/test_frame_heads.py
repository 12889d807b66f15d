"""The networks that score every snippet: public numbers, slow loops, and losses by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import Parity, shapes_of, watch

from features.heads import (
    FRAME_HEADS,
    MSTCT,
    PDAN,
    TGM,
    FrameHead,
    MSTCTArguments,
    PDANArguments,
    SuperEvents,
    SuperEventsArguments,
    TGMArguments,
    read_public_head,
)
from features.heads.frame_head import frame_entropy
from features.heads.ms_tct import focal_loss, heat_maps
from features.heads.pdan import DilatedAttention
from features.heads.super_events import CauchyFilters, super_event_scores
from features.heads.tgm import TemporalMixture
from manifests import CheckpointError

pytestmark = pytest.mark.slow

SMALL = {
    "pdan": PDANArguments(width=8, num_layers=2),
    "tgm": TGMArguments(width=8),
    "super_events": SuperEventsArguments(),
    "ms_tct": MSTCTArguments(width=64, num_blocks=1, mlp_ratio=1),
}


def small(kind: str, feature_dim: int = 6, num_classes: int = 3) -> FrameHead:
    torch.manual_seed(0)
    return FRAME_HEADS[kind](feature_dim, num_classes, SMALL[kind])


@pytest.mark.parametrize(
    ("name", "kind", "num_parameters"),
    [
        ("pdan", "pdan", 5_858_461),
        ("tgm_stack", "tgm", 1_084_897),
        ("tgm_hierarchy", "tgm", 1_092_570),
        ("super_event", "super_events", 133_268),
        ("super_event_3072", "super_events", 266_388),
        pytest.param("ms_tct", "ms_tct", 87_503_930, marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_matches_the_public_network(
    shared: Path, name: str, kind: str, num_parameters: int
) -> None:
    parity = Parity(shared, name)
    head = FRAME_HEADS[kind].of_public(parity.weights()).eval()
    assert shapes_of(head) == parity.record["state_dict"]
    assert sum(weight.numel() for weight in head.parameters()) == num_parameters
    taps = watch(head, {tap: tap for tap in parity.record["taps"]})
    feats = parity.feats()
    lengths = parity.record.get("lengths") or parity.record.get("mask", {}).get("lengths")
    lengths_N = torch.tensor(lengths or [feats.shape[2]])
    logits = head(feats, lengths_N)
    got = {"stage1_logits" if kind == "pdan" else "logits": logits}
    if isinstance(head, MSTCT):
        got = {"logits": logits.mT, "heatmap_logits": head.branches(feats)[1]}
    if isinstance(head, SuperEvents) or name == "tgm_hierarchy":
        filters = head.get_submodule("super_event")
        got["super_event1_desc"] = filters(feats, lengths_N)
        if "super_event1_filters" in parity.record["outputs"]:
            got["super_event1_filters"] = filters.densities(lengths_N, feats.shape[2])
    assert got.keys() == parity.record["outputs"].keys()
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    print(f"{name}: {max(errors.values()):.1e} of {parity.limit:.1e}")
    assert max(errors.values()) <= parity.limit, errors


@torch.inference_mode()
def test_mixed_distributions_match_the_public_ones(shared: Path) -> None:
    parity = Parity(shared, "tgm_stack")
    head = TGM.of_public(parity.weights())
    bumps = {
        f"{name}/gaussians": layer.densities(torch.tensor([5]), 5)
        for name, layer in head.named_children()
        if isinstance(layer, TemporalMixture)
    }
    assert len(bumps) == 3
    assert max(parity.errors(bumps, prefix="").values()) <= 1e-5


def test_sizes_of_charades() -> None:
    for head, expected in ((PDAN, 5_858_461), (TGM, 1_132_093)):
        with torch.device("meta"):
            network = head(1024, 157)
        assert sum(weight.numel() for weight in network.parameters()) == expected


def test_a_real_trained_head_knows_a_long_jump(shared: Path) -> None:
    """MultiTHUMOS class 14 is LongJump, 25 the run-up beside it (239 of its 305 segments)."""
    head = read_public_head(
        "super_events",
        shared / "data/heads/multithumos_rgb_super_event.pt",
        [str(number) for number in range(1, 66)],
    )
    assert isinstance(head.scorer, SuperEvents)
    assert head.scorer.arguments == SuperEventsArguments(num_filters=1)
    assert head.scorer.cls_wts.abs().max() > 1e36  # where exp overflows
    scores_SC = head.predict(np.load(shared / "data/features/women_long_jump_i3d_rgb.npy"))
    assert scores_SC.shape == (14, 65)
    assert np.isfinite(scores_SC).all()
    best = scores_SC.max(axis=0)
    assert [head.classes[c] for c in np.argsort(-best)[:2]] == ["25", "14"]
    assert np.argmax(best[:20]) == 13  # of the twenty classes of THUMOS'14
    assert best[13] > 0.7
    with pytest.raises(CheckpointError, match="no weights of a pdan head"):
        read_public_head("pdan", shared / "data/heads/multithumos_rgb_super_event.pt")
    with pytest.raises(CheckpointError, match="has 65 classes, but 1 names"):
        read_public_head(
            "super_events", shared / "data/heads/multithumos_rgb_super_event.pt", ["jump"]
        )


@pytest.mark.parametrize("kind", FRAME_HEADS)
def test_public_files_load_whatever_wraps_their_names(tmp_path: Path, kind: str) -> None:
    head = small(kind)
    if kind == "ms_tct":
        head = MSTCT(6, 3, MSTCTArguments(width=64, num_blocks=2, mlp_ratio=2))
    weights = {f"module.{name}": weight for name, weight in head.state_dict().items()}
    if kind == "super_events":
        weights["module.pf.bias"] = weights["module.per_frame.bias"]
    torch.save(weights, tmp_path / "head.pt")
    again = read_public_head(kind, tmp_path / "head.pt")
    assert again.classes == ("0", "1", "2")
    assert again.feature_dim == 6
    for name, weight in head.state_dict().items():
        assert torch.equal(again.scorer.state_dict()[name], weight)
    torch.save({}, tmp_path / "head.pt")
    with pytest.raises(CheckpointError, match=f"no weights of a {kind} head"):
        read_public_head(kind, tmp_path / "head.pt")


@torch.inference_mode()
def test_tgm_variants_and_pooling_are_read_from_shapes() -> None:
    hierarchy = TGM(4, 3, TGMArguments("hierarchy", width=5))
    again = TGM.of_public(hierarchy.state_dict())
    assert again.arguments == TGMArguments("hierarchy", width=5)
    concat = SuperEvents(4, 3, SuperEventsArguments(2, "concat"))
    assert SuperEvents.of_public(concat.state_dict()).arguments == concat.arguments


@torch.inference_mode()
def test_dilated_attention_equals_loops() -> None:
    torch.manual_seed(1)
    layer, maps = DilatedAttention(3, dilation=2).double(), torch.randn(1, 3, 5).double()
    queries, keys, values = (
        torch.einsum("oc,ct->ot", conv.weight[..., 0], maps[0])
        for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
    )
    expected = torch.zeros(3, 5)
    for c in range(3):
        for t in range(5):
            places = (t - 2, t, t + 2)
            inside = [0 <= p < 5 for p in places]
            energy = [
                queries[c, t] * keys[c, p] if i else 0.0
                for p, i in zip(places, inside, strict=True)
            ]
            shares = [math.exp(e) / sum(math.exp(x) for x in energy) for e in energy]
            for k, (p, i) in enumerate(zip(places, inside, strict=True)):
                expected[c, t] += shares[k] * ((values[c, p] if i else 0.0) + layer.rel_t[c, 0, k])
    assert torch.allclose(layer(maps)[0].float(), expected, atol=1e-6)


@torch.inference_mode()
def test_cauchy_filters_by_hand() -> None:
    filters = CauchyFilters(1)
    filters.center.fill_(0.0)
    filters.gamma.fill_(math.atanh(0.25))
    width = math.exp(1.5 - 2 * 0.25)
    density = [1 / (math.pi * width * (1 + ((t - 1.5) / width) ** 2)) for t in range(6)]
    found = filters.densities(torch.tensor([4]), 6)[0, 0]  # the centre knows 4 rows, the sum 6
    assert found.tolist() == pytest.approx([d / (sum(density) + 1e-6) for d in density], rel=1e-5)


@torch.inference_mode()
def test_temporal_mixture_equals_loops() -> None:
    torch.manual_seed(2)
    layer, maps = TemporalMixture(2, 3), torch.randn(1, 2, 4, 7)
    bumps = layer.densities(torch.tensor([5]), 5)[0]
    expected = torch.zeros(3, 4, 7)
    for i, conv in enumerate(layer.convs):
        for d in range(4):
            for t in range(7):
                for j in range(2):
                    kernel = layer.soft_attn[i * 2 + j].softmax(0) @ bumps
                    seen = [(k, t + k - 2) for k in range(5) if 0 <= t + k - 2 < 7]
                    mixed = sum(kernel[k] * maps[0, j, d, p] for k, p in seen)
                    expected[i, d, t] += conv.weight[0, j, 0, 0] * mixed
                expected[i, d, t] = (expected[i, d, t] + conv.bias[0]).clamp(min=0)
    assert torch.allclose(layer(maps)[0], expected, atol=1e-5)


@given(st.floats(-3e38, 3e38))
@settings(max_examples=50, deadline=None)
def test_super_event_scores_stay_finite(weight: float) -> None:
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    score = super_event_scores(first, second, torch.ones(1, 1, 2), torch.tensor([weight]))
    assert 2 <= float(score) <= 4


@torch.inference_mode()
def test_pdan_says_nothing_past_the_end() -> None:
    logits = small("pdan").eval()(torch.randn(2, 6, 9), torch.tensor([9, 4]))
    assert logits[0].all()
    assert logits[1, :, :4].all()
    assert not logits[1, :, 4:].any()


@pytest.mark.parametrize("num_rows", [1, 2, 5, 33])
@pytest.mark.parametrize("kind", FRAME_HEADS)
@torch.inference_mode()
def test_any_number_of_rows_is_taken(kind: str, num_rows: int) -> None:
    logits = small(kind)(torch.randn(2, 6, num_rows), torch.tensor([num_rows, 1]))
    assert logits.shape == (2, 3, num_rows)
    assert torch.isfinite(logits).all()


def test_frame_entropy_sums_over_padding_and_divides_by_rows() -> None:
    logits = torch.zeros(2, 3, 4)
    labels = torch.zeros(2, 3, 4)
    assert float(frame_entropy(logits, labels, torch.tensor([4, 1]))) == pytest.approx(
        24 * math.log(2) / 5
    )


def test_heat_maps_by_hand() -> None:
    times_S3 = np.stack([np.arange(8.0), np.arange(8) + 0.5, np.arange(8) + 1.0], 1)
    heat = heat_maps(times_S3, [(2.0, 4.5, 0), (6.2, 6.9, 0), (-9.0, -5.0, 1)], 2)
    # 2.5 s hold 2 whole rows: radius 4, sigma 9 / 4, around row 3 (centre 3.5 is nearest to 3.25);
    # 0.7 s hold none: radius 0, the row alone
    bump = [math.exp(-((t - 3) ** 2) / (2 * 2.25**2)) if abs(t - 3) <= 4 else 0 for t in range(8)]
    bump[6] = 1.0
    assert heat[:, 0].tolist() == pytest.approx(bump, rel=1e-5)
    assert not heat[:, 1].any()  # its middle lies before the video
    assert heat_maps(np.zeros((0, 3)), [(0, 1, 0)], 2).shape == (0, 2)
    assert heat_maps(np.array([[0.0, 0.5, 1.0]]), [(0, 1, 0)], 1).tolist() == [[1.0]]


def test_focal_loss_by_hand() -> None:
    heat = torch.tensor([1.0, 0.5, 0.0])
    p = torch.tensor([0.7, 0.4, 0.1], dtype=torch.float64)
    expected = -(0.3**2 * math.log(0.7) + 0.5**4 * 0.16 * math.log(0.6) + 0.01 * math.log(0.9))
    assert float(focal_loss(torch.logit(p), heat)) == pytest.approx(expected, rel=1e-6)
    nothing = focal_loss(torch.full((4,), -200.0), torch.zeros(4))
    assert float(nothing) == 0.0
    assert float(focal_loss(torch.tensor([-200.0]), torch.ones(1))) == pytest.approx(200.0)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of 8"):
        MSTCTArguments(width=100)
    assert MSTCTArguments().widths == (256, 384, 576, 864)
    for arguments in (PDANArguments, TGMArguments):
        with pytest.raises(ValueError, match="must be >= 1"):
            arguments(width=0)
    with pytest.raises(ValueError, match="num_filters"):
        SuperEventsArguments(num_filters=0)

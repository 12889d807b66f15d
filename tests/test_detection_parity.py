"""G-TAD and BMN against numbers of the public networks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import Parity, shapes_of, watch
from torch import nn

from features.heads.alignment import SampledConv
from features.heads.bmn import BMN
from features.heads.gtad import GTAD, GTAD_ANET, GTAD_THUMOS, NUM_NEIGHBOURS, neighbours

pytestmark = pytest.mark.slow


def loaded(model: nn.Module, parity: Parity) -> nn.Module:
    assert shapes_of(model) == parity.record["state_dict"]
    model.load_state_dict(parity.weights())
    return model.eval()


def samples(conv: SampledConv, source: int, feats_CT: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the samples `(A, C)` of one bin after the other, which the head never builds."""
    sampling, num_positions = conv.get_buffer(f"sampling{source}"), feats_CT.shape[1]
    for position in range(conv.num_bins[source]):
        columns = torch.arange(num_positions) + position * num_positions
        yield torch.sparse.mm(sampling.index_select(1, columns), feats_CT.T)


@pytest.mark.parametrize("name", ["gtad_thumos", "gtad_anet"])
@torch.inference_mode()
def test_gtad_matches_the_public_network(shared: Path, name: str) -> None:
    parity = Parity(shared, name)
    arguments = GTAD_THUMOS if name == "gtad_thumos" else GTAD_ANET
    model = loaded(GTAD(arguments), parity)
    assert sum(p.numel() for p in model.parameters()) == parity.record["n_params"]
    aligned = [tap for tap in parity.record["taps"] if tap.startswith("goi_align")]
    taps = watch(model, {tap: tap for tap in parity.record["taps"] if tap not in aligned})
    iou_map, start, end = model(parity.feats())
    got = {"iou_map": iou_map, "start": start, "end": end}
    assert got.keys() == parity.record["outputs"].keys()
    conv, graph = model.get_submodule("localization.0"), taps["backbone2"]
    assert isinstance(conv, SampledConv)
    for source, feats in enumerate((graph, neighbours(graph, NUM_NEIGHBOURS).mean(3))):
        bins_ACP = torch.stack(list(samples(conv, source, feats[0])), dim=2)
        bins = bins_ACP.unflatten(0, conv.map_shape).transpose(0, 1)  # anchors by start first
        taps[aligned[source]] = bins.flatten(0, 1)
        check_sub_graphs(parity, bins, source, sum(conv.num_bins))
    assert taps.keys() == parity.record["taps"].keys()
    errors = parity.errors(got) | parity.tap_errors(taps)
    print(f"{name}: {max(errors.values()):.1e} of {parity.limit:.1e}")
    assert max(errors.values()) <= parity.limit, errors


def check_sub_graphs(parity: Parity, bins: torch.Tensor, source: int, num_bins: int) -> None:
    """Compare the known sub-graphs: the first 1024 of channel times (inner, context) bins."""
    first = 0 if source == 0 else num_bins - bins.shape[3]
    for name in parity.arrays:
        if name.startswith("subgraph_"):
            duration, start = (int(part[1:]) for part in name.split("_")[2:])
            expected = parity.arrays[name][: 1024 // num_bins * num_bins].reshape(-1, num_bins)
            expected = expected[:, first : first + bins.shape[3]]
            got = bins[start, duration, : len(expected)].numpy()
            np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=name)


@torch.inference_mode()
def test_neighbours_are_the_published(shared: Path) -> None:
    for name in ("gtad_thumos", "gtad_anet"):
        parity = Parity(shared, name)
        model = loaded(GTAD(GTAD_THUMOS if name == "gtad_thumos" else GTAD_ANET), parity)
        taps = watch(model, {"before": "backbone1.1"})
        model.get_submodule("backbone1")(parity.feats())
        feats_CT = taps["before"][0]
        known_TK = torch.from_numpy(parity.arrays["knn_first_call"].astype(np.int64))[0]
        near_CT = neighbours(taps["before"], NUM_NEIGHBOURS)[0].sum(2)
        torch.testing.assert_close(near_CT, feats_CT[:, known_TK].sum(2))


@torch.inference_mode()
def test_bmn_matches_the_public_network(shared: Path) -> None:
    parity = Parity(shared, "bmn")
    model = loaded(BMN(), parity)
    trainable = sum(p.numel() for p in model.parameters())
    assert trainable == parity.record["n_params_trainable"] == 4978564
    taps = watch(model, {tap: tap for tap in parity.record["taps"]})
    confidence_map, start, end = model(parity.feats())
    got: dict[str, Any] = {"confidence_map": confidence_map, "start": start, "end": end}
    assert got.keys() == parity.record["outputs"].keys()
    taps["x_3d_p"] = taps["x_3d_p"].unsqueeze(2)
    errors = parity.errors(got) | parity.tap_errors(taps)
    print(f"bmn: {max(errors.values()):.1e} of {parity.limit:.1e}")
    assert max(errors.values()) <= parity.limit, errors


def test_the_mask_of_bmn_is_the_published(shared: Path) -> None:
    parity = Parity(shared, "bmn")
    model = BMN()
    dense = model.get_buffer("x_3d_p.0.sampling0").to_dense().view(100, 100, 32, 100)
    for name in parity.arrays:
        if name.startswith("mask/s"):
            start, end = (int(part[1:]) for part in name[len("mask/") :].split("_"))
            np.testing.assert_allclose(dense[start, end].T, parity.arrays[name], atol=1e-7)
    sums = dense[::7, ::7].sum(3).permute(2, 0, 1)
    np.testing.assert_allclose(sums, parity.arrays["mask/column_sums_over_T"], atol=1e-6)


def test_a_public_checkpoint_of_bmn_has_the_mask_too(shared: Path) -> None:
    parity = Parity(shared, "bmn")
    BMN().load_state_dict(parity.weights() | {"sample_mask": torch.zeros(100, 32 * 100 * 100)})

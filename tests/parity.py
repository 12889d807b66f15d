"""Numbers of the public networks: their inputs and weights by rule, and how far ours are off."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Parity:
    """One public network: what was run, and the numbers that it gave.

    Attributes:
        record: The description beside the numbers.
        arrays: The numbers, by name.
        limit: Largest error allowed, as a share of an output's standard deviation.
    """

    def __init__(self, shared: Path, name: str) -> None:
        folder = shared / "parity"
        self.record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.arrays: Mapping[str, np.ndarray] = np.load(folder / f"{name}.npz")
        self.limit = max(20 * self.record["tolerance"]["worst_noise_over_std"], 1e-5)

    def weights(self, names: Mapping[str, list[int]] | None = None) -> dict[str, torch.Tensor]:
        """Fill the listed names (else those of the network itself) by the rule."""
        shapes = self.record["state_dict"] if names is None else names
        return {name: rule_weight(self.record["weights"], name, shapes[name]) for name in shapes}

    def clips(self, blocky: bool = False) -> torch.Tensor:
        """Return `(N, C, T, H, W)` of noise, or of noise in blocks of 4 frames by 16 by 16."""
        shape = self.record["input"]["shape"]
        folded = len(shape) == 4  # N, T times 3, H, W
        n, c, t, h, w = (shape[0], 3, shape[1] // 3, *shape[2:]) if folded else shape
        if blocky:
            rng = np.random.default_rng(self.record["input_blocky"]["seed"])
            clips = rng.standard_normal((n, c, -(-t // 4), -(-h // 16), -(-w // 16)))
            for axis, times in ((2, 4), (3, 16), (4, 16)):
                clips = clips.repeat(times, axis)
            clips = clips[:, :, :t, :h, :w]
        else:
            rng = np.random.default_rng(self.record["input"]["seed"])
            clips = rng.standard_normal(shape)
            if folded:
                clips = clips.reshape(n, t, c, h, w).swapaxes(1, 2)
        return torch.from_numpy(clips.astype(np.float32, order="C"))

    def feats(self) -> torch.Tensor:
        """Return features `(N, D, T)` of noise, zero past a stated length."""
        given = self.record["input"]
        feats = np.random.default_rng(given["seed"]).standard_normal(given["shape"])
        for n, length in enumerate(self.record.get("lengths", ())):
            feats[n, :, length:] = 0
        return torch.from_numpy(feats.astype(np.float32))

    def errors(self, got: Mapping[str, torch.Tensor], prefix: str = "out/") -> dict[str, float]:
        """Return the largest error of each output, as a share of its standard deviation."""
        errors = {}
        for name, tensor in got.items():
            expected = self.arrays[prefix + name]
            assert tensor.numel() == expected.size, (name, tensor.shape, expected.shape)
            difference = np.abs(tensor.numpy().ravel() - expected.ravel()).max()
            errors[name] = float(difference / expected.std())
        return errors

    def tap_errors(self, taps: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the same for the outputs of submodules, of which a selection is known."""
        errors = {}
        for name, tensor in taps.items():
            known = self.record["taps"][name]
            assert list(tensor.shape) == known["shape"], name
            flat = tensor.flatten().numpy()
            expected = self.arrays[f"tap/{name}/strided"]
            strided = flat[:: known["strided_step"]][: len(expected)]
            first = np.abs(flat[:64] - self.arrays[f"tap/{name}/first64"]).max()
            errors[name] = float(max(np.abs(strided - expected).max(), first) / known["std"])
        return errors


def rule_weight(rule: Mapping[str, Any], name: str, shape: list[int]) -> torch.Tensor:
    """Return the weight of a name by the rule of the fixtures."""
    digest = hashlib.sha256((rule["salt"] + name).encode()).digest()
    x = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(tuple(shape))
    if name in rule.get("special_scale", {}):
        return torch.from_numpy(rule["special_scale"][name] * x).float()
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    if name.endswith("running_var"):
        x = 1 + 0.1 * abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif len(shape) < 2:
        x = 1 + 0.1 * x if name.split(".")[-1] == "weight" else 0.1 * x
    else:
        x = x * rule["gain_for_ndim_ge_2"] / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x)).float()


def watch(model: nn.Module, modules: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return a dict that the outputs of the named modules (by tap) will fill on their first call.

    Args:
        modules: Names of submodules by the names of the taps.
    """
    outputs: dict[str, torch.Tensor] = {}

    def keep(tap: str, output: torch.Tensor) -> None:
        if tap not in outputs:
            outputs[tap] = output.clone()

    for tap, name in modules.items():
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _module, _given, output, tap=tap: keep(tap, output))
    return outputs


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """Return names and shapes of a state dict, as the fixtures list them."""
    return {name: list(weight.shape) for name, weight in model.state_dict().items()}

"""Weights to start from: public checkpoints as they are found in the wild, and other runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from manifests import CheckpointError

from .backbones import Backbone
from .checkpoint import WEIGHTS, read_model_record, torch_load

WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")  # dicts around a state dict
PREFIXES = ("module.", "_orig_mod.")  # of torch's data-parallel and compiled modules
MOST_NAMES = 12  # of weights in a sentence
COUNTERS = ".num_batches_tracked"  # of batch norms; files of torch < 0.4 have none


def load_initial_weights(backbone: Backbone, path: Path | str, outputs: Sequence[str]) -> list[str]:
    """Start `backbone` from the weights of a file or of another run.

    The class layer is left random if it has another size, or belongs to a run with other outputs;
    every other weight must be there, with its shape.

    Args:
        backbone: Gets the weights.
        path: A `.safetensors` file, a file of torch.save (`.pyth`, `.pt`, `.pth`, `.pth.tar`), or a
            run folder. The public checkpoints load as they are: X3D of PyTorchVideo and of SSDet,
            I3D of piergiaj, TSM of mit-han-lab, 3D-ResNet of kenshohara.
        outputs: What the class scores of the training to come stand for.

    Returns:
        Sentences about what was not taken over, or was changed.

    Raises:
        CheckpointError: The file cannot be read, or weights are missing, unknown or misshapen.
    """
    path = Path(path)
    of_other_outputs = path.is_dir() and read_model_record(path)["classes"] != list(outputs)
    found, notes = backbone.from_public(read_weights(path / WEIGHTS if path.is_dir() else path))
    wanted = backbone.state_dict()
    theirs, ours = (_class_layer(weights, backbone) for weights in (found, wanted))
    if of_other_outputs or _shapes(theirs) != _shapes(ours):
        found = {name: weight for name, weight in found.items() if name not in theirs} | ours
        notes += _class_layer_notes(theirs, ours, path)
    found = {k: v for k, v in wanted.items() if k.endswith(COUNTERS)} | found
    _check_all_fit(_shapes(found), _shapes(wanted), path)
    backbone.load_state_dict(found)
    return notes


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, out of its wrappers and without its prefixes.

    Nothing but tensors, containers, strings and numbers (NumPy's too: learning rates and scores of
    older trainers are such) is read from a file.

    Raises:
        CheckpointError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"no such weights: {str(path)!r}")
    if path.suffix == ".safetensors":
        try:
            state: Any = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as err:
            raise CheckpointError(f"weights cannot be read: {str(path)!r} ({err})") from err
    else:
        with torch.serialization.safe_globals(_numpy_numbers()):
            state = torch_load(path)
    state = _unwrap(state)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(weight, torch.Tensor) for name, weight in state.items()
    ):
        raise CheckpointError(f"weights must be a table of names and tensors: {str(path)!r}")
    return _without_prefixes(state)


def _unwrap(state: Any) -> Any:
    for _ in range(len(WRAPPERS)):  # a file may wrap a table in itself
        if not isinstance(state, dict):
            break
        inner = (state[key] for key in WRAPPERS if isinstance(state.get(key), dict))
        state = next(inner, state)
    return state


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            inner = {name.removeprefix(prefix): weight for name, weight in state.items()}
            return _without_prefixes(inner)
    return state


def _numpy_numbers() -> list[Any]:
    """Return what a pickled NumPy number names: a function, under two names, and the dtypes."""
    scalar = np.float64().__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdg"]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]


def _class_layer(
    weights: Mapping[str, torch.Tensor], backbone: Backbone
) -> dict[str, torch.Tensor]:
    layer = backbone.classifier + "."
    return {name: weight for name, weight in weights.items() if name.startswith(layer)}


def _class_layer_notes(
    theirs: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor], path: Path
) -> list[str]:
    sizes = [weight.shape[0] for weight in theirs.values() if weight.dim()]
    classes = f"{sizes[0]} classes" if sizes else "no classes"
    if ours:
        return [f"the class layer starts anew: {str(path)!r} has {classes} of its own"]
    return [f"the class layer of {str(path)!r}, for {classes}, is left out"] if theirs else []


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _check_all_fit(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    shared = found.keys() & wanted.keys()
    wrong = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "of another shape": {name for name in shared if found[name] != wanted[name]},
    }
    lists = [f"{why}: {_say(sorted(names))}" for why, names in wrong.items() if names]
    if lists:
        raise CheckpointError(
            f"the weights of {str(path)!r} do not fit the backbone; {'; '.join(lists)}"
        )


def _say(names: Sequence[str]) -> str:
    """Return a list of names; of a long one, as another network's, the first few and the count."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:5])} and {len(names) - 5} more"

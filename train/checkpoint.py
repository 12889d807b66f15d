"""The files of a run: weights, what they are for, and what a killed run needs to go on.

`model.safetensors` and `model.json` are what others read; `resume.pt` is for `--resume` alone.
"""

import hashlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load even where it loads weights only
from typing import Any

import safetensors
import safetensors.torch
import torch

from manifests import CheckpointError, UsageError, build_record, write_atomic

from .backbones import BACKBONES, Backbone, channels_last

WEIGHTS, RECORD, RESUME = "model.safetensors", "model.json", "resume.pt"
WRAPPERS = ("model_state", "state_dict", "model")  # what other tools wrap a state dict in
PREFIXES = ("module.", "_orig_mod.")
LOAD_ERRORS = (  # what torch.load raises on bytes that are no checkpoint, or hold more than weights
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class TrainedModel:
    """A backbone with trained weights, in evaluation mode.

    Attributes:
        backbone: The network.
        record: What `model.json` says: backbone, arguments, classes, objective, frames, height,
            width, mean, std, digests.
        digest: The sha256 of the weights' file.
    """

    backbone: Backbone
    record: Mapping[str, Any]
    digest: str


def normalise(
    frames_NTHWC: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Turn uint8 frames into what a backbone takes, on the frames' device.

    Args:
        frames_NTHWC: uint8 `(N, T, H, W, 3)`.
        mean, std: Per colour, of pixels in [0, 1].

    Returns:
        float32 `(N, 3, T, H, W)` in the channels-last memory format, `(pixel / 255 - mean) / std`.
    """
    scale = torch.tensor(std, device=frames_NTHWC.device).mul(255).reciprocal()
    shift = torch.tensor(mean, device=frames_NTHWC.device).mul(255)
    # Channels stand last in memory already: permuting the axes is the whole conversion.
    return frames_NTHWC.float().sub_(shift).mul_(scale).permute(0, 4, 1, 2, 3)


def write_model(run: Path | str, backbone: Backbone, record: Mapping[str, Any]) -> None:
    """Write the weights, then the record with their sha256, each at once."""
    weights = {name: tensor.contiguous().cpu() for name, tensor in backbone.state_dict().items()}
    content = safetensors.torch.save(weights)
    signed = {**record, "weights_sha256": hashlib.sha256(content).hexdigest()}
    write_atomic(Path(run) / WEIGHTS, content)
    write_atomic(Path(run) / RECORD, json.dumps(signed, indent=1).encode())


def load_run(run: Path | str, device: str | torch.device = "cpu") -> TrainedModel:
    """Load the model of a training run.

    Raises:
        CheckpointError: A file is missing, damaged, or does not belong to the other.
    """
    record = read_model_record(run)
    try:
        content = (Path(run) / WEIGHTS).read_bytes()
    except OSError as err:
        raise CheckpointError(f"run {str(run)!r} has no readable {WEIGHTS}") from err
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["weights_sha256"]:
        raise CheckpointError(
            f"{WEIGHTS} of run {str(run)!r} is not what its {RECORD} says: it is damaged or from "
            f"another run"
        )
    try:
        backbone = build_backbone(record["backbone"], record["arguments"], record["num_outputs"])
        backbone.load_state_dict(safetensors.torch.load(content))
    except (KeyError, RuntimeError, UsageError, safetensors.SafetensorError) as err:
        raise CheckpointError(
            f"the weights of run {str(run)!r} do not fit the model of its {RECORD}: {_line(err)}"
        ) from err
    channels_last(backbone.to(device))
    return TrainedModel(backbone.eval(), record, digest)


def read_model_record(run: Path | str) -> dict[str, Any]:
    """Read `model.json` of a run.

    Raises:
        CheckpointError: There is none, or it is not what training writes.
    """
    path = Path(run) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise CheckpointError(f"not a training run: there is no {str(path)!r}") from err
    except (OSError, ValueError) as err:
        raise CheckpointError(f"not a model record: {str(path)!r}") from err
    needed = {"backbone", "arguments", "num_outputs", "classes", "mean", "std", "weights_sha256"}
    if not isinstance(record, dict) or not needed <= record.keys():
        raise CheckpointError(f"not a model record: {str(path)!r}")
    return record


def build_backbone(name: str, arguments: Mapping[str, Any], num_outputs: int) -> Backbone:
    """Build a backbone with random weights; KeyError or UsageError if there is no such one."""
    cls = BACKBONES[name]
    built = build_record(cls.Arguments, arguments, "train.backbone_arguments", RECORD)
    return cls(num_outputs, built)


def write_resume(run: Path | str, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them for `read_resume`."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_atomic(Path(run) / RESUME, content.getvalue())


def read_resume(run: Path | str) -> dict[str, Any] | None:
    """Read what `write_resume` wrote, or None if the run was killed before it wrote anything.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = Path(run) / RESUME
    return _torch_load(path) if path.exists() else None


def load_initial_weights(backbone: Backbone, path: Path | str, classes: Sequence[str]) -> list[str]:
    """Start `backbone` from the weights of a file or of another run.

    The class layer is left random if it has another size, or belongs to a run with other classes;
    every other weight must be there, with its shape.

    Args:
        backbone: Gets the weights.
        path: A `.safetensors` file, a file of torch.save (PyTorchVideo's checkpoints load as they
            are), or a run folder.
        classes: The classes of the training to come.

    Returns:
        Sentences about what was not taken over.

    Raises:
        CheckpointError: The file cannot be read, or weights are missing, unknown or misshapen.
    """
    path = Path(path)
    found = _read_state(path / WEIGHTS if path.is_dir() else path)
    other_classes = path.is_dir() and read_model_record(path)["classes"] != list(classes)
    wanted = backbone.state_dict()
    layer = backbone.classifier + "."
    head = [name for name in wanted if name.startswith(layer)]
    fits = all(name in found and found[name].shape == wanted[name].shape for name in head)
    notes = []
    if other_classes or not fits:
        was = f"{len(found[head[0]])} classes" if head[0] in found else "no classes"
        notes.append(f"the class layer starts anew: {str(path)!r} has {was} of its own")
        found = {name: value for name, value in found.items() if not name.startswith(layer)}
        found |= {name: wanted[name] for name in head}
    wrong = sorted(
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted or name not in found or wanted[name].shape != found[name].shape
    )
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"the weights of {str(path)!r} do not fit the backbone: missing, unknown or of another "
            f"shape are {', '.join(wrong[:5])}{more}"
        )
    backbone.load_state_dict(found)
    return notes


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"no such weights: {str(path)!r}")
    if path.suffix == ".safetensors":
        try:
            state: Any = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as err:
            raise CheckpointError(f"weights cannot be read: {str(path)!r} ({err})") from err
    else:
        state = _torch_load(path)
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"weights must be a table of names and tensors: {str(path)!r}")
    for prefix in PREFIXES:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _torch_load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as err:
        raise CheckpointError(
            f"checkpoint cannot be read: {str(path)!r} is damaged or holds more than weights"
        ) from err


def _line(err: BaseException) -> str:
    return " ".join(str(err).split())[:200]

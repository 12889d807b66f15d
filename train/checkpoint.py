"""The files of a run: weights, what they are for, and what a killed run needs to go on.

`model.safetensors` and `model.json` are what others read; `resume.pt` is for `--resume` alone.
"""

import hashlib
import io
import json
import math
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load even where it loads weights only
from typing import Any

import safetensors
import safetensors.torch
import torch

from manifests import CheckpointError, UsageError, build_record, read_json, write_atomic

from .backbones import BACKBONES, Backbone, channels_last

WEIGHTS, RECORD, RESUME = "model.safetensors", "model.json", "resume.pt"
FIELDS = {  # of model.json
    "backbone": str,
    "arguments": dict,
    "classes": list,
    "mean": list,
    "std": list,
    "weights_sha256": str,
}
CLIP_FIELDS = ("frames", "height", "width")
# What building a network says of arguments that nobody can mean.
BUILD_ERRORS = (KeyError, OverflowError, RuntimeError, TypeError, UsageError, ValueError)
LOAD_ERRORS = (  # what torch.load raises on bytes that are no checkpoint, or hold more than weights
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
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
    # A CPU is three times as fast with a row for all pixels of a frame as with three numbers.
    values_NTR, frame_size = frames_NTHWC.float().flatten(-3), frames_NTHWC.shape[-3:]
    num_pixels = frame_size[:2].numel()
    values_NTR.sub_(shift.repeat(num_pixels)).mul_(scale.repeat(num_pixels))
    # Channels stand last in memory already: permuting the axes is the whole conversion.
    return values_NTR.unflatten(-1, frame_size).permute(0, 4, 1, 2, 3)


def write_model(run: Path | str, backbone: Backbone, record: Mapping[str, Any]) -> None:
    """Write the weights, then the record with their sha256, each at once."""
    weights = {name: tensor.contiguous().cpu() for name, tensor in backbone.state_dict().items()}
    content = safetensors.torch.save(weights)
    signed = {**record, "weights_sha256": hashlib.sha256(content).hexdigest()}
    write_atomic(Path(run) / WEIGHTS, content)
    write_atomic(Path(run) / RECORD, json.dumps(signed, indent=1).encode())


def keep_model(run: Path | str, step: int, backbone: Backbone, record: Mapping[str, Any]) -> None:
    """Write the model of one step into a folder of the run, unless one stands there.

    # step=300: RUN/step-000300/model.safetensors, then model.json, without which it is no model
    """
    folder = Path(run) / f"step-{step:06d}"
    if not (folder / RECORD).exists():
        write_model(folder, backbone, record)


def load_run(run: Path | str, device: str | torch.device = "cpu") -> TrainedModel:
    """Load the model of a training run, or one that it kept on the way.

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
        weights = safetensors.torch.load(content)
        built = (record["backbone"], record["arguments"], record["num_outputs"])
        with torch.device("meta"):  # without memory: the record may ask for any size
            _check_shapes(build_backbone(*built).state_dict(), weights)
        backbone = build_backbone(*built)
        backbone.load_state_dict(weights)
    except (*BUILD_ERRORS, safetensors.SafetensorError) as err:
        raise CheckpointError(
            f"the weights of run {str(run)!r} do not fit the model of its {RECORD}: {_line(err)}"
        ) from err
    channels_last(backbone.to(device))
    return TrainedModel(backbone.eval(), record, digest)


def _check_shapes(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    for name, weight in wanted.items():
        if name not in found or found[name].shape != weight.shape:
            shape = tuple(found[name].shape) if name in found else "nothing"
            raise ValueError(f"{name} must be {tuple(weight.shape)}, got {shape}")


def read_model_record(run: Path | str) -> dict[str, Any]:
    """Read `model.json` of a run.

    Raises:
        CheckpointError: There is none, or it is not what training writes.
    """
    path = Path(run) / RECORD
    try:
        record = read_json(path.read_bytes())
    except FileNotFoundError as err:
        raise CheckpointError(f"not a training run: there is no {str(path)!r}") from err
    except (OSError, ValueError) as err:
        raise CheckpointError(f"not a model record: {str(path)!r}") from err
    wrong = _wrong_field(record) if isinstance(record, dict) else "all of it"
    if wrong:
        raise CheckpointError(f"not a model record, look at {wrong}: {str(path)!r}")
    return record


def _wrong_field(record: Mapping[str, Any]) -> str | None:
    """Return the name of a field of `model.json` that is missing or of another type."""
    for name, kind in FIELDS.items():
        if type(record.get(name)) is not kind:
            return name
    for name in ("num_outputs", *(name for name in CLIP_FIELDS if name in record)):
        value = record.get(name)
        if type(value) is not int or not 0 <= value < 2**24:
            return name
    if not all(isinstance(name, str) for name in record["classes"]):
        return "classes"
    for name in ("mean", "std"):
        values = record[name]
        are_numbers = all(type(value) in (int, float) for value in values)
        if not values or not are_numbers or not all(map(math.isfinite, values)):
            return name
    return None if all(value > 0 for value in record["std"]) else "std"


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
    return torch_load(path) if path.exists() else None


def torch_load(path: Path) -> Any:
    """Read a file of torch.save: tensors, numbers, strings and containers of them, nothing else.

    Raises:
        CheckpointError: The file is damaged, or holds something else.
    """
    try:
        if tarfile.is_tarfile(path):  # of the oldest torch, which would unpack it in a folder
            raise ValueError("it is a tar")
        return torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as err:
        raise CheckpointError(
            f"checkpoint cannot be read: {str(path)!r} is damaged or holds more than weights"
        ) from err


def _line(err: BaseException) -> str:
    return " ".join(str(err).split())[:200]

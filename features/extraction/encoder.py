"""The network behind the features: clips of uint8 frames in, one vector each out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests import CheckpointError, UsageError
from train import TrainedModel, load_run, normalise

MAX_FORWARD_WORKERS = 32  # each holds the activations of a batch
DEFAULT_BATCH = {"cpu": 2, "cuda": 32}  # on a CPU what stays in the cache is fastest


@dataclass(frozen=True)
class Encoder:
    """Turn clips into vectors on one device.

    Attributes:
        name: Of the network, for the FeatureSpec.
        embed: Normalised clips `(N, 3, T, H, W)` on `device` (channels last in memory) to vectors
            `(N, D)`, or `(N, T, D)` if `per_frame`; on a CPU it is called from several threads at
            once.
        feature_dim: `D`.
        num_frames: Frames of a clip that the network was trained on.
        height: Rows of pixels.
        width: Columns of pixels.
        mean: Subtracted from RGB in [0, 1].
        std: Divided by.
        weights_digest: sha256 of the weights' file.
        arguments: What the network was built with (JSON values).
        device: Where it runs.
        per_frame: Every frame of a clip has a vector of its own; then a video has a row for every
            sampled frame, the mean over the clips that show it.
        fps: Rate of the frames that it was trained on, where an extraction names none; None: the
            video's own frames.
        short_side: Shorter side of frames before the crop, where an extraction names none; None:
            the shorter side of the crop.
        fixed_length: It takes clips of `num_frames` frames only.
        prediction: Of an encoder whose vectors are class probabilities: how they are made, for the
            FeatureSpec; None where vectors are features.
    """

    name: str
    embed: Callable[[torch.Tensor], torch.Tensor]
    feature_dim: int
    num_frames: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_digest: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    per_frame: bool = False
    fps: Fraction | None = None
    short_side: int | None = None
    fixed_length: bool = False
    prediction: Mapping[str, Any] | None = None

    @property
    def precision(self) -> str:
        """Return the arithmetic of the forward pass: bfloat16 only where the device has it."""
        return precision_of(self.device)

    def encode(self, frames_NTHWC: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Return the vectors of uint8 clips, float32 `(N, D)`, or `(N, T, D)` if `per_frame`.

        The bytes travel to the device and are mirrored (left and right) and normalised there.
        """
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            frames = torch.from_numpy(frames_NTHWC).to(self.device, non_blocking=True)
            if mirrored:
                frames = frames.flip(3)
            clips = normalise(frames, self.mean, self.std)
            vectors = self.embed(clips)  # channels last in memory already
        return vectors.float().cpu().numpy()


@dataclass(frozen=True, slots=True)
class ForwardThreads:
    """How a device is kept busy: threads that run the network side by side, and cores of each."""

    num_workers: int
    cores_each: int


def forward_threads(device: torch.device) -> ForwardThreads:
    """Return how to run a network on `device` while other threads decode.

    A GPU gets one thread. On a CPU each core computes batches of its own: threads that share one
    operation wait for each other at its end, and those waits burn whole cores while decoders take
    turns on them. One core for a batch, on any machine: how many share a sum decides its last
    digits.
    """
    if device.type != "cpu":
        return ForwardThreads(1, torch.get_num_threads())
    return ForwardThreads(min(torch.get_num_threads(), MAX_FORWARD_WORKERS), 1)


def precision_of(device: torch.device) -> str:
    """Return "bfloat16" for a GPU that computes in it, else "float32"."""
    is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if is_fast else "float32"


def empty_clips(device: torch.device, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 zeros, in memory that a GPU copies from while its network computes."""
    if device.type == "cpu":
        return np.zeros(shape, np.uint8)
    return torch.zeros(shape, dtype=torch.uint8, pin_memory=True).numpy()


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`; None takes CUDA where there is one, else the CPU.

    Raises:
        UsageError: There is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise UsageError(f"the device must be 'cpu' or 'cuda', got {name!r}") from err
    if device.type not in ("cpu", "cuda") or (
        device.type == "cuda" and not torch.cuda.is_available()
    ):
        raise UsageError(f"the device {name!r} is not available here")
    return device


def encoder_of_run(
    run_dir: Path | str, device: str | None = None, per_frame: bool = False
) -> Encoder:
    """Return the backbone of a finished training run as an encoder.

    Args:
        run_dir: Folder of the run.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        per_frame: A vector for every frame of a clip, instead of one pooled over time.

    Raises:
        CheckpointError: The folder holds no run, or its files don't fit each other.
        UsageError: The device is not available.
    """
    chosen = choose_device(device)
    run = load_run(run_dir, chosen)
    check_clips_are_known(run, run_dir)
    backbone, record = run.backbone, run.record

    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        features = backbone.features(clips_NCTHW, per_frame=per_frame)
        return features.transpose(1, 2) if per_frame else features

    return Encoder(
        name=record["backbone"],
        embed=embed,
        feature_dim=backbone.feature_dim,
        num_frames=record["frames"],
        height=record["height"],
        width=record["width"],
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        weights_digest=run.digest,
        arguments=record["arguments"],
        device=chosen,
        per_frame=per_frame,
    )


def check_clips_are_known(run: TrainedModel, run_dir: Path | str) -> None:
    """Raise CheckpointError unless the record of a run says what clips it takes."""
    record = run.record
    absent = [name for name in ("frames", "height", "width") if name not in record]
    if absent:
        raise CheckpointError(
            f"the record of run {str(run_dir)!r} must say what clips it takes, but lacks "
            f"{', '.join(absent)}"
        )

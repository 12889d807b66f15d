"""Bring your own encoder: any network from clips to vectors, as a module or as a saved program.

    encoder_of_module(module, name="videomae-b", num_frames=16, height=224, width=224, mean=M, ...)
    encoder_of_program("videomae-b.pt2")

The second reads `videomae-b.toml` beside the program:

    [encoder]
    name = "videomae-b"
    frames = 16
    height = 224
    width = 224
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    fps = 7.5                     # that it was trained at; absent: the video's own frames
    short_side = 256              # of frames before the crop; absent: that of the crop
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manifests import UsageError, build_record, read_recipe_table

from ..store.spec import parse_rate
from .encoder import Encoder, choose_device, encoder_of_run
from .program_file import open_program

MOST_FRAMES, LARGEST_SIDE = 4096, 4096  # a typo must not fill the memory


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """What a program does not say of itself: the `[encoder]` table of the TOML beside it.

    Attributes:
        name: Of the network.
        frames: Frames of a clip.
        height: Rows of pixels.
        width: Columns of pixels.
        mean: Subtracted from RGB in [0, 1].
        std: Divided by.
        fps: Rate of the frames that it was trained on; None takes the video's own.
        short_side: Shorter side of a frame before the crop; None: the shorter side of the crop.
    """

    name: str
    frames: int
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fps: float | str | None = None
    short_side: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if not 1 <= self.frames <= MOST_FRAMES:
            raise ValueError(f"frames must be from 1 to {MOST_FRAMES}, got {self.frames}")
        if not all(1 <= side <= LARGEST_SIDE for side in (self.height, self.width)):
            raise ValueError(
                f"height and width must be from 1 to {LARGEST_SIDE}, got {self.height} and "
                f"{self.width}"
            )
        if not (all(map(math.isfinite, (*self.mean, *self.std))) and min(self.std) > 0):
            raise ValueError(
                f"mean must be finite and std > 0, got {list(self.mean)} and {list(self.std)}"
            )
        assert self.sampling_fps is None or self.sampling_fps > 0

    @property
    def sampling_fps(self) -> Fraction | None:
        """Return `fps` as a fraction: 7.5 is 15/2, "30000/1001" what it says."""
        if self.fps is None:
            return None
        fps = parse_rate(str(self.fps))
        if not 0 < fps <= 500:
            raise ValueError(f"fps must be above 0 and at most 500, got {self.fps!r}")
        return fps


def encoder_of_module(
    module: nn.Module,
    *,
    name: str,
    num_frames: int,
    height: int,
    width: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    fps: Fraction | None = None,
    short_side: int | None = None,
    device: str | None = None,
    per_frame: bool = False,
) -> Encoder:
    """Return an encoder of any module from clips `(N, 3, T, H, W)` to `(N, D)` or `(N, T', D)`.

    Vectors along time are averaged, unless `per_frame` asks for them. The module is put into
    evaluation mode, on `device`; on a CPU it is called from several threads at once.

    Args:
        module: The network; its clips are normalised and contiguous.
        name: For the FeatureSpec.
        num_frames: Frames of a clip.
        height: Rows of pixels.
        width: Columns of pixels.
        mean: Subtracted from RGB in [0, 1].
        std: Divided by.
        fps: Rate of the frames that it was trained on; None takes the video's own.
        short_side: Shorter side of a frame before the crop; None: the shorter side of the crop.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        per_frame: A vector for every frame of a clip: T' must be T.

    Raises:
        UsageError: Numbers out of range, a module that does not take such clips or gives something
            else, or no such device.
    """
    try:
        record = EncoderRecord(
            name=name,
            frames=num_frames,
            height=height,
            width=width,
            mean=mean,
            std=std,
            fps=None if fps is None else str(fps),
            short_side=short_side,
        )
    except ValueError as err:
        raise UsageError(f"{err} (encoder {name!r})") from err
    chosen = choose_device(device)
    module = module.eval().requires_grad_(False).to(chosen)
    try:
        return _encoder(record, module, state_digest(module.state_dict()), chosen, per_frame)
    except (RuntimeError, TypeError, ValueError) as err:
        raise UsageError(
            f"the module {name!r} must take clips (1, 3, {num_frames}, {height}, {width}), but "
            f"raises {type(err).__name__}: {err}"
        ) from err


def encoder_of_program(
    path: Path | str,
    toml_path: Path | str | None = None,
    device: str | None = None,
    per_frame: bool = False,
) -> Encoder:
    """Return an encoder of a program saved with `torch.export.save`; its file runs no code.

    Where it was exported for a fixed number of clips, batches are filled up to that.

    Args:
        path: The program, clips `(N, 3, T, H, W)` to `(N, D)` or `(N, T', D)`.
        toml_path: What it does not say of itself; by default beside it, `NAME.toml` of `NAME.pt2`.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        per_frame: A vector for every frame of a clip: T' must be T.

    Raises:
        UsageError: The TOML is missing, has unknown keys, or says other sizes than the program;
            there is no such device.
        CheckpointError: The program cannot be read, or fails on such clips.
    """
    path = Path(path)
    toml_path = path.with_suffix(".toml") if toml_path is None else Path(toml_path)
    if not toml_path.exists():
        raise UsageError(
            f"the input size and normalisation of {str(path)!r} must stand in {str(toml_path)!r}, "
            "which does not exist"
        )
    record = build_record(
        EncoderRecord, read_recipe_table(toml_path, "encoder"), "encoder", toml_path
    )
    chosen = choose_device(device)
    program = open_program(path, chosen)
    said = (3, record.frames, record.height, record.width)
    taken = program.input_sizes
    if len(taken) != 5 or any(a not in (None, b) for a, b in zip(taken[1:], said, strict=True)):
        raise UsageError(
            f"the program {str(path)!r} takes clips of {_say(taken)}, but {str(toml_path)!r} says "
            f"{_say((None, *said))}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _encoder(record, program, digest, chosen, per_frame)


def open_encoder(path: Path | str, device: str | None, per_frame: bool) -> Encoder:
    """Return the encoder of a `.pt2` program or of the folder of a run; raises as these do."""
    opened = encoder_of_program if Path(path).suffix == ".pt2" else encoder_of_run
    return opened(path, device=device, per_frame=per_frame)


def state_digest(state: Mapping[str, Any]) -> str:
    """Return sha256 of tensors: names in order, each with its type, shape and bytes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _encoder(
    record: EncoderRecord,
    network: Callable[[torch.Tensor], torch.Tensor],
    digest: str,
    device: torch.device,
    per_frame: bool,
) -> Encoder:
    """Try the network on one black clip, and return it as an encoder."""

    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        vectors = network(clips_NCTHW.contiguous())  # networks take views of what they are given
        return vectors if per_frame or vectors.ndim == 2 else vectors.mean(dim=1)

    return Encoder(
        name=record.name,
        embed=embed,
        feature_dim=_feature_dim(record, network, device, per_frame),
        num_frames=record.frames,
        height=record.height,
        width=record.width,
        mean=record.mean,
        std=record.std,
        weights_digest=digest,
        device=device,
        per_frame=per_frame,
        fps=record.sampling_fps,
        short_side=record.short_side,
        fixed_length=True,
    )


def _feature_dim(
    record: EncoderRecord,
    network: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    per_frame: bool,
) -> int:
    clip = torch.zeros(1, 3, record.frames, record.height, record.width, device=device)
    with torch.inference_mode():
        vectors = network(clip)
    if not isinstance(vectors, torch.Tensor) or vectors.ndim not in (2, 3) or len(vectors) != 1:
        found = _say(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise UsageError(
            f"the encoder {record.name!r} must return (N, D) or (N, T, D) of N clips, but returns "
            f"{found} of one"
        )
    if per_frame and (vectors.ndim != 3 or vectors.shape[1] != record.frames):
        raise UsageError(
            f"rows per frame need an encoder that returns (N, {record.frames}, D), but "
            f"{record.name!r} returns {_say((None, *vectors.shape[1:]))}"
        )
    return int(vectors.shape[-1])


def _say(sizes: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if size is None else str(size) for size in sizes) + ")"

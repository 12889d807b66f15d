"""Encoders side by side: every video is decoded once, whatever number of networks look at it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manifests import SnippetGrid, UsageError

from ..store.spec import CROPS, canonical_digest
from .crops import Framing
from .encoder import Encoder
from .own_encoder import open_encoder

Checkpoint = Path | str | Encoder
LARGEST_SIDE = 4096  # pixels; a typo must not fill the memory


@dataclass(frozen=True)
class Streams:
    """Encoders of the same snippets, in channel order, and the crops that they all look at.

    Attributes:
        encoders: By name; the name of a single encoder may be "".
        framings: Of each encoder; those that are equal are cut once.
        crop: "centre", "three" or "ten".
        crop_pooling: "mean" or "keep".
    """

    encoders: Mapping[str, Encoder]
    framings: tuple[Framing, ...]
    crop: str
    crop_pooling: str

    @property
    def first(self) -> Encoder:
        """Return the first encoder; all run on its device."""
        return next(iter(self.encoders.values()))

    @property
    def per_frame(self) -> bool:
        """Return whether every frame of a clip has a vector of its own."""
        return self.first.per_frame

    @property
    def device(self) -> torch.device:
        """Return where the encoders run."""
        return self.first.device

    @property
    def distinct_framings(self) -> tuple[Framing, ...]:
        """Return the framings that have to be cut."""
        return tuple(dict.fromkeys(self.framings))

    @property
    def num_kept(self) -> int:
        """Return how many vectors of one encoder lie side by side in a row."""
        if self.crop_pooling == "mean":
            return 1
        return len(CROPS[self.crop]) * (2 if self.crop == "ten" else 1)

    @property
    def feature_dim(self) -> int:
        """Return the length of a row."""
        return self.num_kept * sum(encoder.feature_dim for encoder in self.encoders.values())

    def row_grid(self, clips: SnippetGrid) -> SnippetGrid:
        """Return the grid of the rows that clips on the grid `clips` give."""
        return SnippetGrid(1, 1) if self.per_frame else clips

    def encode(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Return the vectors of clips, float32 `(N, D)`, or `(N, T, D)` if `per_frame`.

        Args:
            frames: uint8 `(P, N, T, H, W, 3)` of each distinct framing.
        """
        frames_of = dict(zip(self.distinct_framings, frames, strict=True))
        parts = [
            self._encode_crops(encoder, frames_of[framing])
            for encoder, framing in zip(self.encoders.values(), self.framings, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _encode_crops(self, encoder: Encoder, frames_PNTHWC: np.ndarray) -> np.ndarray:
        vectors = [encoder.encode(frames_NTHWC) for frames_NTHWC in frames_PNTHWC]
        if self.crop == "ten":
            vectors += [encoder.encode(frames_NTHWC, True) for frames_NTHWC in frames_PNTHWC]
        if len(vectors) == 1:
            return vectors[0]
        if self.crop_pooling == "keep":
            return np.concatenate(vectors, axis=-1)
        return np.asarray(np.mean(vectors, axis=0, dtype=np.float32))

    def spec_fields(self) -> dict[str, Any]:
        """Return what the FeatureSpec says of networks, sizes, normalisation and crops."""
        members = [
            _encoder_fields(encoder, framing, self.num_kept)
            for encoder, framing in zip(self.encoders.values(), self.framings, strict=True)
        ]
        crops = {"crop": self.crop, "crop_pooling": self.crop_pooling}
        if list(self.encoders) == [""]:
            return {**members[0], **crops}
        streams = [{"name": n, **m} for n, m in zip(self.encoders, members, strict=True)]
        together = {
            "backbone": "streams",
            "backbone_arguments": {},
            "weights_digest": canonical_digest([m["weights_digest"] for m in members]),
            "feature_dim": self.feature_dim,
            "streams": tuple(streams),
        }
        return {**members[0], **together, **crops}


def open_streams(
    checkpoints: Checkpoint | Mapping[str, Checkpoint],
    device: str | None = None,
    per_frame: bool = False,
    short_side: int | None = None,
    crop: str = "centre",
    crop_pooling: str = "mean",
) -> Streams:
    """Open one encoder, or several by name, on one device.

    Args:
        checkpoints: Folder of a run, a `.pt2` program, or an `Encoder`; or several by stream name,
            in channel order.
        device: Of runs: "cpu" or "cuda"; None takes CUDA where there is one.
        per_frame: Of runs: a vector for every frame.
        short_side: Of frames after resizing; by default what each encoder says, else the shorter
            side of its crop, or 8/7 of it for ten crops (256 for 224), so that the corners differ.
        crop: "centre", "three" or "ten".
        crop_pooling: "mean" or "keep".

    Raises:
        UsageError: Numbers out of range, or encoders that cannot lie side by side.
        CheckpointError: A folder holds no run.
    """
    named = checkpoints if isinstance(checkpoints, Mapping) else {"": checkpoints}
    if isinstance(checkpoints, Mapping) and not (
        named and all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in named)
    ):
        raise UsageError(
            f"streams must have names of letters, digits, '_' and '-', got {list(named)}"
        )
    if crop not in CROPS or crop_pooling not in ("mean", "keep"):
        raise UsageError(
            f"the crop must be one of {', '.join(CROPS)} and its pooling mean or keep, got "
            f"{crop!r} and {crop_pooling!r}"
        )
    encoders = {
        name: source if isinstance(source, Encoder) else open_encoder(source, device, per_frame)
        for name, source in named.items()
    }
    _check_together(encoders, per_frame, crop_pooling)
    framings = tuple(_framing(encoder, short_side, crop) for encoder in encoders.values())
    return Streams(encoders, framings, crop, crop_pooling if crop != "centre" else "mean")


def _framing(encoder: Encoder, short_side: int | None, crop: str) -> Framing:
    smallest = min(encoder.height, encoder.width)
    if short_side is None:
        short_side = encoder.short_side
    if short_side is None:
        short_side = smallest * 8 // 7 if crop == "ten" else smallest
    if not smallest <= short_side <= LARGEST_SIDE:
        raise UsageError(
            f"short_side must be from the {smallest} pixels of the crop of {encoder.name!r} to "
            f"{LARGEST_SIDE}, got {short_side}"
        )
    return Framing(encoder.height, encoder.width, short_side, crop)


def _check_together(encoders: Mapping[str, Encoder], per_frame: bool, crop_pooling: str) -> None:
    """Raise UsageError unless the encoders can lie side by side, as they are asked to."""
    first = next(iter(encoders.values()))
    if per_frame and not first.per_frame:
        raise UsageError(f"the encoder {first.name!r} must give a vector per frame, but gives one")
    for name, encoder in encoders.items():
        if encoder.prediction is not None and (len(encoders) > 1 or crop_pooling == "keep"):
            raise UsageError("class probabilities must have a store and columns of their own")
        for what in ("per_frame", "device"):
            if getattr(encoder, what) != getattr(first, what):
                raise UsageError(
                    f"streams must have the same {what}, but {next(iter(encoders))!r} and {name!r} "
                    f"have {getattr(first, what)} and {getattr(encoder, what)}"
                )


def common_num_frames(encoders: Mapping[str, Encoder], wanted: int | None) -> int:
    """Return the frames of a clip: those `wanted`, or what all encoders were trained on.

    Raises:
        UsageError: They differ, so that the number has to be said; or one takes no such clips.
    """
    lengths = {name: encoder.num_frames for name, encoder in encoders.items()}
    if wanted is None and len({*lengths.values()}) > 1:
        raise UsageError(
            "streams share one snippet_len, which must be given where their runs differ in frames: "
            + ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        )
    length = next(iter(lengths.values())) if wanted is None else wanted
    for encoder in encoders.values():
        if encoder.fixed_length and encoder.num_frames != length:
            raise UsageError(
                f"the encoder {encoder.name!r} takes clips of {encoder.num_frames} frames only, "
                f"got snippet_len {length}"
            )
    return length


def common_fps(encoders: Mapping[str, Encoder]) -> Fraction | None:
    """Return the rate that all encoders were trained at; None stands for the video's own frames.

    Raises:
        UsageError: They differ, so that the rate has to be said.
    """
    rates = {name: encoder.fps for name, encoder in encoders.items()}
    if len({*rates.values()}) > 1:
        raise UsageError(
            "streams share one sampling rate, which must be given where their encoders differ: "
            + ", ".join(f"{name!r} has {rate or 'none'}" for name, rate in rates.items())
        )
    return next(iter(rates.values()))


def _encoder_fields(encoder: Encoder, framing: Framing, num_kept: int) -> dict[str, Any]:
    return {
        "backbone": encoder.name,
        "backbone_arguments": dict(encoder.arguments),
        "weights_digest": encoder.weights_digest,
        "feature_dim": encoder.feature_dim * num_kept,
        "height": framing.height,
        "width": framing.width,
        "short_side": framing.short_side,
        "mean": tuple(encoder.mean),
        "std": tuple(encoder.std),
    }

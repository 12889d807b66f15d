"""Say everything that is needed to make a feature again, in one record with one digest."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, Self

from manifests import SnippetGrid, StoreError

COUNTS = (
    *("feature_dim", "batch", "snippet_len", "snippet_stride", "height", "width", "short_side"),
)
RATE = r"[1-9][0-9]{0,9}(/[1-9][0-9]{0,9})?"  # Fraction would also take "1e999999999", and time


@dataclass(frozen=True)
class FeatureSpec:
    """What a row of a feature store is made of; two equal specs on one machine give equal rows.

    Attributes:
        backbone: Name of the network.
        backbone_arguments: What it was built with (JSON values).
        weights_digest: sha256 of the weights' file.
        feature_dim: Length of a row.
        pooling: What one row stands for; "snippet": one vector pooled over time and space; "frame":
            class probabilities of one frame, averaged over the windows that show it.
        snippet_len: Sampled frames behind a row.
        snippet_stride: Sampled frames between the starts of neighbouring rows.
        tail: "pad" or "drop" (`SnippetGrid`).
        fps: Sampling rate as a fraction ("15", "30000/1001"); None: the video's own frames.
        height: Rows of pixels that enter the network.
        width: Columns of pixels that enter the network.
        short_side: Shorter side of a frame after resizing, before the crop; more only where the
            crop would not fit.
        crop: Which part of the resized frame; "centre".
        mean: Subtracted from RGB in [0, 1].
        std: Divided by.
        precision: Arithmetic of the forward pass, "float32" or "bfloat16".
        device: Kind of device, "cpu" or "cuda": they differ in the last digits.
        batch: Snippets per forward pass: it decides the last digits too.
        dtype: Of the stored rows.
        decode_policy: "probe": the decoder that the probe chose for each video.
        versions: Packages that decide pixels and sums.
        prediction: How class probabilities were made (JSON values); None for features.
    """

    backbone: str
    backbone_arguments: Mapping[str, Any]
    weights_digest: str
    feature_dim: int
    snippet_len: int
    snippet_stride: int
    height: int
    width: int
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tail: str = "pad"
    fps: str | None = None
    pooling: str = "snippet"
    crop: str = "centre"
    precision: str = "float32"
    device: str = "cpu"
    batch: int = 8
    dtype: str = "float16"
    decode_policy: str = "probe"
    versions: Mapping[str, str] = field(default_factory=dict)
    prediction: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**31:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if self.fps is not None and not re.fullmatch(RATE, self.fps):
            raise ValueError(f"fps must be a whole number or a fraction of two, got {self.fps!r}")
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        object.__setattr__(self, "backbone_arguments", dict(self.backbone_arguments))
        object.__setattr__(self, "versions", dict(self.versions))
        assert self.grid.snippet_len == self.snippet_len  # the grid checks its own numbers

    @property
    def grid(self) -> SnippetGrid:
        """Return the time grid."""
        return SnippetGrid(self.snippet_len, self.snippet_stride, self.tail)

    @property
    def sampling_fps(self) -> Fraction | None:
        """Return `fps` as a number, None for the video's own frames."""
        return None if self.fps is None else Fraction(self.fps)

    @property
    def digest(self) -> str:
        """Return sha256 of the canonical JSON (sorted keys, no spaces) of all fields."""
        return canonical_digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values; without `prediction` where there is none."""
        values = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {
            name: value
            for name, value in values.items()
            if name != "prediction" or value is not None
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a spec from `to_dict`.

        Raises:
            StoreError: A field is missing, unknown, or has an impossible value.
        """
        known = {item.name for item in fields(cls)}
        if {"prediction", *values} != known:
            odd = ", ".join(repr(name) for name in sorted({"prediction", *values} ^ known))
            raise StoreError(
                f"a FeatureSpec must have exactly its own fields, but differs in {odd}"
            )
        try:
            spec = cls(**values)
            assert spec.digest  # JSON has no NaN, and none may be in it
        except (TypeError, ValueError) as err:
            raise StoreError(f"the stored FeatureSpec is impossible: {err}") from err
        return spec

    def differences(self, other: "FeatureSpec") -> dict[str, tuple[Any, Any]]:
        """Return the fields that differ, as `name: (mine, theirs)`; of `prediction` one by one."""
        mine, theirs = (
            spec.to_dict() | {f"prediction.{key}": v for key, v in (spec.prediction or {}).items()}
            for spec in (self, other)
        )
        names = [name for name in {**mine, **theirs} if name != "prediction"]
        pairs = {name: (mine.get(name), theirs.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def explain(self, other: "FeatureSpec", names: Collection[str] | None = None) -> str:
        """Return the differences (of the fields `names`, if given) as a clause for a sentence."""
        return "; ".join(
            f"{name}: {mine!r} here, {theirs!r} there"
            for name, (mine, theirs) in self.differences(other).items()
            if names is None or name in names
        )


def canonical_digest(value: object) -> str:
    """Return sha256 of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

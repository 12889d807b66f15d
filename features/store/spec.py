"""Say everything that is needed to make a feature again, in one record with one digest."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, Self

from manifests import SnippetGrid, StoreError

COUNTS = (
    *("feature_dim", "batch", "snippet_len", "snippet_stride", "height", "width", "short_side"),
)
TEXTS = (
    *("backbone", "weights_digest", "pooling", "precision", "device", "dtype", "decode_policy"),
    "interpolation",
)
# Where on the resized frame crops lie, in channel order; "ten" also has each of them mirrored.
CROPS: Mapping[str, tuple[str, ...]] = {
    "centre": ("centre",),
    "three": ("first", "centre", "last"),
    "ten": ("top_left", "top_right", "bottom_left", "bottom_right", "centre"),
}
RATE_TEXT = r"[0-9]{1,10}(\.[0-9]{1,20})?(/[0-9]{1,10})?"  # 15, 7.5 or 30000/1001
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
            features (or, with `prediction`, class probabilities) of one sampled frame, averaged
            over the windows that show it.
        snippet_len: Sampled frames behind a row.
        snippet_stride: Sampled frames between the starts of neighbouring rows.
        tail: "pad" or "drop" (`SnippetGrid`).
        fps: Sampling rate as a fraction ("15", "30000/1001"); None: the video's own frames.
        height: Rows of pixels that enter the network.
        width: Columns of pixels that enter the network.
        short_side: Shorter side of a frame after resizing, before the crop; more only where the
            crop would not fit.
        crop: Which parts of the resized frame; "centre"; "three" along the longer side (left,
            centre, right, or top, centre, bottom); "ten": four corners, centre, and their mirror
            images.
        mean: Subtracted from RGB in [0, 1].
        std: Divided by.
        precision: Arithmetic of the forward pass, "float32" or "bfloat16".
        device: Kind of device, "cpu" or "cuda": they differ in the last digits.
        batch: Snippets per forward pass: it decides the last digits too.
        dtype: Of the stored rows.
        decode_policy: "probe": the decoder that the probe chose for each video.
        versions: Packages that decide pixels and sums.
        prediction: How class probabilities were made (JSON values); None for features.
        crop_pooling: "mean": one vector, the mean over the crops; "keep": the vectors of all crops
            side by side, of each stream in the order of `crop_names`.
        alignment: "left" or "centre" (`SnippetGrid`).
        window_len: Of features per frame: sampled frames of a window; else None.
        window_stride: Of features per frame: sampled frames between windows; else None.
        interpolation: How frames were resized; "bilinear, area below a half".
        streams: Of several encoders side by side, in channel order: `name`, `feature_dim` (channels
            in a row, all kept crops together), `backbone`, `backbone_arguments`, `weights_digest`,
            `height`, `width`, `short_side`, `mean` and `std` of each. Then `backbone` above is
            "streams", `weights_digest` that of all, `feature_dim` the sum, and sizes and
            normalisation are those of the first. None for one encoder.

    The fields from `prediction` on are left out of `to_dict`, and of the digest, where they have
    their defaults: specs that were written before they existed stay what they are.
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
    crop_pooling: str = "mean"
    alignment: str = "left"
    window_len: int | None = None
    window_stride: int | None = None
    interpolation: str = "bilinear, area below a half"
    streams: tuple[Mapping[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**31:
                raise ValueError(f"{name} must be a whole number from 1 to 2**31, got {value!r}")
        for name in TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, got {getattr(self, name)!r}")
        if self.prediction is not None and not isinstance(self.prediction, Mapping):
            raise ValueError(f"prediction must be a record, got {self.prediction!r}")
        if self.fps is not None and not re.fullmatch(RATE, self.fps):
            raise ValueError(
                f"fps must be a whole number or a fraction of two, of at most 10 digits each, got "
                f"{self.fps!r}"
            )
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        object.__setattr__(self, "backbone_arguments", dict(self.backbone_arguments))
        object.__setattr__(self, "versions", dict(self.versions))
        assert self.grid.snippet_len == self.snippet_len  # the grid checks its own numbers
        if self.crop not in CROPS or self.crop_pooling not in ("mean", "keep"):
            raise ValueError(
                f"crop must be one of {list(CROPS)} and crop_pooling 'mean' or 'keep', got "
                f"{self.crop!r} and {self.crop_pooling!r}"
            )
        for size in (self.window_len, self.window_stride):
            if size is not None and (type(size) is not int or size < 1):
                raise ValueError(f"windows must have sizes >= 1, got {size!r}")
        if self.streams is not None:
            object.__setattr__(self, "streams", tuple(dict(stream) for stream in self.streams))
            self._check_streams(self.streams)

    def _check_streams(self, streams: Sequence[Mapping[str, Any]]) -> None:
        names = [stream.get("name") for stream in streams]
        dims: list[Any] = [stream.get("feature_dim") for stream in streams]
        if not all(isinstance(name, str) and name for name in names) or len({*names}) < len(names):
            raise ValueError(f"streams must have names, each another, got {names}")
        if not all(type(dim) is int and dim >= 1 for dim in dims) or sum(dims) != self.feature_dim:
            raise ValueError(f"the channels of streams must add up to feature_dim, got {dims}")
        if any(dim % len(self.crop_names) for dim in dims):
            raise ValueError(f"every stream must keep all {len(self.crop_names)} crops, got {dims}")

    @property
    def grid(self) -> SnippetGrid:
        """Return the time grid."""
        return SnippetGrid(self.snippet_len, self.snippet_stride, self.tail, self.alignment)

    @property
    def crop_names(self) -> tuple[str, ...]:
        """Return the names of the crops whose vectors lie side by side in a row; ("mean",) of one.

        In channel order; those of mirrored crops end in "_mirrored" and come last.
        """
        if self.crop_pooling == "mean":
            return ("mean",)
        names = CROPS[self.crop]
        return names + tuple(f"{name}_mirrored" for name in names) * (self.crop == "ten")

    @property
    def channel_ranges(self) -> dict[str, tuple[int, int]]:
        """Return `name: (first, end)` of the parts of a row, in order.

        A part is a stream, or the one backbone; where crops are kept, one crop of it ("rgb.first").
        """
        streams = self.streams or ({"name": self.backbone, "feature_dim": self.feature_dim},)
        ranges, first = {}, 0
        for stream in streams:
            for crop in self.crop_names:
                name = stream["name"] if crop == "mean" else f"{stream['name']}.{crop}"
                end = first + stream["feature_dim"] // len(self.crop_names)
                ranges[name] = (first, end)
                first = end
        return ranges

    @property
    def sampling_fps(self) -> Fraction | None:
        """Return `fps` as a number, None for the video's own frames."""
        return None if self.fps is None else Fraction(self.fps)

    @property
    def digest(self) -> str:
        """Return sha256 of the canonical JSON (sorted keys, no spaces) of all fields."""
        return canonical_digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values; without those of `OPTIONAL` at their defaults."""
        values = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {
            name: value
            for name, value in values.items()
            if name not in OPTIONAL or value != OPTIONAL[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild a spec from `to_dict`.

        Raises:
            StoreError: A field is missing, unknown, or has an impossible value.
        """
        known = {item.name for item in fields(cls)}
        if {*OPTIONAL, *values} != known:
            odd = ", ".join(repr(name) for name in sorted({*OPTIONAL, *values} ^ known))
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
        """Return the fields that differ, as `name: (mine, theirs)`.

        Fields of `prediction` and of streams are named one by one ("streams.rgb.mean").
        """
        mine, theirs = self._named_values(), other._named_values()
        pairs = {name: (mine.get(name), theirs.get(name)) for name in {**mine, **theirs}}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _named_values(self) -> dict[str, Any]:
        values = {**OPTIONAL, **self.to_dict()}
        parts = {"prediction": values.pop("prediction") or {}}
        for stream in values.pop("streams") or ():
            parts[f"streams.{stream['name']}"] = stream
        for name, part in parts.items():
            values |= {f"{name}.{key}": value for key, value in part.items()}
        return values

    def explain(self, other: "FeatureSpec", names: Collection[str] | None = None) -> str:
        """Return the differences (of the fields `names`, if given) as a clause for a sentence."""
        return "; ".join(
            f"{name}: {mine!r} here, {theirs!r} there"
            for name, (mine, theirs) in self.differences(other).items()
            if names is None or name in names
        )


_FIELDS = fields(FeatureSpec)
_FIRST_OPTIONAL = [item.name for item in _FIELDS].index("prediction")
OPTIONAL: Mapping[str, Any] = {item.name: item.default for item in _FIELDS[_FIRST_OPTIONAL:]}


def parse_rate(text: str) -> Fraction:
    """Read a frame rate: a number or a fraction, without an exponent.

    Raises:
        ValueError: It is none, or divides by zero.
    """
    if not re.fullmatch(RATE_TEXT, text) or re.fullmatch(r".*/0+", text):
        raise ValueError(f"fps must be a number or a fraction, got {text!r}")
    whole, _, denominator = text.partition("/")
    return Fraction(whole) / int(denominator or 1)


def canonical_digest(value: object) -> str:
    """Return sha256 of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

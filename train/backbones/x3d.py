"""X3D: one small 2-D network expanded in time, depth and width; every layer keeps all frames.

Source: Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020,
Table 3. The names and shapes of the parameters are those of the PyTorchVideo checkpoints.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from .backbone import Backbone, initialise, round_width

BASE_WIDTHS = (12, 24, 48, 96)
BASE_DEPTHS = (1, 2, 5, 3)
DEEPEST = 100.0  # times as deep as that
DEPTH_FACTORS = {"XS": 2.2, "S": 2.2, "M": 2.2, "L": 5.0}

# What SSDet calls the layers of a block, and those outside the blocks.
SSDET_BLOCK = {
    "downsample.0": "branch1_conv",
    "downsample.1": "branch1_norm",
    "conv1": "branch2.conv_a",
    "bn1": "branch2.norm_a",
    "conv2": "branch2.conv_b",
    "bn2": "branch2.norm_b.0",
    "fc1": "branch2.norm_b.1.block.0",
    "fc2": "branch2.norm_b.1.block.2",
    "conv3": "branch2.conv_c",
    "bn3": "branch2.norm_c",
}
SSDET_OUTSIDE = {
    "conv1_s": "blocks.0.conv.conv_t",
    "conv1_t": "blocks.0.conv.conv_xy",
    "bn1": "blocks.0.norm",
    "conv5": "blocks.5.pool.pre_conv",
    "bn5": "blocks.5.pool.pre_norm",
    "fc1": "blocks.5.pool.post_conv",
    "fc2": "blocks.5.proj",
}


@dataclass(frozen=True, slots=True)
class X3DArguments:
    """How wide and deep an X3D is.

    XS, S and M share all weights and differ only in the clips they are meant for (4 frames of 160
    pixels, 13 of 160, 16 of 224); L takes 16 frames of 312.
    """

    size: Literal["XS", "S", "M", "L"] = "M"
    depth_factor: float | None = None
    """Blocks per stage as a multiple of 1, 2, 5, 3, rounded up; the default follows `size`."""
    width_factor: float = 2.0
    """Channels of the stages as a multiple of 12, 24, 48, 96."""
    bottleneck_factor: float = 2.25
    """Channels inside a block as a multiple of its output."""
    feature_dim: int = 2048
    """Length of the feature vector before the class layer."""
    dropout: float = 0.5
    """Share of the feature vector that is dropped in training."""

    def __post_init__(self) -> None:
        if self.depth_factor is not None and not 0 < self.depth_factor <= DEEPEST:
            raise ValueError(
                f"depth_factor must be > 0 and at most {DEEPEST}, got {self.depth_factor}"
            )
        for name in ("width_factor", "bottleneck_factor", "feature_dim"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class X3D(Backbone):
    """X3D with one feature vector per clip or per frame.

    Args:
        num_outputs: Class scores; 0 leaves the class layer out.
        arguments: Width and depth.
    """

    classifier = "blocks.5.proj"
    Arguments = X3DArguments
    stages = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")

    def __init__(self, num_outputs: int, arguments: X3DArguments = X3DArguments()) -> None:
        super().__init__(num_outputs, arguments)
        self.feature_dim = arguments.feature_dim
        depth = arguments.depth_factor or DEPTH_FACTORS[arguments.size]
        widths = [round_width(width, arguments.width_factor) for width in BASE_WIDTHS]
        self.blocks = nn.ModuleList([_Stem(widths[0])])
        width_in = widths[0]
        for width, num_blocks in zip(widths, BASE_DEPTHS, strict=True):
            inner = int(arguments.bottleneck_factor * width)
            self.blocks.append(_Stage(width_in, inner, width, math.ceil(depth * num_blocks)))
            width_in = width
        inner = int(arguments.bottleneck_factor * width_in)
        self.blocks.append(_Head(width_in, inner, arguments, num_outputs))
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, _Branch):  # every block starts as its shortcut
                nn.init.zeros_(module.norm_c.weight)

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return the vectors before the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        A frame's vector is pooled over space alone; a clip's over space and time before the last
        non-linear layer, so it is not the mean of its frames' vectors.
        """
        return self._pooled(clips_NCTHW, per_frame).flatten(2 if per_frame else 1)

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""
        vectors = self._head.dropout(self._pooled(clips_NCTHW, per_frame))
        scores = self._head.proj(vectors.movedim(1, -1))
        return scores.movedim(-1, 1).flatten(2 if per_frame else 1)

    @classmethod
    def from_public(
        cls, weights: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], list[str]]:
        """Take PyTorchVideo's weights as they are, and rename those of SSDet's X3D."""
        return from_ssdet(weights) if "conv1_s.weight" in weights else (dict(weights), [])

    def _pooled(self, clips_NCTHW: torch.Tensor, per_frame: bool) -> torch.Tensor:
        maps = clips_NCTHW
        for block in self.blocks[:5]:
            maps = block(maps)
        return self._head.pool(maps, per_frame)

    @property
    def _head(self) -> "_Head":
        return cast(_Head, self.blocks[5])


def from_ssdet(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Give the weights of SSDet's X3D the names here, and say in sentences what was changed.

    Its norms keep statistics of splits of a batch beside those over all of it; only the latter
    count where it does not train. Its first shortcut has a norm where X3D has none: scale and
    offset of that norm go into the convolution before it and the norm that it is added to.
    """
    splits = [name for name in weights if ".split_bn." in name]
    renamed = {ssdet_name(k): weight for k, weight in weights.items() if k not in splits}
    notes = []
    if splits:
        notes.append(f"{len(splits)} statistics of split_bn are left out: those of bn are used")
    if _fold_first_shortcut(renamed):
        notes.append("the norm of layer1.0.downsample is folded into the layers beside it")
    return renamed, notes


def ssdet_name(name: str) -> str:
    """Return our name for a weight of SSDet's X3D, or the name itself if it is unknown.

    # layer2.0.bn2.bn.running_mean -> blocks.2.res_blocks.0.branch2.norm_b.0.running_mean
    """
    block = re.match(r"layer([1-4])\.(\d+)\.", name)
    start = f"blocks.{block[1]}.res_blocks.{block[2]}." if block else ""
    rest = name[block.end() :] if block else name
    for theirs, ours in (SSDET_BLOCK if block else SSDET_OUTSIDE).items():
        if rest.startswith(theirs + "."):
            return start + ours + rest.removeprefix(theirs).replace(".bn.", ".")
    return name


def _fold_first_shortcut(weights: dict[str, torch.Tensor]) -> bool:
    """Fold the shortcut's norm in place, as it works outside training; False if there is none."""
    first = "blocks.1.res_blocks.0"
    kernel, offset = f"{first}.branch1_conv.weight", f"{first}.branch2.norm_c.bias"
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = [f"{first}.branch1_norm.{part}" for part in parts]
    if any(name not in weights for name in (kernel, offset, *norm)):
        return False
    width = weights[kernel].shape[:1]
    if any(weights[name].shape != width for name in (offset, *norm)):
        return False
    scale, bias, mean, variance = (weights.pop(name) for name in norm)
    weights.pop(f"{first}.branch1_norm.num_batches_tracked", None)
    scale = scale / (variance + nn.BatchNorm3d(1).eps).sqrt()
    weights[kernel] = (weights[kernel].movedim(0, -1) * scale).movedim(-1, 0)
    weights[offset] = weights[offset] + bias - mean * scale
    return True


def _pointwise(
    width_in: int, width_out: int, spatial_stride: int = 1, bias: bool = False
) -> nn.Conv3d:
    stride = (1, spatial_stride, spatial_stride)
    return nn.Conv3d(width_in, width_out, 1, stride=stride, bias=bias)


class _Stem(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict()
        # The checkpoints' names are swapped: `conv_t` is the spatial convolution and comes first.
        self.conv["conv_t"] = nn.Conv3d(3, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.conv["conv_xy"] = nn.Conv3d(
            width, width, (5, 1, 1), padding=(2, 0, 0), groups=width, bias=False
        )
        self.norm = nn.BatchNorm3d(width)

    def forward(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        maps = self.conv["conv_xy"](self.conv["conv_t"](clips_NCTHW))
        return torch.relu(self.norm(maps))


class _Stage(nn.Module):
    def __init__(self, width_in: int, inner: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.res_blocks = nn.Sequential(
            *(
                _Block(width if index else width_in, inner, width, index)
                for index in range(num_blocks)
            )
        )

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        return self.res_blocks(maps_NCTHW)


class _Block(nn.Module):
    """One residual block; the first of a stage halves height and width."""

    def __init__(self, width_in: int, inner: int, width: int, index: int) -> None:
        super().__init__()
        self.branch1_conv = _pointwise(width_in, width, 2) if index == 0 else nn.Identity()
        # As in the checkpoints: the shortcut is normalised only where the width changes.
        self.branch1_norm = nn.BatchNorm3d(width) if width_in != width else nn.Identity()
        self.branch2 = _Branch(width_in, inner, width, index)

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        shortcut = self.branch1_norm(self.branch1_conv(maps_NCTHW))
        return torch.relu(shortcut + self.branch2(maps_NCTHW))


class _Branch(nn.Module):
    def __init__(self, width_in: int, inner: int, width: int, index: int) -> None:
        super().__init__()
        stride = (1, 2, 2) if index == 0 else (1, 1, 1)
        self.conv_a = _pointwise(width_in, inner)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        excitation = _SqueezeExcitation(inner) if index % 2 == 0 else nn.Identity()
        self.norm_b = nn.Sequential(nn.BatchNorm3d(inner), excitation)
        self.conv_c = _pointwise(inner, width)
        self.norm_c = nn.BatchNorm3d(width)

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm_a(self.conv_a(maps_NCTHW)))
        maps = nn.functional.silu(self.norm_b(self.conv_b(maps)))
        return self.norm_c(self.conv_c(maps))


class _SqueezeExcitation(nn.Module):
    """Scale each channel by a gate seen from its mean over the whole clip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = round_width(width, 0.0625)
        self.block = nn.Sequential(
            _pointwise(width, narrow, bias=True),
            nn.ReLU(),
            _pointwise(narrow, width, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        return maps_NCTHW * self.block(maps_NCTHW.mean((2, 3, 4), keepdim=True))


class _Head(nn.Module):
    def __init__(self, width: int, inner: int, arguments: X3DArguments, num_outputs: int) -> None:
        super().__init__()
        self.pool = _ProjectedPool(width, inner, arguments.feature_dim)
        self.dropout = nn.Dropout(arguments.dropout)
        feature_dim = arguments.feature_dim
        self.proj = nn.Linear(feature_dim, num_outputs) if num_outputs else nn.Identity()


class _ProjectedPool(nn.Module):
    def __init__(self, width: int, inner: int, feature_dim: int) -> None:
        super().__init__()
        self.pre_conv = _pointwise(width, inner)
        self.pre_norm = nn.BatchNorm3d(inner)
        self.post_conv = _pointwise(inner, feature_dim)

    def forward(self, maps_NCTHW: torch.Tensor, per_frame: bool) -> torch.Tensor:
        maps = torch.relu(self.pre_norm(self.pre_conv(maps_NCTHW)))
        pooled = maps.mean((3, 4) if per_frame else (2, 3, 4), keepdim=True)
        return torch.relu(self.post_conv(pooled))

"""TSM: a 2-D ResNet on single frames that trades an eighth of its channels with either neighbour.

Source: Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV
2019, Section 4 (residual shift, bi-directional); ResNet as in He et al., CVPR 2016, Table 1. The
names and shapes of the parameters are those of the checkpoints of mit-han-lab.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .backbone import Backbone, initialise

LAYERS = ("layer1", "layer2", "layer3", "layer4")
NUM_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


@dataclass(frozen=True, slots=True)
class TSMArguments:
    """Which ResNet, and how much of it is shifted."""

    depth: Literal[18, 50] = 50
    width: int = 64
    """Channels of the first convolution; those of all others are proportional."""
    shift_div: int = 8
    """One part in so many of a block's channels comes from the next frame, one from the last."""
    dropout: float = 0.5
    """Share of the feature vector that is dropped in training."""

    def __post_init__(self) -> None:
        if self.shift_div < 2:
            raise ValueError(f"shift_div must be >= 2, got {self.shift_div}")
        if self.width < self.shift_div:
            raise ValueError(
                f"width must be at least shift_div ({self.shift_div}), or nothing is shifted, "
                f"got {self.width}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class TSM(Backbone):
    """TSM-ResNet: every frame of the clip is one segment, and has a feature vector of its own.

    Args:
        num_outputs: Class scores; 0 leaves the class layer out.
        arguments: Depth, width, shift and dropout.
    """

    classifier = "new_fc"
    Arguments = TSMArguments

    def __init__(self, num_outputs: int, arguments: TSMArguments = TSMArguments()) -> None:
        super().__init__(num_outputs, arguments)
        self.base_model = _ResNet(arguments)
        self.feature_dim = self.base_model.feature_dim
        self.dropout = nn.Dropout(arguments.dropout)
        self.new_fc = nn.Linear(self.feature_dim, num_outputs) if num_outputs else nn.Identity()
        self.apply(initialise)

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return the vectors before the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        A clip's vector is the mean of its frames'.
        """
        vectors_NTD = self.base_model(clips_NCTHW)
        return vectors_NTD.mT if per_frame else vectors_NTD.mean(1)

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`.

        A clip's scores are the mean of its frames' (the average consensus of the paper).
        """
        scores_NTK = self.new_fc(self.dropout(self.base_model(clips_NCTHW)))
        return scores_NTK.mT if per_frame else scores_NTK.mean(1)

    @classmethod
    def from_public(
        cls, weights: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], list[str]]:
        """Rename the class layer, `base_model.fc` where a network was built without dropout."""
        renamed = {
            name.replace("base_model.fc.", "new_fc."): weight for name, weight in weights.items()
        }
        return renamed, []


def shift(maps_NTCHW: torch.Tensor, shift_div: int, backwards: bool = False) -> torch.Tensor:
    """Let the first channels come from the next frame and as many others from the last one.

    # channels a, b, c of frames 1 2 3, shift_div 3:  a: 2 3 0   b: 0 1 2   c: 1 2 3

    Args:
        maps_NTCHW: `(N, T, C, H, W)`.
        shift_div: `C // shift_div` channels are moved each way; zeros come in at the ends.
        backwards: Move the other way round.
    """
    fold = maps_NTCHW.shape[2] // shift_div
    from_next, from_last = slice(0, fold), slice(fold, 2 * fold)
    if backwards:
        from_next, from_last = from_last, from_next
    shifted = torch.empty_like(maps_NTCHW)
    shifted[:, :-1, from_next] = maps_NTCHW[:, 1:, from_next]
    shifted[:, -1, from_next] = 0
    shifted[:, 1:, from_last] = maps_NTCHW[:, :-1, from_last]
    shifted[:, 0, from_last] = 0
    shifted[:, :, 2 * fold :] = maps_NTCHW[:, :, 2 * fold :]
    return shifted


class _Shift(torch.autograd.Function):
    """The shift with its gradient: the same the other way round.

    One pass over the gradient; torch's own, through the slices above, takes six times as long.
    """

    @staticmethod
    def forward(ctx: Any, maps_NTCHW: torch.Tensor, shift_div: int) -> torch.Tensor:
        ctx.shift_div = shift_div
        return shift(maps_NTCHW, shift_div)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return shift(gradients[0], ctx.shift_div, backwards=True), None


class _ShiftedConv(nn.Module):
    """A 2-D convolution that sees shifted channels."""

    def __init__(self, net: nn.Conv2d, shift_div: int) -> None:
        super().__init__()
        self.net = net
        self._shift_div = shift_div

    def forward(self, maps_FCHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        maps_NTCHW = maps_FCHW.unflatten(0, (-1, num_frames))
        return self.net(_Shift.apply(maps_NTCHW, self._shift_div).flatten(0, 1))


class _BasicBlock(nn.Module):
    """A residual block of ResNet-18; the shortcut sees the maps before the shift."""

    expansion = 1

    def __init__(self, width_in: int, inner: int, stride: int, shift_div: int) -> None:
        super().__init__()
        self.conv1 = _ShiftedConv(_conv(width_in, inner, 3, stride), shift_div)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, 3)
        self.bn2 = nn.BatchNorm2d(inner)
        self.downsample = _shortcut(width_in, inner, stride)

    def forward(self, maps_FCHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        maps = torch.relu(self.bn1(self.conv1(maps_FCHW, num_frames)))
        return torch.relu(self.bn2(self.conv2(maps)) + self.downsample(maps_FCHW))


class _Bottleneck(nn.Module):
    """A residual block of ResNet-50; the shortcut sees the maps before the shift."""

    expansion = 4

    def __init__(self, width_in: int, inner: int, stride: int, shift_div: int) -> None:
        super().__init__()
        width = inner * self.expansion
        self.conv1 = _ShiftedConv(_conv(width_in, inner, 1), shift_div)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _conv(inner, width, 1)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(width_in, width, stride)

    def forward(self, maps_FCHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        maps = torch.relu(self.bn1(self.conv1(maps_FCHW, num_frames)))
        maps = torch.relu(self.bn2(self.conv2(maps)))
        return torch.relu(self.bn3(self.conv3(maps)) + self.downsample(maps_FCHW))


class _ResNet(nn.Module):
    """From clips to a vector per frame; the frames of all clips are one batch (`F = N * T`)."""

    def __init__(self, arguments: TSMArguments) -> None:
        super().__init__()
        block = _BasicBlock if arguments.depth == 18 else _Bottleneck
        width_in = arguments.width
        self.conv1 = _conv(3, width_in, 7, 2)
        self.bn1 = nn.BatchNorm2d(width_in)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers = zip(LAYERS, NUM_BLOCKS[arguments.depth], strict=True)
        for index, (name, num_blocks) in enumerate(layers):
            layer, inner = nn.ModuleList(), arguments.width * 2**index
            for number in range(num_blocks):
                stride = 2 if index and not number else 1
                layer.append(block(width_in, inner, stride, arguments.shift_div))
                width_in = inner * block.expansion
            self.add_module(name, layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_dim = width_in

    def forward(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        num_clips, _, num_frames, _, _ = clips_NCTHW.shape
        # Without a copy where channels stand last in memory, as the loop's clips have them.
        maps_FCHW = clips_NCTHW.transpose(1, 2).flatten(0, 1)
        maps_FCHW = self.maxpool(torch.relu(self.bn1(self.conv1(maps_FCHW))))
        for name in LAYERS:
            for block in self.get_submodule(name).children():
                maps_FCHW = block(maps_FCHW, num_frames)
        return self.avgpool(maps_FCHW).reshape(num_clips, num_frames, -1)


def _conv(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False)


def _shortcut(width_in: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and width_in == width:
        return nn.Identity()
    return nn.Sequential(_conv(width_in, width, 1, stride), nn.BatchNorm2d(width))

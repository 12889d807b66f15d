"""3D-ResNet: a ResNet whose convolutions are all 3-D; time is halved four times.

Source: Hara, Kataoka and Satoh, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?", CVPR 2018, Table 1. The names and shapes of the parameters are those of kenshohara's
checkpoints with convolutional shortcuts (type B).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .backbone import Backbone, initialise, spread_over_frames

LAYERS = ("layer1", "layer2", "layer3", "layer4")
NUM_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
FRAMES_PER_STEP = 16


@dataclass(frozen=True, slots=True)
class ResNet3DArguments:
    """How deep and wide a 3D-ResNet is."""

    depth: Literal[18, 50] = 50
    width: int = 64
    """Channels of the first convolution; those of all others are proportional."""
    dropout: float = 0.0
    """Share of the feature vector that is dropped in training; the paper has none."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be >= 1, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class ResNet3D(Backbone):
    """3D-ResNet for clips of any length and size.

    Args:
        num_outputs: Class scores; 0 leaves the class layer out.
        arguments: Depth, width and dropout.
    """

    classifier = "fc"
    Arguments = ResNet3DArguments

    def __init__(
        self, num_outputs: int, arguments: ResNet3DArguments = ResNet3DArguments()
    ) -> None:
        super().__init__(num_outputs, arguments)
        block = _BasicBlock if arguments.depth == 18 else _Bottleneck
        width_in = arguments.width
        self.conv1 = nn.Conv3d(3, width_in, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(width_in)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        layers = zip(LAYERS, NUM_BLOCKS[arguments.depth], strict=True)
        for index, (name, num_blocks) in enumerate(layers):
            layer, inner = nn.Sequential(), arguments.width * 2**index
            for number in range(num_blocks):
                layer.append(block(width_in, inner, 2 if index and not number else 1))
                width_in = inner * block.expansion
            self.add_module(name, layer)
        self.feature_dim = width_in
        self.dropout = nn.Dropout(arguments.dropout)
        self.fc = nn.Linear(width_in, num_outputs) if num_outputs else nn.Identity()
        self.apply(initialise)

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return the vectors before the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        There is a vector for every 16 frames, whose mean is the clip's; a frame's vector is
        interpolated linearly between the two nearest ones, each of which stands at the middle of
        the frames that it was made of: frames 0, 16, 32 and so on.
        """
        maps = self.maxpool(torch.relu(self.bn1(self.conv1(clips_NCTHW))))
        for name in LAYERS:
            maps = self.get_submodule(name)(maps)
        if not per_frame:
            return maps.mean((2, 3, 4))
        # Every layer's windows are centred on entries 0, 2, 4...: kernels are odd.
        return spread_over_frames(maps.mean((3, 4)), clips_NCTHW.shape[2], 0, FRAMES_PER_STEP)

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""
        vectors = self.dropout(self.features(clips_NCTHW, per_frame))
        return self.fc(vectors.movedim(1, -1)).movedim(-1, 1)


class _BasicBlock(nn.Module):
    """A residual block of depth 18."""

    expansion = 1

    def __init__(self, width_in: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(width_in, inner, 3, stride)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = _conv(inner, inner, 3)
        self.bn2 = nn.BatchNorm3d(inner)
        self.downsample = _shortcut(width_in, inner, stride)

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.bn1(self.conv1(maps_NCTHW)))
        return torch.relu(self.bn2(self.conv2(maps)) + self.downsample(maps_NCTHW))


class _Bottleneck(nn.Module):
    """A residual block of depth 50."""

    expansion = 4

    def __init__(self, width_in: int, inner: int, stride: int) -> None:
        super().__init__()
        width = inner * self.expansion
        self.conv1 = _conv(width_in, inner, 1)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = _conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = _conv(inner, width, 1)
        self.bn3 = nn.BatchNorm3d(width)
        self.downsample = _shortcut(width_in, width, stride)

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.bn1(self.conv1(maps_NCTHW)))
        maps = torch.relu(self.bn2(self.conv2(maps)))
        return torch.relu(self.bn3(self.conv3(maps)) + self.downsample(maps_NCTHW))


def _conv(width_in: int, width: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(width_in, width, kernel, stride, kernel // 2, bias=False)


def _shortcut(width_in: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and width_in == width:
        return nn.Identity()
    return nn.Sequential(_conv(width_in, width, 1, stride), nn.BatchNorm3d(width))

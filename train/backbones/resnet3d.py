"""3D-ResNet: residual blocks of 3x3x3 convolutions, written for scores per frame.

Source: Hara et al., "Learning Spatio-Temporal Features with 3D Residual Networks for Action
Recognition", ICCVW 2017. Temporal resolution is kept: only height and width are strided. On CPUs
dense convolutions train many times faster than X3D's depthwise ones; the demo uses a narrow one.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .backbone import Backbone


@dataclass(frozen=True)
class ResNet3DArguments:
    """How wide and deep a 3D-ResNet is; the defaults are those of 18 layers."""

    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Blocks of each stage; every stage after the first halves height and width."""
    width: int = 64
    """Channels of the first stage; each further stage doubles them."""
    dropout: float = 0.5
    """Share of the feature vector that is dropped in training."""

    def __post_init__(self) -> None:
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths must be >= 1 for every stage, got {list(self.depths)}")
        if self.width < 1:
            raise ValueError(f"width must be >= 1, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class ResNet3D(Backbone):
    """3D-ResNet with one feature vector per clip or per frame.

    Args:
        num_outputs: Class scores.
        arguments: Width and depth.
    """

    classifier = "fc"
    Arguments = ResNet3DArguments

    def __init__(
        self, num_outputs: int, arguments: ResNet3DArguments = ResNet3DArguments()
    ) -> None:
        super().__init__(num_outputs, arguments)
        width = arguments.width
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.stages = nn.Sequential()
        width_in = width
        for stage, num_blocks in enumerate(arguments.depths):
            width_out = width * 2**stage
            for index in range(num_blocks):
                stride = 2 if stage and not index else 1
                self.stages.append(_Block(width_in, width_out, stride))
                width_in = width_out
        self.feature_dim = width_in
        self.dropout = nn.Dropout(arguments.dropout)
        self.fc = nn.Linear(width_in, num_outputs)

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return the vectors before the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        A clip's vector is the mean of its frames' vectors.
        """
        maps = self.stages(self.stem(clips_NCTHW))
        return maps.mean((3, 4) if per_frame else (2, 3, 4))

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""
        vectors = self.dropout(self.features(clips_NCTHW, per_frame))
        return self.fc(vectors.movedim(1, -1)).movedim(-1, 1)


class _Block(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = nn.Conv3d(width_in, width, 3, strides, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv3d(width_in, width, 1, strides, bias=False), nn.BatchNorm3d(width)
            )

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.bn1(self.conv1(maps_NCTHW)))
        return torch.relu(self.bn2(self.conv2(maps)) + self.shortcut(maps_NCTHW))

"""I3D: Inception-v1 with its filters inflated to 3-D; time is halved three times.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset", CVPR 2017, Figure 3. The names and shapes of the parameters are those of piergiaj's
PyTorch checkpoints.
"""

from dataclasses import dataclass

import torch
from torch import nn

from manifests import UsageError

from .backbone import Backbone, initialise, round_width, spread_over_frames

POOL_WINDOW = (2, 7, 7)
HALVINGS = ((7, 2), (3, 2), (2, 2))  # kernel and stride over time of what halves it
FRAMES_PER_STEP = 8

# Widths of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooling then 1x1.
MIXED_WIDTHS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True, slots=True)
class I3DArguments:
    """What an I3D takes, and how wide it is."""

    in_channels: int = 3
    """3 for colour frames, 2 for optical flow."""
    width: float = 1.0
    """Channels as a multiple of the published ones, rounded to multiples of 8."""
    dropout: float = 0.5
    """Share of the feature vector that is dropped in training."""

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise ValueError(f"in_channels must be >= 1, got {self.in_channels}")
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width must be > 0, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class I3D(Backbone):
    """I3D for clips of at least 8 frames of 32 by 32 pixels.

    The last map is averaged over windows of 2 steps (16 frames) and 7 by 7 places, moved by one;
    where the map is smaller than that, over all of it. A clip's vector is the mean of the windows'
    vectors. Running statistics move by torch's default of 0.1 a step, so that short trainings have
    them too.

    Args:
        num_outputs: Class scores; 0 leaves the class layer out.
        arguments: Input channels, width and dropout.
    """

    classifier = "logits.conv3d"
    Arguments = I3DArguments
    smallest_clip = (8, 32, 32)

    def __init__(self, num_outputs: int, arguments: I3DArguments = I3DArguments()) -> None:
        super().__init__(num_outputs, arguments)
        self._in_channels = arguments.in_channels
        first, third = round_width(64, arguments.width), round_width(192, arguments.width)
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": _Unit(arguments.in_channels, first, 7, 2),
            "MaxPool3d_2a_3x3": _SamePool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": _Unit(first, first, 1),
            "Conv3d_2c_3x3": _Unit(first, third, 3),
            "MaxPool3d_3a_3x3": _SamePool((1, 3, 3), (1, 2, 2)),
        }
        width_in = third
        for name, published in MIXED_WIDTHS.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = _SamePool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = _SamePool((2, 2, 2), (2, 2, 2))
            mixed = _Mixed(width_in, [round_width(width, arguments.width) for width in published])
            layers[name], width_in = mixed, mixed.width
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._layers = tuple(layers)
        self.feature_dim = width_in
        self.dropout = nn.Dropout(arguments.dropout)
        self.logits = _ClassLayer(width_in, num_outputs)
        self.apply(initialise)
        self.logits.apply(_initialise_class_layer)

    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return the vectors before the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        There is a vector for every 8 frames; a frame's vector is interpolated linearly between the
        two nearest ones, each of which stands at the middle of the frames that it was made of.
        """
        vectors_NDS = self._pooled(clips_NCTHW).mean((3, 4))
        return self._over_time(vectors_NDS, clips_NCTHW, per_frame)

    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""
        scores_NKS = self.logits(self.dropout(self._pooled(clips_NCTHW))).mean((3, 4))
        return self._over_time(scores_NKS, clips_NCTHW, per_frame)

    def _pooled(self, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        shape = clips_NCTHW.shape
        if shape[1] != self._in_channels or any(
            size < least for size, least in zip(shape[2:], self.smallest_clip, strict=True)
        ):
            raise UsageError(
                f"I3D takes clips of {self._in_channels} channels and at least 8 frames of 32x32, "
                f"got {shape[1]} channels and {shape[2]} frames of {shape[4]}x{shape[3]}"
            )
        maps = clips_NCTHW
        for name in self._layers:
            maps = self.get_submodule(name)(maps)
        return nn.functional.avg_pool3d(maps, _pool_window(maps.shape), 1)

    @staticmethod
    def _over_time(
        vectors_NDS: torch.Tensor, clips_NCTHW: torch.Tensor, per_frame: bool
    ) -> torch.Tensor:
        if not per_frame:
            return vectors_NDS.mean(2)
        num_frames = clips_NCTHW.shape[2]
        return spread_over_frames(
            vectors_NDS, num_frames, first_centre(num_frames), FRAMES_PER_STEP
        )


def first_centre(num_frames: int) -> float:
    """Return the middle of the frames that the first vector of a clip is made of, 0-based.

    # 16 frames: 1 after the convolution (frames -2..4), 3 and 5 after the pools, 9 with the window
    """
    centre, frames_per_step, size = 0.0, 1, num_frames
    for kernel, stride in HALVINGS:
        before, _ = same_padding(size, kernel, stride)
        centre += frames_per_step * ((kernel - 1) / 2 - before)
        frames_per_step, size = frames_per_step * stride, -(-size // stride)
    return centre + frames_per_step * (min(size, POOL_WINDOW[0]) - 1) / 2


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after `size` entries that give `ceil(size / stride)` outputs.

    # size 8, kernel 7, stride 2 -> 2 before and 3 after;  size 9 -> 3 and 3
    """
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def _pool_window(shape: torch.Size) -> list[int]:
    return [min(size, window) for size, window in zip(shape[2:], POOL_WINDOW, strict=True)]


class _Unit(nn.Module):
    """A convolution with "same" padding, normalised and rectified."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        # With stride 1 "same" padding is symmetric; else it depends on the size of the input.
        padding = kernel // 2 if stride == 1 else 0
        self.conv3d = nn.Conv3d(width_in, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=1e-3)
        self._kernel, self._stride = kernel, stride

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        if self._stride > 1:
            sizes = reversed(maps_NCTHW.shape[2:])  # the last axis comes first
            pads = [p for size in sizes for p in same_padding(size, self._kernel, self._stride)]
            maps_NCTHW = nn.functional.pad(maps_NCTHW, pads)
        return torch.relu(self.bn(self.conv3d(maps_NCTHW)))


class _SamePool(nn.Module):
    """Max pooling with "same" padding, for inputs >= 0, where zeros outside change nothing."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        axes = zip(maps_NCTHW.shape[2:], self._kernel, self._stride, strict=True)
        before = [same_padding(size, kernel, stride)[0] for size, kernel, stride in axes]
        # `ceil_mode` lets the last window reach over the end: no padded copy is needed.
        return nn.functional.max_pool3d(
            maps_NCTHW, self._kernel, self._stride, before, ceil_mode=True
        )


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, width_in: int, widths: list[int]) -> None:
        super().__init__()
        self.b0 = _Unit(width_in, widths[0], 1)
        self.b1a = _Unit(width_in, widths[1], 1)
        self.b1b = _Unit(widths[1], widths[2], 3)
        self.b2a = _Unit(width_in, widths[3], 1)
        self.b2b = _Unit(widths[3], widths[4], 3)
        self.b3a = _SamePool((3, 3, 3), (1, 1, 1))
        self.b3b = _Unit(width_in, widths[5], 1)
        self.width = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, maps_NCTHW: torch.Tensor) -> torch.Tensor:
        branches = (
            self.b0(maps_NCTHW),
            self.b1b(self.b1a(maps_NCTHW)),
            self.b2b(self.b2a(maps_NCTHW)),
            self.b3b(self.b3a(maps_NCTHW)),
        )
        return torch.cat(branches, 1)


class _ClassLayer(nn.Module):
    def __init__(self, width_in: int, num_outputs: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(width_in, num_outputs, 1) if num_outputs else nn.Identity()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.conv3d(vectors)


def _initialise_class_layer(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.normal_(module.weight, std=0.01)

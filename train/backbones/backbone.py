"""What the loop, the objectives and feature extraction may ask of a backbone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn


class Backbone(nn.Module, ABC):
    """A network from clips to features and class scores, per clip or per frame.

    Attributes:
        feature_dim: Length `D` of a feature vector.
        classifier: Name of the class layer: its weights alone depend on the number of classes.
        Arguments: Frozen dataclass of the constructor's arguments, each with a default; a recipe's
            table `[train.backbone_arguments]` is checked against it.
        stages: Names of the submodules, in order, that take feature maps `(N, C, T, H, W)` with all
            `T` frames of the clip; none where time is pooled or folded into the batch.
        smallest_clip: Fewest frames, height and width of a clip.
    """

    feature_dim: int
    classifier: ClassVar[str]
    Arguments: ClassVar[type[Any]]
    stages: ClassVar[tuple[str, ...]] = ()
    smallest_clip: ClassVar[tuple[int, int, int]] = (1, 1, 1)

    @abstractmethod
    def __init__(self, num_outputs: int, arguments: Any) -> None:
        """Build the network with `num_outputs` class scores and random weights.

        With 0 there is no class layer, neither here nor in the state dict: such a network has
        `features` alone, and `forward` is not for use.
        """
        super().__init__()

    @abstractmethod
    def features(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return what enters the class layer: `(N, D)`, or `(N, D, T)` if `per_frame`.

        Args:
            clips_NCTHW: Normalised float clips `(N, 3, T, H, W)`.
            per_frame: Keep time instead of averaging over it.
        """

    @abstractmethod
    def forward(self, clips_NCTHW: torch.Tensor, per_frame: bool = False) -> torch.Tensor:
        """Return class scores before softmax: `(N, K)`, or `(N, K, T)` if `per_frame`."""

    @classmethod
    def from_public(
        cls, weights: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], list[str]]:
        """Give the weights of a public checkpoint the names that they have here.

        Args:
            weights: A state dict, without wrappers and prefixes.

        Returns:
            The weights under their names here (what is unknown keeps its name), and sentences about
            what was changed or left out.
        """
        return dict(weights), []


def channels_last(module: nn.Module) -> None:
    """Lay out the weights of 2-D and 3-D convolutions with their channels last, in place."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in module.parameters():
        if weight.dim() in formats:
            weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])


def round_width(width: int, factor: float, minimum: int = 8, divisor: int = 8) -> int:
    """Return `width * factor` as a multiple of `divisor`, at least `minimum`, never 10 % too small.

    # 12 * 2.0 -> 24;  54 * 0.0625 = 3.4 -> 8;  432 * 0.0625 = 27 -> 24 is 11 % less, so 32
    """
    scaled = width * factor
    rounded = max(minimum, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def spread_over_frames(
    vectors_NDS: torch.Tensor, num_frames: int, first_centre: float, frames_per_step: int
) -> torch.Tensor:
    """Interpolate vectors of a few moments linearly to a vector for every frame of the clip.

    # 4 frames, vectors a at 0.5 and b at 2.5:  a, 3/4 a + 1/4 b, 1/4 a + 3/4 b, b

    Args:
        vectors_NDS: `(N, D, S)`; vector `s` stands at frame `first_centre + s * frames_per_step`.
        num_frames: Frames `T` of the clip.
        first_centre: Centre of the frames that the first vector was made of, 0-based.
        frames_per_step: Frames from one vector to the next.

    Returns:
        `(N, D, T)`; before the first centre and after the last one the nearest vector.
    """
    last = vectors_NDS.shape[2] - 1
    frames_T = torch.arange(num_frames, device=vectors_NDS.device)
    places_T = ((frames_T - first_centre) / frames_per_step).clamp(0, last)
    before_T = places_T.long()
    after_T = (before_T + 1).clamp(max=last)
    shares_T = (places_T - before_T).to(vectors_NDS.dtype)
    return torch.lerp(vectors_NDS[:, :, before_T], vectors_NDS[:, :, after_T], shares_T)


def initialise(module: nn.Module) -> None:
    """Draw the weights of a convolution or linear layer; to be applied to every module."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)

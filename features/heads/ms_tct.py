"""MS-TCT: a pyramid of temporal transformers with convolutions, four scales mixed.

Source: Dai et al., "MS-TCT: Multi-Scale Temporal ConvTransformer for Action Detection", CVPR 2022,
"Temporal Encoder", "Temporal Scale Mixer" and "Classification Module" (the heat-map branch and the
losses too); sizes, names (misspelt ones too) and recipe as in `dairui01/MS-TCT`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, interpolate, logsigmoid, scaled_dot_product_attention

from .frame_head import AnnotatedVideo, FrameHead, HeadRecipe, frame_entropy, without_prefix

STRIDES = (1, 2, 2, 2)  # of the stages
HEATMAP_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class MSTCTArguments:
    """The size of the pyramid; the paper's has 87.5 million parameters."""

    width: int = 256
    """Channels of the first stage; the others have 3/2 as many as the one before, the mixer 2/1."""
    num_blocks: int = 3
    """Transformer blocks in each stage."""
    num_heads: int = 8
    """Of the self-attention."""
    mlp_ratio: int = 8
    """Hidden channels of a block's convolutional part, per channel."""
    dropout: float = 0.5
    """Share of the input, and of what enters the class layer, that is dropped in training."""

    def __post_init__(self) -> None:
        if self.num_blocks < 1 or self.num_heads < 1 or self.mlp_ratio < 1:
            raise ValueError("num_blocks, num_heads and mlp_ratio must be >= 1")
        if self.width < 1 or self.width % (8 * self.num_heads):
            raise ValueError(
                f"width must be a multiple of 8 * num_heads ({8 * self.num_heads}), so that heads "
                f"divide the channels of every stage, got {self.width}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of the four stages: `width * (1, 3/2, 9/4, 27/8)`."""
        return tuple(self.width * 3**stage // 2**stage for stage in range(len(STRIDES)))


class MSTCT(FrameHead):
    """MS-TCT with both branches; the heat-map branch is for training alone.

    Windows are padded with zeros, and nothing masks the padding, as in the public code. Unlike
    there, all rows of a test video are scored, not its first 256.
    """

    recipe = HeadRecipe(
        batch_size=32, epochs=50, lr=1e-4, plateau_factor=0.5, plateau_patience=8, window=256
    )
    Arguments = MSTCTArguments

    def __init__(
        self, feature_dim: int, num_classes: int, arguments: MSTCTArguments = MSTCTArguments()
    ) -> None:
        super().__init__(feature_dim, num_classes, arguments)
        embed = 2 * arguments.width
        self.dropout = nn.Dropout(arguments.dropout)
        self.TemporalEncoder = _TemporalEncoder(feature_dim, arguments)
        self.Temporal_Mixer = _TemporalMixer(arguments.widths, embed)
        self.Classfication_Module = _Classification(
            4 * embed, embed, num_classes, arguments.dropout
        )
        self.TemporalEncoder.apply(_initialise)

    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return class scores before the sigmoid, `(N, K, T)`."""
        mixed, _ = self._mixed(feats_NDT)
        return self.Classfication_Module.scores(mixed)

    def branches(self, feats_NDT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class scores and heat-maps before the sigmoid, `(N, K, T)` each."""
        mixed, unmixed = self._mixed(feats_NDT)
        return self.Classfication_Module.scores(mixed), self.Classfication_Module.hm(unmixed)

    def _mixed(self, feats_NDT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.Temporal_Mixer(self.TemporalEncoder(self.dropout(feats_NDT)))

    def targets(self, video: AnnotatedVideo) -> np.ndarray:
        """Return labels and heat-maps, float32 `(S, 2, K)`."""
        heat_SC = heat_maps(video.times_S3, video.segments, video.labels_SC.shape[1])
        return np.stack([video.labels_SC.astype(np.float32), heat_SC], 1)

    def loss(
        self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor, targets_NJKT: torch.Tensor
    ) -> torch.Tensor:
        """Return `cross-entropy + 0.05 * focal loss of the heat-maps`."""
        logits_NKT, heat_NKT = self.branches(feats_NDT)
        labels_NKT, wanted_NKT = targets_NJKT.unbind(1)
        entropy = frame_entropy(logits_NKT, labels_NKT, lengths_N)
        return entropy + HEATMAP_WEIGHT * focal_loss(heat_NKT, wanted_NKT)

    @classmethod
    def of_public(cls, weights: Mapping[str, torch.Tensor]) -> "MSTCT":
        """Build the network of a public state dict (with the paper's 8 attention heads)."""
        found = without_prefix(weights)
        encoder = "TemporalEncoder."
        width, feature_dim, _ = found[f"{encoder}Temporal_Merging_Block1.proj.weight"].shape
        hidden = len(found[f"{encoder}block1.0.Local_Relational_Block.linear1.weight"])
        num_blocks = sum(
            name.startswith(f"{encoder}block1.") and name.endswith("norm1.weight") for name in found
        )
        num_classes = len(found["Classfication_Module.linear_pred.weight"])
        arguments = MSTCTArguments(width, num_blocks, mlp_ratio=hidden // width)
        head = cls(feature_dim, num_classes, arguments)
        head.load_state_dict(found)
        return head


def heat_maps(
    times_S3: np.ndarray, segments: Sequence[tuple[float, float, int]], num_classes: int
) -> np.ndarray:
    """Return a Gaussian around the middle of every segment, of the largest where they meet.

    A segment of `n` whole rows has the radius `2 n`, and `sigma = (2 radius + 1) / 4`; beyond the
    radius its heat is 0. The row of its middle has the heat 1.

    Args:
        times_S3: Start, centre and end of each row in seconds.
        segments: `(start_seconds, end_seconds, class_index)` each.
        num_classes: `K`.

    Returns:
        float32 `(S, K)` in [0, 1].

    Source: MS-TCT, "Classification Module"; radius and sigma as in the public loader.
    """
    heat_SC = np.zeros((len(times_S3), num_classes), np.float32)
    centres_S = times_S3[:, 1]
    if len(centres_S) == 0:
        return heat_SC
    spacing = (centres_S[-1] - centres_S[0]) / max(len(centres_S) - 1, 1) or np.inf
    for start, end, class_index in segments:
        middle = (start + end) / 2
        if not centres_S[0] - spacing / 2 <= middle <= centres_S[-1] + spacing / 2:
            continue
        radius = 2 * int((end - start) / spacing)
        offsets_S = np.arange(len(centres_S)) - np.abs(centres_S - middle).argmin()
        sigma = (2 * radius + 1) / 4
        bump_S = np.exp(-np.square(offsets_S) / (2 * sigma**2)) * (np.abs(offsets_S) <= radius)
        heat_SC[:, class_index] = np.maximum(heat_SC[:, class_index], bump_S)
    return heat_SC


def focal_loss(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Return the penalty-reduced focal loss of heat-maps, per middle of a segment.

    `-(1 - p)^2 log p` where the heat is 1, `-(1 - heat)^4 p^2 log(1 - p)` elsewhere, summed and
    divided by the number of middles (by 1 if there is none).

    Source: MS-TCT, "Classification Module"; Zhou et al., "Objects as Points", 2019, Eq. 1.
    """
    p, is_middle = torch.sigmoid(logits), heat == 1
    at_middle = (1 - p).square() * logsigmoid(logits)
    elsewhere = (1 - heat).pow(4) * p.square() * logsigmoid(-logits)
    return -torch.where(is_middle, at_middle, elsewhere).sum() / is_middle.sum().clamp(min=1)


class _TemporalEncoder(nn.Module):
    """Four stages; each halves time (but the first) and widens the channels."""

    def __init__(self, feature_dim: int, arguments: MSTCTArguments) -> None:
        super().__init__()
        width_in = feature_dim
        for number, (width, stride) in enumerate(zip(arguments.widths, STRIDES, strict=True), 1):
            self.add_module(f"Temporal_Merging_Block{number}", _Merging(width_in, width, stride))
            blocks = (_Block(width, arguments) for _ in range(arguments.num_blocks))
            self.add_module(f"block{number}", nn.ModuleList(blocks))
            self.add_module(f"norm{number}", nn.LayerNorm(width))
            width_in = width

    def forward(self, feats_NDT: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs of the stages, `(N, T / stride, C)` each."""
        stages, maps_NCT = [], feats_NDT
        for number in range(1, len(STRIDES) + 1):
            maps_NTC = self.get_submodule(f"Temporal_Merging_Block{number}")(maps_NCT)
            for block in self.get_submodule(f"block{number}").children():
                maps_NTC = block(maps_NTC)
            stages.append(self.get_submodule(f"norm{number}")(maps_NTC))
            maps_NCT = stages[-1].mT
        return stages


class _Merging(nn.Module):
    """A convolution over time with a stride, and a layer norm."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(width_in, width, 3, stride, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, maps_NCT: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(maps_NCT).mT)


class _Block(nn.Module):
    """Global relations by self-attention, then local ones by a depthwise convolution."""

    def __init__(self, width: int, arguments: MSTCTArguments) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.Global_Relational_Block = _Attention(width, arguments.num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.Local_Relational_Block = _LocalRelations(width, width * arguments.mlp_ratio)

    def forward(self, maps_NTC: torch.Tensor) -> torch.Tensor:
        maps_NTC = maps_NTC + self.Global_Relational_Block(self.norm1(maps_NTC))
        return maps_NTC + self.Local_Relational_Block(self.norm2(maps_NTC))


class _Attention(nn.Module):
    """Multi-head self-attention (the paper's global relational block)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, maps_NTC: torch.Tensor) -> torch.Tensor:
        queries, keys, values = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q(maps_NTC), *self.kv(maps_NTC).chunk(2, 2))
        )
        attended_NHTC = scaled_dot_product_attention(queries, keys, values)
        return self.proj(attended_NHTC.transpose(1, 2).flatten(2))


class _LocalRelations(nn.Module):
    """Linear, depthwise convolution over three rows, GELU, linear (its local one)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.TC = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, maps_NTC: torch.Tensor) -> torch.Tensor:
        return self.linear2(gelu(self.TC(self.linear1(maps_NTC).mT)).mT)


class _Projection(nn.Module):
    """A linear layer under the public name `proj`."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, width)

    def forward(self, maps_NTC: torch.Tensor) -> torch.Tensor:
        return self.proj(maps_NTC)


class _TemporalMixer(nn.Module):
    """All stages at the finest rate in one width, the coarsest added to the others."""

    def __init__(self, widths: tuple[int, ...], embed: int) -> None:
        super().__init__()
        for number, width in reversed(list(enumerate(widths, 1))):
            self.add_module(f"linear_f{number}", _Projection(width, embed))
        self.linear1 = nn.Conv1d(embed, embed, 1)
        self.linear2 = nn.Conv1d(embed, embed, 1)
        self.linear3 = nn.Conv1d(embed, embed, 1)
        self.linear4 = nn.Conv1d(embed, embed, 1)  # in public state dicts, used by nothing

    def forward(self, stages: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stages end to end, coarsest first: mixed, and as they are; `(N, 4 E, T)`."""
        num_rows = stages[0].shape[1]
        f1, f2, f3, f4 = (
            interpolate(
                self.get_submodule(f"linear_f{number}")(maps_NTC).mT, num_rows, mode="linear"
            )
            for number, maps_NTC in enumerate(stages, 1)
        )
        mixed = [f4, f3 + self.linear1(f4), f2 + self.linear2(f4), f1 + self.linear3(f4)]
        return torch.cat(mixed, 1), torch.cat([f4, f3, f2, f1], 1)


class _Classification(nn.Module):
    """Class scores of the mixed scales, and heat-maps of the unmixed."""

    def __init__(self, width_in: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.linear_fuse = nn.Conv1d(width_in, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear_pred = nn.Conv1d(width, num_classes, 1)
        self.hm = nn.Sequential(
            nn.Conv1d(width_in, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, num_classes, 1),
        )

    def scores(self, mixed_NCT: torch.Tensor) -> torch.Tensor:
        return self.linear_pred(self.dropout(self.linear_fuse(mixed_NCT)))


def _initialise(module: nn.Module) -> None:
    """Draw weights as vision transformers with convolutions do (PVT v2, Wang et al., 2022).

    Mixer and classification start as torch has them: with few classes, these would be too large.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv1d):
        fan_out = module.kernel_size[0] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""PDAN: a pyramid of dilated attention layers over the snippets of a video.

Source: Dai et al., "PDAN: Pyramid Dilated Attention Network for Action Detection", WACV 2021,
"Dilated Attention Layer" and "Pyramid Dilated Attention Network"; sizes, names and recipe as in
`dairui01/PDAN` (`PDAN.py`, `run_PDAN.sh`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import pad

from .frame_head import FrameHead, HeadRecipe, valid_rows, without_prefix


@dataclass(frozen=True, slots=True)
class PDANArguments:
    """The size of the pyramid."""

    width: int = 512
    """Channels of every layer."""
    num_layers: int = 5
    """Blocks; block `i` has dilation `2 ** i`."""
    dropout: float = 0.5
    """Share of a block's output that is dropped in training."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.num_layers < 1:
            raise ValueError(
                f"width and num_layers must be >= 1, got {self.width} and {self.num_layers}"
            )


class PDAN(FrameHead):
    """PDAN of one stage, 5.86 million parameters for 1024 channels and 157 classes."""

    recipe = HeadRecipe(batch_size=32, epochs=100, lr=1e-4, plateau_factor=0.5, plateau_patience=8)
    Arguments = PDANArguments

    def __init__(
        self, feature_dim: int, num_classes: int, arguments: PDANArguments = PDANArguments()
    ) -> None:
        super().__init__(feature_dim, num_classes, arguments)
        self.stage1 = _Stage(feature_dim, num_classes, arguments)

    def forward(self, feats_NDT: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
        """Return class scores before the sigmoid, `(N, K, T)`, 0 past a video's length."""
        mask_N1T = valid_rows(lengths_N, feats_NDT.shape[2])[:, None].to(feats_NDT.dtype)
        return self.stage1(feats_NDT, mask_N1T)

    @classmethod
    def of_public(cls, weights: Mapping[str, torch.Tensor]) -> "PDAN":
        """Build the network of a public state dict; a leading `module.` is dropped."""
        found = without_prefix(weights)
        width, feature_dim, _ = found["stage1.conv_1x1.weight"].shape
        num_layers = sum(name.endswith("conv_attention.rel_t") for name in found)
        num_classes = len(found["stage1.conv_out.weight"])
        head = cls(feature_dim, num_classes, PDANArguments(width, num_layers))
        head.load_state_dict(found)
        return head


class DilatedAttention(nn.Module):
    """Attention of every channel of snippet `t` to snippets `t - d`, `t` and `t + d`.

    `out_t = sum_p softmax_p(q_t * k_p) * (v_p + r_p)`, channel by channel, without scaling; the
    learned relative term `r` is added where `p` lies outside the video, too.

    Source: PDAN, "Dilated Attention Layer".
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.rel_t = nn.Parameter(torch.randn(width, 1, 3))
        self.key_conv = nn.Conv1d(width, width, 1, bias=False)
        self.query_conv = nn.Conv1d(width, width, 1, bias=False)
        self.value_conv = nn.Conv1d(width, width, 1, bias=False)
        for conv in (self.key_conv, self.query_conv, self.value_conv):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")

    def forward(self, maps_NCT: torch.Tensor) -> torch.Tensor:
        """Return `(N, C, T)`."""
        keys = self._neighbours(self.key_conv(maps_NCT))
        values = self._neighbours(self.value_conv(maps_NCT)) + self.rel_t
        shares_NCT3 = (self.query_conv(maps_NCT)[..., None] * keys).softmax(-1)
        return (shares_NCT3 * values).sum(-1)

    def _neighbours(self, maps_NCT: torch.Tensor) -> torch.Tensor:
        """Gather the three positions on a last axis; zeros outside."""
        d, num_rows = self.dilation, maps_NCT.shape[2]
        padded = pad(maps_NCT, (d, d))
        return torch.stack([padded[..., k : k + num_rows] for k in (0, d, 2 * d)], -1)


class _Block(nn.Module):
    """Attention, ReLU, 1x1 convolution and dropout, added to the input."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv_attention = DilatedAttention(width, dilation)
        self.conv_1x1 = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps_NCT: torch.Tensor, mask_N1T: torch.Tensor) -> torch.Tensor:
        out = self.dropout(self.conv_1x1(torch.relu(self.conv_attention(maps_NCT))))
        return (maps_NCT + out) * mask_N1T


class _Stage(nn.Module):
    """A projection, the blocks with growing dilation, and the class scores."""

    def __init__(self, feature_dim: int, num_classes: int, arguments: PDANArguments) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv1d(feature_dim, arguments.width, 1)
        self.layers = nn.ModuleList(
            _Block(arguments.width, 2**i, arguments.dropout) for i in range(arguments.num_layers)
        )
        self.conv_out = nn.Conv1d(arguments.width, num_classes, 1)

    def forward(self, feats_NDT: torch.Tensor, mask_N1T: torch.Tensor) -> torch.Tensor:
        maps_NCT = self.conv_1x1(feats_NDT)
        for layer in self.layers:
            maps_NCT = layer(maps_NCT, mask_N1T)
        return self.conv_out(maps_NCT) * mask_N1T

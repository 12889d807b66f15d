"""Layers of which several workers, each with a share of a batch, make what one makes of all of it.

Batch norm takes mean and variance of the whole batch, and dropout draws one mask for it. Everything
else that backbones do, they do to each sample alone.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """A batch norm whose statistics in training are those of all workers' equal shares.

    Source: Peng et al., MegDet: A Large Mini-Batch Object Detector, CVPR 2018, section 3.3.
    """

    def __init__(self, norm: _BatchNorm, rank: int, count: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.rank, self.count = rank, count

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Take maps of any number of axes."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise `(N, C, ...)` and, in training, update the running statistics."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        var_C, mean_C = torch.var_mean(input, axes, correction=0)
        shares_W2C = input.new_zeros(self.count, 2, len(mean_C))
        shares_W2C[self.rank] = torch.stack([mean_C, var_C])
        means_WC, vars_WC = _SumOverWorkers.apply(shares_W2C).unbind(1)
        mean_C = means_WC.mean(0)
        var_C = (vars_WC + (means_WC - mean_C).square()).mean(0)
        num_values = self.count * input.numel() // len(mean_C)
        self._remember(mean_C.detach(), var_C.detach() * (num_values / max(num_values - 1, 1)))
        scale_C = (var_C + self.eps).rsqrt() * self.weight
        shape = (1, -1, *[1] * (input.dim() - 2))
        return input * scale_C.view(shape) + (self.bias - mean_C * scale_C).view(shape)

    def _remember(self, mean_C: torch.Tensor, var_C: torch.Tensor) -> None:
        """Move the running statistics of `state_dict` towards those of a batch."""
        self.get_buffer("num_batches_tracked").add_(1)
        for name, value_C in (("running_mean", mean_C), ("running_var", var_C)):
            self.get_buffer(name).lerp_(value_C, self.momentum or 0.0)


class SharedDropout(nn.Dropout):
    """A dropout that draws for the whole batch and takes this worker's part.

    All workers' generators must be in the same state.
    """

    def __init__(self, p: float, rank: int, count: int) -> None:
        super().__init__(p)
        self.rank, self.count = rank, count

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `(N, ...)` with a share `p` set to zero and the rest scaled up, in training."""
        if not self.training or self.p == 0:
            return input
        num_rows = len(input)
        drawn = torch.rand((self.count * num_rows, *input.shape[1:]), device=input.device)
        kept = drawn[self.rank * num_rows : (self.rank + 1) * num_rows] >= self.p
        return input * kept / (1 - self.p)


class _SumOverWorkers(torch.autograd.Function):
    """The sum of the workers' tensors; what any worker makes of it, all have a part in."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def share_layers(module: nn.Module, rank: int, count: int, on_cuda: bool) -> None:
    """Replace the layers inside `module` that depend on the batch; weights and names stay.

    On CUDA, torch's own synchronised batch norm takes the place of `SharedBatchNorm`: it is fused,
    but knows no CPU.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SharedDropout(layer.p, rank, count))
            elif count > 1 and isinstance(layer, _BatchNorm):
                shared = (
                    nn.SyncBatchNorm.convert_sync_batchnorm(layer)
                    if on_cuda
                    else SharedBatchNorm(layer, rank, count)
                )
                setattr(parent, name, shared)

# SPDX-License-Identifier: Apache-2.0
"""A BatchNormalization that can be trained, over the samples of all processes where there are several."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BatchMoments", "BatchNorm"]


class BatchMoments:
    """Mean and variance per channel of what is added piece by piece."""

    def __init__(self) -> None:
        self.count = 0
        self._total = self._square = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Add a batch, shape (n, channels, ...)."""
        rows = x.detach().transpose(0, 1).flatten(1).double()
        self.count += rows.shape[1]
        self._total = self._total.to(rows.device) + rows.sum(1)
        self._square = self._square.to(rows.device) + rows.square().sum(1)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance, shape (channels,); the variance of a constant channel is 1, to divide by it."""
        mean = self._total / self.count
        var = self._square / self.count - mean.square()
        return mean, torch.where(var > _CONSTANT * (1.0 + mean.square()), var, torch.ones_like(var))


_CONSTANT = 1e-12


class BatchNorm(nn.Module):
    """Normalise with statistics of the batch while training, with running ones otherwise.

    All tensors are arguments, because they belong to the file and may be shared.

    Parameters
    ----------
    epsilon : float
    momentum : float
        Share of a batch in the running statistics.

    Attributes
    ----------
    moments : BatchMoments or None
        Where what passes through is added, if anywhere.
    """

    def __init__(self, epsilon: float, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.momentum = momentum
        self.moments: BatchMoments | None = None

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalise `x`, shape (n, channels, ...); running `mean` and `var` follow in place while training."""
        if self.moments is not None:
            self.moments.add(x)
        several = x.numel() > x.shape[1]  # a single value per channel has no variance
        if not (self.training and several):
            return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, self.epsilon)
        if _processes() > 1:
            return self._together(x, scale, bias, mean, var)
        return functional.batch_norm(x, mean, var, scale, bias, True, self.momentum, self.epsilon)

    def _together(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalise with the statistics of what all processes hold."""
        axes = [0, *range(2, x.dim())]
        wide = x.float()
        per_channel = (1, -1, *[1] * (x.dim() - 2))
        count = x.numel() // x.shape[1] * _processes()
        centre = _sum(wide.sum(axes)) / count
        centred = wide - centre.view(per_channel)
        spread = _sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            mean.lerp_(centre.to(mean.dtype), self.momentum)
            var.lerp_((spread * (count / (count - 1))).to(var.dtype), self.momentum)
        factor = scale / (spread + self.epsilon).sqrt()
        return (centred * factor.view(per_channel) + bias.view(per_channel)).to(x.dtype)


def _processes() -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


class _Sum(torch.autograd.Function):
    """A sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        """Return the sum of `value` over the processes."""
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Return the sum of the gradients over the processes."""
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(value)
    return result

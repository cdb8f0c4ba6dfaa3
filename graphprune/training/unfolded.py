# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization that was folded into a convolution is put back for training, and folded again afterwards.

A folded network has nothing that tames a step of training. Put back, with the mean and variance of the
convolution's own output as running statistics, their standard deviation as scale and mean plus bias as
shift, the function is the same, and training has batch statistics again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphprune.training.batch_norm import BatchMoments, BatchNorm

__all__ = ["Unfolded"]

_EPSILON = 1e-5


class Unfolded(nn.Module):
    """A BatchNormalization in place of a bias. Until it is `settle`-d it only adds the bias.

    Parameters
    ----------
    bias : Tensor, shape (channels,)
        The bias of the convolution.

    Attributes
    ----------
    weight, bias : Parameter, shape (channels,)
    running_mean, running_var : Tensor, shape (channels,)
    moments : BatchMoments or None
        Where what passes through is added, if anywhere: what `settle` takes the statistics from.
    settled : bool
        Whether it has statistics; without, training leaves the running ones as they are.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        bias = bias.float()
        self.weight = nn.Parameter(torch.ones_like(bias))
        self.bias = nn.Parameter(bias.clone())
        self.register_buffer("running_mean", torch.zeros_like(bias))
        self.register_buffer("running_var", torch.full_like(bias, 1.0 - _EPSILON))
        self.norm = BatchNorm(_EPSILON)
        self.moments: BatchMoments | None = None
        self.settled = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape (n, channels, ...)."""
        if self.moments is not None:
            self.moments.add(x)
        if not self.settled:
            statistics = (self.running_mean, self.running_var)
            return functional.batch_norm(x, *statistics, self.weight, self.bias, False, 0.0, _EPSILON)
        result: Tensor = self.norm(x, self.weight, self.bias, self.running_mean, self.running_var)
        return result

    def settle(self) -> bool:
        """Take the measured statistics; the function stays what it was.

        Returns
        -------
        bool
            False where nothing was measured.
        """
        moments, self.moments = self.moments, None
        if moments is None or moments.count < 2:
            return False
        mean, var = moments.result()
        with torch.no_grad():
            self.bias.add_(mean.to(self.bias.dtype))
            self.weight.copy_((var + _EPSILON).sqrt())
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        self.settled = True
        return True

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution with this normalisation folded in.

        Parameters
        ----------
        weight : Tensor, shape (channels, ...)
        """
        factor = self.weight.double() / (self.running_var.double() + _EPSILON).sqrt()
        bias = self.bias.double() - self.running_mean.double() * factor
        scaled = weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))
        return scaled.to(weight.dtype), bias.to(weight.dtype)

# SPDX-License-Identifier: Apache-2.0
"""Take the statistics of unfolded BatchNormalizations from data, so that training has them as it had them once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from graphprune.training.bridge import Trainable

__all__ = ["measure"]


@torch.no_grad()
def measure(net: Trainable, batches: Iterable[Mapping[str, Tensor]]) -> int:
    """Settle the statistics of all unfolded BatchNormalizations; outputs stay what they are.

    Parameters
    ----------
    net : Trainable
        Made with ``unfold=True``; changed in place.
    batches : iterable of mapping of str to Tensor
        Inputs by name, some hundred samples in all.

    Returns
    -------
    int
        How many convolutions have a BatchNormalization again. The others go on with their bias.

    Complexity: one pass over the data; every layer is measured in the same pass, since none changes the function.
    """
    training = net.module.training
    net.module.eval()
    for norm in net.unfolded.values():
        norm.measuring = True
    for feeds in batches:
        net.run(feeds)
    settled = sum(norm.settle() for norm in net.unfolded.values())
    net.module.train(training)
    return settled

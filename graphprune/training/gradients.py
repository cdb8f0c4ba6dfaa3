# SPDX-License-Identifier: Apache-2.0
"""Saliencies from gradients: what a loss would change if a channel went, to first or second order.

All contributions of one channel are added with their signs before a magnitude is taken, since what two
consumers lose may cancel. The three functions return one array per group, one score per atom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.analysis import Analysis
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.gates import Gate, attach_gates
from graphprune.training.loader import Samples

__all__ = ["LossSum", "fisher", "taylor_activation", "taylor_weight"]

Scores = dict[str, npt.NDArray[np.float64]]
LossSum = Callable[[Mapping[str, Tensor], Tensor | None], Tensor]
"""Takes outputs and labels of a batch and returns the SUM of the losses of its samples."""


def taylor_activation(analysis: Analysis, batches: Iterable[Samples], loss: LossSum) -> Scores:
    """Return the mean over samples of |sum of activation times gradient| over all places that read the channel.

    Parameters
    ----------
    analysis : Analysis
    batches : iterable of Samples
    loss : callable

    Returns
    -------
    dict of str to ndarray, shape (atoms,)
        By group id.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771, eq. 8,
    with a gate for each channel.
    """
    return _gated(analysis, batches, loss, lambda gradient: gradient.abs())


def fisher(analysis: Analysis, batches: Iterable[Samples], loss: LossSum) -> Scores:
    """Return half the mean over samples of the squared gradient of a channel's gate.

    Parameters and result are those of `taylor_activation`.

    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, arXiv:1801.05787, eq. 6.
    """
    return _gated(analysis, batches, loss, lambda gradient: 0.5 * gradient.square())


def _gated(
    analysis: Analysis, batches: Iterable[Samples], loss: LossSum, magnitude: Callable[[Tensor], Tensor]
) -> Scores:
    """Return the mean over samples of a magnitude of the gradient of every gate."""
    net = to_torch(analysis.model)
    net.module.requires_grad_(False)
    gates = attach_gates(net, analysis)
    sums = {name: torch.zeros(gate.size, dtype=torch.float64) for name, gate in gates.items()}
    count = 0
    for samples in batches:
        for name, value in _gradients(net, gates, samples, loss).items():
            sums[name] += magnitude(value.double()).sum(0)
        count += samples.count
    return {name: (value / max(count, 1)).numpy() for name, value in sums.items()}


def _gradients(net: Trainable, gates: Mapping[str, Gate], samples: Samples, loss: LossSum) -> dict[str, Tensor]:
    """Return the gradient of the loss of each sample with respect to each gate, shape (n, atoms)."""
    leaves = {name: gate.watch(samples.count) for name, gate in gates.items()}
    loss(net.run(samples.feeds), samples.labels).backward()  # type: ignore[no-untyped-call]
    return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}


def taylor_weight(analysis: Analysis, batches: Iterable[Samples], loss: LossSum) -> Scores:
    """Return the mean over batches of |sum of weight times gradient| over all weights that make the channel.

    Parameters and result are those of `taylor_activation`. A score belongs to a batch, not to a sample: it is cheap,
    and blind to samples that pull in opposite directions.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771, eq. 5.
    """
    net = to_torch(analysis.model)
    sums = {group.id: np.zeros(group.size) for group in analysis.groups}
    count = 0
    for samples in batches:
        net.module.zero_grad()
        loss(net.run(samples.feeds), samples.labels).backward()  # type: ignore[no-untyped-call]
        products = {
            name: (value * value.grad).detach().double().numpy()
            for name, value in net.stored.items()
            if value.grad is not None
        }
        for name, value in _signed(analysis, products).items():
            sums[name] += np.abs(value) / samples.count
        count += 1
    return {name: value / max(count, 1) for name, value in sums.items()}


def _signed(analysis: Analysis, products: Mapping[str, npt.NDArray[np.float64]]) -> Scores:
    """Add up weight times gradient over everything that makes each atom."""
    found: Scores = {}
    for group in analysis.groups:
        total = np.zeros(group.size)
        for member in group.members:
            if member.role != "out" or member.initializer not in products:
                continue
            value = products[member.initializer]
            axes = tuple(axis for axis in range(value.ndim) if axis != member.axis)
            total += np.bincount(member.atoms, value.sum(axes)[member.positions], minlength=group.size)
        found[group.id] = total
    return found

# SPDX-License-Identifier: Apache-2.0
"""Saliencies from gradients: what a loss would change if a channel went, to first or second order.

All contributions of one channel are added with their signs before a magnitude is taken, since what two
consumers lose may cancel. The three functions return one array per group, one score per atom; groups that cannot be
reached, because they lie in a branch or training does not change what makes them, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.errors import UsageError
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.gates import Gate, attach_gates, gateable, tell_samples
from graphprune.training.loader import Samples

__all__ = ["LossSum", "fisher", "taylor_activation", "taylor_weight", "weight_products"]

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
    gates = attach_gates(net, analysis, gateable(net, analysis))
    if not gates:
        return {}
    sums = {name: torch.zeros(gate.size, dtype=torch.float64) for name, gate in gates.items()}
    count = 0
    told = False
    for samples in batches:
        if samples.count > 1 and not told:
            told = len(tell_samples(net, gates, samples.feeds)) == len(gates)
            if not told:
                raise UsageError("the samples of a batch cannot be told apart everywhere; use batches of one")
        for name, value in _gradients(net, gates, samples, loss).items():
            sums[name] += magnitude(value.double()).sum(0)
        count += samples.count
    return {name: (value / max(count, 1)).numpy() for name, value in sums.items()}


def _gradients(net: Trainable, gates: Mapping[str, Gate], samples: Samples, loss: LossSum) -> dict[str, Tensor]:
    """Return the gradient of the loss of each sample with respect to each gate, shape (n, atoms)."""
    alone = samples.count == 1  # then no value needs to have the samples on axis 0
    leaves = {name: gate.watch(None if alone else samples.count) for name, gate in gates.items()}
    loss(net.run(samples.feeds), samples.labels).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
    gradients = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return {name: value[None] if alone else value for name, value in gradients.items()}


def taylor_weight(analysis: Analysis, batches: Iterable[Samples], loss: LossSum) -> Scores:
    """Return the mean over batches of |sum of weight times gradient| over all weights that make the channel.

    Parameters and result are those of `taylor_activation`. A score belongs to a batch, not to a sample: it is cheap,
    and blind to samples that pull in opposite directions.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771, eq. 5.
    """
    sums: Scores = {}
    count = 0
    for products, samples in _products(to_torch(analysis.model), batches, loss):
        for name, value in _signed(analysis, products).items():
            sums[name] = sums.get(name, 0.0) + np.abs(value) / samples
        count += 1
    return {name: value / max(count, 1) for name, value in sums.items()}


def weight_products(net: Trainable, batches: Iterable[Samples], loss: LossSum) -> Scores:
    """Return the mean over batches of |weight times gradient| per sample, elementwise.

    Returns
    -------
    dict of str to ndarray
        By stored tensor, of its shape.
    """
    sums: Scores = {}
    count = 0
    for products, samples in _products(net, batches, loss):
        for name, value in products.items():
            sums[name] = sums.get(name, 0.0) + np.abs(value) / samples
        count += 1
    return {name: value / max(count, 1) for name, value in sums.items()}


def _products(net: Trainable, batches: Iterable[Samples], loss: LossSum) -> Iterator[tuple[Scores, int]]:
    """Yield for every batch the products of weights and gradients by stored tensor, and the number of samples."""
    for samples in batches:
        net.module.zero_grad()
        loss(net.run(samples.feeds), samples.labels).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        yield (
            {
                name: (value * value.grad).detach().double().numpy()
                for name, value in net.stored.items()
                if value.grad is not None
            },
            samples.count,
        )


def _signed(analysis: Analysis, products: Mapping[str, npt.NDArray[np.float64]]) -> Scores:
    """Add up weight times gradient over everything that makes each atom."""
    signed: Scores = {}
    for group in analysis.groups:
        made = [member for member in group.members if member.role == "out" and member.initializer in products]
        if not made:
            continue
        total = np.zeros(group.size)
        for member in made:
            value = products[member.initializer]
            axes = tuple(axis for axis in range(value.ndim) if axis != member.axis)
            total += np.bincount(member.atoms, value.sum(axes)[member.positions], minlength=group.size)
        signed[group.id] = total
    return signed

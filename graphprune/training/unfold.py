# SPDX-License-Identifier: Apache-2.0
"""Before training: the statistics of every BatchNormalization become those of the network as it is.

A network that was recovered by least squares keeps running statistics that its values no longer have. Training mode
would replace them by those of the batch at once, and what was recovered would be lost. So mean and variance are
measured, and scale and shift changed to match: the function is the same, and so is it in training mode. The same
measurement puts BatchNormalization back where it was folded (`unfolded.Unfolded`).

Where nothing was recovered, the opposite helps: scale and shift stay, and the new statistics repair the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from graphprune.data.signature import input_specs
from graphprune.training.batch_norm import BatchMoments, BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.training.bridge import Trainable

__all__ = ["normalisations", "reestimate", "settle"]

Batches = Callable[[], Iterable[Mapping[str, Tensor]]]
"""Gives the same batches of inputs at every call, some hundred samples in all."""


@torch.no_grad()
def settle(net: Trainable, batches: Batches) -> int:
    """Give every BatchNormalization, unfolded ones included, the statistics of what it reads; outputs stay.

    Parameters
    ----------
    net : Trainable
        Changed in place.
    batches : callable

    Returns
    -------
    int
        How many convolutions have a BatchNormalization again. Those with one value per channel and sample, as
        behind global pooling, never had one, and go on with their bias.

    Complexity: one pass over the data; every layer is measured in the same pass, since none changes the function.
    """
    live = dict(normalisations(net))
    counted = [(spec.name, spec.samples) for spec in input_specs(net.model) if spec.samples is not None]
    with _evaluating(net):
        for norm in live.values():
            norm.moments = BatchMoments()
        for inserted in net.unfolded.values():
            inserted.moments = BatchMoments()
        samples = 0
        for feeds in batches():
            samples += max(feeds[name].shape[axis] for name, axis in counted)
            net.run(feeds)
    for node, norm in live.items():
        _match(net, node, norm)
    for inserted in net.unfolded.values():
        if inserted.moments is not None and inserted.moments.count <= samples:
            inserted.moments = None
    return sum(inserted.settle() for inserted in net.unfolded.values())


def _match(net: Trainable, node: fx.Node, norm: BatchNorm) -> None:
    """Give one BatchNormalization of the file new statistics, and scale and shift that undo the change."""
    moments, norm.moments = norm.moments, None
    if moments is None or not moments.count:
        return
    scale, bias, mean, var = (_tensor(net, item) for item in node.args[1:])
    new_mean, new_var = moments.result()
    factor = scale.double() / (var.double() + norm.epsilon).sqrt()
    bias.add_(((new_mean - mean) * factor).to(bias.dtype))
    scale.copy_(factor * (new_var + norm.epsilon).sqrt())
    mean.copy_(new_mean)
    var.copy_(new_var)


@torch.no_grad()
def reestimate(net: Trainable, batches: Batches) -> int:
    """Take new running statistics for every BatchNormalization of the file, scale and shift kept: outputs change.

    Returns
    -------
    int
        How many there are.

    Complexity: one pass over the data in training mode; the statistics are averages over its batches.
    """
    live = dict(normalisations(net))
    momenta = {norm: norm.momentum for norm in live.values()}
    for number, feeds in enumerate(batches()):
        net.module.train()
        for norm in live.values():
            norm.momentum = 1.0 / (number + 1)
        net.run(feeds)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    net.module.eval()
    return len(live)


def normalisations(net: Trainable) -> Iterator[tuple[fx.Node, BatchNorm]]:
    """Yield the BatchNormalizations whose tensors are their own and can be changed."""
    norms = [
        (node, module)
        for node in net.module.graph.nodes
        if node.op == "call_module" and isinstance(module := net.module.get_submodule(str(node.target)), BatchNorm)
    ]
    changing = net.changing
    for node, module in norms:
        held = node.args[1:]
        if all(isinstance(item, fx.Node) and str(item.target) in changing and len(item.users) == 1 for item in held):
            yield node, module


def _tensor(net: Trainable, node: object) -> Tensor:
    assert isinstance(node, fx.Node)  # noqa: S101 - `normalisations` yields no others
    return net.changing[str(node.target)]


@contextmanager
def _evaluating(net: Trainable) -> Iterator[None]:
    training = net.module.training
    net.module.eval()
    yield
    net.module.train(training)

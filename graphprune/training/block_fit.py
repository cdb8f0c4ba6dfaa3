# SPDX-License-Identifier: Apache-2.0
"""Fitting one block: some steps of Adam from what it reads towards what it should give, judged by other batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphprune.training.bridge import Trainable, to_torch, weights_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.array_types import Array
    from graphprune.model.load import Model

__all__ = ["fit_block"]

Values = dict[str, Tensor]

STEPS = 600
RATES = (0.01, 0.003)
"""How far a step moves weights, relative to their root mean square; it falls to nothing along half a cosine. The second
is tried where the first one made nothing better."""
_HELD_OUT = 8
"""One batch in so many is not learned from; of fewer, one."""
_ROWS = 4096
_MOST_BATCHES = 4
"""A step looks at so many positions of a block's outputs, and at so many batches at most: large maps hold enough."""


def fit_block(
    model: Model,
    inputs: Sequence[Mapping[str, Array]],
    targets: Sequence[Mapping[str, Array]],
    seed: int,
    steps: int = STEPS,
    rates: Sequence[float] = RATES,
) -> dict[str, Array]:
    """Return weights with which a block comes closer to its targets, by the names of the stored tensors.

    Parameters
    ----------
    model : Model
        The block as a model of its own. It is not changed.
    inputs, targets : sequence of mapping of str to ndarray
        What it reads and should give, batch by batch.
    seed : int
        For the order of batches.
    steps : int
    rates : sequence of float
        Tried one after the other, until one makes unseen batches better.

    Returns
    -------
    dict of str to ndarray
        Empty where batches that were not learned from are not closer to their targets than before; and where there is
        only one batch, so none could judge.

    Raises
    ------
    UnsupportedModelError
        If torch cannot compute the block.
    """
    net = to_torch(model)
    pairs = [(_tensors(own), _tensors(wanted)) for own, wanted in zip(inputs, targets, strict=True)]
    if len(pairs) < 2:
        return {}
    judging = range(len(pairs))[_HELD_OUT - 1 :: _HELD_OUT] or (len(pairs) - 1,)
    held = [pairs[number] for number in judging]
    learned = [pair for number, pair in enumerate(pairs) if number not in judging]
    spread = {name: _spread([wanted[name] for _, wanted in pairs]) for name in net.outputs}
    start = {path: value.clone() for path, value in net.module.state_dict().items()}
    before = _judged(net, held, spread)
    for rate in rates:
        net.module.load_state_dict(start)
        _learn(net, learned, spread, np.random.default_rng(seed), steps, rate)
        if _judged(net, held, spread) < before:
            return {name: value.numpy() for name, value in weights_now(net).items()}
    return {}


def _learn(
    net: Trainable,
    pairs: Sequence[tuple[Values, Values]],
    spread: Mapping[str, float],
    random: np.random.Generator,
    steps: int,
    rate: float,
) -> None:
    parameters = [own for own in net.module.parameters() if own.requires_grad]
    optimizer = torch.optim.Adam([{"params": [own], "lr": rate * _size(own)} for own in parameters])
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    together = _together(pairs[0][1])
    order: list[int] = []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(together):  # gradients add up
            order = order or random.permutation(len(pairs)).tolist()
            own, wanted = pairs[order.pop()]
            (_loss(net, own, wanted, spread) / together).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        optimizer.step()
        falling.step()


def _together(wanted: Values) -> int:
    """Return how many batches a step looks at, given what is wanted of one."""
    rows = min(value.numel() // value.shape[min(1, value.ndim - 1)] for value in wanted.values())
    return max(1, min(_MOST_BATCHES, -(-_ROWS // max(1, rows))))


def _judged(net: Trainable, pairs: Sequence[tuple[Values, Values]], spread: Mapping[str, float]) -> float:
    """Return the mean loss of some batches."""
    with torch.no_grad():
        return float(np.mean([float(_loss(net, own, wanted, spread)) for own, wanted in pairs]))


def _loss(net: Trainable, own: Values, wanted: Values, spread: Mapping[str, float]) -> Tensor:
    """Return the squared error relative to how far targets spread, the mean over all outputs."""
    given = net.run(own)
    return torch.stack([(given[name] - wanted[name]).square().mean() / spread[name] for name in net.outputs]).mean()


def _spread(targets: Sequence[Tensor]) -> float:
    """Return the variance of a target, at least something."""
    values = torch.cat([target.flatten() for target in targets])
    return max(float(values.var(correction=0)), 1e-12)


def _size(own: Tensor) -> float:
    """Return the root mean square of a parameter; of one that is zero, something small."""
    return max(float(own.detach().square().mean().sqrt()), 1e-3)


def _tensors(values: Mapping[str, Array]) -> Values:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}

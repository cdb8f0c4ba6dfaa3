# SPDX-License-Identifier: Apache-2.0
"""Sample axes: where the samples of a batch lie on a value inside a network.

Usually that is axis 0. Attention with the tokens first has them on axis 1, and a layer that is given tokens as rows has
samples and tokens on one axis, whichever of the two runs faster. Nothing says so beforehand; it is found by trying:
what changes on a value if one sample changes is that sample's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from graphprune.training.bridge import Trainable

__all__ = ["FIRST", "SampleAxis", "find_sample_axes"]

_TRIED = 3
"""Samples of the batch that is tried; the number must tell a period of samples from one of anything else."""


@dataclass(frozen=True)
class SampleAxis:
    """Where samples lie.

    Attributes
    ----------
    axis : int
        The axis of the value, ``outer * n * inner`` long where there are `n` samples.
    outer : int
        How often the samples follow one another on it.
    inner : int
        How many neighbours on it belong to one sample: position p is that of sample ``p // inner % n``.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    def owners(self, samples: int) -> Tensor:
        """Return the sample of every position on the axis."""
        return torch.arange(samples).repeat_interleave(self.inner).repeat(self.outer)

    def count(self, x: Tensor) -> int:
        """Return how many samples a value has; 0 if it cannot be told."""
        size = x.shape[self.axis]
        return 0 if size % (self.outer * self.inner) else size // (self.outer * self.inner)


FIRST = SampleAxis(0)
"""Where samples are almost everywhere."""


@torch.no_grad()
def find_sample_axes(
    net: Trainable, values: Collection[fx.Node], feeds: Mapping[str, Tensor]
) -> dict[fx.Node, SampleAxis]:
    """Return where samples lie on some values; those on which samples cannot be told apart are missing.

    Parameters
    ----------
    net : Trainable
        Run in evaluation mode.
    values : collection of fx.Node
        Nodes of its graph.
    feeds : mapping of str to Tensor
        At least one sample, on axis 0 of every input.

    Notes
    -----
    Runs the network four times. Nothing is found if it cannot be run with three samples.
    """
    training = net.module.training
    net.module.eval()
    inputs = [_three(feeds[name]) for name in net.inputs]
    changes: list[dict[fx.Node, list[Tensor]]] = []
    try:
        base = _Watch(net.module, values)
        base.run(*inputs)
        for sample in range(_TRIED):
            watch = _Watch(net.module, values, base.seen)
            watch.run(*[_changed(value, sample) for value in inputs])
            changes.append(watch.changes)
    except (RuntimeError, IndexError, ValueError):  # the model is made for batches of another size
        return {}
    finally:
        net.module.train(training)
    axes = {node: _axis(value.shape, [change[node] for change in changes]) for node, value in base.seen.items()}
    return {node: axis for node, axis in axes.items() if axis is not None}


class _Watch(fx.Interpreter):
    """Runs a module and remembers some values, or how they differ from others."""

    def __init__(
        self, module: fx.GraphModule, values: Collection[fx.Node], base: Mapping[fx.Node, Tensor] | None = None
    ):
        super().__init__(module)
        self._values = frozenset(values)
        self._base = base
        self.seen: dict[fx.Node, Tensor] = {}
        self.changes: dict[fx.Node, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run a node, and look at its value."""
        value: object = super().run_node(n)
        if n in self._values and isinstance(value, Tensor):
            if self._base is None:
                self.seen[n] = value
            else:
                self.changes[n] = _along_axes(value, self._base[n])
        return value


def _three(value: Tensor) -> Tensor:
    """Return three samples of those that there are."""
    return value[torch.arange(_TRIED) % len(value)]


def _changed(value: Tensor, sample: int) -> Tensor:
    """Return the samples of which one is another."""
    changed = value.clone()
    if value.is_floating_point():
        noise = torch.randn(value.shape[1:], generator=torch.Generator().manual_seed(sample))
        scale = value.float().std(correction=0).clamp_min(1e-3)
        changed[sample] += (scale * noise.to(value.device)).to(value.dtype)
    else:
        changed[sample] = value[(sample + 1) % _TRIED]
    return changed


def _along_axes(value: Tensor, base: Tensor) -> list[Tensor]:
    """Return for every axis at which positions two values differ."""
    if value.shape != base.shape:
        raise ValueError("the shape of a value depends on its data")
    differs = ~torch.isclose(value, base, rtol=0.0, atol=0.0, equal_nan=True)
    return [differs.movedim(axis, 0).flatten(1).any(1) if differs.dim() > 1 else differs for axis in range(value.dim())]


def _axis(shape: torch.Size, changes: list[list[Tensor]]) -> SampleAxis | None:
    """Return the axis of which each sample changes positions of its own; a dead value may have the usual one."""
    if not any(bool(item.any()) for change in changes for item in change):
        return FIRST if shape[:1] == (_TRIED,) else None
    for axis, size in enumerate(shape):
        own = [change[axis] for change in changes]
        if size % _TRIED or not all(bool(item.any()) for item in own):
            continue
        share = size // _TRIED
        for outer in (number for number in range(1, share + 1) if share % number == 0):
            candidate = SampleAxis(axis, outer, share // outer)
            owners = candidate.owners(_TRIED).to(own[0].device)
            if all(bool((owners[item] == sample).all()) for sample, item in enumerate(own)):
                return candidate
    return None

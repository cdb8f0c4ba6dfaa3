# SPDX-License-Identifier: Apache-2.0
"""Predictors: small layers that tell from the input of a layer which of its channels matter for the sample at hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group
from graphprune.labels.space import MultiplyAdds
from graphprune.training.bridge import Trainable
from graphprune.training.pruning.taps import reading
from graphprune.training.sample_axes import FIRST, SampleAxis, find_sample_axes

__all__ = ["Place", "Predictor", "attach_predictors", "detach_predictors", "predictable"]

_LAYERS = {"Conv": 1, "Gemm": 1, "MatMul": -1}
"""Layers whose channels can be predicted, and the channel axis of their input."""


@dataclass(frozen=True, eq=False)
class Place:
    """The layer that makes a group: its node, and the channel axis, channels and rank of its input."""

    cost: MultiplyAdds
    axis: int
    channels: int
    rank: int


class Predictor(nn.Module):
    """Factors of a group's channels for every sample.

    ``relu(mean of the input over all positions @ phi + rho)``; of these the `density` largest stay, all others are 0,
    and so is what ties with the first that goes.

    Parameters
    ----------
    axis : int
        Channel axis of the input.
    channels : int
        Its channels.
    size : int
        Atoms of the group.
    samples : SampleAxis
        Where samples lie on the input.

    Attributes
    ----------
    density : float
        Share of the channels that stay.
    last : Tensor, shape (n, size)
        What was predicted last.
    """

    def __init__(self, axis: int, channels: int, size: int, samples: SampleAxis = FIRST) -> None:
        super().__init__()
        self.axis = axis
        self.samples = samples
        self.density = 1.0
        deviation = 0.05 / math.sqrt(channels)  # a trained network must not be disturbed at first
        phi = torch.empty(channels, size)
        self.phi = nn.Parameter(nn.init.trunc_normal_(phi, std=deviation, a=-2 * deviation, b=2 * deviation))
        self.rho = nn.Parameter(torch.ones(size))
        self.last = torch.ones(1, size)

    @property
    def kept(self) -> int:
        """How many channels stay at most."""
        return min(len(self.rho), math.ceil(self.density * len(self.rho)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the factors, shape (n, size)."""
        axis, own = self.axis % x.dim(), self.samples
        rest = [other for other in range(x.dim()) if other not in (axis, own.axis)]
        pooled = x.mean(rest) if rest else x
        pooled = pooled.T if axis < own.axis else pooled
        if own.outer > 1 or own.inner > 1:
            pooled = pooled.reshape(own.outer, -1, own.inner, pooled.shape[1]).mean((0, 2))
        factors = torch.relu(pooled @ self.phi + self.rho)
        if self.kept < factors.shape[1]:
            threshold = factors.detach().topk(self.kept + 1, dim=1).values[:, self.kept :]
            factors = factors * (factors > threshold)
        self.last = factors
        return factors


def predictable(net: Trainable, analysis: Analysis) -> dict[str, Place]:
    """Return where each group is made, for the groups that one layer alone makes."""
    costs = {cost.node.label: cost for cost in analysis.scope.space.costs}
    places: dict[str, Place] = {}
    for group in analysis.groups:
        place = _place(group, costs, analysis)
        if place is not None and place.cost.node.outputs[0] in net.graph.producer:
            places[group.id] = place
    return places


def _place(group: Group, costs: dict[str, MultiplyAdds], analysis: Analysis) -> Place | None:
    makers = {member.node: member for member in group.members if member.role == "out"}
    if len(makers) != 1:
        return None
    ((name, member),) = makers.items()
    cost = costs.get(name)
    if cost is None or member.op not in _LAYERS or member.slot != 1:
        return None
    shape = analysis.shapes.dims.get(cost.node.inputs[0])
    axis = _LAYERS[member.op]
    if shape is None or len(shape) < 2 or not isinstance(shape[axis], int):
        return None
    return Place(cost, axis, int(shape[axis]), len(shape))


def attach_predictors(
    net: Trainable, analysis: Analysis, groups: Iterable[str], feeds: Mapping[str, Tensor]
) -> dict[str, Predictor]:
    """Let gates that are attached already follow predictors.

    Parameters
    ----------
    net : Trainable
        Changed in place.
    analysis : Analysis
        Of the same model.
    groups : iterable of str
        Ids of groups of `predictable`.
    feeds : mapping of str to Tensor
        At least one sample.

    Returns
    -------
    dict of str to Predictor
        By group; those where the input of the layer does not tell samples apart are missing.
    """
    places = predictable(net, analysis)
    numbers = {group.id: number for number, group in enumerate(analysis.groups)}
    readers: dict[str, tuple[fx.Node, fx.Node]] = {}
    for name in groups:
        node = places[name].cost.node
        source = net.values.get(node.inputs[0])
        made = net.made[net.graph.producer[node.outputs[0]].index]
        read = None if source is None else reading(made, source)
        if read is not None:
            readers[name] = read
    axes = find_sample_axes(net, {value for _, value in readers.values()}, feeds)
    predictors: dict[str, Predictor] = {}
    for name, (reader, value) in readers.items():
        place, size, samples = places[name], analysis.groups[numbers[name]].size, axes.get(value)
        if samples is None or samples.axis == place.axis % place.rank:
            continue
        predictor = Predictor(place.axis, place.channels, size, samples)
        own = f"predictor_{numbers[name]}"
        net.module.add_submodule(own, predictor)
        with net.module.graph.inserting_before(reader):
            predicted = net.module.graph.call_module(own, (value,))
        for item in net.module.graph.nodes:
            if item.op == "call_module" and item.target == f"gate_{numbers[name]}":
                item.args = (*item.args[:3], predicted)
        predictors[name] = predictor
    net.module.recompile()
    return predictors


def detach_predictors(net: Trainable) -> None:
    """Let gates be what they are without predictors, which do nothing any more."""
    for item in net.module.graph.nodes:
        if item.op == "call_module" and str(item.target).startswith("gate_") and len(item.args) > 3:
            item.args = item.args[:3]
    net.module.recompile()

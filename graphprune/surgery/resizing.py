# SPDX-License-Identifier: Apache-2.0
"""Resizing: the shapes of the pruned graph, and what shape arithmetic in it then computes.

Many graphs compute `Reshape` targets from shapes; most of these follow by themselves when axes
shrink. Shape arithmetic is evaluated again with the new sizes, and only what still disagrees
with the labels is edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array, Ints, Mask
from graphprune.labels.adapt import Counts, size_slots
from graphprune.labels.vector import Labels, stay
from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.model.graph import Node
from graphprune.model.values.constants import Constants
from graphprune.model.values.shapes import shape_value

if TYPE_CHECKING:
    from graphprune.labels.space import Axes
    from graphprune.surgery.placement import Placement
    from graphprune.surgery.slices import Slices

__all__ = ["PrunedNode", "Resizing"]


class Resizing:
    """New sizes of all values.

    Attributes
    ----------
    dims : dict of str to tuple of int
        Shapes of activations and constants in the pruned graph.
    """

    def __init__(self, analysis: Analysis, slices: Slices, placement: Placement) -> None:
        self.analysis = analysis
        self.placement = placement
        self._slices = slices
        self.dims = {
            name: tuple(slices.count(labels) for labels in axes) for name, axes in analysis.scope.values.items()
        }
        self.dims.update((name, demand.dims) for name, demand in placement.settled.items())

    @cached_property
    def values(self) -> dict[str, Array]:
        """Values of small constants in the pruned graph, where nothing but stored slices changed."""
        shapes, graph = self.analysis.shapes, self.analysis.graph
        values = dict(shapes.values)
        for node in graph.nodes:
            if node.outputs and node.outputs[0] in shapes.derived and node.outputs[0] in shapes.values:
                self._renew(node, values)
        return values

    def original(self, name: str) -> Array | None:
        """Return a constant of any size as it was, None where it is none or cannot be computed."""
        try:
            return self.analysis.constants.array(name) if name in self.analysis.shapes.constant else None
        except KeyError:
            return None

    def value(self, name: str) -> Array | None:
        """Return a constant of any size as the pruned graph makes it, None where that is not known."""
        if name in self.values:
            return self.values[name]
        try:
            return self._constants.array(name)
        except KeyError:
            return None

    @cached_property
    def _constants(self) -> Constants:
        before = self.analysis.shapes
        shapes = replace(before, values=self.values, dims={**before.dims, **self.dims})
        return Constants(self.analysis.graph, shapes, self.analysis.model.tensors.array)

    def _renew(self, node: Node, values: dict[str, Array]) -> None:
        shapes = self.analysis.shapes
        if node.op_type in ("Shape", "Size") and not node.domain:
            value = shape_value(node, self._dims_of(node.inputs[0], values))
            if not np.array_equal(value, shapes.values[node.outputs[0]]):
                values[node.outputs[0]] = value
            return
        if all(values.get(name) is shapes.values.get(name) for name in node.inputs if name):
            return
        try:
            outputs = evaluate(node, [values.get(name) for name in node.inputs], self.analysis.graph.opsets)
        except Exception:  # what cannot be computed any more has to be edited by its reader
            for name in node.outputs:
                values.pop(name, None)
            return
        values.update((name, value) for name, value in zip(node.outputs, outputs, strict=True) if name)

    def _dims_of(self, name: str, values: dict[str, Array]) -> tuple[int, ...]:
        """Return the new shape of a value; a constant that is computed from shapes may have another one, too."""
        shapes = self.analysis.shapes
        if name in self.dims:
            return self.dims[name]
        if name in values:
            return values[name].shape
        if name in shapes.derived:
            try:
                known = replace(shapes, values=values, dims={**shapes.dims, **self.dims})
                return Constants(self.analysis.graph, known, self.analysis.model.tensors.array).array(name).shape
            except KeyError:
                pass  # not to be computed any more: whoever reads it has to be edited
        return shapes.dims[name]

    def dims_of(self, name: str) -> tuple[int, ...] | None:
        """Return the new shape of a value; None where it is not known, or not any more."""
        shapes = self.analysis.shapes
        if name in self.dims or name not in shapes.derived:
            return self.dims.get(name, shapes.dims.get(name))
        value = self.value(name)
        return None if value is None else value.shape

    def kept(self, name: str) -> list[Counts]:
        """Return how often each slice of an activation, or of a constant, is there."""
        if name in self.placement.settled:
            return list(self.placement.settled[name].counts)
        axes = self.analysis.scope.values.get(name)
        if axes is None:
            return [np.broadcast_to(np.True_, (size,)) for size in self.analysis.shapes.dims[name]]
        return [self._slices.counts(labels) for labels in axes]

    def count(self, labels: Labels) -> int:
        """Return how many slices of an axis are there."""
        return self._slices.count(labels)

    def orders(self, name: str) -> Sequence[Ints]:
        """Return where the slices of an activation, or of a constant, stood in the original."""
        if name in self.placement.settled:
            return list(self.placement.settled[name].orders)
        axes = self.analysis.scope.values.get(name)
        if axes is None:
            axes = tuple(stay(size) for size in self.analysis.shapes.dims[name])
        return _Orders(self._slices, axes)

    def touches(self, node: Node) -> bool:
        """Whether any axis of an input or output of a node loses slices, or a size that it is given changes."""
        for slot, name in enumerate(node.inputs):
            demand = self.placement.demand(node, slot)
            if demand is not None and not demand.whole:
                return True
            if name in self.analysis.scope.values and self.dims[name] != self.analysis.shapes.dims[name]:
                return True
        shapes = self.analysis.shapes
        if any(name in self.dims and self.dims[name] != shapes.dims[name] for name in node.outputs):
            return True
        given = (node.inputs[slot] for slot in size_slots(node) if slot < len(node.inputs))
        return any(self.values.get(name) is not shapes.values.get(name) for name in given if name in shapes.derived)

    def is_dynamic(self, name: str) -> bool:
        """Whether a constant changes with the size of the model's inputs."""
        mask = self.dynamic(name)
        if mask is not None:
            return bool(mask.any())
        shapes = self.analysis.shapes
        return name in shapes.derived and name not in shapes.values and self.analysis.other_shapes is not None

    def dynamic(self, name: str) -> Mask | None:
        """Return which elements of a constant change with the size of the model's inputs."""
        here = self.analysis.shapes.values.get(name)
        if name not in self.analysis.shapes.derived or here is None or self.analysis.other_shapes is None:
            return None
        there = self.analysis.other_shapes.values.get(name)
        if there is None or there.shape != here.shape:
            return np.ones(here.shape, dtype=np.bool_)
        return np.asarray(here != there)


class _Orders(Sequence["Ints"]):
    """Where the slices stood, per axis; written out for the axes that are asked for (an image may be wide)."""

    def __init__(self, slices: Slices, axes: Axes) -> None:
        self._slices = slices
        self._axes = axes

    def __len__(self) -> int:
        return len(self._axes)

    @overload
    def __getitem__(self, at: int) -> Ints: ...

    @overload
    def __getitem__(self, at: slice) -> list[Ints]: ...

    def __getitem__(self, at: int | slice) -> Ints | list[Ints]:
        if isinstance(at, slice):
            return [self._slices.order(labels) for labels in self._axes[at]]
        return self._slices.order(self._axes[at])


class PrunedNode:
    """One node of the pruned graph, as an adapter sees it (see `labels.adapt.Pruned`)."""

    def __init__(self, resizing: Resizing, node: Node) -> None:
        self._resizing = resizing
        self.node = node
        self.version = resizing.analysis.graph.opsets.get(node.domain, 1)

    def kept(self, slot: int) -> list[Counts]:
        """How often each slice of an input is there."""
        demand = self._resizing.placement.demand(self.node, slot)
        return list(demand.counts) if demand is not None else self._resizing.kept(self.node.inputs[slot])

    def kept_out(self, slot: int) -> list[Counts]:
        """How often each slice of an output is there."""
        return self._resizing.kept(self.node.outputs[slot])

    def order(self, slot: int) -> Sequence[Ints]:
        """Where the slices of an input stood."""
        demand = self._resizing.placement.demand(self.node, slot)
        return list(demand.orders) if demand is not None else self._resizing.orders(self.node.inputs[slot])

    def order_out(self, slot: int) -> Sequence[Ints]:
        """Where the slices of an output stood."""
        return self._resizing.orders(self.node.outputs[slot])

    def share(self, axis: int) -> tuple[int, int] | None:
        """How many of how many slices stay on an axis of output 0, if as large a share does whatever its length is."""
        analysis, name = self._resizing.analysis, self.node.outputs[0]
        labels, other = analysis.scope.values[name][axis], (analysis.other_shapes or analysis.shapes).dims.get(name)
        if other is None or other[axis] % len(labels.base):
            return None
        return self._resizing.count(Labels(labels.base)), len(labels.base)

    def original(self, slot: int) -> Array | None:
        """Value of a constant input in the original graph."""
        return self._resizing.original(self._name(slot))

    def current(self, slot: int) -> Array | None:
        """Value of a constant input in the pruned graph, unedited."""
        return self._resizing.value(self._name(slot))

    def follows(self, *, from_back: bool = False) -> tuple[Mask, Mask]:
        """Which axes of the first output follow the size of the model's inputs, and which equal those of input 0."""
        analysis = self._resizing.analysis
        source, target = self.node.inputs[0], self.node.outputs[0]
        sizes = [analysis.shapes, analysis.other_shapes or analysis.shapes]
        known = [
            (each.dims[source], each.dims[target]) for each in sizes if source in each.dims and target in each.dims
        ]
        rank = len(known[0][1])
        if len(known) < len(sizes):  # without the second size, nothing is known to stay
            return np.ones(rank, dtype=np.bool_), np.zeros(rank, dtype=np.bool_)
        is_open = [known[0][1][axis] != known[1][1][axis] for axis in range(rank)]
        shift = rank - len(known[0][0]) if from_back else 0
        equal = [
            all(0 <= axis - shift < len(own) and own[axis - shift] == made[axis] for own, made in known)
            for axis in range(rank)
        ]
        return np.asarray(is_open, dtype=np.bool_), np.asarray(equal, dtype=np.bool_)

    def dynamic(self, slot: int) -> Mask | None:
        """Which elements of a constant input depend on the size of the model's inputs."""
        return self._resizing.dynamic(self._name(slot))

    def _name(self, slot: int) -> str:
        return self.node.inputs[slot] if slot < len(self.node.inputs) else ""

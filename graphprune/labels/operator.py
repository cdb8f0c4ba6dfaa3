# SPDX-License-Identifier: Apache-2.0
"""What a rule sees: one node, the labels of its inputs, and the verbs to state facts with.

A rule is a function ``rule(op: Operator) -> None``. It reads labels with `labels`, `weight`
and `operand`, states facts with `unite`, `tie`, `contract`, `freeze`, `cost`, and gives labels
to the outputs with `set`. It decides nothing and slices nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphprune.array_types import Array
from graphprune.labels.scales import Operand, follow_chain, follow_operand
from graphprune.labels.scope import Scope
from graphprune.labels.space import Axes, Contraction, Mean, MultiplyAdds, Reason, Renormalisation, Role, Use
from graphprune.labels.vector import Labels, stay
from graphprune.model.graph import Node

__all__ = ["Operator", "Scope", "UnknownShapeError"]


class UnknownShapeError(Exception):
    """A rule asked for the shape of a value that has none before the model runs."""


class Operator:
    """One node during the label pass.

    Attributes
    ----------
    inputs : tuple of str
        What the rule sees as inputs 0, 1, ...: those of the node, or those that a view picks (`seen_as`).
    read : set of int
        Inputs of the node whose labels the rule has looked at.
    """

    def __init__(self, scope: Scope, node: Node) -> None:
        self.inputs = node.inputs
        self._operands: tuple[Operand, ...] = ()
        self.scope = scope
        self.space = scope.space
        self.node = node
        self.version = scope.graph.opsets.get(node.domain, 1)
        self.outputs: dict[int, Axes] = {}
        self.read: set[int] = set()

    def seen_as(self, operands: Sequence[Operand], *, channels_last: bool = False) -> Operator:
        """Return a view in which input n is the n-th of `operands`: the rule of a float operator fits its integer form.

        Both give labels to the same outputs. Where channels come last, the view shows them behind the batch.
        """
        view = (_ChannelsLast if channels_last else Operator)(self.scope, self.node)
        given = [item for item in operands if item.slot < len(self.node.inputs)]
        view.inputs = tuple(self.node.inputs[item.slot] for item in given)
        view._operands, view.outputs, view.read = tuple(given), self.outputs, self.read
        return view

    def real_slot(self, slot: int) -> int:
        """Input of the node that the rule sees as input `slot`."""
        return self._operands[slot].slot if self._operands else slot

    def place(self, slot: int, axis: int) -> int:
        """Axis of an input of the node that the rule sees as axis `axis` of input `slot`."""
        del slot
        return axis

    # reading ----------------------------------------------------------------------------------

    def has(self, slot: int) -> bool:
        """Whether input `slot` is given."""
        return slot < len(self.inputs) and bool(self.inputs[slot])

    def is_constant(self, slot: int) -> bool:
        """Whether input `slot` depends on initializers and shapes only."""
        return self.has(slot) and self.inputs[slot] in self.scope.shapes.constant

    def is_computed(self, slot: int) -> bool:
        """Whether input `slot` is given and known only while the model runs."""
        return self.has(slot) and not self.is_constant(slot)

    def shape(self, slot: int) -> tuple[int, ...]:
        """Shape of input `slot`.

        Raises
        ------
        UnknownShapeError
            If it is not known; the pass then treats the node as a barrier.
        """
        return self._dims(self.inputs[slot])

    def out_shape(self, slot: int = 0) -> tuple[int, ...]:
        """Shape of output `slot`; raises as `shape`."""
        return self._dims(self.node.outputs[slot])

    def _dims(self, name: str) -> tuple[int, ...]:
        try:
            return self.scope.shapes.dims[name]
        except KeyError as error:
            raise UnknownShapeError(name) from error

    def value(self, slot: int) -> Array | None:
        """Value of a small constant input, or None where it is absent or not known."""
        return self.scope.shapes.values.get(self.inputs[slot]) if self.has(slot) else None

    def array(self, slot: int) -> Array | None:
        """Value of a constant input of any size, computed anew at each call; None where it cannot be computed."""
        try:
            return self.scope.constants.array(self.inputs[slot]) if self.is_constant(slot) else None
        except KeyError:
            return None

    def ints(self, slot: int, attribute: str | None = None) -> list[int] | None:
        """Integers given as input `slot` or, in older operator sets, as an attribute."""
        value = self.value(slot)
        if value is not None:
            return [int(item) for item in np.ravel(value)]
        if self.has(slot) or attribute is None:
            return None
        given = self.node.attribute(attribute)
        return None if given is None else [int(item) for item in np.ravel(given)]

    def labels(self, slot: int) -> Axes:
        """Labels of an activation; a constant read where data is expected stays whole."""
        name = self.inputs[slot]
        self.read.add(self.real_slot(slot))
        if name in self.scope.values:
            return self.scope.values[name]
        return tuple(stay(size) for size in self.shape(slot))

    def weight(self, slot: int, roles: Sequence[Role]) -> Axes:
        """Labels of a constant used as a weight, shared with every other user of the stored tensor."""
        axes = self.scope.weight(self.inputs[slot])
        maskable = follow_chain(self.scope, self.inputs[slot], axes)
        if self._operands:
            maskable = follow_operand(self.scope, self.node, self._operands[slot], axes) and maskable
        self.space.uses.append(Use(self.node, self.real_slot(slot), self.inputs[slot], axes, tuple(roles), maskable))
        return axes

    def moved(self, slot: int) -> Axes:
        """Labels of an input whose elements are moved about: stored data gets labels of its own, for this use alone."""
        if not self.is_constant(slot):
            return self.labels(slot)
        if self.inputs[slot] in self.scope.shapes.derived:
            return self.labels(slot)
        axes = tuple(self.space.fresh(size) for size in self.shape(slot))
        self.tie(slot, axes)
        return axes

    def operand(self, slot: int, roles: Sequence[Role]) -> Axes:
        """Labels of an input that may be a weight or an activation."""
        return self.weight(slot, roles) if self.is_constant(slot) else self.labels(slot)

    # stating ----------------------------------------------------------------------------------

    def unite(self, first: Labels, second: Labels) -> None:
        """Two equally long axes keep the same slices."""
        self.space.unite(first, second, self.node)

    def tie(self, slot: int, axes: Axes, *, maskable: bool = True) -> None:
        """Input `slot` keeps the same slices as `axes`: a constant follows, an activation is united."""
        if not self.is_constant(slot):
            for own, other in zip(self.labels(slot), axes, strict=True):
                self.unite(own, other)
            return
        # What a stored integer stands for is noted even where nothing can go.
        maskable = follow_chain(self.scope, self.inputs[slot], axes) and maskable
        if any(axis.live for axis in axes):
            roles: tuple[Role, ...] = tuple("per_channel" if axis.live else "" for axis in axes)
            self.space.uses.append(Use(self.node, self.real_slot(slot), self.inputs[slot], axes, roles, maskable))

    def contract(self, slot: int, axis: int, *, mean: Mean = "") -> None:
        """State that the node sums (or averages) over this axis of an activation."""
        labels = self.labels(slot)[axis]
        if labels.live and not self.is_constant(slot):
            zero_point = self._operands[slot].zero_point if self._operands else None
            zero = "" if zero_point is None else next(iter(self.node.inputs[zero_point : zero_point + 1]), "")
            place = self.place(slot, axis)
            self.space.contractions.append(Contraction(self.node, self.real_slot(slot), place, labels, mean, zero))

    def renormalise(self, first: int) -> None:
        """State that input 0 is normalised over all axes from `first` on, by statistics over the kept slices."""
        axes = self.labels(0)
        if any(vector.live for vector in axes[first:]):
            self.space.renormalised.append(Renormalisation(self.node, first, axes))
            self.space.approximate.extend(vector.base for vector in axes[first:] if vector.live)

    def contract_weight(self, slot: int, axis: int, labels: Labels) -> None:
        """State that the node sums over this axis of a weight and that no activation can be masked instead.

        So it is with the recurrent weights of an `LSTM`: what they are multiplied with never leaves the operator.
        """
        if labels.live:
            self.space.contractions.append(Contraction(self.node, self.real_slot(slot), axis, labels))

    def freeze(self, labels: Labels | Iterable[Labels], kind: str, text: str) -> None:
        """Keep every slice of these axes."""
        for vector in [labels] if isinstance(labels, Labels) else labels:
            self.space.freeze(vector, Reason(kind, self.node, text))

    def cost(self, rest: Iterable[Labels], inner: Labels, outer: Labels, scale: int = 1) -> None:
        """Count ``scale * len(inner) * len(outer) * prod(len(axis) for axis in rest)`` multiply-adds.

        A second product of the same node is added; its channel axes remain those of the first. In the body of
        a loop that is known to take n turns everything counts n times.
        """
        scale *= int(self.scope.turns[self.node.index])
        live: list[Labels] = []
        for vector in (*rest, inner, outer):
            if vector.live:
                live.append(vector)
            else:
                scale *= len(vector)
        products: tuple[tuple[int, Axes], ...] = ((scale, tuple(live)),)
        costs = self.space.costs
        if costs and costs[-1].node is self.node:
            first = costs.pop()
            products, inner, outer = (*first.products, *products), first.inner, first.outer
        costs.append(MultiplyAdds(self.node, products, inner, outer))

    def cost_whole(self, amount: int, outer: Labels) -> None:
        """Count multiply-adds of a node that stays as it is; `outer` is the axis that shows its width."""
        scale = amount * int(self.scope.turns[self.node.index])
        self.space.costs.append(MultiplyAdds(self.node, ((scale, ()),), stay(1), outer))

    def set(self, slot: int, axes: Iterable[Labels]) -> None:
        """Give labels to output `slot`; a slice that is alone on its axis stays."""
        result = []
        for vector in axes:
            if len(vector) == 1 and vector.live:
                self.freeze(vector, "single slice", "leaves this channel alone on an axis")
                result.append(stay(1))
            else:
                result.append(vector)
        self.outputs[slot] = tuple(result)

    def barrier(self, kind: str, text: str) -> None:
        """Freeze every label of every input and let all outputs stay whole."""
        self.space.barriers.setdefault(self.node.index, Reason(kind, self.node, text))
        for slot in range(len(self.inputs)):
            if self.has(slot) and self.inputs[slot] in self.scope.values:
                self.freeze(self.labels(slot), kind, text)
        for slot, name in enumerate(self.node.outputs):
            if name in self.scope.shapes.dims:
                self.set(slot, (stay(size) for size in self.out_shape(slot)))


class _ChannelsLast(Operator):
    """A node whose first input and output are (batch, space, channels), seen as (batch, channels, space)."""

    def place(self, slot: int, axis: int) -> int:
        """Channels stand behind space."""
        rank = len(super().shape(slot))
        return axis if slot or axis == 0 else rank - 1 if axis == 1 else axis - 1

    def shape(self, slot: int) -> tuple[int, ...]:
        """Shape of input `slot`, channels first."""
        dims = super().shape(slot)
        return dims if slot else (dims[0], dims[-1], *dims[1:-1])

    def out_shape(self, slot: int = 0) -> tuple[int, ...]:
        """Shape of output `slot`, channels first."""
        dims = super().out_shape(slot)
        return (dims[0], dims[-1], *dims[1:-1])

    def labels(self, slot: int) -> Axes:
        """Labels of an activation, channels first."""
        axes = super().labels(slot)
        return axes if slot or self.inputs[slot] not in self.scope.values else (axes[0], axes[-1], *axes[1:-1])

    def set(self, slot: int, axes: Iterable[Labels]) -> None:
        """Give labels to output `slot`, channels first."""
        first, channels, *space = axes
        super().set(slot, (first, *space, channels))

    def barrier(self, kind: str, text: str) -> None:
        """Freeze what a plain view freezes."""
        Operator(self.scope, self.node).barrier(kind, text)

# SPDX-License-Identifier: Apache-2.0
"""What a node reads, as far as it is known before a run, and sentences about what of it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphprune.errors import quote
from graphprune.model.graph import Node
from graphprune.model.inference.known import Shapes

__all__ = ["Dims", "Reads", "Rule", "first_of"]

Dims = tuple[int, ...]


@dataclass(frozen=True)
class Reads:
    """The inputs of a node.

    Attributes
    ----------
    node : Node
    shapes : Shapes
    opset : int
        Of the domain of the node.
    """

    node: Node
    shapes: Shapes
    opset: int

    def dims(self, slot: int) -> Dims | None:
        """Return the shape of an input; None where it is left out or not known."""
        name = self._name(slot)
        return self.shapes.dims.get(name) if name else None

    def numbers(self, slot: int) -> list[Any] | None:
        """Return what a small constant input holds, flat; None for others."""
        value = self.shapes.values.get(self._name(slot))
        return None if value is None else list(value.ravel().tolist())

    def axis(self, default: int) -> int | None:
        """Return the axis of input 0 that the node names, from the front; None where it has no such axis."""
        dims, axis = self.dims(0), int(self.node.attribute("axis", default))
        return axis % len(dims) if dims is not None and -len(dims) <= axis < len(dims) else None

    def objection(self, slot: int, what: str) -> str:
        """Return the sentence that says what is wrong with an input."""
        return f"node {self.node!r}: input {slot} {quote(self._name(slot))} {what}"

    def has_length(self, slot: int, axis: int, size: int) -> str | None:
        """Object unless an input, if it is known, has so many elements along an axis."""
        known = self.dims(slot)
        if known is None:
            return None
        if not -len(known) <= axis < len(known):
            return self.objection(slot, f"has the shape {list(known)}, but needs an axis {axis} of {size}")
        if known[axis] != size:
            return self.objection(slot, f"has the shape {list(known)}, but axis {axis % len(known)} must be {size}")
        return None

    def has_shape(self, slot: int, wanted: Sequence[int]) -> str | None:
        """Object unless an input, if it is known, has a shape."""
        known = self.dims(slot)
        if known is None or known == tuple(wanted):
            return None
        return self.objection(slot, f"has the shape {list(known)}, but must have {list(wanted)}")

    def broadcasts(self, slot: int, target: Sequence[int], where: str = "") -> str | None:
        """Object unless an input, if it is known, is spread over a shape; the shape may be spread over it as well."""
        known = self.dims(slot)
        if known is None:
            return None
        pairs = zip(reversed(known), reversed(target), strict=False)
        if all(size == other or 1 in (size, other) for size, other in pairs):
            return None
        return self.objection(slot, f"has the shape {list(known)}, which does not spread over {list(target)}{where}")

    def in_range(self, slot: int, values: Sequence[int], size: int, axis: int) -> str | None:
        """Object to the first of several positions that an axis of input 0 does not have."""
        beyond = next((value for value in values if not -size <= value < size), None)
        if beyond is None:
            return None
        return self.objection(slot, f"asks for position {beyond}, but axis {axis} of input 0 has {size}")

    def _name(self, slot: int) -> str:
        return self.node.inputs[slot] if slot < len(self.node.inputs) else ""


Rule = Callable[[Reads], "str | None"]
"""Says what of the inputs of a node does not fit, as far as it is known; None where all fits."""


def first_of(*objections: str | None) -> str | None:
    """Return the first objection that there is."""
    return next(filter(None, objections), None)

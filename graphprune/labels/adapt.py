# SPDX-License-Identifier: Apache-2.0
"""Constants that encode sizes, and how each operator's follow when its axes shrink.

A pruned axis has as many slices as kept labels. Operators that spell sizes or positions out
(`Reshape` targets, `Split` sizes, `Slice` bounds, `Pad` amounts, `group`) register an adapter
next to their label rule: it compares what the node would do with what its labels say, and
edits only what disagrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graphprune.errors import InternalError
from graphprune.model.graph import Node

__all__ = ["Adapter", "Edits", "Pruned", "adapter", "adapter_for", "size_slots"]

Array = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]


@dataclass
class Edits:
    """Changes to one node: attributes to set or drop (None), and inputs to replace by integer constants."""

    attributes: dict[str, int | list[int] | None] = field(default_factory=dict)
    inputs: dict[int, Array] = field(default_factory=dict)


class Pruned(Protocol):
    """One node as it stands after the slices are gone."""

    node: Node
    version: int

    def kept(self, slot: int) -> list[Mask]:
        """Kept slices along each axis of an input, as masks over the original axis."""

    def kept_out(self, slot: int) -> list[Mask]:
        """Kept slices along each axis of an output."""

    def original(self, slot: int) -> Array | None:
        """Value that a constant input had in the original graph."""

    def current(self, slot: int) -> Array | None:
        """Value that the same input has in the pruned graph if nothing is edited."""

    def dynamic(self, slot: int) -> Mask | None:
        """Which elements of a constant input change with the size of the model's inputs."""


Adapter = Callable[[Pruned], Edits]

_ADAPTERS: dict[str, tuple[tuple[int, ...], Adapter]] = {}


def adapter(*operators: str, slots: tuple[int, ...] = ()) -> Callable[[Adapter], Adapter]:
    """Register the adapter of one or more operators.

    Parameters
    ----------
    slots : tuple of int
        Inputs that encode sizes or positions; they are the adapter's business alone.
    """

    def register(function: Adapter) -> Adapter:
        for name in operators:
            if name in _ADAPTERS:
                raise InternalError(f"two adapters for {name}")
            _ADAPTERS[name] = (slots, function)
        return function

    return register


def adapter_for(node: Node) -> Adapter | None:
    """Return the adapter of a node's operator, if it has one."""
    return None if node.domain else _ADAPTERS.get(node.op_type, (None, None))[1]


def size_slots(node: Node) -> tuple[int, ...]:
    """Return the inputs of a node that its adapter looks after."""
    return () if node.domain or node.op_type not in _ADAPTERS else _ADAPTERS[node.op_type][0]

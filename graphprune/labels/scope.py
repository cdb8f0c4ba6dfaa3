# SPDX-License-Identifier: Apache-2.0
"""The scope of one label pass: what is known of the graph, and the labels of all its values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphprune.array_types import Mask
from graphprune.labels.space import Axes, LabelSpace
from graphprune.labels.vector import stay
from graphprune.model.graph import Graph
from graphprune.model.values.constants import Constants
from graphprune.model.values.iterations import LoopNode, iterations_of_nodes, loops
from graphprune.model.values.scaling import Quantised
from graphprune.model.values.shapes import Shapes

__all__ = ["Scope"]


class Scope:
    """Everything that is shared by all nodes during one label pass."""

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        constants: Constants,
        *,
        approximate: bool = False,
        other: Callable[[], Shapes | None] = lambda: None,
    ) -> None:
        self._other = other
        self.approximate = approximate
        self.graph = graph
        self.shapes = shapes
        self.constants = constants
        self.space = LabelSpace()
        self.values: dict[str, Axes] = {}
        self.weights: dict[str, Axes] = {}
        self.quantised: dict[str, Quantised] = {}
        self.turns = iterations_of_nodes(graph, shapes)
        self.loops: dict[int, LoopNode] = {
            index: loop for loop in loops(graph) for index in (loop.entry.index, loop.exit.index)
        }

    def varies(self, name: str) -> tuple[bool, ...]:
        """Return for each axis of a value whether its length changes with the size of the model's inputs."""
        here, other = self.shapes.dims[name], self._other()
        if other is None:
            return (False,) * len(here)
        there = other.dims.get(name, ())
        return tuple(size != it for size, it in zip(here, there, strict=True)) if there else (True,) * len(here)

    def changing(self, name: str) -> Mask:
        """Return which elements of a small constant have another value for another size of the model's inputs."""
        here = self.shapes.values.get(name)
        other = self._other() if name in self.shapes.open else None
        if here is None or other is None:
            return np.full(() if here is None else here.shape, name in self.shapes.open and here is None)
        there = other.values.get(name)
        same = there is not None and there.shape == here.shape
        return np.asarray(here != there) if same else np.ones(here.shape, dtype=np.bool_)

    def weight(self, name: str) -> Axes:
        """Labels of a weight: they belong to the stored tensor, so sharing it couples its users."""
        root = self.constants.trace(name)
        if root.tensor not in self.weights:
            dims = self.shapes.dims[root.tensor]
            # A size computed from another shape must not be sliced by us: it follows by itself.
            fixed = root.tensor in self.shapes.derived
            self.weights[root.tensor] = tuple(stay(size) if fixed else self.space.fresh(size) for size in dims)
        stored, sizes = self.weights[root.tensor], self.shapes.dims[name]
        return tuple(stay(size) if axis is None else stored[axis] for axis, size in zip(root.axes, sizes, strict=True))

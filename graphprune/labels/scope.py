# SPDX-License-Identifier: Apache-2.0
"""The scope of one label pass: what is known of the graph, and the labels of all its values."""

from __future__ import annotations

from graphprune.labels.space import Axes, LabelSpace
from graphprune.labels.vector import stay
from graphprune.model.constants import Constants
from graphprune.model.graph import Graph
from graphprune.model.iterations import iterations_of_nodes
from graphprune.model.scaling import Quantised
from graphprune.model.shapes import Shapes

__all__ = ["Scope"]


class Scope:
    """Everything that is shared by all nodes during one label pass."""

    def __init__(self, graph: Graph, shapes: Shapes, constants: Constants, *, approximate: bool = False) -> None:
        self.approximate = approximate
        self.graph = graph
        self.shapes = shapes
        self.constants = constants
        self.space = LabelSpace()
        self.values: dict[str, Axes] = {}
        self.weights: dict[str, Axes] = {}
        self.quantised: dict[str, Quantised] = {}
        self.turns = iterations_of_nodes(graph, shapes)

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

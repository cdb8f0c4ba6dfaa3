# SPDX-License-Identifier: Apache-2.0
"""Branches that inputs of the analysed sizes do not reach: what they give has another shape than what comes out.

Exporters write such branches where they do not know a length (`squeeze`), or where a network has one part for each of
several input sizes. Nothing in them can be run, so no weight in them may change.
"""

from __future__ import annotations

from graphprune.model.graph import Graph
from graphprune.model.inference.known import Shapes
from graphprune.model.values.bodies import Flat

__all__ = ["unreached_bodies", "unreached_nodes"]


def unreached_bodies(flat: Flat, graph: Graph, shapes: Shapes) -> frozenset[int]:
    """Return the numbers of the bodies that cannot be run, those inside of others included."""
    numbers = range(1, len(flat.bodies) + 1)
    stuck = {number for number in numbers if not _fits(flat, graph, shapes, number)}
    return frozenset(number for number in numbers if stuck & {number, *flat.outwards(number)})


def unreached_nodes(flat: Flat, graph: Graph, shapes: Shapes) -> frozenset[int]:
    """Return the indices of the nodes in such bodies."""
    if flat.is_flat:
        return frozenset()
    bodies = unreached_bodies(flat, graph, shapes)
    return frozenset(node.index for node in graph.nodes if any(flat.home.get(name) in bodies for name in node.outputs))


def _fits(flat: Flat, graph: Graph, shapes: Shapes, number: int) -> bool:
    """Whether what a body gives has the shapes of what comes out, if it is a branch."""
    body, dims = flat.bodies[number - 1], shapes.dims
    if body.node.op_type != "If":
        return True
    node = graph.producer[body.owner]
    count = len(node.outputs)
    first = 1 if body.attribute.name == "then_branch" else 1 + count
    given = node.inputs[first : first + count]
    return all(dims.get(name) == dims.get(end) for name, end in zip(given, node.outputs, strict=True) if end)

# SPDX-License-Identifier: Apache-2.0
"""Nodes that depend on stored data and on sizes alone, where the file fixes all sizes: runtimes run them once.

What they make is known when a file is opened, and folded then. A product among them costs a run nothing, whether its
sizes are spelt as numbers or taken from the shape of an activation: pruning makes the first of the second.
"""

from __future__ import annotations

from graphprune.model.graph import Graph, subgraphs
from graphprune.model.sizes.batch_axes import Declared
from graphprune.model.values.bodies import DOMAIN
from graphprune.model.values.layers import is_layer
from graphprune.model.values.random_draws import draws
from graphprune.model.values.shapes import Shapes

__all__ = ["settled_layers"]


def settled_layers(graph: Graph, shapes: Shapes) -> frozenset[int]:
    """Return the indices of the layers that runtimes run when they open the file.

    Complexity: O(nodes); nothing where an input has an open size.
    """
    if any((declared := Declared.of(kind)) is None or declared.open for kind in graph.inputs.values()):
        return frozenset()
    flowing, settled = set(graph.inputs), list[int]()
    for node in graph.nodes:
        if node.op_type in ("Shape", "Size") and not node.domain and node.inputs[0] in shapes.dims:
            continue
        flows = node.domain == DOMAIN or draws(node, shapes.values) or any(True for _ in subgraphs(node.proto))
        if flows or not flowing.isdisjoint(node.inputs):
            flowing.update(filter(None, node.outputs))
        elif is_layer(node):
            settled.append(node.index)
    return frozenset(settled)

# SPDX-License-Identifier: Apache-2.0
"""What no figure contains: a budget is a share of what is counted, so it must be said what is not."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphprune.labels.scope import Scope
from graphprune.model.graph import Node, subgraphs
from graphprune.model.validity.survey import survey
from graphprune.model.values.layers import LAYERS, is_free, is_layer

__all__ = ["Uncounted", "find_uncounted"]


@dataclass(frozen=True)
class Uncounted:
    """A node whose work is in no figure.

    Attributes
    ----------
    node, op : str
        Name and operator.
    weights : int
        Elements of the constants that it reads, or that its bodies hold: the least that it multiplies with.
    known : bool
        Whether its shapes are known, and only a formula is missing.
    """

    node: str
    op: str
    weights: int
    known: bool


def find_uncounted(scope: Scope) -> tuple[Uncounted, ...]:
    """Return all nodes whose work is counted nowhere although it is no elementwise work, the largest first.

    These are layers whose shapes are not known before the model runs, layers inside bodies that cannot be laid
    out, and operators that nobody here knows.
    """
    counted = {cost.node.index for cost in scope.space.costs}
    found = [
        Uncounted(node.label, node.op_type, _weights(node, scope), _is_known(node, scope))
        for node in scope.graph.nodes
        if node.index not in counted and scope.turns[node.index] and not _is_constant(node, scope) and _works(node)
    ]
    return tuple(sorted(found, key=lambda item: -item.weights))


def _is_constant(node: Node, scope: Scope) -> bool:
    return any(name in scope.shapes.constant for name in node.outputs if name)


def _works(node: Node) -> bool:
    """Whether a node does more than elementwise work."""
    bodies = list(subgraphs(node.proto))
    if bodies:
        return any(inner.op_type in LAYERS or inner.domain for body in bodies for inner in survey(body).nodes)
    return is_layer(node) or not is_free(node)


def _is_known(node: Node, scope: Scope) -> bool:
    dims = scope.shapes.dims
    return all(name in dims for name in (*node.inputs, *node.outputs[:1]) if name)


def _weights(node: Node, scope: Scope) -> int:
    """Elements of the constants that a node reads, and of those in its bodies."""
    shapes = scope.shapes
    read = sum(prod(shapes.dims[name]) for name in set(node.inputs) if name in shapes.constant and name in shapes.dims)
    held = sum(prod(held.tensor.dims) for body in subgraphs(node.proto) for held in survey(body).tensors)
    return read + held

# SPDX-License-Identifier: Apache-2.0
"""Blocks: parts of a pruned network between two values that can be compared with those of the dense one.

A block ends where a single value is all that later nodes read of what came before, such as behind the addition of a
residual block, and holds at least two layers that pruning has reached. Where branches run side by side to the end of a
network, they are one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.data.walk import constant_nodes
from graphprune.recovery.sites import find_sites
from graphprune.verification.fidelity.expectation import Expectation, Masks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Graph, Node
    from graphprune.plan.schema import Plan
    from graphprune.recovery.editable_model import EditableModel

__all__ = ["Block", "find_blocks"]

_FEWEST_LAYERS = 2
_GATES = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "Tanh"})
"""A block goes on through these: what they make of a value is what counts of it."""


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive nodes.

    Attributes
    ----------
    nodes : tuple of Node
        Of the pruned graph.
    inputs : tuple of str
        Values that they read from elsewhere.
    outputs : tuple of str
        Values that both networks have, and at which they are compared.
    masks : tuple of tuple of ndarray of bool
        What is left of each of these in the dense network, by axis.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    masks: tuple[Masks, ...]


def find_blocks(editable: EditableModel, analysis: Analysis, plan: Plan) -> list[Block]:
    """Return the blocks of a pruned network that pruning has reached, in the order in which they run.

    Parameters
    ----------
    editable : EditableModel
        Of the pruned network.
    analysis : Analysis
        Of the dense one.
    plan : Plan
    """
    expectation = Expectation(analysis, plan)
    layers = {site.node.index for site in find_sites(editable, analysis, plan)}
    parts: list[tuple[list[Node], tuple[str, ...]]] = []
    pending: list[Node] = []
    for node, value in _bottlenecks(editable.graph):
        pending.append(node)
        if not value or not _comparable(editable, expectation, value):
            continue
        count = sum(own.index in layers for own in pending)
        if count >= _FEWEST_LAYERS:
            parts.append((pending, (value,)))
        if count >= _FEWEST_LAYERS or not count:
            pending = []
    if any(node.index in layers for node in pending):
        outputs = tuple(name for name in editable.graph.outputs if expectation.activation(name) is not None)
        parts.append((pending, outputs))
    blocks = []
    for nodes, outputs in parts:
        masks = [expectation.activation(name) for name in outputs]
        blocks.append(
            Block(tuple(nodes), _read_from_elsewhere(editable, nodes), outputs, tuple(own for own in masks if own))
        )
    return [block for block in blocks if block.outputs and len(block.masks) == len(block.outputs)]


def _bottlenecks(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that depend on what is fed, with the only value that is read behind each; empty for several."""
    constant = constant_nodes(graph)
    running = [node for node in graph.nodes if node.index not in constant]
    uses: dict[str, int] = dict.fromkeys(graph.outputs, len(running) + 1)
    for node in running:
        for name in _read(node):
            uses[name] = uses.get(name, 0) + 1
    live = {name for name in graph.inputs if uses.get(name)}
    for node in running:
        live.update(name for name in node.outputs if uses.get(name))
        for name in _read(node):
            uses[name] -= 1
            if not uses[name]:
                live.discard(name)
        yield node, next(iter(live)) if len(live) == 1 else ""


def _read(node: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (*node.inputs, *node.captured) if name))


def _comparable(editable: EditableModel, expectation: Expectation, value: str) -> bool:
    """Whether both networks have a value, and nothing but what it is read for comes behind it."""
    graph = editable.graph
    readers = graph.consumers.get(value, [])
    gated = bool(readers) and all(
        reader.op_type in _GATES or reader.op_type == "BatchNormalization" for reader, _ in readers
    )
    known = value in expectation.analysis.graph.producer and expectation.activation(value) is not None
    return known and value in graph.producer and not gated and value not in graph.outputs


def _read_from_elsewhere(editable: EditableModel, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return the values that some nodes read and do not make; weights are left out."""
    made = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(name for node in nodes for name in _read(node))
    return tuple(name for name in read if name not in made and name not in editable.constant)

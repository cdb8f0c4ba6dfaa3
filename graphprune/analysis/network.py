# SPDX-License-Identifier: Apache-2.0
"""The network of coupled groups, the tensors that they run through, and the nodes that couple them, for networkx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.checks import contained
from graphprune.labels.vector import Ints
from graphprune.model.graph import Node

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["group_graph", "savings"]

Vertex = tuple[str, str]


@contained
def group_graph(analysis: Analysis) -> nx.MultiGraph[Vertex]:
    """Return groups, tensors and nodes as one graph.

    A vertex is a pair of its kind and its key, and has the attribute `kind`, too:

    - ``("group", "g000")``: `name`, `size` in atoms, `channels` per atom, `exact`, and `flops`, the share of the
      model's that goes if this group alone shrinks to one atom;
    - ``("tensor", name)``: a stored tensor that is a member of some group, with its `shape`;
    - ``("value", name)``: an activation that carries channels of some group, with its `shape`;
    - ``("node", index in the graph)``: an operator that reads or makes one of these, with its `name` and `op`.

    An edge has the attribute `role`, and others beside it:

    - group to tensor, "out", "in" or "per_channel": `axis`, `channels`, `op`, `slot`, `node`, `masked`;
    - group to value, "carries": `axis`, `channels`;
    - group to node, "couples", where the node demands that channels go together: `channels`;
    - node to tensor or value, "reads" or "makes": `slot`.

    `channels` counts slices of the group along the axis. A tensor that has the same group on two axes has two edges.
    Complexity: O(labels on all activations + members).

    Parameters
    ----------
    analysis : Analysis
        Of the model.

    Returns
    -------
    networkx.MultiGraph
    """
    import networkx as nx

    graph: nx.MultiGraph[Vertex] = nx.MultiGraph(name=analysis.model.name)
    _add_groups(graph, analysis)
    _add_values(graph, analysis)
    _add_nodes(graph, analysis)
    _add_couplings(graph, analysis)
    return graph


def savings(analysis: Analysis) -> list[float]:
    """Return for each group the share of the FLOPs that go if it alone shrinks to one atom."""
    flops, sizes = analysis.cost.flops, analysis.cost.sizes
    total = flops(sizes)
    return [-flops.change(sizes, index, 1) / total if total else 0.0 for index in range(len(sizes))]


def _add_groups(graph: nx.MultiGraph[Vertex], analysis: Analysis) -> None:
    for group, saved in zip(analysis.groups, savings(analysis), strict=True):
        vertex = ("group", group.id)
        graph.add_node(
            vertex,
            kind="group",
            name=group.name,
            size=group.size,
            channels=group.channels,
            exact=group.exact,
            flops=saved,
        )
        for member in group.members:
            tensor = ("tensor", member.initializer)
            graph.add_node(tensor, kind="tensor", shape=analysis.shapes.dims[member.initializer])
            graph.add_edge(
                vertex,
                tensor,
                role=member.role,
                axis=member.axis,
                channels=len(member.positions),
                op=member.op,
                slot=member.slot,
                node=member.node,
                masked=member.masked,
            )


def _add_values(graph: nx.MultiGraph[Vertex], analysis: Analysis) -> None:
    for name, axes in analysis.scope.values.items():
        for axis, labels in enumerate(axes):
            for group, count in _owners(analysis, labels.base):
                value = ("value", name)
                graph.add_node(value, kind="value", shape=analysis.shapes.dims[name])
                channels = count * labels.repeat * labels.tile
                graph.add_edge(("group", group), value, role="carries", axis=axis, channels=channels)


def _owners(analysis: Analysis, labels: Ints) -> Iterator[tuple[str, int]]:
    """Yield the groups that labels belong to, with the number of labels of each."""
    atoms = analysis.grouping.atom_of[labels]
    owners, counts = np.unique(analysis.grouping.group_of[atoms[atoms >= 0]], return_counts=True)
    for owner, count in zip(owners.tolist(), counts.tolist(), strict=True):
        yield analysis.groups[owner].id, count


def _add_nodes(graph: nx.MultiGraph[Vertex], analysis: Analysis) -> None:
    """Join every node to the tensors and activations in the graph that it reads or makes."""
    trace = analysis.constants.trace
    constants = {(use.node.index, use.slot): trace(use.tensor).tensor for use in analysis.scope.space.uses}
    for node in analysis.graph.nodes:
        read = [(slot, constants.get((node.index, slot), name)) for slot, name in enumerate(node.inputs)]
        for role, slots in (("reads", read), ("makes", list(enumerate(node.outputs)))):
            for slot, name in slots:
                for vertex in (("tensor", name), ("value", name)):
                    if vertex in graph:
                        graph.add_edge(_add_node(graph, node), vertex, role=role, slot=slot)


def _add_node(graph: nx.MultiGraph[Vertex], node: Node) -> Vertex:
    vertex = ("node", str(node.index))
    graph.add_node(vertex, kind="node", name=node.label, op=node.op_type)
    return vertex


def _add_couplings(graph: nx.MultiGraph[Vertex], analysis: Analysis) -> None:
    """Join every group to the nodes that couple its channels: each coupling that holds, by the atoms it names."""
    for left, _, node in analysis.resolution.couplings:
        if isinstance(node, Node):
            for group, count in _owners(analysis, np.unique(left)):
                graph.add_edge(("group", group), _add_node(graph, node), role="couples", channels=count)

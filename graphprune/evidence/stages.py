# SPDX-License-Identifier: Apache-2.0
"""Stages: parts of a network between two changes of resolution.

The stage of a node is the largest number of changes of resolution on a way to it. A value without extent, such as a
vector of logits or what a global pooling gives, has no resolution, and changes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.data.walk import constant_nodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Graph

__all__ = ["group_stages", "node_stages"]

Extent = tuple[int, ...]


def node_stages(graph: Graph, dims: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """Return the stage of every node that depends on what is fed, by its index.

    Parameters
    ----------
    graph : Graph
    dims : mapping of str to sequence of int
        Shapes of values; one that is not known has no resolution.
    """
    constant = constant_nodes(graph)
    stage_of: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    extents: dict[str, Extent] = {name: _extent(dims.get(name, ())) for name in graph.inputs}
    stages: dict[int, int] = {}
    for node in graph.nodes:
        if node.index in constant:
            continue
        own = _extent(dims.get(node.outputs[0], ())) if node.outputs else ()
        read = [name for name in (*node.inputs, *node.captured) if name in stage_of]
        stage = max(
            (stage_of[name] + (bool(own and extents[name]) and own != extents[name]) for name in read), default=0
        )
        before = max((extents[name] for name in read), default=())
        stages[node.index] = stage
        for name in node.outputs:
            stage_of[name], extents[name] = stage, own or before
    return stages


def group_stages(analysis: Analysis, graph: Graph, stages: Mapping[int, int], known: Sequence[bool]) -> tuple[int, ...]:
    """Return the stage of each group whose layers all lie in one, -1 for the others.

    Parameters
    ----------
    graph : Graph
        The graph whose nodes `stages` is about.
    known : sequence of bool
        Per group, whether it is known what reads it.
    """
    output = {node.label: node.outputs[0] for node in analysis.graph.nodes if node.outputs}
    by_group = []
    for group, measurable in zip(analysis.groups, known, strict=True):
        names = {output.get(member.node, "") for member in group.members}
        makers = {graph.producer[name].index for name in names if name in graph.producer}
        own = {stages[index] for index in makers if index in stages}
        by_group.append(own.pop() if measurable and len(own) == 1 else -1)
    return tuple(by_group)


def _extent(dims: Sequence[int]) -> Extent:
    """Return the spatial sizes of a value, nothing where it has none to speak of."""
    sizes = tuple(int(size) for size in dims[2:])
    return sizes if any(size > 1 for size in sizes) else ()

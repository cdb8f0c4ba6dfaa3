# SPDX-License-Identifier: Apache-2.0
"""Consumers: the weights of the dense network that read a coupled group, and which of their columns each atom owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Ints
from graphprune.recovery.kernels import MOST_COLUMNS, Kernel, find_kernel

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group
    from graphprune.model.graph import Node
    from graphprune.recovery.editable_model import EditableModel

__all__ = ["Consumer", "find_consumers"]


@dataclass(frozen=True, eq=False)
class Consumer:
    """One node that sums over the channels of a group.

    Attributes
    ----------
    node : Node
        Of the dense graph.
    kernel : Kernel
        Its weights, of a single convolution group.
    columns : ndarray of int64, shape (atoms, m)
        The columns of the weight matrix that read each atom.
    """

    node: Node
    kernel: Kernel
    columns: Ints


def find_consumers(editable: EditableModel, analysis: Analysis) -> tuple[tuple[Consumer, ...] | None, ...]:
    """Return the consumers of every group; None for a group that something else sums over as well.

    A depthwise convolution is looked through: what reads its output decides.

    Parameters
    ----------
    editable : EditableModel
        Of the dense model.
    """
    by_output = {node.outputs[0]: node for node in editable.graph.nodes if node.outputs}
    kernels: dict[str, tuple[Node, Kernel]] = {}
    for node in analysis.graph.nodes:
        twin = by_output.get(node.outputs[0]) if node.outputs else None
        kernel = None if twin is None else find_kernel(editable, twin)
        if twin is not None and kernel is not None and kernel.view.groups == 1 and kernel.columns <= MOST_COLUMNS:
            kernels[node.label] = twin, kernel
    sums = _sums(analysis)
    by_group: list[tuple[Consumer, ...] | None] = []
    for number, group in enumerate(analysis.groups):
        consumers = _of_group(group, kernels)
        served = {consumer.node.outputs[0] for consumer in consumers}
        by_group.append(tuple(consumers) if consumers and sums.get(number, set()) <= served else None)
    return tuple(by_group)


def _sums(analysis: Analysis) -> dict[int, set[str]]:
    """Return the first outputs of the nodes that sum over each group, depthwise convolutions left out."""
    outputs: dict[int, set[str]] = {}
    for contraction in analysis.scope.space.contractions:
        node = contraction.node
        if node.op_type == "Conv" and node.attribute("group", 1) > 1 and _is_depthwise(analysis, node):
            continue
        atoms = analysis.grouping.atom_of[contraction.labels.base]
        for group in np.unique(analysis.grouping.group_of[atoms[atoms >= 0]]).tolist():
            outputs.setdefault(group, set()).add(node.outputs[0])
    return outputs


def _is_depthwise(analysis: Analysis, node: Node) -> bool:
    dims = analysis.shapes.dims.get(node.inputs[1], ())
    return len(dims) > 1 and dims[1] == 1


def _of_group(group: Group, kernels: dict[str, tuple[Node, Kernel]]) -> list[Consumer]:
    """Return the nodes with an input axis in the group."""
    consumers = []
    for member in group.members:
        if member.role != "in" or member.node not in kernels:
            continue
        node, kernel = kernels[member.node]
        if kernel.tensor != member.initializer:
            continue
        taps = kernel.columns // kernel.shape[1 if kernel.flip else 0]
        order = np.lexsort((member.positions, member.atoms))
        counts = np.bincount(member.atoms, minlength=group.size)
        if len(set(counts.tolist())) != 1:
            continue
        positions = member.positions[order].reshape(group.size, -1)
        columns = (positions[:, :, None] * taps + np.arange(taps)).reshape(group.size, -1)
        consumers.append(Consumer(node, kernel, columns.astype(np.int64)))
    return consumers

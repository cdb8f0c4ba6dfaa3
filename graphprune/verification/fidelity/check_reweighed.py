# SPDX-License-Identifier: Apache-2.0
"""The reweighted original differs from the original in the weights that the plan names, and in nothing else.

What a merge makes of a weight is recomputed here as a matrix product, apart from the code that did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats
from graphprune.errors import VerificationError, quote
from graphprune.model.files.inline_tensors import from_nodes
from graphprune.model.files.messages import differing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import GroupPlan, Plan

__all__ = ["check_reweighted"]


_ROUNDING = 4.0
"""Units in the last place by which two ways to add up may differ, per term."""


def check_reweighted(analysis: Analysis, reweighted: Analysis, plan: Plan) -> None:
    """Compare the reweighted original with the original.

    Parameters
    ----------
    analysis, reweighted : Analysis
        Of the original, and of the model that the surgery starts from.
    plan : Plan
        What is inherited.

    Raises
    ------
    VerificationError
        If anything differs that the plan does not name, or a weight is not what merging makes of it.

    Complexity: O(bytes of the weights that a group with merges or folded atoms touches); others are compared in place.
    """
    if analysis is reweighted:
        return
    merges = _merge_matrices(analysis, plan)
    readers = _folding_nodes(analysis, plan)
    before, after = analysis.graph.proto, reweighted.graph.proto
    fields = differing(before, after, "graph") + differing(before.graph, after.graph, "node", "initializer")
    if fields:
        _fail(f"the field {fields[0]}")
    new = _check_nodes(analysis, after, readers)
    given = {tensor.name: tensor for tensor in after.graph.initializer}
    for name, tensor in analysis.graph.initializers.items():
        if name not in given:
            _fail(f"the tensor {quote(name)} is gone")
        _check_tensor(analysis, reweighted, (name, tensor, given[name]), merges)
    if {tensor.name for tensor in after.graph.initializer} - set(analysis.graph.initializers) - new:
        _fail("a tensor is new, and nobody reads it")


def _merge_matrices(
    analysis: Analysis, plan: Plan
) -> dict[tuple[str, int], list[tuple[npt.NDArray[np.int64], Floats]]]:
    """Return for each axis of a tensor that may be edited the positions of a group on it, and how its slices mix.

    The matrix has the shape (positions, positions): new slice k is the sum over j of matrix[k, j] times slice j.
    """
    mixings: dict[tuple[str, int], list[tuple[npt.NDArray[np.int64], Floats]]] = {}
    for stored, group in zip(plan.groups, analysis.groups, strict=True):
        for member in group.members if stored.merged else ():
            if member.role == "in":
                order = np.lexsort((member.positions, member.atoms))
                times = len(order) // group.size
                mixing: Floats = np.kron(_mixing(stored), np.eye(times)).astype(np.float64)
                mixings.setdefault((member.initializer, member.axis), []).append((member.positions[order], mixing))
    return mixings


def _mixing(group: GroupPlan) -> Floats:
    matrix = np.eye(group.size)
    for merge in group.merged:
        matrix[merge.exemplar, merge.removed] = merge.scale
    return matrix


def _folding_nodes(analysis: Analysis, plan: Plan) -> set[int]:
    """Return the nodes that may read a new constant: readers of folded atoms, and sums right behind them."""
    grouping, nodes = analysis.grouping, set()
    folded = np.zeros(len(grouping.group_of) + 1, dtype=np.bool_)
    for start, group in zip(grouping.starts, plan.groups, strict=False):
        folded[int(start) + np.asarray(group.folded, dtype=np.int64)] = True
    for contraction in analysis.scope.space.contractions:
        if folded[grouping.atom_of[contraction.labels.base]].any():
            nodes.add(contraction.node.index)
            behind = analysis.graph.consumers.get(contraction.node.outputs[0], ())
            nodes.update(node.index for node, _ in behind if node.op_type == "Add")
    return nodes


def _check_nodes(analysis: Analysis, after: ModelProto, readers: set[int]) -> set[str]:
    """Compare the nodes; return the names of new tensors."""
    nodes = list(after.graph.node)
    new: set[str] = set()
    while len(nodes) > len(analysis.graph.nodes):
        constant = from_nodes(nodes[:2])
        if constant is None:
            _fail("a node is new")
        new.add(constant[0].name)
        nodes = nodes[constant[1] :]
    if len(nodes) != len(analysis.graph.nodes):
        _fail("the number of nodes")
    for node, proto in zip(analysis.graph.nodes, nodes, strict=True):
        new |= _check_node(node.proto, proto, may_read=node.index in readers)
    return new


def _check_node(before: NodeProto, after: NodeProto, *, may_read: bool) -> set[str]:
    """Compare one node; return the constants that it reads from now on."""
    if before == after:
        return set()
    label = quote(before.name or next(iter(before.output), ""))
    if before.op_type == "Constant" and not differing(before, after, "attribute"):
        return set()  # its tensor is compared with the others
    if differing(before, after, "input") or not may_read:
        _fail(f"the node {label}")
    pairs = [(before.input[slot] if slot < len(before.input) else "", name) for slot, name in enumerate(after.input)]
    return {name for old, name in pairs if old != name}


def _check_tensor(
    analysis: Analysis,
    reweighted: Analysis,
    tensors: tuple[str, TensorProto, TensorProto],
    merges: Mapping[tuple[str, int], list[tuple[npt.NDArray[np.int64], Floats]]],
) -> None:
    """Compare one stored tensor with what the merges make of it."""
    name, before, after = tensors
    axes = [axis for tensor, axis in merges if tensor == name]
    if before == after:
        return
    if not axes or list(before.dims) != list(after.dims) or before.data_type != after.data_type:
        _fail(f"the tensor {quote(name)}")
    original = analysis.model.tensors.array(before)
    merged = reweighted.model.tensors.array(after)
    (axis,) = axes
    expected = np.moveaxis(original.astype(np.float64), axis, 0)
    size = np.abs(expected)
    for positions, mixing in merges[name, axis]:
        expected[positions] = np.tensordot(mixing, expected[positions], 1)
        size[positions] = np.tensordot(np.abs(mixing), size[positions], 1)
    actual = np.moveaxis(merged.astype(np.float64), axis, 0)
    allowed = _ROUNDING * float(np.finfo(original.dtype).eps) * size
    if not bool((np.abs(actual - expected) <= allowed).all()):
        _fail(f"the tensor {quote(name)} is not what the merges make of it")


def _fail(text: str) -> NoReturn:
    raise VerificationError(
        f"the reweighted original differs from the original where the plan does not: {text}",
        hint="nothing was written; this is a fault of graphprune, please report it",
    )

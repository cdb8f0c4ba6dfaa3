# SPDX-License-Identifier: Apache-2.0
"""Labels of scales and zero points: they keep the slices of the values that they scale.

A weight may be stored in a small type, with nodes between it and its reader that turn it into real
numbers. Its labels belong to what is stored, and the scales on the way follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.labels.space import Axes, Role, Use
from graphprune.labels.vector import Labels, stay
from graphprune.model.scaling import PARAMETERS, Quantised, spans

if TYPE_CHECKING:
    from graphprune.labels.operator import Operator, Scope
    from graphprune.model.graph import Node

__all__ = ["follow_chain", "is_zero", "parameter_labels", "remember"]


def parameter_labels(op: Operator, node: Node, slot: int, data: Axes) -> Axes | None:
    """Labels of the scale or zero point of a scaling node over data with these labels; None where they stay.

    The slices of a block live and die together.
    """
    dims = op.scope.shapes.dims
    sizes = dims.get(node.inputs[slot])
    found = None if sizes is None else spans(node, [len(axis) for axis in data], sizes)
    if found is None or sizes is None:
        op.freeze(data, node.op_type, "does not divide this axis into equal blocks")
        return None
    result: list[Labels] = []
    for (axis, block), size in zip(found, sizes, strict=True):
        labels = data[axis] if block else stay(size)
        if block > 1 and labels.live:
            blocks = op.space.fresh(size)
            op.unite(labels, Labels(blocks.base, block))
            labels = blocks
        result.append(labels if labels.live else stay(size))
    return tuple(result) if any(labels.live for labels in result) else None


def follow_chain(op: Operator, name: str, axes: Axes) -> bool:
    """Let all scales between a stored tensor and the constant `name` keep the slices of its values.

    Returns
    -------
    bool
        Whether zeroing the stored values makes `name` zero.
    """
    maskable = True
    for node, places in op.scope.constants.scalings(name):
        sizes = op.scope.shapes.dims[node.inputs[0]]
        data = tuple(stay(size) if at is None else axes[at] for at, size in zip(places, sizes, strict=True))
        for slot in PARAMETERS:
            if slot >= len(node.inputs) or not node.inputs[slot]:
                continue
            labels = parameter_labels(op, node, slot, data)
            if labels is not None:
                roles: tuple[Role, ...] = tuple("per_channel" if axis.live else "" for axis in labels)
                use = Use(node, slot, node.inputs[slot], labels, roles, maskable=False, follows=True)
                op.space.uses.append(use)
        zero_point = node.inputs[2] if len(node.inputs) > 2 else ""
        maskable = maskable and is_zero(op.scope, zero_point)
        remember(op, node, node.inputs[0], node.inputs[1], zero_point)
    return maskable


def is_zero(scope: Scope, name: str) -> bool:
    """Whether a zero point is absent or known to be zero throughout."""
    value = scope.shapes.values.get(name) if name else np.zeros(())
    return value is not None and not np.asarray(value).astype(np.float32).any()


def remember(op: Operator, node: Node, name: str, scale: str, zero_point: str) -> None:
    """Note what a stored tensor stands for, so that its slices are weighed as real numbers."""
    constants, dims = op.scope.constants, op.scope.shapes.dims
    if constants.stored(name) is None or node.op_type == "QuantizeLinear":
        return
    given = [spans(node, dims[name], dims[item]) if item else () for item in (scale, zero_point)]
    if given[0] is not None and given[1] is not None:
        op.scope.quantised[name] = Quantised(scale, zero_point, given[0], given[1])

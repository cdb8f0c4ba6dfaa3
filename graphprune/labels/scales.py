# SPDX-License-Identifier: Apache-2.0
"""Labels of scales and zero points: they keep the slices of the values that they scale.

A weight may be stored in a small type, with nodes between it and its reader that turn it into real
numbers. Its labels belong to what is stored, and the scales on the way follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.labels.scope import Scope
from graphprune.labels.space import Axes, Reason, Role, Use
from graphprune.labels.vector import Labels, stay
from graphprune.model.values.scaling import PARAMETERS, Quantised, Span, spans

if TYPE_CHECKING:
    from graphprune.model.graph import Node

__all__ = ["Operand", "follow_chain", "follow_operand", "is_zero", "parameter_labels"]


@dataclass(frozen=True)
class Operand:
    """A quantised operand of an operator that works on integers.

    Attributes
    ----------
    slot : int
        Input with the data.
    scale, zero_point : int or None
        Inputs with its scale and zero point.
    axis : int or None
        The axis of a weight along which these may have an entry for each slice.
    """

    slot: int
    scale: int | None = None
    zero_point: int | None = None
    axis: int | None = None


def parameter_labels(scope: Scope, node: Node, slot: int, data: Axes) -> Axes | None:
    """Labels of the scale or zero point of a scaling node over data with these labels; None where they stay.

    The slices of a block live and die together.
    """
    dims = scope.shapes.dims
    sizes = dims.get(node.inputs[slot])
    found = None if sizes is None else spans(node, [len(axis) for axis in data], sizes)
    if found is None or sizes is None:
        _freeze(scope, node, data, "does not divide this axis into equal blocks")
        return None
    result: list[Labels] = []
    for (axis, block), size in zip(found, sizes, strict=True):
        labels = data[axis] if block else stay(size)
        if block > 1 and labels.live:
            blocks = scope.space.fresh(size)
            scope.space.unite(labels, Labels(blocks.base, block), node)
            labels = blocks
        result.append(labels if labels.live else stay(size))
    return tuple(result) if any(labels.live for labels in result) else None


def follow_chain(scope: Scope, name: str, axes: Axes) -> bool:
    """Let all scales between a stored tensor and the constant `name` keep the slices of its values.

    Returns
    -------
    bool
        Whether zeroing the stored values makes `name` zero.
    """
    maskable = True
    for node, places in scope.constants.scalings(name):
        sizes = scope.shapes.dims[node.inputs[0]]
        data = tuple(stay(size) if at is None else axes[at] for at, size in zip(places, sizes, strict=True))
        for slot in PARAMETERS:
            if slot >= len(node.inputs) or not node.inputs[slot]:
                continue
            labels = parameter_labels(scope, node, slot, data)
            if labels is not None:
                roles: tuple[Role, ...] = tuple("per_channel" if axis.live else "" for axis in labels)
                use = Use(node, slot, node.inputs[slot], labels, roles, maskable=False, follows=True)
                scope.space.uses.append(use)
        zero_point = node.inputs[2] if len(node.inputs) > 2 else ""
        maskable = maskable and is_zero(scope, zero_point)
        if node.op_type == "DequantizeLinear":
            scale, known = node.inputs[1], scope.shapes.dims
            found = [spans(node, sizes, known.get(item, ())) for item in (scale, zero_point)]
            _remember(scope, node.inputs[0], (scale, zero_point), found)
    return maskable


def follow_operand(scope: Scope, node: Node, operand: Operand, axes: Axes) -> bool:
    """Let scale and zero point of a weight of an integer operator keep its slices.

    Returns
    -------
    bool
        Whether zeroing the stored values makes the weight zero.
    """
    dims = scope.shapes.dims
    names = [
        node.inputs[slot] if slot is not None and slot < len(node.inputs) else ""
        for slot in (operand.scale, operand.zero_point)
    ]
    found: list[tuple[Span, ...] | None] = []
    for slot, name in zip((operand.scale, operand.zero_point), names, strict=True):
        sizes = dims.get(name, ())
        single = all(size == 1 for size in sizes)
        fits = operand.axis is not None and len(sizes) == 1 and sizes[0] == len(axes[operand.axis])
        if slot is None or single:
            found.append(tuple((0, 0) for _ in sizes))
        elif operand.axis is None or not fits or name not in scope.constants:
            _freeze(scope, node, axes, "has a scale that lies over its weight in an unknown way")
            return False
        else:
            labels = axes[operand.axis]
            found.append(((operand.axis % len(axes), 1),))
            if labels.live:
                scope.space.uses.append(Use(node, slot, name, (labels,), ("per_channel",), maskable=False))
    _remember(scope, node.inputs[operand.slot], (names[0], names[1]), found)
    return is_zero(scope, names[1])


def is_zero(scope: Scope, name: str) -> bool:
    """Whether a zero point is absent or known to be zero throughout."""
    value = scope.shapes.values.get(name) if name else np.zeros(())
    return value is not None and not np.asarray(value).astype(np.float32).any()


def _remember(scope: Scope, name: str, parameters: tuple[str, str], found: Sequence[tuple[Span, ...] | None]) -> None:
    """Note what a stored tensor stands for, so that its slices are weighed as real numbers."""
    scale, zero_point = found
    if scope.constants.stored(name) is not None and scale is not None and zero_point is not None:
        scope.quantised[name] = Quantised(*parameters, scale, zero_point)


def _freeze(scope: Scope, node: Node, axes: Axes, text: str) -> None:
    for labels in axes:
        scope.space.freeze(labels, Reason(node.op_type, node, text))

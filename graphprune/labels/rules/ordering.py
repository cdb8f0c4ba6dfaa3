# SPDX-License-Identifier: Apache-2.0
"""Operators along one or two axes that put elements in another order, pick some, or number them: those axes stay."""

from __future__ import annotations

from collections.abc import Iterable

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import stay


@rule("CumProd")
def cumulative_product(op: Operator) -> None:
    """A product along `axis` sees all earlier elements."""
    axis = op.ints(1)
    _whole_along(op, range(len(op.shape(0))) if axis is None else axis)


@rule("Trilu")
def trilu(op: Operator) -> None:
    """A triangle is cut out of the last two axes."""
    _whole_along(op, (-2, -1))


@rule("ReverseSequence")
def reverse_sequence(op: Operator) -> None:
    """Elements along `time_axis` change places, for each slice of `batch_axis` on its own."""
    x = op.labels(0)
    op.tie(1, (x[op.node.attribute("batch_axis", 1)],), maskable=False)
    _whole_along(op, [op.node.attribute("time_axis", 0)])


@rule("TopK")
def top_k(op: Operator) -> None:
    """Values and indices along `axis` are those of the largest elements."""
    axis = op.node.attribute("axis", -1)
    op.freeze(op.labels(0)[axis], "TopK", "is sorted along this axis")
    for slot, name in enumerate(op.node.outputs):
        if name and name in op.scope.shapes.dims:
            axes = list(op.labels(0))
            axes[axis] = stay(op.out_shape(slot)[axis])
            op.set(slot, axes)


@rule("OneHot")
def one_hot(op: Operator) -> None:
    """Every element becomes a new axis, which counts."""
    y = list(op.labels(0))
    axis = op.node.attribute("axis", -1) % (len(y) + 1)
    y.insert(axis, stay(op.out_shape()[axis]))
    op.set(0, y)


@rule("CenterCropPad")
def center_crop_pad(op: Operator) -> None:
    """Axes that are cropped or padded stay."""
    given = op.node.attribute("axes")
    _whole_along(op, range(len(op.shape(0))) if given is None else given)


def _whole_along(op: Operator, axes: Iterable[int]) -> None:
    """Freeze these axes and pass the others."""
    y = list(op.labels(0))
    for axis in axes:
        op.freeze(y[axis], op.node.op_type, "elements along this axis change places or are combined")
        y[axis] = stay(op.out_shape()[axis])
    op.set(0, y)

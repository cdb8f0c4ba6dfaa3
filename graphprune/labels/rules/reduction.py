# SPDX-License-Identifier: Apache-2.0
"""Reductions: a sum over channels is a contraction, a mean needs one factor, all others freeze."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import stay

_SUMS = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")


@rule("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare")
@rule("ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd")
def reduce(op: Operator) -> None:
    """A removed slice adds nothing to a sum of (absolute or squared) values, so reduced axes may shrink.

    A mean over the kept slices is kept / total of what the masked original computes; the
    surgery inserts that factor. For maxima, products and logarithms a zero is not neutral.
    """
    x = op.labels(0)
    axes = op.ints(1, "axes")
    if axes is None and op.has(1):
        op.barrier(op.node.op_type, "its axes are computed while the model runs")
        return
    if not axes:
        axes = [] if op.node.attribute("noop_with_empty_axes", 0) else list(range(len(x)))
    reduced = {axis % len(x) for axis in axes}
    for axis in reduced:
        if op.node.op_type in _SUMS or op.node.op_type == "ReduceMean":
            op.contract(0, axis, mean=op.node.op_type == "ReduceMean")
        else:
            op.freeze(x[axis], op.node.op_type, "is taken over this axis")
    _set_reduced(op, reduced, op.node.attribute("keepdims", 1))


@rule("ArgMax", "ArgMin")
def arg_reduce(op: Operator) -> None:
    """The result counts along `axis`, which therefore stays whole."""
    x = op.labels(0)
    axis = op.node.attribute("axis", 0) % len(x)
    op.freeze(x[axis], op.node.op_type, "counts along this axis")
    _set_reduced(op, {axis}, op.node.attribute("keepdims", 1))


def _set_reduced(op: Operator, reduced: set[int], keepdims: int) -> None:
    x = op.labels(0)
    if keepdims:
        op.set(0, (stay(1) if axis in reduced else vector for axis, vector in enumerate(x)))
    else:
        op.set(0, (vector for axis, vector in enumerate(x) if axis not in reduced))

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
        if op.node.op_type in _SUMS:
            op.contract(0, axis)
        elif op.node.op_type == "ReduceMean":
            _mean(op, axis)
        else:
            op.freeze(x[axis], op.node.op_type, "is taken over this axis")
    _set_reduced(op, reduced, op.node.attribute("keepdims", 1))


def _mean(op: Operator, axis: int) -> None:
    """Contract a mean, unless it is the statistic of a normalisation that is spelt out."""
    labels = op.labels(0)[axis]
    if not labels.live or not normalises(op):
        op.contract(0, axis, mean="masked")
    elif op.scope.approximate:
        op.contract(0, axis, mean="kept")
        op.space.approximate.append(labels.base)
    else:
        op.freeze(labels, "LayerNormalization", "statistics of a normalisation run over this axis")


def normalises(op: Operator) -> bool:
    """Whether the mean is taken off the very values it is the mean of, or divides those it squares.

    These are the two statistics of a layer normalisation (and the one of an RMS normalisation)
    written in single operators.
    """
    graph, source = op.scope.graph, op.node.inputs[0]
    if any(node.op_type == "Sub" and source in node.inputs for node, _ in graph.consumers.get(op.node.outputs[0], ())):
        return True
    square = graph.producer.get(source)
    if square is None or square.op_type not in ("Mul", "Pow"):
        return False
    if square.op_type == "Mul" and len(set(square.inputs)) > 1:
        return False
    return _scales(op, square.inputs[0])


def _scales(op: Operator, origin: str) -> bool:
    """Whether the result, after a few scalar operators, divides or multiplies `origin`."""
    graph = op.scope.graph
    pending, depth = [op.node.outputs[0]], 0
    while pending and depth < _LONGEST_STATISTIC:
        depth += 1
        readers = [node for name in pending for node, _ in graph.consumers.get(name, ())]
        if any(node.op_type in ("Div", "Mul") and origin in node.inputs for node in readers):
            return True
        pending = [node.outputs[0] for node in readers if node.op_type in _STATISTIC]
    return False


_LONGEST_STATISTIC = 6
_STATISTIC = frozenset({"Add", "Cast", "Clip", "Div", "Max", "Pow", "Reciprocal", "Sqrt"})


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

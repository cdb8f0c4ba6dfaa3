# SPDX-License-Identifier: Apache-2.0
"""Operators that treat every element on its own, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Axes
from graphprune.labels.vector import Labels, stay

UNARY = (
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitCast",
        "BitwiseNot",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
    ),
    *("Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
BROADCASTING = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum"),
    *("SwiGLU", "Where", "Xor"),
)
_NOT_MASKABLE = {("Div", 1), ("Mod", 1), ("Pow", 1), ("Where", 0)}
"""Operands that must not become zero: divisors and exponents, and conditions."""


@rule(*UNARY)
def unary(op: Operator) -> None:
    """Every output (a `Dropout` mask too) has the labels of the first input; the others are scalars."""
    for slot, name in enumerate(op.node.outputs):
        if name in op.scope.shapes.dims:
            op.set(slot, op.labels(0))


@rule(*BROADCASTING)
def broadcasting(op: Operator) -> None:
    """Aligned axes of all operands keep the same slices; an axis of length 1 is never united with a longer one.

    A constant operand follows, for this use alone: exporters share small constants between
    layers, and sharing one must not couple them.
    """
    slots = [slot for slot in range(len(op.inputs)) if op.has(slot)]
    shape = op.out_shape()
    if any(np.broadcast_shapes(op.shape(slot), shape) != shape for slot in slots):
        raise ValueError(
            "an operand is larger than the result"
        )  # a slope of PRelu that onnxruntime spreads its input over
    y = broadcast(
        op, [op.labels(slot) for slot in slots if not op.is_constant(slot)], shape, constants=_widest(op, slots, shape)
    )
    for slot in slots:
        if op.is_constant(slot):
            op.tie(slot, tail(y, op.shape(slot)), maskable=(op.node.op_type, slot) not in _NOT_MASKABLE)
        else:
            keep_where_spread(op, slot, y)
    op.set(0, y)


def keep_where_spread(op: Operator, slot: int, result: Axes) -> None:
    """Keep axes of a result along which an operand is spread only because an open dimension of it is 1 just now."""
    shape = op.shape(slot)
    if 1 not in shape:
        return
    aligned = result[len(result) - len(shape) :]
    spread = [axis for axis, size in enumerate(shape) if size == 1 != len(aligned[axis]) and aligned[axis].live]
    varies = op.scope.varies(op.inputs[slot]) if spread else ()
    op.freeze((aligned[axis] for axis in spread if varies[axis]), op.node.op_type, "meets an axis of open size")


def tail(axes: Axes, shape: Sequence[int]) -> Axes:
    """Return what an operand of the given, broadcastable shape sees of `axes`."""
    own = axes[len(axes) - len(shape) :]
    return tuple(stay(1) if size == 1 else axis for axis, size in zip(own, shape, strict=True))


def _widest(op: Operator, slots: Sequence[int], shape: tuple[int, ...]) -> list[bool]:
    """For each output axis, whether some constant operand spans it."""
    spans = [False] * len(shape)
    for slot in slots:
        if op.is_constant(slot):
            own = op.shape(slot)
            for axis, size in enumerate(own, start=len(shape) - len(own)):
                spans[axis] = spans[axis] or size != 1
    return spans


def broadcast(op: Operator, operands: Sequence[Axes], shape: Sequence[int], constants: Sequence[bool] = ()) -> Axes:
    """Unite the aligned axes of activations and return the labels of the result.

    Parameters
    ----------
    operands : sequence of tuple of Labels
        Labels of each activation operand, aligned at the last axis.
    shape : sequence of int
        Shape of the result.
    constants : sequence of bool
        Axes that a constant spans: where no activation does, the result gets labels of its own.
    """
    result: list[Labels] = []
    for axis, size in enumerate(shape):
        spanning = [
            operand[axis - len(shape)]
            for operand in operands
            if len(operand) >= len(shape) - axis and len(operand[axis - len(shape)]) == size != 1
        ]
        if spanning:
            for other in spanning[1:]:
                op.unite(spanning[0], other)
            result.append(next((vector for vector in spanning if not vector.live), spanning[0]))
        else:
            result.append(op.space.fresh(size) if constants and constants[axis] else stay(size))
    return tuple(result)

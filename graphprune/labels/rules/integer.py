# SPDX-License-Identifier: Apache-2.0
"""Operators on integers that stand for real numbers: the rules of their float forms, seen through the operands.

An integer q with scale s and zero point z stands for (q - z) s, so a masked slice holds the zero point, and scales
or zero points that a weight has for each of its slices are sliced with it. Scales of activations are one number.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import Rule, rule
from graphprune.labels.rules.convolution import adapt_group, conv
from graphprune.labels.rules.elementwise import broadcasting, unary
from graphprune.labels.rules.joining import concat
from graphprune.labels.rules.linear import gemm, matmul
from graphprune.labels.rules.normalization import along_axis
from graphprune.labels.rules.pooling import global_pool, pool
from graphprune.labels.scales import Operand
from graphprune.model.inference.contributed import MICROSOFT


def _as_float(op: Operator, form: Rule, operands: Sequence[Operand], result: Sequence[int] = ()) -> None:
    """Apply the rule of the float operator, where scales and zero points concern no axis but a weight's own."""
    loose = [slot for item in operands if item.axis is None for slot in (item.scale, item.zero_point)]
    for slot in (*loose, *result):
        if slot is not None and op.has(slot) and any(size != 1 for size in op.shape(slot)):
            op.barrier("quantisation", "has scales or zero points for single slices of an activation")
            return
    form(op.seen_as(operands, channels_last=bool(op.node.attribute("channels_last", 0))))


@rule("QLinearConv")
@rule("QLinearConv", domain=MICROSOFT)
def qlinear_conv(op: Operator) -> None:
    """A `Conv` of real numbers whose result is quantised; weights may have a scale for each filter."""
    _as_float(op, conv, (Operand(0, 1, 2), Operand(3, 4, 5, axis=0), Operand(8)), result=(6, 7))


@rule("ConvInteger")
def conv_integer(op: Operator) -> None:
    """A `Conv` of integers less their zero points."""
    _as_float(op, conv, (Operand(0, None, 2), Operand(1, None, 3, axis=0)))


@adapter("QLinearConv", attributes=("group",))
@adapter("QLinearConv", attributes=("group",), domain=MICROSOFT)
def adapt_qlinear_conv(op: Pruned) -> Edits:
    """As `Conv`."""
    channels = op.kept(0)[-1 if op.node.attribute("channels_last", 0) else 1]
    return adapt_group(op, int(channels.sum()) // int(op.kept(3)[1].sum()))


@adapter("ConvInteger", attributes=("group",))
def adapt_conv_integer(op: Pruned) -> Edits:
    """As `Conv`."""
    return adapt_group(op, int(op.kept(0)[1].sum()) // int(op.kept(1)[1].sum()))


@rule("QLinearMatMul")
def qlinear_matmul(op: Operator) -> None:
    """A `MatMul` of real numbers whose result is quantised; the second operand may have a scale for each column."""
    _as_float(op, matmul, (Operand(0, 1, 2), Operand(3, 4, 5, axis=-1)), result=(6, 7))


@rule("MatMulInteger")
def matmul_integer(op: Operator) -> None:
    """A `MatMul` of integers less their zero points."""
    _as_float(op, matmul, (Operand(0, None, 2), Operand(1, None, 3, axis=-1)))


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_matmul(op: Operator) -> None:
    """A `MatMul` whose first operand is quantised on the way, by a range that includes zero: masked slices leave it."""
    _as_float(op, matmul, (Operand(0), Operand(1, 2, 3, axis=-1)))
    for axis in range(len(op.shape(0)) - 1):
        op.contract(0, axis)  # a row that is gone takes part in the range no more
    _add_bias(op, 4)


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_to_float(op: Operator) -> None:
    """As `MatMulInteger`, with scales."""
    _as_float(op, matmul, (Operand(0, 2, 4), Operand(1, 3, 5, axis=-1)))
    _add_bias(op, 6)


def _add_bias(op: Operator, slot: int) -> None:
    """A bias along the last axis follows."""
    if op.has(slot):
        op.tie(slot, op.outputs[0][-1:])


@rule("QGemm", domain=MICROSOFT)
def qgemm(op: Operator) -> None:
    """A `Gemm` of real numbers whose result may be quantised."""
    columns = 0 if op.node.attribute("transB", 0) else 1
    _as_float(op, gemm, (Operand(0, 1, 2), Operand(3, 4, 5, axis=columns), Operand(6)), result=(7, 8))


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_broadcasting(op: Operator) -> None:
    """As `Add` and `Mul` of real numbers."""
    _as_float(op, broadcasting, (Operand(0, 1, 2), Operand(3, 4, 5)), result=(6, 7))


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def qlinear_unary(op: Operator) -> None:
    """As the float form, element by element."""
    _as_float(op, unary, (Operand(0, 1, 2),), result=(3, 4))


@rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(op: Operator) -> None:
    """As `Softmax`, of the operator set that the node names."""
    _as_float(op, _softmax, (Operand(0, 1, 2),), result=(3, 4))


def _softmax(op: Operator) -> None:
    op.version = int(op.node.attribute("opset", 1))
    along_axis(op)


@rule("QLinearAveragePool", domain=MICROSOFT)
def qlinear_pool(op: Operator) -> None:
    """As `AveragePool`."""
    _as_float(op, pool, (Operand(0, 1, 2),), result=(3, 4))


@rule("NhwcMaxPool", domain=MICROSOFT)
def channels_last_pool(op: Operator) -> None:
    """As `MaxPool`, whose channels come last here."""
    pool(op.seen_as((Operand(0),), channels_last=True))


@rule("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_pool(op: Operator) -> None:
    """As `GlobalAveragePool`."""
    _as_float(op, global_pool, (Operand(0, 1, 2),), result=(3, 4))


@rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(op: Operator) -> None:
    """As `Concat`: scale and zero point of the result come first, then each operand with its own."""
    operands = [Operand(slot, slot + 1, slot + 2) for slot in range(2, len(op.node.inputs), 3)]
    _as_float(op, concat, operands, result=(0, 1))

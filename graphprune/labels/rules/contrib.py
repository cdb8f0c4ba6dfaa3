# SPDX-License-Identifier: Apache-2.0
"""Operators of onnxruntime's own domain that its optimiser makes of those of ONNX, one or several at a time.

Most are an operator of ONNX followed by something elementwise: what ties their axes is the same.
"""

from __future__ import annotations

from graphprune.labels.adapt import adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.convolution import adapt_conv, conv
from graphprune.labels.rules.elementwise import broadcast, tail, unary
from graphprune.labels.rules.linear import gemm, multiply
from graphprune.labels.vector import stay
from graphprune.model.contributed import MICROSOFT

rule("Gelu", "QuickGelu", domain=MICROSOFT)(unary)
rule("FusedGemm", domain=MICROSOFT)(gemm)


@rule("BiasGelu", "FastGelu", domain=MICROSOFT)
def biased(op: Operator) -> None:
    """A bias along the last axis, then the activation."""
    x = op.labels(0)
    if op.has(1):
        op.tie(1, x[-1:])
    op.set(0, x)


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(op: Operator) -> None:
    """A `Conv` to which another feature map is added, then an activation."""
    conv(op)
    if op.has(3):
        op.tie(3, op.outputs[0])


adapter("FusedConv", attributes=("group",), domain=MICROSOFT)(adapt_conv)


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(op: Operator) -> None:
    """A `MatMul` of operands that may be transposed, times a number."""
    turns = [bool(op.node.attribute(name, 0)) for name in ("transA", "transB", "transBatchA", "transBatchB")]
    if any(turns[2:]):
        op.barrier("FusedMatMul", "moves batch axes: prune the model before optimising it")
        return
    multiply(op, transposed=(turns[0], turns[1]))


_SKIP_SLOTS = {"SkipLayerNormalization": (2, 3, 4), "SkipSimplifiedLayerNormalization": (2, 3)}
"""Inputs with the scale, the shift of the first, and the bias that is added before."""


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(op: Operator) -> None:
    """Add two activations and perhaps a bias, which is output 3 as well, and normalise over the last axis."""
    x = list(broadcast(op, [op.labels(slot) for slot in (0, 1) if not op.is_constant(slot)], op.out_shape()))
    for slot in (0, 1):
        if op.is_constant(slot):
            op.tie(slot, tail(tuple(x), op.shape(slot)))
    if op.scope.approximate and not any(op.node.outputs[1:3]):
        op.renormalise(len(x) - 1)
    else:
        op.freeze(x[-1], op.node.op_type, "statistics run over this axis")
        x[-1] = stay(len(x[-1]))
    for vector in _SKIP_SLOTS[op.node.op_type]:
        if op.has(vector):
            op.tie(vector, (x[-1],))
    op.set(0, x)
    if len(op.node.outputs) > 3 and op.node.outputs[3]:
        op.set(3, x)

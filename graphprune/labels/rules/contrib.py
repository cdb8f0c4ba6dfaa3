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
from graphprune.labels.rules.heads import each_label
from graphprune.labels.rules.linear import gemm, multiply
from graphprune.labels.vector import stay
from graphprune.model.inference.contributed import MICROSOFT

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


@rule("MoE", domain=MICROSOFT)
def mixture_of_experts(op: Operator) -> None:
    """Each row goes through some of the experts: two products with an activation between them.

    All experts lose the same hidden units. What comes out is as wide as what goes in, so both lose the same channels. A
    gate whose units alternate with those that it scales is followed; one with weights of its own has no kernel that
    could prove anything on a CPU.
    """
    fusion = op.node.attribute("swiglu_fusion", 0)
    gated = op.node.attribute("activation_type", "relu") == "swiglu"
    if op.has(6) or fusion > 1 or (gated and not fusion):
        op.barrier("MoE", "has gates with weights of their own: prune the model before fusing its experts")
        return
    x, chosen = op.labels(0), op.labels(1)
    up, down = op.operand(2, ("", "out", "in")), op.operand(4, ("", "out", "in"))
    op.freeze((*x[:-1], *chosen, up[0], down[0]), "MoE", "says which rows go through which experts")
    hidden = down[2]
    op.unite(up[1], each_label(hidden, 2 if gated else 1))
    op.unite(x[-1], up[2])
    op.unite(x[-1], down[1])
    op.contract(0, len(x) - 1)
    op.contract(2, 2)
    op.contract(4, 2)
    if op.is_constant(4):
        op.contract_weight(4, 2, hidden)
    experts = stay(len(up[0]))
    for slot, made in ((3, up[1]), (5, down[1])):
        if op.has(slot):
            op.tie(slot, (experts, made))
    rows = tuple(stay(len(vector)) for vector in x[:-1])
    times = int(op.node.attribute("k", 1))
    op.cost(rows, x[-1], up[1], times)
    op.cost(rows, hidden, down[1], times)
    op.set(0, (*rows, down[1]))


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

# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of layers that stay whole: a layer that no rule can make smaller takes its time all the same.

A budget is a share of everything that the network computes, so what is frozen counts as well. Here every
operator of `graphprune.model.values.layers` has a formula over the shapes of its inputs and outputs, which is used
where its rule stated none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log2, prod

from graphprune.labels.operator import Operator, UnknownShapeError
from graphprune.labels.vector import stay
from graphprune.model.inference.contributed import BLOCKED, MICROSOFT
from graphprune.model.values.layers import is_layer

__all__ = ["count_whole", "formulas"]

Formula = Callable[[Operator], int]
"""Multiply-adds of one node as it stands, for one run of the model."""


def count_whole(op: Operator) -> None:
    """State what a node costs if its rule did not, as far as shapes are known."""
    formula = _FORMULAS.get((op.node.domain, op.node.op_type))
    costs = op.space.costs
    if formula is None or not is_layer(op.node) or (costs and costs[-1].node is op.node):
        return
    try:
        amount = formula(op)
        outer = op.out_shape()[-1:] or (1,)
    except (UnknownShapeError, IndexError, TypeError, ZeroDivisionError):
        return  # said to be uncounted (`analysis.uncounted`)
    if amount:
        # A count is no multiple of a channel axis that the layer has; what it makes is shown as its width.
        op.cost_whole(amount, stay(outer[0]))


def formulas() -> frozenset[tuple[str, str]]:
    """Return domain and operator of every formula."""
    return frozenset(_FORMULAS)


def _product(first: int = 0, second: int = 1) -> Formula:
    """``rows x inner x columns`` of a matrix product, whichever operand is transposed."""

    def count(op: Operator) -> int:
        a, b = op.shape(first), op.shape(second)
        transposed = bool(op.node.attribute("transA", 0)) and len(a) > 1
        inner = a[0 if op.node.attribute("transBatchA", 0) else -2] if transposed else a[-1]
        return prod(op.out_shape()) * inner if b else 0

    return count


def _convolution(weight: int = 1) -> Formula:
    """Every element of the output sums up one kernel over the inputs of its group."""
    return lambda op: prod(op.out_shape()) * prod(op.shape(weight)[1:])


def _transposed_convolution(op: Operator) -> int:
    return prod(op.shape(0)) * prod(op.shape(1)[1:])


def _packed(op: Operator) -> int:
    """Count a product with weights of which several share a byte: attributes say how many there are."""
    return prod(op.out_shape()[:-1]) * int(op.node.attribute("N")) * int(op.node.attribute("K"))


def _attend(batch: int, heads: int, steps: int, seen: int, sizes: int) -> int:
    """Scores and the weighted sum of values, for `sizes` elements of a key and a value together."""
    return batch * heads * steps * seen * sizes


def _widths(op: Operator, packed: int) -> tuple[int, int, int]:
    """Widths of queries, keys and values that come out of one product."""
    q, k, v = op.node.attribute("qkv_hidden_sizes") or [packed // 3] * 3
    return int(q), int(k), int(v)


def _own_attention(op: Operator) -> int:
    """`com.microsoft` `Attention`: the product that gives Q, K and V, then attention."""
    batch, steps, inner = op.shape(0)
    packed, heads = op.shape(1)[1], int(op.node.attribute("num_heads"))
    q, _, v = _widths(op, packed)
    slot = 8 if op.node.op_type == "QAttention" else 4
    past = op.shape(slot)[3] if op.has(slot) else 0
    return batch * steps * inner * packed + _attend(batch, heads, steps, past + steps, (q + v) // heads)


def _multi_head(op: Operator) -> int:
    """Q, K and V given: `present` or the keys say how many steps are seen, the output how large values are."""
    heads, (batch, steps, width) = int(op.node.attribute("num_heads")), op.out_shape()
    grouped = op.node.op_type == "GroupQueryAttention"
    key, past = (1, 3) if grouped else (1, 6)
    seen = op.shape(past)[2] if op.has(past) else 0
    keys = op.shape(key) if op.has(key) else op.shape(0)
    seen += keys[2] if len(keys) == 4 else keys[1]
    q = width if grouped or len(op.shape(0)) == 5 else op.shape(0)[2]
    return _attend(batch, heads, steps, seen, (q + width) // heads)


def _packed_attention(op: Operator) -> int:
    """Tokens of all sequences one after the other; each is taken to see as many as there are."""
    tokens, inner = op.shape(0)
    packed = op.shape(1)[1]
    q, _, v = _widths(op, packed)
    return tokens * inner * packed + tokens * tokens * (q + v)


def _packed_multi_head(op: Operator) -> int:
    tokens, width = op.out_shape()
    return tokens * tokens * (op.shape(0)[1] if len(op.shape(0)) == 2 else width) + tokens * tokens * width


def _experts(op: Operator) -> int:
    """Every row goes through `k` of the experts: two products, or three where there is a gate."""
    rows, hidden = prod(op.shape(0)[:-1]), op.shape(0)[-1]
    quantised = op.node.op_type == "QMoE"
    first, second, third = (2, 5, 8) if quantised else (2, 4, 6)
    packing = 8 // int(op.node.attribute("expert_weight_bits", 4)) if quantised else 1
    inner = op.shape(second)[2] * packing
    each = op.shape(first)[1] * hidden + hidden * inner
    each += op.shape(third)[1] * hidden if op.has(third) else 0
    return rows * int(op.node.attribute("k", 1)) * each


def _dynamic_lstm(op: Operator) -> int:
    """Weights are stored as (directions, inputs, 4 * units)."""
    directions, _, rows = op.shape(2)
    units, (steps, batch, inputs) = int(op.node.attribute("hidden_size")), op.shape(0)
    return directions * steps * batch * rows * (inputs + units)


def _linear_attention(op: Operator) -> int:
    """Every step adds an outer product to a state of (key, value) per head, and multiplies the queries with it.

    The delta rules multiply the state with the key once more.
    """
    batch, steps, _ = op.shape(0)
    many, few = int(op.node.attribute("q_num_heads")), int(op.node.attribute("kv_num_heads"))
    key, value = op.shape(1)[2] // few, op.shape(2)[2] // few
    rule = op.node.attribute("update_rule", "gated_delta")
    updates = 2 if str(rule if isinstance(rule, str) else rule.decode()).endswith("delta") else 1
    return batch * steps * key * value * (many + updates * few)


def _fourier(length: int) -> int:
    """Half of the usual ``5 n log2 n`` operations of a fast transform of complex numbers (Cooley and Tukey, 1965)."""
    return ceil(2.5 * length * log2(length)) if length > 1 else 0


def _dft(op: Operator) -> int:
    shape, axes = op.shape(0), op.ints(2, "axis")
    axis = (axes[0] if axes else op.node.attribute("axis", 1 if op.version < 20 else -2)) % len(shape)
    given = op.ints(1)
    length = given[0] if given else shape[axis]
    return prod(size for at, size in enumerate(shape[:-1]) if at != axis) * _fourier(length)


def _stft(op: Operator) -> int:
    lengths = op.ints(3)
    length = lengths[0] if lengths else op.shape(2)[0]
    batch, frames = op.out_shape()[:2]
    return batch * frames * (_fourier(length) + length)


def _determinant(op: Operator) -> int:
    """Count a third of the cube: elimination."""
    shape = op.shape(0)
    return prod(shape[:-2]) * ceil(shape[-1] ** 3 / 3)


def _causal(op: Operator) -> int:
    return prod(op.shape(0)) * op.shape(1)[2]


_FORMULAS: Mapping[tuple[str, str], Formula] = {
    ("", "Conv"): _convolution(),
    ("", "ConvInteger"): _convolution(),
    ("", "ConvTranspose"): _transposed_convolution,
    ("", "DFT"): _dft,
    ("", "DeformConv"): _convolution(),
    ("", "Det"): _determinant,
    ("", "Gemm"): _product(),
    ("", "LinearAttention"): _linear_attention,
    ("", "MatMul"): _product(),
    ("", "MatMulInteger"): _product(),
    ("", "QLinearConv"): _convolution(3),
    ("", "QLinearMatMul"): _product(0, 3),
    ("", "STFT"): _stft,
    **{(MICROSOFT, name): _convolution() for name in ("FusedConv", "NhwcConv", "NhwcFusedConv")},
    **{
        (MICROSOFT, name): _product()
        for name in (
            *("DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "FusedMatMulActivation", "GemmFastGelu"),
            *("GemmFloat8", "MatMulInteger16", "MatMulIntegerToFloat", "TransposeMatMul"),
        )
    },
    **{(MICROSOFT, name): _packed for name in ("MatMulBnb4", "MatMulFpQ4", "MatMulNBits")},
    **{(MICROSOFT, name): _own_attention for name in ("Attention", "DecoderMaskedSelfAttention", "QAttention")},
    **{
        (MICROSOFT, name): _multi_head
        for name in ("DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention")
    },
    **{(MICROSOFT, name): _experts for name in ("MoE", "QMoE")},
    (BLOCKED, "Conv"): _convolution(),
    (MICROSOFT, "CausalConvWithState"): _causal,
    (MICROSOFT, "ConvTransposeWithDynamicPads"): _transposed_convolution,
    (MICROSOFT, "DynamicQuantizeLSTM"): _dynamic_lstm,
    (MICROSOFT, "PackedAttention"): _packed_attention,
    (MICROSOFT, "PackedMultiHeadAttention"): _packed_multi_head,
    (MICROSOFT, "QGemm"): _product(0, 3),
    (MICROSOFT, "QLinearConv"): _convolution(3),
}

# SPDX-License-Identifier: Apache-2.0
"""Operands of recurrent and attention layers, and windows, that do not fit: beyond weights of the wrong size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.misfits.reads import Reads, Rule, first_of

__all__ = ["LAYER_RULES"]


def _recurrent(peepholes: bool = False) -> Rule:
    """Hold lengths and states against batch and units."""

    def rule(reads: Reads) -> str | None:
        dims, recurrence, node = reads.dims(0), reads.dims(2), reads.node
        if dims is None or len(dims) != 3 or recurrence is None or len(recurrence) != 3:
            return None
        first = bool(node.attribute("layout", 0))
        batch, steps, directions, units = dims[0 if first else 1], dims[1 if first else 0], recurrence[0], recurrence[2]
        state = (batch, directions, units) if first else (directions, batch, units)
        too_long = next((length for length in reads.numbers(4) or () if not 0 <= length <= steps), None)
        return first_of(
            reads.has_shape(4, (batch,)),
            None if too_long is None else reads.objection(4, f"has the length {too_long}, but there are {steps} steps"),
            *(reads.has_shape(slot, state) for slot in ((5, 6) if peepholes else (5,))),
            reads.has_shape(7, (directions, 3 * units)) if peepholes else None,
        )

    return rule


def _own_attention(reads: Reads) -> str | None:
    """Onnxruntime's own one, which makes queries, keys and values of its input."""
    dims, weight, heads = reads.dims(0), reads.dims(1), int(reads.node.attribute("num_heads", 0))
    if dims is None or len(dims) != 3 or weight is None or len(weight) != 2:
        return None
    sizes = reads.node.attribute("qkv_hidden_sizes") or [weight[1] // 3] * 3
    said = first_of(reads.has_length(1, 0, dims[2]), reads.has_length(1, 1, sum(sizes)), reads.has_shape(2, weight[1:]))
    uneven = [size for size in sizes if heads < 1 or size % heads]
    what = f"gives {uneven[0]} channels, which num_heads {heads} does not divide" if uneven else ""
    return said or (reads.objection(1, what) if uneven else None)


def _multi_head(reads: Reads) -> str | None:
    query, key, value = (reads.dims(slot) for slot in range(3))
    heads = int(reads.node.attribute("num_heads", 0))
    if query is None or len(query) != 3:
        return None
    if heads < 1 or query[2] % heads:
        return reads.objection(0, f"has {query[2]} channels, which num_heads {heads} does not divide")
    if key is None or value is None or len(key) != 3 or len(value) != 3:
        return None
    return first_of(reads.has_length(1, 2, query[2]), reads.has_shape(3, (2 * query[2] + value[2],)))


def _grouped_query(reads: Reads) -> str | None:
    heads, few = int(reads.node.attribute("num_heads", 0)), int(reads.node.attribute("kv_num_heads", 0))
    if few > 0 and heads % few == 0:
        return None
    return reads.objection(0, f"has num_heads {heads}, which is no multiple of kv_num_heads {few}")


def _product(reads: Reads) -> str | None:
    first, second = reads.dims(0), reads.dims(1)
    if first is None or second is None or len(first) < 2 or len(second) < 2 or reads.node.attribute("transBatchA", 0):
        return None
    if reads.node.attribute("transBatchB", 0):
        return None
    inner = first[-2 if reads.node.attribute("transA", 0) else -1]
    return reads.has_length(1, -1 if reads.node.attribute("transB", 0) else -2, inner)


def _bias(reads: Reads) -> str | None:
    """Hold the bias of a `Gemm` against rows and columns of the result."""
    first, second, bias = (reads.dims(slot) for slot in range(3))
    if bias is None or first is None or second is None or len(first) != 2 or len(second) != 2:
        return None
    rows = first[1 if reads.node.attribute("transA", 0) else 0]
    columns = second[0 if reads.node.attribute("transB", 0) else 1]
    if len(bias) > 2:
        return reads.objection(2, f"has the shape {list(bias)}, but must spread over {[rows, columns]}")
    return reads.broadcasts(2, (rows, columns))


def _normalised_over_window(reads: Reads) -> str | None:
    size = int(reads.node.attribute("size", 1))
    return (
        reads.objection(0, f"is normalised over size {size}, which must be odd") if size < 1 or size % 2 == 0 else None
    )


def _pooled(reads: Reads) -> str | None:
    """Object to windows that padding fills."""
    window, pads = reads.node.attribute("kernel_shape") or [], reads.node.attribute("pads") or []
    for at, amount in enumerate(pads):
        if len(pads) == 2 * len(window) and amount >= window[at % len(window)]:
            what = f"is padded by {amount} along axis {at % len(window) + 2}"
            return reads.objection(0, f"{what}, but the window has {window[at % len(window)]} there")
    return None


def _transposed(reads: Reads) -> str | None:
    added = reads.node.attribute("output_padding") or []
    steps = [reads.node.attribute(name) or [1] * len(added) for name in ("strides", "dilations")]
    for axis, (amount, *others) in enumerate(zip(added, *steps, strict=False)):
        if amount >= max(others):
            what = f"gets output_padding {amount} at axis {axis + 2}"
            return reads.objection(0, f"{what}, which must be less than strides or dilations, {max(others)}")
    return None


LAYER_RULES: Final[Mapping[tuple[str, str], Rule]] = {
    ("", "AveragePool"): _pooled,
    ("", "ConvTranspose"): _transposed,
    ("", "GRU"): _recurrent(),
    ("", "Gemm"): _bias,
    ("", "LRN"): _normalised_over_window,
    ("", "LSTM"): _recurrent(peepholes=True),
    ("", "MaxPool"): _pooled,
    ("", "RNN"): _recurrent(),
    (MICROSOFT, "Attention"): _own_attention,
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "GroupQueryAttention"): _grouped_query,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
}

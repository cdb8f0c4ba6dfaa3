# SPDX-License-Identifier: Apache-2.0
"""Attention in onnxruntime's own domain: heads stand side by side, and much else is inside the operators.

`Attention` multiplies with the weights of queries, keys and values itself; `MultiHeadAttention` adds their biases;
`GroupQueryAttention` may read all three from one axis, keeps a cache, and turns positions (rotary embedding).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from graphprune.labels.adapt import Counts, Edits, Pruned, adapter, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import tail
from graphprune.labels.rules.heads import Heads, choose_heads, heads_left, part_of_head
from graphprune.labels.scales import Operand
from graphprune.labels.vector import Labels, concatenate, stay
from graphprune.model.graph import Node
from graphprune.model.inference.contributed import MICROSOFT

_PACKED = 3


@rule("Attention", domain=MICROSOFT)
def own_attention(op: Operator) -> None:
    """X W + b gives queries, keys and values, one after the other; x is contracted with W.

    Masking keeps removed positions of a head out of the scores, so weights and biases are masked, too.
    """
    _packed_attention(op, divisible=not op.node.attribute("do_rotary", 0))


@rule("QAttention", domain=MICROSOFT)
def quantised_attention(op: Operator) -> None:
    """As `Attention` of integers that stand for real numbers; a head that is masked at its reader goes as a whole."""
    if any(op.has(slot) and any(size != 1 for size in op.shape(slot)) for slot in (3, 6)):
        op.barrier("QAttention", "has scales or zero points for single slices of an activation")
        return
    operands = (Operand(0, 3, 6), Operand(1, 4, 7, axis=1), Operand(2), Operand(5), Operand(8))
    _packed_attention(op.seen_as(operands), divisible=False)


def _packed_attention(op: Operator, *, divisible: bool) -> None:
    """State what ties the axes of an attention that multiplies with the weights of queries, keys and values itself."""
    x, w = op.labels(0), op.operand(1, ("in", "out"))
    op.unite(x[2], w[0])
    op.contract(0, 2)
    op.contract(1, 0)
    axes = _cut(w[1], _sizes(op.node, len(w[1])))
    op.freeze(x[1], op.node.op_type, "is a sequence")
    heads, states = op.node.attribute("num_heads"), op.has(4) or len(op.node.outputs) > 1
    parts, y = choose_heads(op, axes, (heads, heads), batch=x[0], divisible=divisible, tied=states)
    _mask_weight(op, 1, 1, w[1])
    if op.has(2):
        op.tie(2, (w[1],))
        _mask_weight(op, 2, 0, w[1])
    _follow_samples(op, 3, parts)
    if op.has(4):
        op.tie(4, (stay(2), x[0], parts.heads, stay(op.shape(4)[3]), parts.key))
    seen = len(x[1]) + (op.shape(4)[3] if op.has(4) else 0)
    _follow_scores(op, 5, parts)
    op.cost((x[0], stay(len(x[1]))), x[2], w[1])
    _attend(op, (len(x[1]), seen), axes[0], y, x[0])
    op.set(0, (x[0], stay(len(x[1])), y))
    if states and len(op.node.outputs) > 1 and op.node.outputs[1]:
        op.set(1, (stay(2), x[0], parts.heads, stay(seen), parts.key))


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(op: Operator) -> None:
    """As `Attention` of ONNX, with a bias that is added to queries, keys and values first."""
    if not (op.has(1) and op.has(2)) or any(len(op.shape(slot)) != _PACKED for slot in range(3)):
        op.barrier("MultiHeadAttention", "packs queries, keys and values: prune the model before optimising it")
        return
    q, k, v = (op.labels(slot) for slot in range(3))
    heads, axes = op.node.attribute("num_heads"), (q[2], k[2], v[2])
    _tie_sequences(op)
    parts, y = choose_heads(op, axes, (heads, heads), batch=q[0])
    op.contract(0, 2)
    op.contract(1, 2)
    if op.has(3):
        bias = concatenate(list(axes))
        op.tie(3, (bias,))
        _mask_weight(op, 3, 0, bias)
    for slot in (4, 9):
        _follow_samples(op, slot, parts)
    _follow_scores(op, 5, parts)
    seen = len(k[1]) + (op.shape(6)[2] if op.has(6) else 0)
    _follow_states(op, (6, 7), seen, parts)
    _attend(op, (len(q[1]), seen), q[2], y, parts.batch)
    op.set(0, (parts.batch, stay(len(q[1])), y))


@rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(op: Operator) -> None:
    """Queries share keys and values. The size of a head must be a multiple of 8, so that heads stay whole inside."""
    many, few = op.node.attribute("num_heads"), op.node.attribute("kv_num_heads")
    x = op.labels(0)
    if op.has(1) != op.has(2) or any(op.has(slot) and len(op.shape(slot)) != _PACKED for slot in range(3)):
        op.barrier("GroupQueryAttention", "packs its inputs in a way that is not followed")
        return
    if any(op.has(slot) and max(op.shape(slot), default=1) > 1 for slot in (12, 13)):
        op.barrier("GroupQueryAttention", "has scales for single slices of its cache")
        return
    size = len(x[2]) // (many if op.has(1) else many + 2 * few)
    axes = (x[2], op.labels(1)[2], op.labels(2)[2]) if op.has(1) else _cut(x[2], (many * size, few * size, few * size))
    _tie_sequences(op)
    parts, y = choose_heads(op, axes, (many, few), batch=x[0], divisible=False)
    op.contract(0, 2)
    if op.has(1):
        op.contract(1, 2)
    for slot in (5, 9):
        _follow_samples(op, slot, parts)
    _follow_scores(op, 10, parts)
    if op.has(11):
        op.tie(11, (parts.queries,), maskable=False)
    grown = len(x[1]) + (op.shape(3)[2] if op.has(3) else 0)
    seen = op.out_shape(1)[2] if any(op.node.outputs[1:2]) else grown
    _follow_states(op, (3, 4), seen, parts)
    _attend(op, (len(x[1]), seen), axes[0], y, x[0])
    op.set(0, (parts.batch, stay(len(x[1])), y))


def _sizes(node: Node, packed: int) -> tuple[int, int, int]:
    """Widths of queries, keys and values behind the weights of `Attention`."""
    first, second, third = node.attribute("qkv_hidden_sizes") or [packed // 3] * 3
    return first, second, third


def _cut(axis: Labels, sizes: Sequence[int]) -> tuple[Labels, Labels, Labels]:
    """Labels of queries, keys and values that stand one after the other."""
    ends = np.cumsum(sizes)
    q, k, v = (axis.select(slice(int(end - size), int(end))) for end, size in zip(ends, sizes, strict=True))
    return q, k, v


def _tie_sequences(op: Operator) -> None:
    """Samples belong together; positions in the sequences stay."""
    given = [op.labels(slot) for slot in range(3) if op.has(slot)]
    for axes in given:
        op.freeze(axes[1], op.node.op_type, "is a sequence")
        op.unite(given[0][0], axes[0])


def _mask_weight(op: Operator, slot: int, axis: int, labels: Labels) -> None:
    """Mask a stored operand of which a slice that is gone would still reach the scores."""
    if op.is_constant(slot):
        op.contract_weight(slot, axis, labels)
    else:
        op.contract(slot, axis)


def _follow_samples(op: Operator, slot: int, parts: Heads) -> None:
    """Let what has an entry for each sample (a mask of positions, lengths) keep the samples, if it counts them so."""
    if not op.has(slot):
        return
    if op.shape(slot)[:1] == (len(parts.batch),):
        op.tie(slot, (parts.batch, *(stay(size) for size in op.shape(slot)[1:])), maskable=False)
    else:
        op.freeze(parts.batch, op.node.op_type, "is counted by a mask in another way")


def _follow_scores(op: Operator, slot: int, parts: Heads) -> None:
    """Let what is added to the scores keep the query heads."""
    if op.has(slot):
        shape = op.shape(slot)
        op.tie(slot, tail((parts.batch, parts.queries, *(stay(size) for size in shape[2:])), shape), maskable=False)


def _follow_states(op: Operator, past: tuple[int, int], seen: int, parts: Heads) -> None:
    """Let cached keys and values keep their heads, and the outputs that hold them or the scores."""
    for slot, inner in zip(past, (parts.key, parts.value), strict=True):
        if op.has(slot):
            op.tie(slot, (parts.batch, parts.heads, stay(op.shape(slot)[2]), inner))
    steps = op.shape(0)[1]
    made = (
        (parts.batch, parts.heads, stay(seen), parts.key),
        (parts.batch, parts.heads, stay(seen), parts.value),
        (parts.batch, parts.queries, stay(steps), stay(seen)),
    )
    for slot, axes in enumerate(made, start=1):
        if slot < len(op.node.outputs) and op.node.outputs[slot]:
            op.set(slot, axes)


def _attend(op: Operator, lengths: tuple[int, int], q: Labels, y: Labels, batch: Labels) -> None:
    """Count the scores and the sums of values that they weight."""
    steps, seen = (stay(length) for length in lengths)
    op.cost((batch, steps, seen), stay(1), y)
    op.cost((batch, steps, seen), q, stay(1))


@adapter("Attention", attributes=("num_heads", "qkv_hidden_sizes", "scale"), domain=MICROSOFT)
def adapt_own_attention(op: Pruned) -> Edits:
    """Fewer heads; widths are spelt out where they differ, and the scale that follows from the size of a head."""
    mask, heads = op.kept(1)[1], op.node.attribute("num_heads")
    sizes = _sizes(op.node, len(mask))
    parts = np.split(mask, np.cumsum(sizes)[:-1])
    edits = Edits(attributes=_fewer("num_heads", parts[0], heads))
    widths = [int(part.sum()) for part in parts]
    if widths != list(sizes) and (op.node.attribute("qkv_hidden_sizes") or len(set(widths)) > 1):
        edits.attributes["qkv_hidden_sizes"] = widths
    return _spell_scale(op, edits, parts[0], heads)


@adapter("QAttention", attributes=("num_heads",), domain=MICROSOFT)
def adapt_quantised_attention(op: Pruned) -> Edits:
    """Fewer heads."""
    mask = op.kept(1)[1]
    return Edits(attributes=_fewer("num_heads", mask[: len(mask) // 3], op.node.attribute("num_heads")))


@adapter("MultiHeadAttention", attributes=("num_heads", "scale"), domain=MICROSOFT)
def adapt_multi_head(op: Pruned) -> Edits:
    """Fewer heads, and the scale that follows from the size of a head."""
    mask, heads = op.kept(0)[2], op.node.attribute("num_heads")
    return _spell_scale(op, Edits(attributes=_fewer("num_heads", mask, heads)), mask, heads)


@adapter("GroupQueryAttention", attributes=("kv_num_heads", "num_heads"), domain=MICROSOFT)
def adapt_group_query(op: Pruned) -> Edits:
    """Fewer heads of either kind."""
    many, few, mask = op.node.attribute("num_heads"), op.node.attribute("kv_num_heads"), op.kept(0)[2]
    apart = len(op.node.inputs) > 1 and bool(op.node.inputs[1])
    size = len(mask) // (many if apart else many + 2 * few)
    keys = op.kept(1)[2] if apart else mask[many * size : (many + few) * size]
    queries = mask[: many * size]
    return Edits(attributes={**_fewer("num_heads", queries, many), **_fewer("kv_num_heads", keys, few)})


def _fewer(name: str, kept: Counts, heads: int) -> dict[str, int | float | list[int] | None]:
    left = heads_left(kept, heads)
    return {} if left == heads else {name: left}


def _spell_scale(op: Pruned, edits: Edits, queries: Counts, heads: int) -> Edits:
    """Keep the scale where heads lose positions; 0 stands for the one that follows from their size."""
    inside = part_of_head(queries, heads)
    if not whole(inside) and not op.node.attribute("scale", 0.0):
        edits.attributes["scale"] = 1.0 / sqrt(len(inside))
    return edits

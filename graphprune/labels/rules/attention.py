# SPDX-License-Identifier: Apache-2.0
"""`Attention` and `RotaryEmbedding`: heads, or the same part of every head.

Where heads stand side by side on one axis, what is kept of it is a choice, as for a `Reshape`:
whole heads, or the same positions of each. Several query heads may share one key-value head;
they live and die together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import tail
from graphprune.labels.space import Alternative
from graphprune.labels.vector import Labels, all_matched, stay

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6
_PACKED = 3


@dataclass(frozen=True)
class _Heads:
    """Labels of the parts of an attention layer: heads of keys and values, positions within a key and a value."""

    batch: Labels
    heads: Labels
    key: Labels
    value: Labels
    shared: int
    """Number of query heads for each head of keys and values."""

    @property
    def queries(self) -> Labels:
        """Labels of the query heads; those that share a key stand side by side."""
        return Labels(self.heads.base, self.heads.repeat * self.shared, self.heads.tile)


@rule("Attention", since=23)
def attention(op: Operator) -> None:
    """Y = softmax(q k') v: positions in the sequences stay, the inner axis of q and k is contracted."""
    q, k, v = (op.labels(slot) for slot in range(3))
    packed = len(q) == _PACKED
    for axes in (q, k, v):
        op.freeze(axes[-2], "Attention", "is a sequence")
    for other in (k[0], v[0]):
        op.unite(q[0], other)
    parts, y = _packed(op) if packed else _unpacked(op)
    op.contract(0, len(q) - 1)
    op.contract(1, len(k) - 1)
    op.space.batch.append(parts.heads.base)
    op.space.contracted.append(parts.key.base)
    _state(op, parts)
    steps, seen = len(q[-2]), _seen(op)
    sequence = (parts.batch, *([] if packed else [parts.queries]), stay(steps), stay(seen))
    op.cost(sequence, stay(1), y)
    op.cost(sequence, q[-1], stay(1))
    op.set(0, (parts.batch, stay(steps), y) if packed else (parts.batch, parts.queries, stay(steps), y))


def _unpacked(op: Operator) -> tuple[_Heads, Labels]:
    """Inputs (batch, heads, sequence, size): every part has an axis of its own."""
    q, k, v = (op.labels(slot) for slot in range(3))
    parts = _Heads(q[0], k[1], k[3], v[3], len(q[1]) // len(k[1]))
    op.unite(k[1], v[1])
    op.unite(q[1], parts.queries)
    op.unite(q[3], k[3])
    return parts, v[3]


def _packed(op: Operator) -> tuple[_Heads, Labels]:
    """Inputs (batch, sequence, heads * size): whole heads, or the same positions of each."""
    q, k, v = (op.labels(slot)[2] for slot in range(3))
    many, few = op.node.attribute("q_num_heads"), op.node.attribute("kv_num_heads")
    sizes = (few, len(k) // few, len(v) // few)
    live = any(vector.live for vector in (q, k, v))
    heads, key, value = (op.space.fresh(size) if live else stay(size) for size in sizes)
    parts = _Heads(op.labels(0)[0], heads, key, value, many // few)
    if not live:
        return parts, stay(many * sizes[2])
    y = op.space.fresh(many * sizes[2])
    whole = all_matched(
        (q, _each(parts.queries, sizes[1])),
        (k, _each(heads, sizes[1])),
        (v, _each(heads, sizes[2])),
        (y, _each(parts.queries, sizes[2])),
    )
    slices = all_matched((q, _all(key, many)), (k, _all(key, few)), (v, _all(value, few)), (y, _all(value, many)))
    inside = np.concatenate([key.base, value.base])
    op.space.choose(
        op.node,
        [
            Alternative("whole heads", *whole, inside),
            Alternative("a part of each head", *slices, heads.base, sides=2),
        ],
    )
    return parts, y


def _each(labels: Labels, times: int) -> Labels:
    """Every label, so many times."""
    return Labels(labels.base, labels.repeat * times, labels.tile)


def _all(labels: Labels, times: int) -> Labels:
    """All labels, again and again."""
    return Labels(labels.base, labels.repeat, labels.tile * times)


def _seen(op: Operator) -> int:
    """Length of the sequence of keys, with what was cached. In both layouts it is the last but one axis."""
    past = op.shape(_PAST_KEY)[2] if op.has(_PAST_KEY) else 0
    return past + op.shape(1)[-2]


def _state(op: Operator, parts: _Heads) -> None:
    """The mask, the cached keys and values, and the other outputs follow."""
    seen, steps = _seen(op), op.shape(0)[-2]
    scores = (parts.batch, parts.queries, stay(steps), stay(seen))
    if op.has(_MASK):
        op.tie(_MASK, tail((*scores[:3], stay(op.shape(_MASK)[-1])), op.shape(_MASK)), maskable=False)
    for slot, inner in ((_PAST_KEY, parts.key), (_PAST_VALUE, parts.value)):
        if op.has(slot):
            op.tie(slot, (parts.batch, parts.heads, stay(op.shape(slot)[2]), inner))
    if op.has(_LENGTHS):
        op.tie(_LENGTHS, (parts.batch,), maskable=False)
    made = {
        1: (parts.batch, parts.heads, stay(seen), parts.key),
        2: (parts.batch, parts.heads, stay(seen), parts.value),
    }
    for slot, axes in {**made, 3: scores}.items():
        if slot < len(op.node.outputs) and op.node.outputs[slot]:
            op.set(slot, axes)


@adapter("Attention", attributes=("kv_num_heads", "q_num_heads", "scale"))
def adapt_attention(op: Pruned) -> Edits:
    """Fewer heads; where heads lose positions, the scale that follows from their size is spelt out."""
    edits, q = Edits(), op.kept(0)
    packed = len(q) == _PACKED
    for slot, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        heads = op.node.attribute(name)
        if heads is not None and packed:
            left = int(op.kept(slot)[2].reshape(heads, -1).max(axis=1).sum())
        else:
            left = int(op.kept(slot)[1].sum())
        if heads is not None and left != heads:
            edits.attributes[name] = left
    inside = np.atleast_1d(
        q[2].astype(np.bool_).reshape(op.node.attribute("q_num_heads"), -1).any(axis=0) if packed else q[3]
    )
    if not whole(inside) and op.node.attribute("scale") is None:
        edits.attributes["scale"] = 1.0 / sqrt(len(inside))
    return edits


@rule("RotaryEmbedding", since=23)
def rotary_embedding(op: Operator) -> None:
    """Positions of a head are turned in pairs, which live and die together; heads pass."""
    x, interleaved = op.labels(0), op.node.attribute("interleaved", 0)
    packed = len(x) == _PACKED
    heads = op.node.attribute("num_heads", 0) if packed else 1
    size = len(x[-1]) // heads
    turned = op.node.attribute("rotary_embedding_dim", 0) or size
    op.freeze(x[-2], "RotaryEmbedding", "is a sequence")
    pairs = op.space.fresh(size // 2) if x[-1].live and turned == size else stay(size // 2)
    inside = Labels(pairs.base, 2, heads) if interleaved else Labels(pairs.base, 1, 2 * heads)
    inside = inside if pairs.live else stay(len(x[-1]))
    if packed and x[-1].live:
        group = op.space.fresh(heads)
        whole = Alternative("whole heads", *all_matched((x[2], _each(group, size))), pairs.base)
        each = Alternative("a part of each head", *all_matched((x[2], inside)), group.base)
        op.space.choose(op.node, [whole, each] if pairs.live else [whole])
    else:
        op.unite(x[-1], inside)
    table = pairs if turned == size else stay(turned // 2)
    for slot in (1, 2):
        op.tie(slot, (*(stay(length) for length in op.shape(slot)[:-1]), table), maskable=False)
    op.set(0, (*x[:-2], stay(len(x[-2])), x[-1]))


@adapter("RotaryEmbedding", attributes=("num_heads",))
def adapt_rotary(op: Pruned) -> Edits:
    """Fewer heads."""
    heads, x = op.node.attribute("num_heads", 0), op.kept(0)
    if not heads or len(x) != _PACKED:
        return Edits()
    left = int(x[2].reshape(heads, -1).max(axis=1).sum())
    return Edits() if left == heads else Edits(attributes={"num_heads": left})

# SPDX-License-Identifier: Apache-2.0
"""`Attention` and `RotaryEmbedding`: heads, or the same part of every head.

Where heads stand side by side on one axis, what is kept of it is a choice (`heads.py`).
"""

from __future__ import annotations

from math import sqrt

from graphprune.labels.adapt import Edits, Pruned, adapter, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import tail
from graphprune.labels.rules.heads import Heads, choose_heads, each_label, heads_left, part_of_head
from graphprune.labels.scales import Operand
from graphprune.labels.space import Alternative, Axes
from graphprune.labels.vector import Labels, all_matched, stay
from graphprune.model.inference.contributed import MICROSOFT

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6
_PACKED = 3
_POSITIONS = 3


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
    _state(op, parts)
    steps, seen = len(q[-2]), _seen(op)
    sequence = (parts.batch, *([] if packed else [parts.queries]), stay(steps), stay(seen))
    op.cost(sequence, stay(1), y)
    op.cost(sequence, q[-1], stay(1))
    op.set(0, (parts.batch, stay(steps), y) if packed else (parts.batch, parts.queries, stay(steps), y))


def _unpacked(op: Operator) -> tuple[Heads, Labels]:
    """Inputs (batch, heads, sequence, size): every part has an axis of its own."""
    q, k, v = (op.labels(slot) for slot in range(3))
    parts = Heads(q[0], k[1], each_label(k[1], len(q[1]) // len(k[1])), k[3], v[3])
    op.unite(k[1], v[1])
    op.unite(q[1], parts.queries)
    op.unite(q[3], k[3])
    op.space.batch.append(k[1].base)
    op.space.contracted.append(k[3].base)
    return parts, v[3]


def _packed(op: Operator) -> tuple[Heads, Labels]:
    """Inputs (batch, sequence, heads * size): whole heads, or the same positions of each."""
    q, k, v = (op.labels(slot)[2] for slot in range(3))
    counts = op.node.attribute("q_num_heads"), op.node.attribute("kv_num_heads")
    return choose_heads(op, (q, k, v), counts, batch=op.labels(0)[0])


def _seen(op: Operator) -> int:
    """Length of the sequence of keys, with what was cached. In both layouts it is the last but one axis."""
    past = op.shape(_PAST_KEY)[2] if op.has(_PAST_KEY) else 0
    return past + op.shape(1)[-2]


def _state(op: Operator, parts: Heads) -> None:
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
        left = heads_left(op.kept(slot)[2], heads) if packed and heads is not None else int(op.kept(slot)[1].sum())
        if heads is not None and left != heads:
            edits.attributes[name] = left
    inside = part_of_head(q[2], op.node.attribute("q_num_heads")) if packed else q[3]
    if not whole(inside) and op.node.attribute("scale") is None:
        edits.attributes["scale"] = 1.0 / sqrt(len(inside))
    return edits


@rule("RotaryEmbedding", since=23)
def rotary_embedding(op: Operator) -> None:
    """Positions of a head are turned in pairs, which live and die together; heads pass."""
    if op.has(_POSITIONS):
        op.tie(_POSITIONS, _by_sample(op, _POSITIONS), maskable=False)
    rotate(op, op.node.attribute("num_heads", 0) if len(op.shape(0)) == _PACKED else 1)


@rule("RotaryEmbedding", domain=MICROSOFT)
def own_rotary_embedding(op: Operator) -> None:
    """As that of ONNX, with its inputs in another order; without a number of heads the tables say how long one is."""
    packed = len(op.shape(0)) == _PACKED
    heads = op.node.attribute("num_heads", 0) or len(op.labels(0)[-1]) // (2 * op.shape(2)[-1])
    if op.has(1):
        op.tie(1, _by_sample(op, 1), maskable=False)
    rotate(op.seen_as((Operand(0), Operand(2), Operand(3))), heads if packed else 1)


def rotate(op: Operator, heads: int) -> None:
    """State what holds for a turned input 0 with `heads` on its last axis and tables of cosines and sines behind it."""
    x, interleaved = op.labels(0), op.node.attribute("interleaved", 0)
    packed = len(x) == _PACKED
    size = len(x[-1]) // heads
    turned = op.node.attribute("rotary_embedding_dim", 0) or size
    op.freeze(x[-2], "RotaryEmbedding", "is a sequence")
    pairs = op.space.fresh(size // 2) if x[-1].live and turned == size else stay(size // 2)
    inside = Labels(pairs.base, 2, heads) if interleaved else Labels(pairs.base, 1, 2 * heads)
    inside = inside if pairs.live else stay(len(x[-1]))
    if packed and x[-1].live:
        group = op.space.fresh(heads)
        groups = Alternative("whole heads", *all_matched((x[2], each_label(group, size))), pairs.base)
        each = Alternative("a part of each head", *all_matched((x[2], inside)), group.base)
        op.space.choose(op.node, [groups, each] if pairs.live else [groups])
    else:
        op.unite(x[-1], inside)
    table = pairs if turned == size else stay(turned // 2)
    for slot in (1, 2):
        # Tables of one row per step and sample need no position ids.
        rows = _by_sample(op, slot)[:-1] if len(op.shape(slot)) == _PACKED else (stay(op.shape(slot)[0]),)
        op.tie(slot, (*rows, table), maskable=False)
    op.set(0, (*x[:-2], stay(len(x[-2])), x[-1]))


def _by_sample(op: Operator, slot: int) -> Axes:
    """Labels of an operand whose first axis counts the samples of input 0, unless it is the same for all of them."""
    first, *others = op.shape(slot)
    return (op.labels(0)[0] if first != 1 and others else stay(first), *(stay(size) for size in others))


@adapter("RotaryEmbedding", attributes=("num_heads",))
@adapter("RotaryEmbedding", attributes=("num_heads",), domain=MICROSOFT)
def adapt_rotary(op: Pruned) -> Edits:
    """Fewer heads."""
    heads, x = op.node.attribute("num_heads", 0), op.kept(0)
    if not heads or len(x) != _PACKED:
        return Edits()
    left = heads_left(x[2], heads)
    return Edits() if left == heads else Edits(attributes={"num_heads": left})

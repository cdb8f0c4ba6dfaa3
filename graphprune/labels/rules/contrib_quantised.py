# SPDX-License-Identifier: Apache-2.0
"""`MatMulNBits`: a product with weights of which several share a byte, in blocks along the axis that is summed over.

B is (columns, blocks, bytes of a block), a scale and perhaps a zero point stand for each block. Columns may go one by
one, inputs block by block, or as many blocks at once as have their zero points in one byte: all that is sliced then are
whole bytes.
"""

from __future__ import annotations

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.heads import each_label
from graphprune.labels.space import Use
from graphprune.labels.vector import Labels, stay
from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.values.scaling import Quantised

_SCALES, _ZERO_POINTS, _ORDER, _BIAS = 2, 3, 4, 5
_UNEVEN = "has blocks that cannot be cut out of its weights one by one"


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(op: Operator) -> None:
    """As `MatMul`: the blocks of B are contracted with stretches of the last axis of A."""
    stored = all(op.is_constant(slot) for slot in range(1, _BIAS) if op.has(slot))
    if not stored or op.has(_ORDER) or op.node.attribute("weight_prepacked", 0) or len(op.shape(1)) != 3:
        op.barrier(
            "MatMulNBits", "packs its weights in a way that is not followed: prune the model before quantising it"
        )
        return
    x = op.labels(0)
    columns, blocks, inside = op.scope.weight(op.inputs[1])
    op.space.uses.append(Use(op.node, 1, op.inputs[1], (columns, blocks, inside), ("out", "in", ""), maskable=False))
    op.freeze(inside, "MatMulNBits", "is a block of packed weights")
    size = int(op.node.attribute("block_size"))
    inner = Labels(blocks.base, size) if blocks.live else stay(len(x[-1]))
    together = _go_together(op)
    if len(blocks) * size != len(x[-1]) or not together:
        op.freeze((blocks, x[-1]), "MatMulNBits", _UNEVEN)
        inner = stay(len(x[-1]))
        blocks = stay(len(blocks))
    op.unite(x[-1], inner)
    op.contract(0, len(x) - 1)
    runs = blocks
    if blocks.live and together > 1:
        runs = op.space.fresh(len(blocks) // together)
        op.unite(blocks, each_label(runs, together) if runs.live else stay(len(blocks)))
    for slot, entries in ((_SCALES, blocks), (_ZERO_POINTS, runs)):
        if op.has(slot):
            _follow(op, slot, columns, entries)
    if op.has(_BIAS):
        op.tie(_BIAS, (columns,))
    bits = int(op.node.attribute("bits", 4))
    zero_point = op.inputs[_ZERO_POINTS] if op.has(_ZERO_POINTS) else ""
    if op.scope.constants.stored(op.inputs[1]) is not None and bits in (2, 4, 8):
        op.scope.quantised[op.inputs[1]] = Quantised(op.inputs[_SCALES], zero_point, (), (), bits)
    op.cost(x[:-1], inner, columns)
    op.set(0, (*x[:-1], columns))


def _go_together(op: Operator) -> int:
    """Return how many blocks must go at once, because their zero points share a byte; 0 where none can go.

    None can where entries of blocks are flattened with the columns, or a byte holds those of fewer blocks.
    """
    columns, blocks = op.shape(1)[:2]
    apart = [slot for slot in (_SCALES, _ZERO_POINTS) if op.has(slot) and op.shape(slot) == (columns, blocks)]
    packed = max(8 // int(op.node.attribute("bits", 4)), 1)
    if _SCALES not in apart:
        return 0
    if not op.has(_ZERO_POINTS) or _ZERO_POINTS in apart:
        return 1
    return packed if op.shape(_ZERO_POINTS) == (columns, blocks // packed) and blocks % packed == 0 else 0


def _follow(op: Operator, slot: int, columns: Labels, blocks: Labels) -> None:
    """Let scales or zero points keep the columns, and the blocks where each has an entry."""
    shape = op.shape(slot)
    maskable = slot == _SCALES
    if shape == (len(columns), len(blocks)):
        op.tie(slot, (columns, blocks), maskable=maskable)
    elif len(shape) == 1:
        op.tie(slot, (each_label(columns, shape[0] // len(columns)),), maskable=maskable)
    else:
        op.tie(slot, (columns, *(stay(size) for size in shape[1:])), maskable=maskable)


@adapter("MatMulNBits", attributes=("K", "N"), domain=MICROSOFT)
def adapt_matmul_n_bits(op: Pruned) -> Edits:
    """The sizes of the product are spelt out."""
    sizes = {"K": int(op.kept(0)[-1].sum()), "N": int(op.kept(1)[0].sum())}
    return Edits(attributes={name: size for name, size in sizes.items() if size != op.node.attribute(name)})

# SPDX-License-Identifier: Apache-2.0
"""`Reshape`, `Flatten`, `Transpose`, `Squeeze`, `Unsqueeze`, `Expand`, `Tile` and the pixel shuffles."""

from __future__ import annotations

from math import prod

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.segments import regroup
from graphprune.labels.vector import Labels, stay


@rule("Reshape", "Flatten")
def reshape(op: Operator) -> None:
    """Elements keep their row-major order; see `segments.regroup`."""
    op.set(0, regroup(op.space, op.node, op.labels(0), op.out_shape()))


@rule("Transpose")
def transpose(op: Operator) -> None:
    """Axes change places."""
    x = op.labels(0)
    op.set(0, (x[axis] for axis in op.node.attribute("perm", list(range(len(x)))[::-1])))


@rule("Squeeze", "Unsqueeze")
def squeeze(op: Operator) -> None:
    """Only axes of length 1 come and go: all longer ones keep their order."""
    longer = iter([vector for vector in op.labels(0) if len(vector) != 1])
    op.set(0, (stay(1) if size == 1 else next(longer) for size in op.out_shape()))


@rule("Expand")
def expand(op: Operator) -> None:
    """Axes of equal length pass; an axis that is spread from length 1 has nothing to remove."""
    x, shape = op.labels(0), op.out_shape()
    own = (*(stay(1) for _ in range(len(shape) - len(x))), *x)
    op.set(0, (vector if len(vector) == size else stay(size) for vector, size in zip(own, shape, strict=True)))


@rule("Tile")
def tile(op: Operator) -> None:
    """A repeated axis repeats its labels."""
    shape = op.out_shape()
    op.set(
        0,
        (
            Labels(vector.base, vector.repeat, vector.tile * (size // len(vector))) if vector.live else stay(size)
            for vector, size in zip(op.labels(0), shape, strict=True)
        ),
    )


@rule("DepthToSpace")
def depth_to_space(op: Operator) -> None:
    """A block of input channels makes one output channel: (blocks, channels) in DCR order, else reversed."""
    x = op.labels(0)
    blocks = op.node.attribute("blocksize") ** 2
    op.freeze(x[2:], "DepthToSpace", "is interleaved with channels")
    channels = op.space.fresh(len(x[1]) // blocks) if x[1].live else stay(len(x[1]) // blocks)
    if x[1].live:
        first = op.node.attribute("mode", "DCR") == "DCR"
        spread = Labels(channels.base, 1, blocks) if first else Labels(channels.base, blocks, 1)
        op.unite(x[1], spread if channels.live else stay(len(x[1])))
    op.set(0, (x[0], channels, *(stay(size) for size in op.out_shape()[2:])))


@rule("SpaceToDepth")
def space_to_depth(op: Operator) -> None:
    """Output channels are (blocks, channels): every block repeats the labels of the input."""
    x = op.labels(0)
    blocks = op.node.attribute("blocksize") ** 2
    op.freeze(x[2:], "SpaceToDepth", "is moved into channels")
    channels = Labels(x[1].base, x[1].repeat, x[1].tile * blocks) if x[1].live else stay(len(x[1]) * blocks)
    op.set(0, (x[0], channels, *(stay(size) for size in op.out_shape()[2:])))


@adapter("Reshape", slots=(1,))
def adapt_reshape(op: Pruned) -> Edits:
    """Write the kept counts where the target would give others; -1 for the element that depends on the input size."""
    before = [int(mask.sum()) for mask in op.kept(0)]
    after = [int(mask.sum()) for mask in op.kept_out(0)]
    current = op.current(1)
    if current is not None and _resolved([int(v) for v in current], before, op.node.attribute("allowzero", 0)) == after:
        return Edits()
    original, dynamic = op.original(1), op.dynamic(1)
    target = list(after)
    if dynamic is not None and dynamic.any():
        target[int(np.flatnonzero(dynamic)[0])] = -1
    elif original is not None and -1 in original:
        target[int(np.flatnonzero(np.asarray(original) == -1)[0])] = -1
    return Edits(inputs={1: np.asarray(_copied(target, original, before), dtype=np.int64)})


def _copied(target: list[int], original: object, before: list[int]) -> list[int]:
    """Keep a 0 ("copy this axis") of the original target where it still says the right thing."""
    if original is None:
        return target
    old = [int(v) for v in np.ravel(np.asarray(original))]
    return [
        0 if o == 0 and at < len(before) and before[at] == t else t
        for at, (o, t) in enumerate(zip(old, target, strict=True))
    ]


def _resolved(target: list[int], before: list[int], allowzero: int) -> list[int] | None:
    """Shape that a `Reshape` target gives, or None where it does not fit."""
    shape = [before[at] if size == 0 and not allowzero and at < len(before) else size for at, size in enumerate(target)]
    if shape.count(-1) > 1:
        return None
    if -1 in shape:
        rest = prod(size for size in shape if size != -1)
        if rest == 0 or prod(before) % rest:
            return None
        shape[shape.index(-1)] = prod(before) // rest
    return shape if prod(shape) == prod(before) else None


@adapter("Expand", slots=(1,))
def adapt_expand(op: Pruned) -> Edits:
    """A target that names the old size of a pruned axis names 1 instead: the axis keeps its own size."""
    current = op.current(1)
    if current is None:
        return Edits()
    sizes = [1] * (len(current) - len(op.kept(0))) + [int(mask.sum()) for mask in op.kept(0)]
    target = [int(v) for v in current]
    offset = len(sizes) - len(target)
    new = [
        1 if want not in (1, sizes[at + offset]) and sizes[at + offset] != 1 else want for at, want in enumerate(target)
    ]
    return Edits() if new == target else Edits(inputs={1: np.asarray(new, dtype=np.int64)})

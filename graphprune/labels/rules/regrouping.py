# SPDX-License-Identifier: Apache-2.0
"""`Reshape`, `Flatten`, `Transpose`, `Squeeze`, `Unsqueeze`, `Expand`, `Tile` and the pixel shuffles."""

from __future__ import annotations

from math import prod

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter, spell_shape, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.segments import regroup
from graphprune.labels.vector import Labels, stay


@rule("Reshape", "Flatten")
def reshape(op: Operator) -> None:
    """Elements keep their row-major order; see `segments.regroup`."""
    if prod(op.shape(0)) != prod(op.out_shape()):  # the file is at odds with itself; running it says so
        op.barrier("unknown shape", "has shapes with different numbers of elements at this node")
        return
    if op.is_computed(1):
        op.barrier("Reshape", "its target is computed while the model runs")
        return
    op.set(0, regroup(op.space, op.node, op.moved(0), op.out_shape()))


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
    """Axes of equal length pass; copies of one slice can go one by one, unless their number depends on the inputs."""
    if op.is_computed(1):
        op.barrier("Expand", "its target is computed while the model runs")
        return
    x, shape = op.moved(0), op.out_shape()
    own = (*(stay(1) for _ in range(len(shape) - len(x))), *x)
    spread = any(len(vector) != size for vector, size in zip(own, shape, strict=True))
    varies = op.scope.varies(op.node.outputs[0]) if spread else ()
    y = []
    for axis, (vector, size) in enumerate(zip(own, shape, strict=True)):
        fresh = len(vector) != size and not varies[axis]
        y.append(op.space.fresh(size) if fresh else vector if len(vector) == size else stay(size))
    op.set(0, y)


@rule("ConstantOfShape")
def constant_of_shape(op: Operator) -> None:
    """Every slice of an axis can go, unless its length depends on the inputs: it is one number everywhere."""
    varies = op.scope.varies(op.node.outputs[0])
    op.set(0, (stay(n) if v else op.space.fresh(n) for n, v in zip(op.out_shape(), varies, strict=True)))


@rule("Tile")
def tile(op: Operator) -> None:
    """A repeated axis repeats its labels."""
    if any(op.is_computed(slot) for slot in (1, 2)):
        op.barrier("Tile", "how often it repeats is computed while the model runs")
        return
    shape = op.out_shape()
    op.set(
        0,
        (
            Labels(vector.base, vector.repeat, vector.tile * (size // len(vector))) if vector.live else stay(size)
            for vector, size in zip(op.moved(0), shape, strict=True)
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
    return _target(op, before, after)


def _target(op: Pruned, before: list[int], after: list[int]) -> Edits:
    """Spell the shape `after` out for every size of the model's inputs.

    An axis that equals that of the reshaped tensor is copied (0), one open axis is left to be
    inferred (-1), further ones are left to what the graph computes.
    """
    target = list(after)
    is_open, equal = op.follows()
    if op.node.attribute("allowzero", 0):
        equal = np.zeros_like(equal)
    original = op.original(1)
    old = [None] * len(target) if original is None else [int(v) for v in np.ravel(original)]
    for at, size in enumerate(after):
        if equal[at] and before[at] == size and (is_open[at] or old[at] == 0):
            target[at] = 0
    fixed = np.ones(len(target), dtype=np.bool_)
    left = [at for at in np.flatnonzero(is_open).tolist() if target[at] != 0]
    rest = left or [at for at, value in enumerate(old) if value == -1 and target[at] != 0]
    if len(left) > 1:
        # What the graph does not compute is inferred: what it infers itself, else an open axis that loses slices.
        rest = sorted(left, key=lambda at: (old[at] != -1, whole(op.kept_out(0)[at])))
        fixed[rest[1:]] = False
    if rest:
        target[rest[0]] = -1
    return spell_shape(op, 1, target, fixed)


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
    """An axis that is not spread names 1: it keeps its own size, whatever that is."""
    before = [int(mask.sum()) for mask in op.kept(0)]
    after = [int(mask.sum()) for mask in op.kept_out(0)]
    own = [1] * (len(after) - len(before)) + before
    current = op.current(1)
    if current is not None and _spread(own, [int(v) for v in current]) == after:
        return Edits()
    is_open, equal = op.follows(from_back=True)
    wider = np.asarray([len(mask) != size for mask, size in zip(op.kept_out(0), _full(op, len(after)), strict=True)])
    spread = (wider | (is_open & ~equal)).tolist()  # for these sizes, copies of one slice may be a single one
    target = [size if wide else 1 for size, wide in zip(after, spread, strict=True)]
    fixed = np.asarray([not (wide and is_open[at]) for at, wide in enumerate(spread)])
    original = op.original(1)
    unnamed = 0 if original is None else len(target) - original.size  # axes in front, which a short list leaves alone
    return spell_shape(op, 1, target[unnamed:], fixed[unnamed:])


@adapter("ConstantOfShape", slots=(0,))
def adapt_constant_of_shape(op: Pruned) -> Edits:
    """Write the kept counts, and leave lengths that depend on the inputs to the graph."""
    after = [int(mask.sum()) for mask in op.kept_out(0)]
    current = op.current(0)
    if current is not None and [int(v) for v in np.ravel(current)] == after:
        return Edits()
    is_open, _ = op.follows()
    return spell_shape(op, 0, after, ~is_open)


def _full(op: Pruned, rank: int) -> list[int]:
    """Original sizes of the first input, with ones in front up to the given rank."""
    sizes = [len(mask) for mask in op.kept(0)]
    return [1] * (rank - len(sizes)) + sizes


def _spread(own: list[int], target: list[int]) -> list[int] | None:
    """Shape that an `Expand` of these sizes gives, or None where it does not fit."""
    target = [1] * (len(own) - len(target)) + target
    fits = all(1 in (size, want) or size == want for size, want in zip(own, target, strict=True))
    return [max(size, want) for size, want in zip(own, target, strict=True)] if fits else None


@adapter("Squeeze", slots=(1,), attributes=("axes",))
def adapt_squeeze(op: Pruned) -> Edits:
    """Without axes every axis of length 1 goes: name those that went, lest one that shrinks to 1 goes too."""
    given = op.node.attribute("axes") is not None or (len(op.node.inputs) > 1 and op.node.inputs[1])
    if given or all(len(mask) == 1 or mask.sum() > 1 for mask in op.kept(0)):
        return Edits()
    axes = [axis for axis, mask in enumerate(op.kept(0)) if len(mask) == 1]
    if op.version < 13:
        return Edits(attributes={"axes": axes})
    return Edits(inputs={1: np.asarray(axes, dtype=np.int64)})

# SPDX-License-Identifier: Apache-2.0
"""Normalisations: per channel they pass, over the channel axis they freeze it."""

from __future__ import annotations

from collections.abc import Iterable

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.elementwise import tail
from graphprune.labels.vector import Labels, stay


@rule("BatchNormalization")
def batch_normalization(op: Operator) -> None:
    """y[:, c] depends on channel c of x and on element c of scale, bias, mean and variance.

    In training mode the statistics are those of the batch, still one channel at a time: all other axes stay.
    """
    x = op.labels(0)
    if op.version < 9 and op.node.attribute("spatial", 1) == 0:
        op.barrier("BatchNormalization", "spatial=0 normalises every element on its own")
        return
    if op.node.attribute("training_mode", 0):
        rest = (x[0], *x[2:])
        op.freeze(rest, "BatchNormalization", "statistics run over this axis in training mode")
        x = (stay(len(x[0])), x[1], *(stay(len(vector)) for vector in x[2:]))
    for slot in range(1, 5):
        op.tie(slot, (x[1],), maskable=slot <= 2)
    op.set(0, x)
    for slot in range(1, len(op.node.outputs)):
        if op.node.outputs[slot]:
            op.set(slot, (x[1],))


@rule("InstanceNormalization")
def instance_normalization(op: Operator) -> None:
    """Statistics run over the spatial axes of one channel: those stay, channels pass."""
    x = op.labels(0)
    op.freeze(x[2:], "InstanceNormalization", "statistics run over this axis")
    op.tie(1, (x[1],))
    op.tie(2, (x[1],))
    op.set(0, (x[0], x[1], *_whole(op, range(2, len(x)))))


@rule("GroupNormalization")
def group_normalization(op: Operator) -> None:
    """Statistics run over the channels of a group, so whole groups live and die together."""
    x = op.labels(0)
    groups = op.node.attribute("num_groups")
    op.freeze(x[2:], "GroupNormalization", "statistics run over this axis")
    group = op.space.fresh(groups) if x[1].live else stay(groups)
    channels = Labels(group.base, len(x[1]) // groups) if group.live else stay(len(x[1]))
    op.unite(x[1], channels)
    for slot in (1, 2):
        op.tie(slot, (group if op.shape(slot)[0] == groups else channels,))
    op.set(0, (x[0], x[1], *_whole(op, range(2, len(x)))))


@adapter("GroupNormalization", attributes=("num_groups",))
def adapt_group_normalization(op: Pruned) -> Edits:
    """The size of a group stays, their number shrinks."""
    channels, groups = op.kept(0)[1], op.node.attribute("num_groups")
    left = int(channels.sum()) * groups // len(channels)
    return Edits() if left == groups else Edits(attributes={"num_groups": left})


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(op: Operator) -> None:
    """Statistics run over all axes from `axis` on: those stay whole, or are renormalised."""
    x = op.labels(0)
    first = op.node.attribute("axis", -1) % len(x)
    if op.scope.approximate and not any(op.node.outputs[1:]):
        op.renormalise(first)
        for slot in range(1, len(op.node.inputs)):
            if op.has(slot):
                op.tie(slot, tail(x, op.shape(slot)))
        op.set(0, x)
        return
    op.freeze(x[first:], op.node.op_type, "statistics run over this axis")
    y = (*x[:first], *_whole(op, range(first, len(x))))
    for slot in range(1, len(op.node.inputs)):
        if op.has(slot):  # a scale that the network computes is read element by element, too
            op.tie(slot, tail(y, op.shape(slot)))
    op.set(0, y)
    for slot in range(1, len(op.node.outputs)):
        if op.node.outputs[slot] in op.scope.shapes.dims:
            op.set(slot, (*x[:first], *(stay(size) for size in op.out_shape(slot)[first:])))


@rule("LRN")
def local_response_normalization(op: Operator) -> None:
    """Every channel is divided by a sum over its neighbours: the channel axis stays whole."""
    _over(op, [1])


@rule("MeanVarianceNormalization")
def mean_variance_normalization(op: Operator) -> None:
    """Statistics run over `axes`: those stay whole."""
    _over(op, op.node.attribute("axes", [0, 2, 3]))


@rule("LpNormalization", "Softmax", "LogSoftmax", "Hardmax", "CumSum")
def along_axis(op: Operator) -> None:
    """Elements along `axis` see each other: it stays whole, all others pass."""
    rank = len(op.shape(0))
    if op.node.op_type == "CumSum":
        axis = op.ints(1)
        _over(op, range(rank) if axis is None else axis)
    elif op.node.op_type != "LpNormalization" and op.version < 13:
        # Before version 13 the input is seen as a matrix: all axes from `axis` on are one.
        _over(op, range(op.node.attribute("axis", 1) % rank, rank))
    else:
        _over(op, [op.node.attribute("axis", -1)])


def _over(op: Operator, axes: Iterable[int]) -> None:
    """Freeze these axes and pass the others."""
    x = list(op.labels(0))
    for axis in axes:
        op.freeze(x[axis], op.node.op_type, "elements along this axis are combined")
        x[axis] = stay(len(x[axis]))
    op.set(0, x)


def _whole(op: Operator, axes: Iterable[int]) -> Iterable[Labels]:
    shape = op.out_shape()
    return (stay(shape[axis]) for axis in axes)

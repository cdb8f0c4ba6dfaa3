# SPDX-License-Identifier: Apache-2.0
"""`Conv` and `ConvTranspose` in 1 to 3 dimensions: dense, grouped and depthwise."""

from __future__ import annotations

from math import prod

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Alternative, Axes, GroupedChannels, Role
from graphprune.labels.vector import Labels, all_matched, stay

WHOLE_GROUPS = "whole groups"
EACH_GROUP = "a slice of each group"
"""Names of the two ways in which a grouped convolution can shrink."""

_NO_ROLE: list[Role] = [""] * 8


@rule("Conv")
def conv(op: Operator) -> None:
    """y[:, o] sums W[o, i] * x[:, i] over i: x axis 1 is contracted with W axis 1, y axis 1 is W axis 0.

    With groups see `_grouped`. A depthwise convolution is one channel (or a multiplier of rows) per group.
    """
    x, w = op.labels(0), conv_weight(op)
    if op.has(2):
        op.tie(2, (w[0],))
    y = (x[0], w[0], *(window(op, x[axis], axis) for axis in range(2, len(x))))
    op.cost((y[0], *y[2:]), w[1], y[1], prod(op.shape(1)[2:]))
    op.set(0, y)


def conv_weight(op: Operator) -> Axes:
    """Tie the channels of input 0 to those of the kernel, input 1, and return its labels."""
    groups = op.node.attribute("group", 1)
    shape = op.shape(1)
    rows: Role = "out" if shape[1] > 1 or groups == 1 else "per_channel"
    w = op.operand(1, [rows, "in", *_NO_ROLE[: len(shape) - 2]])
    x = op.labels(0)
    if groups == 1:
        op.unite(x[1], w[1])
        op.contract(0, 1)
        op.contract(1, 1)
    else:
        op.contract(0, 1)
        _grouped(op, groups, x[1], w[0], w[1])
    op.freeze(w[2:], "convolution kernel", "is a spatial axis of a kernel")
    return w


@rule("ConvTranspose")
def conv_transpose(op: Operator) -> None:
    """As `Conv` with the roles of the first two weight axes exchanged: W is (inputs, outputs / groups, ...)."""
    groups = op.node.attribute("group", 1)
    shape = op.shape(1)
    rows: Role = "in" if groups == 1 or shape[1] > 1 else "per_channel"
    w = op.operand(1, [rows, "out", *_NO_ROLE[: len(shape) - 2]])
    x = op.labels(0)
    if groups == 1:
        op.unite(x[1], w[0])
        op.contract(0, 1)
        op.contract(1, 0)
        channels = w[1]
    else:
        op.contract(0, 1)
        channels = op.space.fresh(groups * shape[1])
        _grouped(op, groups, x[1], channels, w[1], rows=w[0])
    op.freeze(w[2:], "convolution kernel", "is a spatial axis of a kernel")
    op.freeze(x[2:], "transposed convolution", "is a spatial axis that the kernel spreads")
    if op.has(2):
        op.tie(2, (channels,))
    op.cost((x[0], *x[2:]), x[1], w[1], prod(shape[2:]))
    op.set(0, (x[0], channels, *(stay(size) for size in op.out_shape()[2:])))


def _grouped(op: Operator, groups: int, x: Labels, y: Labels, inner: Labels, rows: Labels | None = None) -> None:
    """Offer the two ways in which a grouped convolution can shrink.

    *Whole groups*: every input and output of conv group g carries one label, and the weight axis
    inside a group (`inner`) stays. *A slice of each*: position i within a group is kept or removed
    in all groups alike, so that they stay equally long; inputs and outputs do so apart from each
    other, hence the outputs can shrink where the inputs stay, and the other way round. Outputs of `Conv` and inputs
    of `ConvTranspose` lie on an axis of their own, so that every group could keep others (`analysis/own_positions.py`).

    Parameters
    ----------
    x, y : Labels
        All input and all output channels, group after group.
    inner : Labels
        The weight axis that runs inside a group: inputs of `Conv`, outputs of `ConvTranspose`.
    rows : Labels, optional
        For `ConvTranspose` the weight axis over all inputs, which follows `x`.
    """
    if rows is not None:
        op.unite(x, rows)
    elif not x.live:
        op.freeze(inner, "grouped convolution", "its input channels stay")
    alternatives, group = [], op.space.fresh(groups) if x.live else stay(groups)
    if x.live:
        whole = all_matched((x, Labels(group.base, len(x) // groups)), (y, Labels(group.base, len(y) // groups)))
        alternatives.append(Alternative(WHOLE_GROUPS, *whole, inner.base))
    per_input, per_output = len(x) // groups, len(y) // groups
    if per_output > 1 or (x.live and per_input > 1):
        other = op.space.fresh(per_output if rows is None else per_input)
        first, second = (inner, other) if rows is None else (other, inner)
        each = all_matched((x, _repeated(first, groups)), (y, _repeated(second, groups)))
        sides = 2 if x.live and per_input > 1 and per_output > 1 else 1
        alternatives.append(Alternative(EACH_GROUP, *each, group.base, sides))
        if len(other) > 1:
            apart = y if rows is None else x
            op.space.grouped_channels.append(GroupedChannels(op.node, op.inputs[1], groups, apart, other.base))
    if not alternatives:
        op.freeze(y, "grouped convolution", "its input channels stay")
    op.space.choose(op.node, alternatives)


def _repeated(position: Labels, groups: int) -> Labels:
    """Return the labels of positions within one group, group after group; a single position stays."""
    return Labels(position.base, 1, groups) if len(position) > 1 else stay(groups)


def window(op: Operator, labels: Labels, axis: int) -> Labels:
    """Labels of a spatial axis behind a sliding window: it passes only where the window is a single point."""
    size = op.out_shape()[axis]
    if labels.live and size == len(labels) and _is_point(op, axis - 2):
        return labels
    op.freeze(labels, "sliding window", "a window slides along this axis")
    return stay(size)


def _is_point(op: Operator, spatial: int) -> bool:
    attribute = op.node.attribute
    kernel = attribute("kernel_shape") or op.shape(1)[2:]
    rank = len(kernel)
    pads = attribute("pads") or [0] * (2 * rank)
    stride = (attribute("strides") or [1] * rank)[spatial]
    return bool(kernel[spatial] == 1 and stride == 1 and pads[spatial] == 0 == pads[spatial + rank])


@adapter("Conv", attributes=("group",))
def adapt_conv(op: Pruned) -> Edits:
    """The number of groups is what is left of the inputs over what is left inside one group."""
    return adapt_group(op, int(op.kept(0)[1].sum()) // int(op.kept(1)[1].sum()))


@adapter("ConvTranspose", attributes=("group",))
def adapt_conv_transpose(op: Pruned) -> Edits:
    """As `Conv`, read from the outputs."""
    return adapt_group(op, int(op.kept_out(0)[1].sum()) // int(op.kept(1)[1].sum()))


def adapt_group(op: Pruned, groups: int) -> Edits:
    """Set the number of groups where it changes."""
    return Edits() if groups == op.node.attribute("group", 1) else Edits(attributes={"group": groups})

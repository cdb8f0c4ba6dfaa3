# SPDX-License-Identifier: Apache-2.0
"""`DeformConv`, whose windows are bent by offsets, and `CausalConvWithState`, which carries its past along."""

from __future__ import annotations

from math import prod

from graphprune.labels.adapt import adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.convolution import adapt_conv, conv_weight
from graphprune.labels.space import Role
from graphprune.labels.vector import stay

_PAST = 3


@rule("DeformConv")
def deform_conv(op: Operator) -> None:
    """As `Conv`; one offset per window serves all channels, or all of one offset group, which then stay."""
    x, offset = op.labels(0), op.labels(2)
    if op.node.attribute("offset_group", 1) > 1:
        op.freeze(x[1], "DeformConv", "is cut into offset groups")
    op.freeze(offset[1:], "DeformConv", "holds one offset")
    op.unite(x[0], offset[0])
    if op.has(4):
        op.freeze(op.labels(4)[1:], "DeformConv", "masks windows")
        op.unite(x[0], op.labels(4)[0])
    w = conv_weight(op)
    op.freeze(x[2:], "DeformConv", "a window slides along this axis")
    if op.has(3):
        op.tie(3, (w[0],))
    y = (x[0], w[0], *(stay(size) for size in op.out_shape()[2:]))
    op.cost((y[0], *y[2:]), w[1], y[1], prod(op.shape(1)[2:]))
    op.set(0, y)


adapter("DeformConv", attributes=("group",))(adapt_conv)


@rule("CausalConvWithState")
def causal_conv(op: Operator) -> None:
    """A depthwise convolution along time; the state is (batch, channels, what came before)."""
    x = op.labels(0)
    roles: tuple[Role, ...] = ("per_channel", "", "")
    w = op.operand(1, roles)
    op.unite(x[1], w[0])
    op.freeze((*w[1:], x[2]), "CausalConvWithState", "is an axis of time")
    if op.has(2):
        op.tie(2, (x[1],))
    if op.has(_PAST):
        op.tie(_PAST, (x[0], x[1], stay(op.shape(_PAST)[2])))
    op.cost((x[0], stay(op.shape(0)[2])), stay(1), x[1], op.shape(1)[2])
    for slot, name in enumerate(op.node.outputs):
        if name:
            op.set(slot, (x[0], x[1], stay(op.out_shape(slot)[2])))

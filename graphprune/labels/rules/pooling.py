# SPDX-License-Identifier: Apache-2.0
"""Pools: every channel on its own, windows slide along the spatial axes."""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.rules.convolution import window
from graphprune.labels.vector import stay


@rule("AveragePool", "LpPool", "MaxPool")
def pool(op: Operator) -> None:
    """Batch and channel axes pass. `MaxPool` indices count through all channels, so reading them freezes."""
    x = op.labels(0)
    if len(op.node.outputs) > 1 and op.node.outputs[1]:
        op.barrier("MaxPool indices", "the indices output counts through all channels")
        return
    op.set(0, (x[0], x[1], *(window(op, x[axis], axis) for axis in range(2, len(x)))))


@rule("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
def global_pool(op: Operator) -> None:
    """All spatial positions of a channel become one."""
    x = op.labels(0)
    op.freeze(x[2:], op.node.op_type, "all positions of this axis are combined")
    op.set(0, (x[0], x[1], *(stay(1) for _ in x[2:])))

# SPDX-License-Identifier: Apache-2.0
"""`Concat` and `Split`: label vectors are joined and cut."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import Labels, concatenate, stay


@rule("Concat")
def concat(op: Operator) -> None:
    """Along `axis` the label vectors stand end to end; all other axes keep the same slices."""
    slots = [slot for slot in range(len(op.inputs)) if op.has(slot)]
    rank = len(op.out_shape())
    axis = op.node.attribute("axis", 1) % rank
    activations = [op.labels(slot) for slot in slots if not op.is_constant(slot)]
    y = list(activations[0])
    y[axis] = next((part[axis] for part in activations if part[axis].live), y[axis])
    for other in activations[1:]:
        for at in range(rank):
            if at != axis:
                op.unite(y[at], other[at])
    for at in range(rank):
        if at != axis:
            y[at] = next((part[at] for part in activations if not part[at].live), y[at])
    parts = {slot: _part(op, slot, axis, live=y[axis].live) for slot in slots}
    for slot in slots:
        if op.is_constant(slot):
            op.tie(slot, tuple(parts[slot] if at == axis else y[at] for at in range(rank)))
    y[axis] = concatenate(list(parts.values()))
    op.set(0, y)


def _part(op: Operator, slot: int, axis: int, *, live: bool) -> Labels:
    """Labels of one operand along the axis: beside channels, a constant has channels of its own.

    A value computed from shapes stays: it could depend on the size of the model's inputs.
    """
    if live and op.is_constant(slot) and op.node.inputs[slot] not in op.scope.shapes.derived:
        return op.space.joined(op.shape(slot)[axis])
    return op.labels(slot)[axis]


@rule("Split")
def split(op: Operator) -> None:
    """Every output takes its stretch of the labels along `axis`."""
    x = op.labels(0)
    axis = op.node.attribute("axis", 0) % len(x)
    if op.is_computed(1):
        op.freeze(x[axis], "Split", "is cut into parts whose sizes are computed while the model runs")
        x = (*x[:axis], stay(len(x[axis])), *x[axis + 1 :])
    start = 0
    for slot, name in enumerate(op.node.outputs):
        if not name:
            continue
        size = op.out_shape(slot)[axis]
        part = x[axis].select(slice(start, start + size))
        op.set(slot, (*x[:axis], part, *x[axis + 1 :]))
        start += size


@adapter("Split", slots=(1,), attributes=("split", "num_outputs"))
def adapt_split(op: Pruned) -> Edits:
    """Spell the kept sizes out where the node's own rule (equal parts, a list) would give others."""
    axis = op.node.attribute("axis", 0) % len(op.kept(0))
    sizes = [int(op.kept_out(slot)[axis].sum()) for slot in range(len(op.node.outputs))]
    given = op.current(1) if len(op.node.inputs) > 1 and op.node.inputs[1] else op.node.attribute("split")
    total = sum(sizes)
    if given is None and (op.version >= 18 or total % len(sizes) == 0):
        # From version 18 on the last part may be smaller; before, only equal parts need no list.
        each = -(-total // len(sizes))
        ends = [min(end, total) for end in accumulate([each] * len(sizes))]
        given = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if given is not None and [int(size) for size in given] == sizes:
        return Edits()
    if op.version < 13:
        return Edits(attributes={"split": sizes})
    attributes: dict[str, int | float | list[int] | None] = {"num_outputs": None} if op.version >= 18 else {}
    return Edits(attributes=attributes, inputs={1: np.asarray(sizes, dtype=np.int64)})

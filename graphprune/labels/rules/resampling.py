# SPDX-License-Identifier: Apache-2.0
"""`Resize` and `Upsample`: spatial axes change their size, channels pass."""

from __future__ import annotations

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import stay


@rule("Resize", "Upsample")
def resize(op: Operator) -> None:
    """An axis that keeps its length passes; resampling along a live axis freezes it."""
    shape = op.out_shape()
    crop = op.node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    y = []
    for vector, size in zip(op.labels(0), shape, strict=True):
        if len(vector) == size and not crop:
            y.append(vector)
        else:
            op.freeze(vector, op.node.op_type, "is resampled along this axis")
            y.append(stay(size))
    op.set(0, y)


@adapter("Resize", slots=(1, 2, 3))
def adapt_resize(op: Pruned) -> Edits:
    """Absolute `sizes` name channels too: write the kept count there."""
    current = op.current(3) if len(op.node.inputs) > 3 and op.node.inputs[3] else None
    if current is None:
        return Edits()
    rank = len(op.kept_out(0))
    axes = op.node.attribute("axes") or list(range(rank))
    sizes = [int(v) for v in current]
    dynamic = op.dynamic(3)
    new = list(sizes)
    for at, axis in enumerate(axes):
        kept = op.kept_out(0)[axis % rank]
        if not kept.all() and not (dynamic is not None and dynamic[at]):
            new[at] = int(kept.sum())
    return Edits() if new == sizes else Edits(inputs={3: np.asarray(new, dtype=np.int64)})

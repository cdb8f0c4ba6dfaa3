# SPDX-License-Identifier: Apache-2.0
"""`Resize` and `Upsample`: spatial axes change their size, channels pass."""

from __future__ import annotations

from graphprune.labels.adapt import Edits, Pruned, adapter, spell, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.vector import stay

_WITH_REGIONS = 11


@rule("Resize", "Upsample")
def resize(op: Operator) -> None:
    """An axis that keeps its length passes; resampling along a live axis freezes it.

    With an aspect ratio to keep, the size of one axis says how much all of them are scaled.
    """
    shape = op.out_shape()
    crop = op.node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    # Sizes that are computed may be others for other inputs. The regions of later versions come before them.
    computed = any(op.is_computed(slot) for slot in ((1,) if op.version < _WITH_REGIONS else (2, 3)))
    together = computed or op.node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    open_axes = {axis % len(shape) for axis in op.node.attribute("axes") or range(len(shape))} if together else ()
    y = []
    for axis, (vector, size) in enumerate(zip(op.moved(0), shape, strict=True)):
        if len(vector) == size and not crop and axis not in open_axes:
            y.append(vector)
        else:
            op.freeze(vector, op.node.op_type, "is resampled along this axis")
            y.append(stay(size))
    op.set(0, y)


@adapter("Resize", slots=(1, 2, 3))
def adapt_resize(op: Pruned) -> Edits:
    """Absolute `sizes` name channels too: write the kept count there."""
    original = op.original(3) if len(op.node.inputs) > 3 and op.node.inputs[3] else None
    if original is None:
        return Edits()
    rank = len(op.kept_out(0))
    axes = op.node.attribute("axes") or list(range(rank))
    sizes = [int(op.kept_out(0)[axis % rank].sum()) for axis in axes]
    current = op.current(3)
    # With an aspect ratio to keep, sizes are bounds: those of whole axes are not what comes out.
    bounds = op.node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    for at, axis in enumerate(axes):
        if bounds and whole(op.kept_out(0)[axis % rank]):
            sizes[at] = int(original[at])
    if current is not None and [int(v) for v in current] == sizes:
        return Edits()
    return spell(Edits(), op, 3, sizes)

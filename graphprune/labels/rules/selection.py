# SPDX-License-Identifier: Apache-2.0
"""`Slice`, `Gather` and `Pad`: slices are picked, or new ones are put around them."""

from __future__ import annotations

import numpy as np

from graphprune.labels.adapt import Edits, Pruned, adapter
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Role
from graphprune.labels.vector import Labels, concatenate, stay


@rule("Slice")
def slice_(op: Operator) -> None:
    """Labels are cut like the tensor; a live axis is cut with step 1 only."""
    x = list(op.labels(0))
    bounds = [op.ints(slot, name) for slot, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))]
    starts, ends, axes, steps = bounds
    if starts is None or ends is None or (op.has(3) and axes is None) or (op.has(4) and steps is None):
        op.barrier("Slice", "its bounds are computed while the model runs")
        return
    axes = list(range(len(starts))) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        if step != 1 and x[axis].live:
            op.freeze(x[axis], "Slice", f"picks every {step}th slice of this axis")
            x[axis] = stay(len(x[axis]))
        x[axis] = x[axis].select(slice(start, None if step < 0 and end < -len(x[axis]) else end, step))
    op.set(0, x)


@adapter("Slice", slots=(1, 2, 3, 4), attributes=("starts", "ends"))
def adapt_slice(op: Pruned) -> Edits:
    """A bound moves to the number of kept slices before it; bounds on whole axes stay as written."""
    old = [op.node.attribute("starts"), op.node.attribute("ends"), op.node.attribute("axes")]
    legacy = old[0] is not None
    if not legacy:
        old = [op.original(slot) if slot < len(op.node.inputs) and op.node.inputs[slot] else None for slot in (1, 2, 3)]
    if old[0] is None or old[1] is None:
        return Edits()
    starts, ends = [int(v) for v in np.ravel(old[0])], [int(v) for v in np.ravel(old[1])]
    axes = list(range(len(starts))) if old[2] is None else [int(v) for v in np.ravel(old[2])]
    changed = False
    for at, axis in enumerate(axes):
        kept = op.kept(0)[axis]
        if kept.all():
            continue
        first, last, _ = slice(starts[at], ends[at]).indices(len(kept))
        new = int(kept[:first].sum()), int(kept[:last].sum())
        left = slice(starts[at], ends[at]).indices(int(kept.sum()))
        if left[:2] != new:
            starts[at], ends[at], changed = new[0], new[1], True
    if not changed:
        return Edits()
    if legacy:
        return Edits(attributes={"starts": starts, "ends": ends})
    dtype = np.asarray(old[0]).dtype
    return Edits(inputs={1: np.asarray(starts, dtype=dtype), 2: np.asarray(ends, dtype=dtype)})


@rule("Gather")
def gather(op: Operator) -> None:
    """Constant indices pick labels. A single picked slice stays, and so does an axis indexed while running.

    Reading rows of a constant (an embedding) passes the labels of its other axes.
    """
    rank = len(op.shape(0))
    axis = op.node.attribute("axis", 0) % rank
    roles: list[Role] = ["out"] * rank
    roles[axis] = ""
    data = op.operand(0, roles)
    index = op.value(1)
    picked: tuple[Labels, ...]
    if index is not None and index.ndim == 1:
        picked = (data[axis].select(np.asarray(index, dtype=np.int64)),)
    elif index is not None and index.ndim == 0:
        one = data[axis].select(np.asarray([int(index)], dtype=np.int64))
        op.freeze(one, "Gather", "picks this single slice")
        picked = ()
    else:
        op.freeze(data[axis], "Gather", "is indexed while the model runs")
        picked = tuple(stay(size) for size in op.shape(1)) if op.is_constant(1) else op.labels(1)
    op.set(0, (*data[:axis], *picked, *data[axis + 1 :]))


@adapter("Gather", slots=(1,))
def adapt_gather(op: Pruned) -> Edits:
    """Indices of kept slices move up by the removed ones before them."""
    index = op.original(1)
    kept = op.kept(0)[op.node.attribute("axis", 0) % len(op.kept(0))]
    if index is None or kept.all() or index.ndim > 1:
        return Edits()
    flat = np.asarray(index, dtype=np.int64) % len(kept)
    rank = np.cumsum(kept) - 1
    new = rank[flat[kept[flat]]] if flat.ndim else rank[flat]
    current = op.current(1)
    if current is not None:
        given = np.asarray(current, dtype=np.int64)
        # An index outside the kept slices is an error when the model runs; it does not wrap around.
        if np.array_equal(np.where(given < 0, given + int(kept.sum()), given), new):
            return Edits()
    return Edits(inputs={1: np.asarray(new, dtype=index.dtype)})


@rule("Pad")
def pad(op: Operator) -> None:
    """A live axis gets labels of its own in front and behind; negative amounts cut.

    Other modes than "constant" repeat neighbouring slices, so they freeze the axis they pad.
    """
    amounts = _amounts(op)
    if amounts is None:
        op.barrier("Pad", "its amounts are computed while the model runs")
        return
    x = list(op.labels(0))
    for axis, (front, back) in amounts.items():
        if not (front or back):
            continue
        if not x[axis].live:
            x[axis] = stay(len(x[axis]) + front + back)
        elif op.node.attribute("mode", "constant") != "constant":
            op.freeze(x[axis], "Pad", "is padded with its own slices")
            x[axis] = stay(len(x[axis]) + front + back)
        else:
            inner = x[axis].select(slice(max(-front, 0), len(x[axis]) - max(-back, 0)))
            parts = [op.space.fresh(front) if front > 0 else None, inner, op.space.fresh(back) if back > 0 else None]
            x[axis] = concatenate([part for part in parts if part is not None])
    op.set(0, x)


def _amounts(op: Operator) -> dict[int, tuple[int, int]] | None:
    """Front and back amounts by axis, None where they are not constant."""
    pads, axes = op.ints(1, "pads"), op.ints(3)
    if pads is None or (op.has(3) and axes is None):
        return None
    rank = len(op.shape(0))
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    return {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}


@adapter("Pad", slots=(1, 3), attributes=("pads",))
def adapt_pad(op: Pruned) -> Edits:
    """Padding of a pruned axis shrinks to its kept part."""
    legacy = op.node.attribute("pads") is not None
    old = op.node.attribute("pads") if legacy else op.original(1)
    if old is None:
        return Edits()
    pads = [int(amount) for amount in np.ravel(old)]
    given = op.original(3) if len(op.node.inputs) > 3 and op.node.inputs[3] else None
    before, after = op.kept(0), op.kept_out(0)
    axes = range(len(before)) if given is None else [int(axis) % len(before) for axis in np.ravel(given)]
    new = list(pads)
    for at, axis in enumerate(axes):
        front, back = pads[at], pads[at + len(axes)]
        if after[axis].all() and before[axis].all():
            continue
        new[at] = int(after[axis][:front].sum()) if front >= 0 else -int(before[axis][:-front].sum())
        tail = len(after[axis]) - back
        new[at + len(axes)] = int(after[axis][tail:].sum()) if back >= 0 else -int(before[axis][back:].sum())
    given_now = np.asarray(pads) if legacy else op.current(1)
    if given_now is not None and [int(amount) for amount in np.ravel(given_now)] == new:
        return Edits()
    return Edits(attributes={"pads": new}) if legacy else Edits(inputs={1: np.asarray(new, dtype=np.int64)})

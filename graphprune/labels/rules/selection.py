# SPDX-License-Identifier: Apache-2.0
"""`Slice`, `Gather` and `Pad`: slices are picked, or new ones are put around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Mask
from graphprune.labels.adapt import Edits, Pruned, adapter, follow, spell, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Role
from graphprune.labels.vector import Labels, concatenate, stay


@rule("Slice")
def slice_(op: Operator) -> None:
    """Labels are cut like the tensor; a live axis is cut with step 1 only."""
    x = list(op.moved(0))
    bounds = [op.ints(slot, name) for slot, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))]
    starts, ends, axes, steps = bounds
    if starts is None or ends is None or (op.has(3) and axes is None) or (op.has(4) and steps is None):
        op.barrier("Slice", "its bounds are computed while the model runs")
        return
    axes = list(range(len(starts))) if axes is None else axes
    # Where bounds follow the size of the inputs, other slices are cut off for another size.
    moving = _changing(op, 1, len(starts)) | _changing(op, 2, len(starts))
    for start, end, axis, step, moves in zip(
        starts, ends, axes, steps or [1] * len(starts), moving.tolist(), strict=True
    ):
        if (step != 1 or moves) and x[axis].live:
            why = "cuts this axis by the size of the inputs" if moves else f"picks every {step}th slice of this axis"
            op.freeze(x[axis], "Slice", why)
            x[axis] = stay(len(x[axis]))
        x[axis] = x[axis].select(slice(start, None if step < 0 and end < -len(x[axis]) else end, step))
    op.set(0, x)


def _changing(op: Operator, slot: int, count: int) -> Mask:
    """Return which of `count` sizes that input `slot` gives depend on the size of the model's inputs."""
    return (
        np.broadcast_to(op.scope.changing(op.inputs[slot]), count) if op.has(slot) else np.zeros(count, dtype=np.bool_)
    )


@adapter("Slice", slots=(1, 2, 3, 4), attributes=("starts", "ends"))
def adapt_slice(op: Pruned) -> Edits:
    """A bound moves to the number of kept slices before it; bounds that say the right thing stay as they are.

    Bounds may be computed from the number of channels, of the sliced axis or of any other.
    """
    old, now = _bounds(op, op.original), _bounds(op, op.current)
    if old is None:
        return Edits()
    starts, ends = list(old.starts), list(old.ends)
    wrong = False
    for at, axis in enumerate(old.axes):
        kept = op.kept(0)[axis]
        if not whole(kept):
            first, last, _ = slice(starts[at], ends[at]).indices(len(kept))
            starts[at], ends[at] = int(kept[:first].sum()), int(kept[:last].sum())
        left, step = int(kept.sum()), old.steps[at]
        wanted = slice(starts[at], ends[at], step).indices(left)
        wrong |= now is None or slice(now.starts[at], now.ends[at], step).indices(left) != wanted
    if not wrong:
        return Edits()
    if op.node.attribute("starts") is not None:
        return Edits(attributes={"starts": starts, "ends": ends})
    return spell(spell(Edits(), op, 1, starts), op, 2, ends)


@dataclass(frozen=True)
class _Bounds:
    """What a `Slice` says, with axes and steps spelt out."""

    starts: list[int]
    ends: list[int]
    axes: list[int]
    steps: list[int]


def _bounds(op: Pruned, value: Callable[[int], npt.NDArray[np.generic] | None]) -> _Bounds | None:
    """Read the bounds of a `Slice`, None where they are not known."""
    given = len(op.node.inputs)
    read: list[list[int] | None] = []
    for slot, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")):
        found = value(slot) if slot < given and op.node.inputs[slot] else op.node.attribute(name)
        read.append(None if found is None else [int(item) for item in np.ravel(found)])
    starts, ends, axes, steps = read
    if starts is None or ends is None:
        return None
    return _Bounds(starts, ends, axes or list(range(len(starts))), steps or [1] * len(starts))


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
    index = None if op.scope.changing(op.inputs[1]).any() else op.value(1)
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
    """Indices of kept slices move with what goes or is copied before them."""
    index = op.original(1)
    axis = op.node.attribute("axis", 0) % len(op.kept(0))
    kept = op.kept(0)[axis]
    if index is None or whole(kept) or index.ndim > 1:
        return Edits()
    flat = np.asarray(index, dtype=np.int64) % len(kept)
    source = op.order(0)[axis]
    new = follow(flat, source, op.order_out(0)[axis]) if flat.ndim else np.searchsorted(source, flat)
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
    x = list(op.moved(0))
    moving: Mask = np.any(_changing(op, 1, 2 * len(amounts)).reshape(2, -1), axis=0)
    for (axis, (front, back)), moves in zip(amounts.items(), moving.tolist(), strict=True):
        if not (front or back):
            continue
        if not x[axis].live:
            x[axis] = stay(len(x[axis]) + front + back)
        elif moves:
            op.freeze(x[axis], "Pad", "is padded by an amount that depends on the size of the inputs")
            x[axis] = stay(len(x[axis]) + front + back)
        elif op.node.attribute("mode", "constant") != "constant":
            op.freeze(x[axis], "Pad", "is padded with its own slices")
            x[axis] = stay(len(x[axis]) + front + back)
        else:
            inner = x[axis].select(slice(max(-front, 0), len(x[axis]) - max(-back, 0)))
            ends = [op.space.joined(max(amount, 0)) for amount in (front, back)]
            x[axis] = concatenate([part for part in (ends[0], inner, ends[1]) if len(part)])
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
        if whole(after[axis]) and whole(before[axis]):
            continue
        new[at] = int(after[axis][:front].sum()) if front >= 0 else -int(before[axis][:-front].sum())
        tail = len(after[axis]) - back
        new[at + len(axes)] = int(after[axis][tail:].sum()) if back >= 0 else -int(before[axis][back:].sum())
    given_now = np.asarray(pads) if legacy else op.current(1)
    if given_now is not None and [int(amount) for amount in np.ravel(given_now)] == new:
        return Edits()
    return Edits(attributes={"pads": new}) if legacy else spell(Edits(), op, 1, new)

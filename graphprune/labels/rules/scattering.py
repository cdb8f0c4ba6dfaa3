# SPDX-License-Identifier: Apache-2.0
"""The `Scatter` family: slices of one tensor are put at given places of another.

Where constant indices are a grid (every axis has its own list of positions, as in
``x[:, :, 1:, 1:] += y``), each axis of the updates is matched with an axis of the data, and
channels pass. Any other indexed axis stays whole.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from graphprune.errors import UnsupportedModelError
from graphprune.labels.adapt import Edits, Pruned, adapter, follow, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Axes, Role
from graphprune.labels.vector import Ints, Labels, stay

_LARGEST_INDEX = 1 << 24
"""Indices with more elements are not looked at."""


@rule("ScatterND")
def scatter_nd(op: Operator) -> None:
    """The last axis of the indices names positions on the first axes of the data; its later axes pass."""
    data, updates = op.labels(0), op.labels(2)
    depth, placed = op.shape(1)[-1], len(op.shape(1)) - 1
    live = any(vector.live for vector in (*data[:depth], *updates[:placed]))
    lines = _lines(_index(op), op.shape(0)) if live and placed == depth else None
    if lines is None:
        for vectors in (data[:depth], updates[:placed]):
            op.freeze(vectors, "ScatterND", "is indexed at places that are no grid of constants")
        data = (*(stay(len(vector)) for vector in data[:depth]), *data[depth:])
        updates = (*(stay(len(vector)) for vector in updates[:placed]), *updates[placed:])
        lines = [np.arange(0)] * depth
    else:
        _match(op, data, updates, lines)
    tails = (data[depth:], updates[placed:])
    if op.is_constant(0):
        data = (*_spread(op, data[:depth], updates[:placed], lines), *tails[1])
        op.tie(0, data)
    elif op.is_constant(2):
        op.tie(2, (*_picked(data, updates[:placed], lines), *tails[0]))
    else:
        for one, other in zip(*tails, strict=True):
            op.unite(one, other)
    op.set(0, data)


def _index(op: Operator) -> npt.NDArray[np.generic] | None:
    """Constant indices of any reasonable size."""
    return op.array(1) if prod(op.shape(1)) <= _LARGEST_INDEX else None


def _lines(index: npt.NDArray[np.generic] | None, dims: tuple[int, ...]) -> list[Ints] | None:
    """Positions along each axis if the indices, shape (n0, ..., nk, k + 1), are a grid of them, else None."""
    if index is None or not index.size:
        return None
    lines = []
    for axis in range(index.shape[-1]):
        column = np.moveaxis(index[..., axis], axis, -1)
        line = column.reshape(-1, column.shape[-1])[0]
        if (column != line).any():
            return None
        lines.append(np.asarray(line, dtype=np.int64) % dims[axis])
    return lines


def _match(op: Operator, data: Axes, updates: Axes, lines: list[Ints]) -> None:
    """Unite every axis of the updates with the positions that it is put at."""
    if op.is_constant(0) or op.is_constant(2):
        return
    for axis, line in enumerate(lines):
        op.unite(data[axis].select(line), updates[axis])


def _spread(op: Operator, data: Axes, updates: Axes, lines: list[Ints]) -> list[Labels]:
    """Labels of a constant that is written into: those of the updates where they are put; the rest stays."""
    if not any(vector.live for vector in updates):
        return list(data)
    result = []
    for own, vector, line in zip(data, updates, lines, strict=True):
        if vector.live and len(np.unique(line)) == len(line):
            base = np.zeros(len(own), dtype=np.int64)
            base[line] = vector.expand()
            result.append(Labels(base))
        else:
            op.freeze(vector, "ScatterND", "is put at the same place twice")
            result.append(own)
    return result


def _picked(data: Axes, whole: Axes, lines: list[Ints]) -> list[Labels]:
    """Labels of constant updates: those of the places that they are put at."""
    if not lines or len(lines[0]) == 0:
        return list(whole)
    return [vector.select(line) for vector, line in zip(data, lines, strict=False)]


@adapter("ScatterND", slots=(1,))
def adapt_scatter_nd(op: Pruned) -> Edits:
    """The grid loses the removed positions, and later ones move up."""
    kept, index = op.kept(0), op.original(1)
    if index is None or all(whole(mask) for mask in kept[: index.shape[-1]]):
        return Edits()
    lines = _lines(index, tuple(len(mask) for mask in kept))
    if lines is None:
        return Edits()
    moved = [follow(*given) for given in zip(lines, op.order(0), op.order(2), strict=False)]
    new = np.stack(np.meshgrid(*moved, indexing="ij"), axis=-1)
    current = op.current(1)
    if current is not None and current.shape == new.shape and np.array_equal(current, new):
        return Edits()
    dynamic = op.dynamic(1)
    if dynamic is not None and dynamic.any():
        raise UnsupportedModelError(
            f"the indices of node {op.node!r} depend on both the input size and a pruned width",
            hint="export the model with fixed input sizes",
        )
    return Edits(inputs={1: new.astype(index.dtype)})


@rule("ScatterElements", "Scatter")
def scatter_elements(op: Operator) -> None:
    """Along `axis` elements go anywhere; along the others all three tensors run in step."""
    data = list(op.labels(0))
    axis = op.node.attribute("axis", 0) % len(data)
    others = [slot for slot in (0, 1, 2) if not op.is_constant(slot)]
    for slot in others:
        op.freeze(op.labels(slot)[axis], op.node.op_type, "is indexed while the model runs")
    data[axis] = stay(len(data[axis]))
    _in_step(op, data, axis, others)
    op.set(0, data)


@rule("GatherElements")
def gather_elements(op: Operator) -> None:
    """As `Gather` with an index for every element: data and indices run in step along all axes but one."""
    data = list(op.labels(0))
    axis = op.node.attribute("axis", 0) % len(data)
    others = [slot for slot in (0, 1) if not op.is_constant(slot)]
    for slot in others:
        op.freeze(op.labels(slot)[axis], "GatherElements", "is indexed while the model runs")
    data[axis] = stay(op.shape(1)[axis])
    _in_step(op, data, axis, others)
    op.set(0, data)


def _in_step(op: Operator, result: list[Labels], axis: int, slots: list[int]) -> None:
    """Unite all axes but one, where they are equally long; constants follow. Fills `result` in."""
    size = op.out_shape()
    for at in range(len(result)):
        if at == axis:
            continue
        axes = [op.labels(slot)[at] for slot in slots]
        equal = all(op.shape(slot)[at] == size[at] for slot in range(len(op.node.inputs)))
        if not equal:
            op.freeze(axes, op.node.op_type, "is read in part")
        for other in axes[1:] if equal else []:
            op.unite(axes[0], other)
        result[at] = next((v for v in axes if not v.live), axes[0]) if equal and axes else stay(size[at])
    for slot in range(len(op.node.inputs)):
        if slot not in slots:
            own = op.shape(slot)
            axes = [stay(own[at]) if at == axis else vector for at, vector in enumerate(result)]
            op.tie(slot, tuple(axes), maskable=False)


@rule("GatherND")
def gather_nd(op: Operator) -> None:
    """The indexed axes stay whole; those before (`batch_dims`) run in step, those behind pass."""
    roles: list[Role] = ["out"] * len(op.shape(0))
    data, index = op.operand(0, roles), op.labels(1)
    first, depth = op.node.attribute("batch_dims", 0), op.shape(1)[-1]
    op.freeze(data[first : first + depth], "GatherND", "is indexed")
    op.freeze(index[-1:], "GatherND", "holds one index")
    for one, other in zip(data[:first], index[:first], strict=True):
        op.unite(one, other)
    batch = [one if other.live else other for one, other in zip(data[:first], index[:first], strict=True)]
    op.set(0, (*batch, *index[first:-1], *data[first + depth :]))

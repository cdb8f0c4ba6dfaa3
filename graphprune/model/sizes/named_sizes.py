# SPDX-License-Identifier: Apache-2.0
"""Sizes that constants name: what they are for smaller inputs.

A file with fixed inputs names sizes wherever it reshapes, cuts, pads or resizes: ``Reshape [1, 4, 64000000]`` takes
one size of images only. Inputs can be smaller all the same if what the constants name becomes smaller with them. What
it becomes is told by the number of elements, and by what axes of the same size became before.

=======================  ============================================================================
operator                 what becomes of a size that it names
=======================  ============================================================================
Reshape                  runs of axes with one product before have one afterwards; sizes of a run that
                         is split are those that such axes became elsewhere, or take all of the change
Expand, ConstantOfShape  as the axis of the input, or as such axes became elsewhere
Resize, Tile, Pad        as such axes became elsewhere, with as large a share on both sides of a pad
Slice                    bounds near an end stay as far from it, others stay the same share of the axis
Split                    the same share of the axis
elementwise, stored      the first part of the axis, as long as that of the other operands
=======================  ============================================================================

None of this is certain, so nothing is believed before inference and a run agree: it is used where another size shows
the same as the one that a file names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from graphprune.array_types import Array
from graphprune.model.graph import Node
from graphprune.model.inference.known import Shapes
from graphprune.model.sizes.equal_runs import equal_runs
from graphprune.model.sizes.size_memory import SizeMemory, UnfitError

__all__ = ["CutOperand", "NamedSizes", "SizeList"]

Dims = tuple[int, ...]

_NEAR: Final = 16
"""Bounds within this share of an axis from one of its ends keep their distance to it."""
_ELEMENTWISE: Final = """
    Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
"""
_BROADCASTING: Final = frozenset(_ELEMENTWISE.split())


@dataclass(frozen=True)
class SizeList:
    """A list of sizes that a node reads.

    Attributes
    ----------
    output : str
        First output of the node.
    slot : int
    before, now : tuple of int
        What the elements stand for with the inputs that the file names, and with others.
    literal : bool
        Whether 0 and -1 stand for themselves.
    """

    output: str
    slot: int
    before: Dims
    now: Dims
    literal: bool = True

    def fitted(self, values: Array) -> Array:
        """Return what such a list has to be in the original or in another version of it.

        Raises
        ------
        UnfitError
            If it is another list altogether, or a size in it is not divisible as it would have to be.
        """
        flat = [int(value) for value in values.ravel()]
        if len(flat) != len(self.before):
            raise UnfitError
        return np.asarray(
            [self._one(*sizes) for sizes in zip(flat, self.before, self.now, strict=True)], values.dtype
        ).reshape(values.shape)

    def _one(self, value: int, before: int, now: int) -> int:
        if before == now or (value in (0, -1) and not self.literal):
            return value
        if value == before:
            return now
        if not before or value * now % before:
            raise UnfitError
        return value * now // before


@dataclass(frozen=True)
class CutOperand:
    """Stored values of which a node reads only the first ones.

    Attributes
    ----------
    output : str
        First output of the node.
    slot : int
    lengths : dict of int to int
        How much is read along an axis.
    """

    output: str
    slot: int
    lengths: Mapping[int, int]


class NamedSizes:
    """What nodes read in the place of the sizes that a file names (a `Given`).

    Parameters
    ----------
    before : Shapes
        What is known for the inputs that the file names.

    Attributes
    ----------
    edits : list of SizeList or CutOperand
        What was given, in the order of the nodes.
    """

    def __init__(self, before: Shapes) -> None:
        self._before = before
        self._memory = SizeMemory()
        self.edits: list[SizeList | CutOperand] = []

    def __call__(self, node: Node, now: Shapes) -> Mapping[str, Array | Dims]:
        """Return what a node reads instead of what is stored, by name.

        Raises
        ------
        UnfitError
            If there are no such sizes.
        """
        before = self._before
        for name in node.inputs:
            if name and name not in before.constant:
                self._memory.learn(before.dims.get(name, ()), now.dims.get(name, ()))
        if node.domain or not all(name in before.dims for name in (*node.inputs, *node.outputs) if name):
            return {}
        if not all(name in now.dims for name in node.inputs if name):
            raise UnfitError
        if node.op_type in _BROADCASTING:
            return self._cut(node, now)
        return self._renamed(node, now)

    def _renamed(self, node: Node, now: Shapes) -> dict[str, Array | Dims]:
        """Return the sizes that a node is given."""
        rule = _RULES.get(node.op_type)
        renamed: dict[str, Array | Dims] = {}
        for edit in rule(_Place(node, self._before, now, self._memory)) if rule is not None else ():
            name = node.inputs[edit.slot]
            if edit.before == edit.now or name in self._before.open:
                continue
            if name in renamed:
                raise UnfitError
            renamed[name] = edit.fitted(now.values[name])
            self.edits.append(edit)
        return renamed

    def _cut(self, node: Node, now: Shapes) -> dict[str, Array | Dims]:
        """Let stored operands be as long as the others."""
        before = self._before
        whole = before.dims[node.outputs[0]]
        moving = [name for name in node.inputs if name and name not in before.constant]
        cut: dict[str, Array | Dims] = {}
        for slot, name in enumerate(node.inputs):
            if name not in before.constant or name in before.open:
                continue
            dims, lengths = now.dims[name], dict[int, int]()
            for back in range(1, len(dims) + 1):
                sizes = {now.dims[other][-back] for other in moving if _is_at(before.dims[other], back, whole[-back])}
                if dims[-back] == whole[-back] and len(sizes) == 1 and (size := sizes.pop()) < dims[-back]:
                    lengths[len(dims) - back] = size
            if lengths:
                cut[name] = tuple(lengths.get(axis, size) for axis, size in enumerate(dims))
                self.edits.append(CutOperand(node.outputs[0], slot, lengths))
        return cut


class _Place:
    """A node that names sizes, and what is known of it."""

    def __init__(self, node: Node, before: Shapes, now: Shapes, memory: SizeMemory) -> None:
        self.node = node
        self.memory = memory
        self._before = before
        self._now = now
        self.made = before.dims[node.outputs[0]]

    @property
    def source(self) -> Dims:
        """The shape of the first input before."""
        return self._before.dims[self.node.inputs[0]]

    @property
    def current(self) -> Dims:
        """The shape of the first input now."""
        return self._now.dims[self.node.inputs[0]]

    def stored(self, slot: int) -> Dims | None:
        """Return the integers that an input holds, None where it is none or they are not known."""
        name = self.node.inputs[slot] if slot < len(self.node.inputs) else ""
        values = self._now.values.get(name)
        return None if values is None else tuple(int(value) for value in values.ravel())

    def axes(self, slot: int) -> list[int]:
        """Return the axes that an input names; all of them where there is none."""
        named = self.stored(slot)
        rank = len(self.source)
        return list(range(rank)) if named is None else [axis % rank for axis in named]

    def list_of(self, slot: int, before: Dims, now: Sequence[int], *, literal: bool = True) -> list[SizeList]:
        """Return the edit of one input."""
        return [SizeList(self.node.outputs[0], slot, before, tuple(now), literal)]


def _reshape(at: _Place) -> list[SizeList]:
    stored = at.stored(1)
    if stored is None or len(stored) != len(at.made) or prod(at.source) != prod(at.made) or not prod(at.made):
        return []
    sizes = list(at.made)
    for inputs, outputs in equal_runs(at.source, at.made):
        total = prod(at.current[axis] for axis in inputs)
        split = at.memory.split([(axis, at.made[axis]) for axis in outputs], total)
        for axis, size in zip(outputs, split, strict=True):
            sizes[axis] = size
    return at.list_of(1, at.made, sizes, literal=bool(at.node.attribute("allowzero", 0)))


def _expand(at: _Place) -> list[SizeList]:
    stored = at.stored(1)
    if stored is None:
        return []
    sizes = []
    for position, size in enumerate(stored):
        back = len(stored) - position
        follows = _is_at(at.source, back, size) and size > 1
        sizes.append(at.current[-back] if follows else at.memory.usual(len(at.made) - back, size))
    return at.list_of(1, stored, sizes)


def _fill(at: _Place) -> list[SizeList]:
    stored = at.stored(0)
    if stored is None:
        return []
    return at.list_of(0, stored, [at.memory.usual(axis, size) for axis, size in enumerate(stored)])


def _resize(at: _Place) -> list[SizeList]:
    stored, axes = at.stored(3), [axis % len(at.source) for axis in at.node.attribute("axes", range(len(at.source)))]
    if stored is None or len(axes) != len(stored):
        return []
    pairs = zip(axes, stored, strict=True)
    sizes = [at.current[axis] if size == at.source[axis] else at.memory.usual(axis, size) for axis, size in pairs]
    return at.list_of(3, stored, sizes)


def _tile(at: _Place) -> list[SizeList]:
    stored = at.stored(1)
    if stored is None or len(stored) != len(at.made):
        return []
    wanted = [at.memory.usual(axis, size) for axis, size in enumerate(at.made)]
    sizes = [
        whole // part if times > 1 and part and whole % part == 0 else times
        for times, part, whole in zip(stored, at.current, wanted, strict=True)
    ]
    return at.list_of(1, stored, sizes)


def _pad(at: _Place) -> list[SizeList]:
    stored, axes = at.stored(1), at.axes(3)
    if stored is None or len(stored) != 2 * len(axes):
        return []
    amounts = list(stored)
    for position, axis in enumerate(axes):
        front, behind = stored[position], stored[position + len(axes)]
        whole, total = at.source[axis] + front + behind, front + behind
        wanted = at.memory.usual(axis, whole)
        more = wanted - at.current[axis]
        if wanted != whole and more != total > 0 and front * more % total == 0 <= more:
            amounts[position] = front * more // total
            amounts[position + len(axes)] = more - amounts[position]
    return at.list_of(1, stored, amounts)


def _parts(at: _Place) -> list[SizeList]:
    stored, axis = at.stored(1), at.node.attribute("axis", 0)
    whole, size = at.source[axis], at.current[axis]
    if stored is None or whole == size:
        return []
    if any(part * size % whole for part in stored):
        raise UnfitError
    return at.list_of(1, stored, [part * size // whole for part in stored])


def _bounds(at: _Place) -> list[SizeList]:
    axes, edits = at.axes(3), list[SizeList]()
    for slot in (1, 2):
        stored = at.stored(slot)
        if stored is None or (slot < len(at.node.inputs) and len(stored) > len(axes)):
            return []
        moved = [_bound(value, at.source[axis], at.current[axis]) for value, axis in zip(stored, axes, strict=False)]
        edits += at.list_of(slot, stored, moved)
    return edits


def _bound(value: int, whole: int, size: int) -> int:
    """Return where an axis is cut that has become shorter."""
    if whole == size or value < 0 or value >= whole or value * _NEAR <= whole:
        return value
    if (whole - value) * _NEAR <= whole:
        return size - (whole - value)
    return value * size // whole


def _is_at(dims: Dims, back: int, size: int) -> bool:
    """Whether an axis, counted from the last one, has a size."""
    return len(dims) >= back and dims[-back] == size


_RULES: Final[Mapping[str, Callable[[_Place], list[SizeList]]]] = {
    "ConstantOfShape": _fill,
    "Expand": _expand,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _bounds,
    "Split": _parts,
    "Tile": _tile,
}

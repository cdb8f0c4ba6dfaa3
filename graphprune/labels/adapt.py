# SPDX-License-Identifier: Apache-2.0
"""Constants that encode sizes, and how each operator's follow when its axes shrink.

A pruned axis has as many slices as kept labels. Operators that spell sizes or positions out
(`Reshape` targets, `Split` sizes, `Slice` bounds, `Pad` amounts, `group`) register an adapter
next to their label rule: it compares what the node would do with what its labels say, and
edits only what disagrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Ints, Mask
from graphprune.errors import InternalError, UnsupportedModelError
from graphprune.model.graph import Node

__all__ = [
    *("Adapter", "Counts", "Edits", "Pruned", "adapter", "adapter_for", "both_open", "follow", "size_attributes"),
    *("size_slots", "spell", "spell_shape", "whole"),
]

Counts = npt.NDArray[np.bool_ | np.int64]
"""How often each slice of an original axis is there afterwards: a mask where slices only go."""


@dataclass
class Edits:
    """Changes to one node.

    Attributes
    ----------
    attributes : dict of str to value
        Attributes to set, or to drop (None).
    inputs : dict of int to ndarray
        Inputs to replace by constants, or to leave out (None).
    splices : dict of int to (ndarray of bool, ndarray)
        Inputs of which the marked elements are replaced, while the graph goes on computing the others.
    shares : dict of int to (ndarray, ndarray)
        Inputs that the graph goes on computing, of whose elements so many of so many parts stay.
    """

    attributes: dict[str, int | float | list[int] | None] = field(default_factory=dict)
    inputs: dict[int, Array | None] = field(default_factory=dict)
    splices: dict[int, tuple[Mask, Array]] = field(default_factory=dict)
    shares: dict[int, tuple[Array, Array]] = field(default_factory=dict)


class Pruned(Protocol):
    """One node as it stands after slices are gone, or have been copied."""

    node: Node
    version: int

    def kept(self, slot: int) -> list[Counts]:
        """Kept slices along each axis of an input, as masks (or numbers of copies) over the original axis."""

    def kept_out(self, slot: int) -> list[Counts]:
        """Kept slices along each axis of an output."""

    def order(self, slot: int) -> Sequence[Ints]:
        """For each axis of an input, where each of its slices stood in the original."""

    def order_out(self, slot: int) -> Sequence[Ints]:
        """For each axis of an output, where each of its slices stood in the original."""

    def share(self, axis: int) -> tuple[int, int] | None:
        """How many of how many slices stay on an axis of output 0, if as large a share does whatever its length is."""

    def original(self, slot: int) -> Array | None:
        """Value that a constant input had in the original graph."""

    def current(self, slot: int) -> Array | None:
        """Value that the same input has in the pruned graph if nothing is edited."""

    def follows(self, *, from_back: bool = False) -> tuple[Mask, Mask]:
        """Which axes of the first output follow the size of the model's inputs, and which equal those of input 0.

        Axes are compared from the first one on, or as broadcasting does it: from the last one back.
        """

    def dynamic(self, slot: int) -> Mask | None:
        """Which elements of a constant input change with the size of the model's inputs."""


Adapter = Callable[[Pruned], Edits]


@dataclass(frozen=True)
class _Entry:
    """An adapter and all that it may touch."""

    function: Adapter
    slots: tuple[int, ...]
    attributes: frozenset[str]


_WHERE = 9
"""The operator-set version since which `Where` can splice sizes."""

_ADAPTERS: dict[tuple[str, str], _Entry] = {}


def adapter(
    *operators: str, slots: tuple[int, ...] = (), attributes: tuple[str, ...] = (), domain: str = ""
) -> Callable[[Adapter], Adapter]:
    """Register the adapter of one or more operators.

    Parameters
    ----------
    slots : tuple of int
        Inputs that encode sizes or positions; they are the adapter's business alone.
    attributes : tuple of str
        Attributes that the adapter may change; the fidelity check lets no other one change.
    """

    def register(function: Adapter) -> Adapter:
        for name in operators:
            if (domain, name) in _ADAPTERS:
                raise InternalError(f"two adapters for {name}")
            _ADAPTERS[domain, name] = _Entry(function, slots, frozenset(attributes))
        return function

    return register


def adapter_for(node: Node) -> Adapter | None:
    """Return the adapter of a node's operator, if it has one."""
    entry = _entry(node)
    return None if entry is None else entry.function


def size_slots(node: Node) -> tuple[int, ...]:
    """Return the inputs of a node that its adapter looks after."""
    entry = _entry(node)
    return () if entry is None else entry.slots


def size_attributes(node: Node) -> frozenset[str]:
    """Return the attributes of a node that its adapter may change."""
    entry = _entry(node)
    return frozenset() if entry is None else entry.attributes


def _entry(node: Node) -> _Entry | None:
    return _ADAPTERS.get((node.domain, node.op_type))


def whole(counts: Counts) -> bool:
    """Whether an axis has all its slices, each once."""
    if counts.size and not any(counts.strides):  # one value for all (`Labels.spread`)
        return bool(counts.flat[0] == 1)
    return bool((counts == 1).all())


def follow(line: Ints, source: Ints, target: Ints) -> Ints:
    """Return the new positions of what is picked from an axis.

    Parameters
    ----------
    line : ndarray of int64
        For each position of the original result, the original position that it is picked from.
    source, target : ndarray of int64
        Original position of each slice that the axis, and that the result now has. The n-th copy is picked
        from the n-th copy.
    """
    wanted = line[target]
    by_target = np.argsort(target, kind="stable")
    starts = np.searchsorted(target[by_target], target[by_target], side="left")
    number = np.empty_like(target)
    number[by_target] = np.arange(len(target)) - starts
    by_source = np.argsort(source, kind="stable")
    picked: Ints = by_source[np.searchsorted(source[by_source], wanted, side="left") + number]
    return picked


def spell(edits: Edits, op: Pruned, slot: int, wanted: Sequence[int], fixed: Mask | None = None) -> Edits:
    """Put integers in the place of a constant input.

    Elements that follow the size of the model's inputs are left to the graph, which computes them
    as before; the others are spliced into what it computes (see also `spell_shape`).

    Parameters
    ----------
    edits : Edits
        Where it is noted; returned.
    wanted : sequence of int
        What the input has to be for the analysed sizes of the model's inputs.
    fixed : ndarray of bool, optional
        Elements that hold for every size of the model's inputs; by default those that do not change with it.

    Raises
    ------
    UnsupportedModelError
        If an element that is left to the graph is not what is wanted there.
    """
    dynamic, original = op.dynamic(slot), op.original(slot)
    values = np.asarray(wanted, dtype=np.int64 if original is None else original.dtype)
    if fixed is None:
        fixed = np.ones(len(values), dtype=np.bool_) if dynamic is None else ~np.ravel(dynamic)
    return _splice(edits, op, slot, values, fixed)


def _splice(edits: Edits, op: Pruned, slot: int, values: Array, fixed: Mask) -> Edits:
    """Replace an input where nothing of it is left to the graph, else those of its elements that are fixed."""
    if fixed.all():
        edits.inputs[slot] = values
        return edits
    left = _left(op, slot, values)
    if (left[~fixed] != values[~fixed]).any() or op.version < _WHERE:
        raise both_open(op.node)
    edits.splices[slot] = fixed, values
    return edits


def _left(op: Pruned, slot: int, values: Array) -> Array:
    """Return what the graph computes as an input that is left to it."""
    current = op.current(slot)
    left = None if current is None else np.ravel(current)
    if left is None or left.shape != values.shape:
        raise both_open(op.node)
    return left


def spell_shape(op: Pruned, slot: int, wanted: Sequence[int], fixed: Mask) -> Edits:
    """Put the shape of output 0 in the place of a constant input, as `spell` does it.

    An axis that is open and loses slices keeps its share of what the graph computes: so many samples times the
    heads that stay are that share of the samples times all heads.
    """
    original = op.original(slot)
    values = np.asarray(wanted, dtype=np.int64 if original is None else original.dtype)
    if fixed.all():
        return _splice(Edits(), op, slot, values, fixed)
    left, edits = _left(op, slot, values), Edits()
    shares = [op.share(axis) if not fixed[axis] and left[axis] != values[axis] else (1, 1) for axis in range(len(left))]
    if any(share is None for share in shares):
        raise both_open(op.node)
    kept, every = (np.asarray(part, dtype=values.dtype) for part in zip(*filter(None, shares), strict=True))
    if (kept == every).all():
        return _splice(edits, op, slot, values, fixed)
    shared = left * kept // every
    if (shared[~fixed] != values[~fixed]).any():
        raise both_open(op.node)
    edits.shares[slot] = kept, every
    if (shared != values).any():
        if op.version < _WHERE:
            raise both_open(op.node)
        edits.splices[slot] = fixed, values
    return edits


def both_open(node: Node) -> UnsupportedModelError:
    """Return the error of a node whose sizes no list of integers can spell."""
    return UnsupportedModelError(
        f"node {node!r} has sizes that depend on both the input size and a pruned width",
        hint="export the model with fixed input sizes",
    )

# SPDX-License-Identifier: Apache-2.0
"""Copies: how often every atom is there, and where its copies stand.

Neighbouring slices of one atom are copied as one stretch: a channel behind `Flatten` is a stretch of positions, a group
of a grouped convolution a stretch of channels. So every operator finds copies in the order in which it makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from graphprune.array_types import Array, Floats, Ints
from graphprune.errors import InternalError
from graphprune.model.files.messages import copy_but
from graphprune.model.tensors import DATA_FIELDS
from graphprune.surgery.slices import Demand

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.adapt import Counts
    from graphprune.labels.space import Contraction, Use
    from graphprune.labels.vector import Labels
    from graphprune.model.tensors import TensorStore
    from graphprune.model.values.scaling import Span
    from graphprune.surgery.slices import Changes
    from graphprune.widening.sums import Power, Sums

__all__ = ["Copies", "Noise", "Spread"]


@dataclass(frozen=True)
class Noise:
    """How unequally the columns of copies share what they were.

    Attributes
    ----------
    scale : float
        Standard deviation, in units of that of the weight.
    seed : int
    """

    scale: float
    seed: int


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis: where its slices stood, how often each original one is there, and which share of it each copy is."""

    order: Ints
    counts: Ints
    shares: Floats | None = None

    @property
    def whole(self) -> bool:
        return bool((self.counts == 1).all())


@dataclass(frozen=True, eq=False)
class Spread(Demand):
    """The slices, and copies of them, that a reader wants of a constant."""

    spread: tuple[_Axis, ...] = ()
    noise: Noise | None = None

    @property
    def key(self) -> bytes:
        """Equal where the same slices are wanted, divided in the same way."""
        return b"/".join(
            axis.order.tobytes() + (b"" if axis.shares is None else axis.shares.tobytes()) for axis in self.spread
        )

    @property
    def whole(self) -> bool:
        """Whether every slice is wanted once."""
        return all(axis.whole for axis in self.spread)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """How often each slice is wanted, per axis."""
        return tuple(axis.counts for axis in self.spread)

    @property
    def orders(self) -> tuple[Ints, ...]:
        """Where the wanted slices stand in the original, per axis."""
        return tuple(axis.order for axis in self.spread)

    def cut(self, array: Array) -> Array:
        """Copy slices, and divide those that are read; rows that are copies are equal to the last bit."""
        for at, axis in enumerate(self.spread):
            if axis.shares is not None and not axis.whole:
                array = self._divided(array, at, axis)
        for at, axis in enumerate(self.spread):
            if axis.shares is None and not axis.whole:
                array = np.take(array, axis.order, axis=at)
        return array

    def _divided(self, array: Array, at: int, axis: _Axis) -> Array:
        columns = np.moveaxis(np.take(array, axis.order, axis=at), at, 0)
        shape = (-1, *[1] * (array.ndim - 1))
        shares = np.ones(1) if axis.shares is None else axis.shares
        result = columns.astype(np.float64) * shares.reshape(shape)
        if self.noise is not None and self.noise.scale > 0:
            random = np.random.default_rng([self.noise.seed, crc32(np.ascontiguousarray(array).tobytes())])
            moved = random.standard_normal(result.shape) * self.noise.scale * float(array.astype(np.float64).std())
            mean = np.zeros((len(axis.counts), *result.shape[1:]))
            np.add.at(mean, axis.order, moved)
            result += moved - (mean / axis.counts.reshape(shape))[axis.order]
        return np.moveaxis(result, 0, at).astype(array.dtype)

    def cut_tensor(self, store: TensorStore, tensor: TensorProto, name: str | None = None) -> TensorProto:
        """Return a tensor message with the wanted slices, under another name if one is given."""
        made = self.cut(store.array(tensor))
        result = TensorProto()
        copy_but(tensor, result, "dims", *DATA_FIELDS)
        if name is not None:
            result.name = name
        result.dims.extend(made.shape)
        result.raw_data = numpy_helper.from_array(made).raw_data
        return result

    def seen_from(self, axes: tuple[int | None, ...], dims: tuple[int, ...]) -> Spread:
        """Return the demand on the input of a layout-only node whose output axes come from `axes`."""
        spread = [_Axis(np.arange(size), np.ones(size, dtype=np.int64)) for size in dims]
        for own, axis in zip(self.spread, axes, strict=True):
            if axis is not None:
                spread[axis] = own
        return Spread((), tuple(spread), self.noise)

    def laid_over(self, spans: tuple[Span, ...] | None) -> Spread:
        """Return the demand on a scale over what is demanded."""
        if spans is None:
            raise InternalError("a scale lies over copied slices in an unknown way")
        return Spread((), tuple(self._block(axis, block) for axis, block in spans))

    def _block(self, axis: int, block: int) -> _Axis:
        if not block:
            return _Axis(np.arange(1), np.ones(1, dtype=np.int64))
        own = self.spread[axis]
        return _Axis(own.order[::block] // block, own.counts[::block])


class Copies:
    """Every axis with its copies (see `surgery.slices.Slices`).

    Parameters
    ----------
    number : ndarray of int64, shape (atoms,), >= 1
        How often each atom is there.
    sums : Sums
        What makes up for it.
    """

    suffix = "wide"

    def __init__(self, analysis: Analysis, number: Ints, sums: Sums, noise: Noise | None = None) -> None:
        self.analysis = analysis
        self.all = bool((number == 1).all())
        self._number = np.append(number, 1)  # atom -1 indexes the last entry
        self._sums = sums
        self._noise = noise
        self._known: dict[tuple[int, int, int], _Axis] = {}

    def counts(self, labels: Labels) -> Counts:
        """Return how often each original slice of an axis is there."""
        return self._axis(labels).counts

    def count(self, labels: Labels) -> int:
        """Return how many slices the new axis has."""
        return len(self._axis(labels).order)

    def order(self, labels: Labels) -> Ints:
        """Return where each slice of the new axis stood in the original."""
        return self._axis(labels).order

    def demand(self, use: Use) -> Spread:
        """Return what a node reads of a constant; columns that read copies are divided."""
        divided = use.node.index not in self._sums.whole
        axes = [
            self._axis(labels, shared=divided and role == "in")
            for labels, role in zip(use.axes, use.roles, strict=True)
        ]
        return Spread((), tuple(axes), self._noise)

    def balance(self, changes: Changes) -> None:
        """Put a factor per channel before sums that no weight can make up for."""
        for contraction, power in self._sums.factors:
            values = self._factor(contraction.labels, power)
            if (values != 1).any():
                self._insert(contraction, values, changes)

    def _axis(self, labels: Labels, *, shared: bool = False) -> _Axis:
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._known:
            self._known[key] = _laid_out(self.analysis.grouping.atom_of[labels.base], self._number, labels)
        axis = self._known[key]
        return _Axis(axis.order, axis.counts, 1.0 / axis.counts[axis.order]) if shared else axis

    def _factor(self, labels: Labels, power: Power) -> Floats:
        """Return what each channel of an axis is multiplied with before it is summed."""
        axis = self._axis(labels)
        shares: Floats = 1.0 / axis.counts[axis.order]
        if power == "mean":
            return shares * (len(axis.order) / len(axis.counts))
        return np.sqrt(shares) if power == "root" else shares

    def _insert(self, contraction: Contraction, values: Floats, changes: Changes) -> None:
        node, slot = contraction.node, contraction.slot
        source, unused = node.inputs[slot], self.analysis.graph.unused
        rank = len(self.analysis.scope.values[source])
        dtype = helper.tensor_dtype_to_np_dtype(self.analysis.shapes.dtypes[source])
        shape = [-1 if axis == contraction.axis % rank else 1 for axis in range(rank)]
        label = f"{node.outputs[0]}.{slot}.{contraction.axis}"
        constant = numpy_helper.from_array(values.astype(dtype).reshape(shape), unused(f"{label}.shares"))
        changes.added.append(constant)
        shared = unused(f"{label}.shared")
        before = changes.inputs.get((node.index, slot), source)
        mul = helper.make_node("Mul", [before, constant.name], [shared], name=shared)
        changes.before.setdefault(node.index, []).append(mul)
        changes.inputs[node.index, slot] = shared


def _laid_out(atoms: Ints, number: Ints, labels: Labels) -> _Axis:
    """Copy each stretch of slices of one atom; `atoms` are those of the vector's base."""
    starts = np.flatnonzero(np.append(True, (atoms[1:] != atoms[:-1]) | (atoms[1:] < 0)))
    lengths = np.diff(np.append(starts, len(atoms)))
    times = number[atoms[starts]]
    long = np.repeat(lengths, times)
    ends = np.cumsum(long)
    base = np.repeat(np.repeat(starts, times) - (ends - long), long) + np.arange(int(ends[-1]))
    counts = number[atoms]
    if labels.plain:
        return _Axis(base, counts)
    # Within a stretch, what is repeated for each slice of the base goes with it.
    order = (base[:, None] * labels.repeat + np.arange(labels.repeat)).ravel()
    period = len(atoms) * labels.repeat
    tiled = (np.arange(labels.tile)[:, None] * period + order).ravel()
    return _Axis(tiled, np.tile(np.repeat(counts, labels.repeat), labels.tile))

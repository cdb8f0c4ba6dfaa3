# SPDX-License-Identifier: Apache-2.0
"""Slices: what becomes of every axis, as surgery is told.

Pruning keeps some slices of an axis (`Kept`); widening has some of them several times (`graphprune.widening`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from graphprune.array_types import Array, Ints, Mask
from graphprune.errors import InternalError
from graphprune.labels.adapt import Counts
from graphprune.surgery.cutting import cut_array, cut_tensor

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Use
    from graphprune.labels.vector import Labels
    from graphprune.model.tensors import TensorStore
    from graphprune.model.values.scaling import Span

__all__ = ["Changes", "Demand", "Kept", "Slices"]


@dataclass(frozen=True, eq=False)
class Demand:
    """The slices that a reader wants of a constant: one mask per axis."""

    masks: tuple[Mask, ...]

    @property
    def key(self) -> bytes:
        """Equal where the same slices are wanted."""
        return b"/".join(np.packbits(mask).tobytes() for mask in self.masks)

    @property
    def whole(self) -> bool:
        """Whether every slice is wanted."""
        return all(bool(mask.all()) for mask in self.masks)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """How often each slice is wanted, per axis."""
        return self.masks

    @property
    def orders(self) -> tuple[Ints, ...]:
        """Where the wanted slices stand in the original, per axis."""
        return tuple(np.flatnonzero(mask) for mask in self.masks)

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of what is wanted."""
        return tuple(int(counts.sum()) for counts in self.counts)

    def cut(self, array: Array) -> Array:
        """Take the wanted slices."""
        return cut_array(array, self.masks)

    def cut_tensor(self, store: TensorStore, tensor: TensorProto, name: str | None = None) -> TensorProto:
        """Return a tensor message with the wanted slices, under another name if one is given."""
        return cut_tensor(store, tensor, self.masks, name)

    def seen_from(self, axes: tuple[int | None, ...], dims: tuple[int, ...]) -> Demand:
        """Return the demand on the input (of shape `dims`) of a layout-only node whose output axes come from `axes`."""
        masks: list[Mask] = [np.ones(size, dtype=np.bool_) for size in dims]
        for mask, axis in zip(self.masks, axes, strict=True):
            if axis is not None:
                masks[axis] = mask
        return Demand(tuple(masks))

    def laid_over(self, spans: tuple[Span, ...] | None) -> Demand:
        """Return the demand on a scale over what is demanded (see `model.scaling.spans`)."""
        if spans is None:
            raise InternalError("a scale lies over pruned slices in an unknown way")
        masks: list[Mask] = [
            np.asarray(self.masks[axis].reshape(-1, block).any(axis=1)) if block else np.ones(1, dtype=np.bool_)
            for axis, block in spans
        ]
        return Demand(tuple(masks))


@dataclass
class Changes:
    """What the surgery does to the graph, before anything is written.

    Attributes
    ----------
    suffix : str
        What new tensors are named after.
    inputs : dict of (node index, slot) to str
        Inputs that get another name.
    attributes : dict of int to dict
        By node index, attributes to set, or to drop (None).
    added : list of TensorProto
        New initializers.
    scaled : dict of int to float
        By node index, what its first output is multiplied with.
    before : dict of int to list of NodeProto
        By node index, nodes to insert before it.
    """

    suffix: str
    inputs: dict[tuple[int, int], str] = field(default_factory=dict)
    attributes: dict[int, dict[str, int | float | list[int] | None]] = field(default_factory=dict)
    added: list[TensorProto] = field(default_factory=list)
    scaled: dict[int, float] = field(default_factory=dict)
    before: dict[int, list[NodeProto]] = field(default_factory=dict)


class Slices(Protocol):
    """What becomes of every axis.

    Attributes
    ----------
    suffix : str
        What new tensors are named after.
    """

    suffix: str

    def counts(self, labels: Labels) -> Counts:
        """Return how often each original slice of an axis is there, shape (len(labels),)."""

    def count(self, labels: Labels) -> int:
        """Return how many slices the new axis has."""

    def order(self, labels: Labels) -> Ints:
        """Return where each slice of the new axis stood in the original."""

    def demand(self, use: Use) -> Demand:
        """Return what a node reads of a constant."""

    def balance(self, changes: Changes) -> None:
        """Note what has to be scaled, where a sum or mean runs over another number of slices."""


class Kept:
    """Which slices stay, by label vector.

    Parameters
    ----------
    analysis : Analysis
    keep : ndarray of bool, shape (atoms,)
    """

    suffix = "pruned"

    def __init__(self, analysis: Analysis, keep: Mask) -> None:
        self.analysis = analysis
        self._grouping = analysis.grouping
        self._keep = keep
        self.all = bool(keep.all())
        self._masks: dict[tuple[int, int, int], Mask] = {}

    def mask(self, labels: Labels) -> Mask:
        """Return which slices of an axis stay (bool, shape (len(labels),))."""
        key = (id(labels.base), labels.repeat, labels.tile)
        if key not in self._masks:
            self._masks[key] = self._grouping.kept(labels, self._keep)
        return self._masks[key]

    def masks(self, axes: tuple[Labels, ...]) -> tuple[Mask, ...]:
        """Return the masks of all axes."""
        return tuple(self.mask(labels) for labels in axes)

    def counts(self, labels: Labels) -> Counts:
        """Return which slices of an axis stay."""
        return self.mask(labels)

    def count(self, labels: Labels) -> int:
        """Return how many slices of an axis stay."""
        return self._grouping.count(labels, self._keep)

    def order(self, labels: Labels) -> Ints:
        """Return where the slices that stay stood."""
        return np.flatnonzero(self.mask(labels))

    def demand(self, use: Use) -> Demand:
        """Return what a node reads of a constant: what stays of it."""
        return Demand(self.masks(use.axes))

    def balance(self, changes: Changes) -> None:
        """Note the factor for every mean over kept slices, which is too large by total / kept."""
        for contraction in self.analysis.scope.space.contractions:
            if contraction.mean == "masked":
                mask = self.mask(contraction.labels)
                if not mask.all():
                    factor = changes.scaled.get(contraction.node.index, 1.0)
                    changes.scaled[contraction.node.index] = factor * float(mask.sum()) / len(mask)

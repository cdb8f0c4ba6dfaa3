# SPDX-License-Identifier: Apache-2.0
"""The walk: run every node's range rule once, in graph order.

A value has bounds for each slice of its channel axis, where it has exactly one axis with channels, and one pair of
bounds for all of it otherwise. Integers that stand for real numbers count as these, and only zero is known of them.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Ints, Mask
from graphprune.model.tensors import FLOATS
from graphprune.rewrites.ranges.interval import UNKNOWN, Interval
from graphprune.rewrites.ranges.range_rules import lookup

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node

__all__ = ["Ranges", "find_ranges"]


_MOVES_INTEGERS = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "QuantizeLinear", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)


def find_ranges(analysis: Analysis, gone: Mask | None = None) -> Ranges:
    """Return between which values every channel of every activation lies.

    Parameters
    ----------
    gone : ndarray of bool, shape (atoms,), optional
        Atoms that contribute nothing to any contraction: they have been merged into others.

    Complexity: every weight is read once; no Python loop per channel.
    """
    ranges = Ranges(analysis, gone)
    for node in analysis.graph.nodes:
        if not any(name in analysis.shapes.constant for name in node.outputs if name):
            ranges.visit(node)
    return ranges


class Ranges:
    """Bounds of all values.

    Attributes
    ----------
    analysis : Analysis
    """

    def __init__(self, analysis: Analysis, gone: Mask | None = None) -> None:
        self.analysis = analysis
        self._gone = gone
        self._intervals: dict[str, tuple[int | None, Interval]] = {}

    def visit(self, node: Node) -> None:
        """Find the bounds of what one node makes."""
        rule = None if node.domain else lookup(node.op_type)
        dims = self.analysis.shapes.dims
        known = all(name in dims for name in (*node.inputs, *node.outputs) if name)
        if rule is None or not known or not self._real(node):
            return
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rule(self, node)

    # reading ----------------------------------------------------------------------------------

    def along(self, name: str, axis: int) -> Interval:
        """Return the bounds of each slice of a value along an axis, shape (size,)."""
        size = self.analysis.shapes.dims[name][axis]
        if name in self.analysis.shapes.constant:
            return self._constant(name, axis).spread(size)
        tracked, interval = self._intervals.get(name, (None, UNKNOWN))
        return (interval if tracked == axis else interval.hull()).spread(size)

    def whole(self, name: str) -> Interval:
        """Return one pair of bounds for all of a value."""
        if name in self.analysis.shapes.constant:
            return self._constant(name, None)
        return self._intervals.get(name, (None, UNKNOWN))[1].hull()

    def operand(self, name: str, axis: int | None, rank: int) -> Interval:
        """Return the bounds of an operand that is broadcast, along an axis of a result with so many axes."""
        own = None if axis is None else axis - (rank - len(self.analysis.shapes.dims[name]))
        if own is None or own < 0 or self.analysis.shapes.dims[name][own] == 1:
            return self.whole(name)
        return self.along(name, own)

    def contracted(self, name: str, axis: int) -> Interval:
        """Return the bounds of what a node sums over; channels that are merged into others count as zero."""
        interval = self.along(name, axis)
        labels = self.analysis.scope.values.get(name)
        if self._gone is None or labels is None:
            return interval
        atoms = self._atoms(labels[axis])
        # What is no atom is -1, which reads the entry behind the last atom.
        return interval.replaced(np.append(self._gone, False)[atoms], 0.0)

    def constant(self, name: str) -> npt.NDArray[np.float64] | None:
        """Return the value of a constant, None where it cannot be computed."""
        try:
            return self.analysis.constants.array(name).astype(np.float64)
        except KeyError:
            return None

    def channel_axis(self, name: str) -> int | None:
        """Return the axis of a value along which bounds are kept."""
        labels = self.analysis.scope.values.get(name, ())
        live = [axis for axis, vector in enumerate(labels) if vector.live and (self._atoms(vector) >= 0).any()]
        return live[0] if len(live) == 1 else None

    # writing ----------------------------------------------------------------------------------

    def set(self, name: str, axis: int | None, interval: Interval) -> None:
        """Note the bounds of a value along an axis, or of all of it."""
        if name:
            tracked = self.channel_axis(name)
            same = tracked is not None and tracked == axis
            self._intervals[name] = (axis, interval) if same else (None, interval.hull())

    def move(self, source: str, target: str) -> None:
        """Let every channel of `target` have the bounds of those channels of `source` that it consists of.

        Elements of a channel come from slices that live and die with it, and from no others.
        """
        labels = self.analysis.scope.values
        axis, interval = self._intervals.get(source, (None, UNKNOWN))
        to = self.channel_axis(target)
        if axis is None or to is None:
            self.set(target, to, interval.hull() if to is None else interval.hull().spread(len(labels[target][to])))
            return
        size = len(self.analysis.grouping.group_of) + 1
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        atoms, wanted = self._atoms(labels[source][axis]), self._atoms(labels[target][to])
        np.minimum.at(low, atoms, interval.low)
        np.maximum.at(high, atoms, interval.high)
        whole, missing = interval.hull(), low > high
        low[missing], high[missing] = whole.low[0], whole.high[0]
        self.set(target, to, Interval(low[wanted], high[wanted]))

    # ------------------------------------------------------------------------------------------

    def _real(self, node: Node) -> bool:
        """Whether a node computes with real numbers, or moves integers that stand for them."""
        analysis = self.analysis
        dtypes = analysis.shapes.dtypes
        read = [name for name in node.inputs if name and name not in analysis.shapes.constant]
        if node.op_type == "Cast":
            (source,) = node.inputs
            real = dtypes.get(source) in FLOATS or source in analysis.graph.inputs
            return real and node.attribute("to") in FLOATS
        if node.op_type in _MOVES_INTEGERS or node.op_type in ("DequantizeLinear", "Where"):
            return True
        names = (*read, *node.outputs[:1])
        return all(dtypes.get(name) in FLOATS for name in names)

    def _atoms(self, labels: Labels) -> Ints:
        return self.analysis.grouping.atom_of[labels.expand()]

    def _constant(self, name: str, axis: int | None) -> Interval:
        array = self.constant(name)
        if array is None or not array.size:
            return UNKNOWN
        if axis is None or not array.ndim:
            return Interval.of(array.min(keepdims=True).ravel(), array.max(keepdims=True).ravel())
        rest = tuple(at for at in range(array.ndim) if at != axis)
        return Interval.of(array.min(axis=rest), array.max(axis=rest))

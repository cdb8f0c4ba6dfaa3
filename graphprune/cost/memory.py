# SPDX-License-Identifier: Apache-2.0
"""Memory: the most bytes of activations that are alive at once, as an exact function of the widths.

Nodes run one after the other in the order of the graph, as onnxruntime runs them on one thread. An activation is alive
from the node that makes it to the last node that reads it, a graph input from the start, a graph output to the end.
While a node runs, all its inputs and outputs are alive: nothing is assumed to be computed in place. What only gives a
value another shape (`Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`, `Identity`, `Dropout`) makes no new one in
onnxruntime, and is counted once. Constants are weights and do not count; neither does what a kernel needs for itself
while it runs. Of an `If` both branches count, one after the other.

So there is a sum of products of lengths for each node, and the memory is the largest of these sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from scipy.sparse import csr_array

from graphprune.analysis.polynomial import Length, Scaled, Term, TermValues
from graphprune.model.tensors import count_bits

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints
    from graphprune.model.graph import Node


__all__ = ["PeakMemory"]

_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_BYTE = 8


class PeakMemory:
    """The most bytes of activations that are alive at once, for one run with the analysed input shapes.

    Parameters
    ----------
    analysis : Analysis

    Complexity: making it is O(nodes x values alive at once); a call is the same for the moments that are left after
    those are dropped that never are the largest.
    """

    def __init__(self, analysis: Analysis) -> None:
        buffers, sizes = _Buffers(analysis), analysis.cost.sizes
        kinds, times = _kinds(buffers.terms())
        self._kinds = kinds
        self._products = TermValues(kinds, len(sizes))
        moments: Ints = (_alive(buffers, len(analysis.graph.nodes)) @ times).toarray()
        self._moments = _candidates(moments, self._products, sizes)

    @property
    def moments(self) -> int:
        """How many nodes may be the one at which most is alive, whatever the widths are."""
        return len(self._moments)

    def alternatives(self) -> list[list[Scaled]]:
        """Return what is alive at each moment: the memory is the largest of these sums."""
        return [
            [Scaled(kind, float(times)) for kind, times in zip(self._kinds, row, strict=True) if times]
            for row in self._moments.tolist()
        ]

    def __call__(self, widths: Ints) -> int:
        """Return the peak at `widths`, int64 of shape (groups,)."""
        return int((self._moments @ self._products(widths)).max(initial=0))

    def change(self, widths: Ints, group: int, width: int) -> int:
        """Return by how much the peak changes when `group` moves from ``widths[group]`` to `width`."""
        moved = widths.copy()
        moved[group] = width
        return self(moved) - self(widths)


class _Buffers:
    """Activations that take memory: their sizes, and from which node to which each is alive."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.index: dict[str, int] = {}
        self.first: list[int] = []
        self.last: list[int] = []
        self._names: list[str] = []
        for name in analysis.graph.inputs:
            self._add(name, 0)
        for node in analysis.graph.nodes:
            self._run(node)
        for name in analysis.graph.outputs:
            if name in self.index:
                self.last[self.index[name]] = len(analysis.graph.nodes) - 1

    def terms(self) -> list[Term]:
        """Return the bytes of each buffer as a product of lengths."""
        return [self._term(name) for name in self._names]

    def _run(self, node: Node) -> None:
        for name in (*node.inputs, *node.captured):
            if name in self.index:
                self.last[self.index[name]] = node.index
        source = node.inputs[0] if node.inputs else ""
        views = node.op_type in _VIEWS and not node.domain and source in self.index
        for slot, name in enumerate(node.outputs):
            if views and slot == 0:
                self.index[name] = self.index[source]
            elif name and name not in self._analysis.shapes.constant:
                self._add(name, node.index)

    def _add(self, name: str, at: int) -> None:
        if name in self._analysis.shapes.dims:  # what is not known before the model runs cannot be counted
            self.index[name] = len(self._names)
            self._names.append(name)
            self.first.append(at)
            self.last.append(at)

    def _term(self, name: str) -> Term:
        shapes, grouping = self._analysis.shapes, self._analysis.grouping
        bits = count_bits(TensorProto(data_type=shapes.dtypes.get(name, TensorProto.FLOAT)))
        axes = self._analysis.scope.values.get(name, ())
        lengths = [grouping.length(labels) for labels in axes if labels.live]
        full = int(np.prod(np.array(shapes.dims[name], dtype=object), initial=1))
        free = [length for length in lengths if len(length.groups)]
        scale = full
        for length in free:
            scale //= length.full
        bytes_, rest = divmod(bits * scale, _BYTE)
        return Term(bits * scale, tuple(free), _BYTE) if rest else Term(bytes_, tuple(free))


def _alive(buffers: _Buffers, nodes: int) -> Any:
    """Return which buffers are alive while each node runs, shape (nodes, buffers)."""
    first, last = np.array(buffers.first, dtype=np.int64), np.array(buffers.last, dtype=np.int64)
    spans = last - first + 1
    columns = np.repeat(np.arange(len(spans)), spans)
    rows = np.arange(len(columns)) - np.repeat(np.cumsum(spans) - spans, spans) + first[columns]
    return _sparse(np.ones(len(rows), dtype=np.int64), rows, columns, (nodes, len(spans)))


def _sparse(data: Any, rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    # The stubs of scipy know no integer matrices.
    entries: Any = (data, (rows, columns))
    whole: Any = shape
    return csr_array(entries, shape=whole, dtype=np.int64)


def _kinds(terms: list[Term]) -> tuple[list[Term], Any]:
    """Return the different sizes of buffers, and how often each stands for one, shape (buffers, kinds)."""
    column_of: dict[tuple[Any, ...], int] = {}
    kinds: list[Term] = []
    columns = []
    for term in terms:
        scale = term.scale if term.parts > 1 else 1
        key = (term.parts, scale, *sorted(map(_key, term.lengths)))
        if key not in column_of:
            column_of[key] = len(kinds)
            kinds.append(Term(scale, term.lengths, term.parts))
        columns.append(column_of[key])
    times = np.array([1 if term.parts > 1 else term.scale for term in terms], dtype=np.int64)
    return kinds, _sparse(times, np.arange(len(terms)), columns, (len(terms), len(kinds)))


def _key(length: Length) -> tuple[int, bytes, bytes]:
    return length.constant, length.groups.tobytes(), length.per_atom.tobytes()


def _candidates(moments: Ints, products: TermValues, sizes: Ints) -> Ints:
    """Drop the moments at which never most is alive: what they hold is a part of what another one holds."""
    moments = np.unique(moments, axis=0)
    least = (moments @ products(np.zeros_like(sizes))).max(initial=0)
    most = moments @ products(sizes)
    moments = moments[np.argsort(-most, kind="stable")][: int((most >= least).sum())]
    kept: list[int] = []
    for at in range(len(moments)):  # one that holds at least as much of everything has as high a sum: it came before
        if not (moments[kept] >= moments[at]).all(axis=1).any():
            kept.append(at)
    return moments[kept]

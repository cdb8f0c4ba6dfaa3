# SPDX-License-Identifier: Apache-2.0
"""Loops in the flat graph: how many iterations they take, and the shapes of what goes in and comes out.

The body of a `Loop` or `Scan` stands between two pseudo-operators (see `model.bodies`). One set of shapes
must hold for all its iterations. A state has the shape that it begins with, as long as the body gives it back
in this shape; a state that changes its shape from iteration to iteration is not known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from graphprune.model.bodies import DOMAIN, ENTRIES, LOOPS
from graphprune.model.graph import Graph, Node
from graphprune.model.known import Shapes

__all__ = ["LoopNode", "iterations_of_nodes", "loops", "unsettled"]

_MOST_ITERATIONS = 1 << 20
"""Numbers of iterations above this stand for "until the condition says so"."""


class LoopNode:
    """A `Loop` or `Scan` that is laid out.

    Attributes
    ----------
    entry, exit : Node
        The pseudo-operators in front of the body and behind it.
    states : tuple of (str, str, str, str)
        For every state what it begins as, what the body takes and gives, and what it is at the end
        (empty where nobody wants to know).
    scanned : tuple of (str, int, str)
        Tensors that are taken apart: the tensor, its axis, and the slice that the body takes.
    collected : tuple of (str, int, str)
        What the body gives that is put together: that, the axis on which, and the result.
    """

    def __init__(self, entry: Node, exit_: Node) -> None:
        self.entry = entry
        self.exit = exit_
        given: int = exit_.attribute("given")
        outer, inner, results = exit_.inputs[:given], exit_.inputs[given:], exit_.outputs
        self._is_scan = exit_.op_type == "Scan"
        scanned: int = exit_.attribute("num_scan_inputs", 0) if self._is_scan else 0
        # A Loop has the number of iterations and a condition in front of its states, its body the number of this one
        # and a condition.
        front, back = (0, 0) if self._is_scan else (2, 1)
        count = max(len(outer), front) - front - scanned
        ends = (*results, *[""] * len(inner))
        self.states = tuple(
            (outer[front + at], entry.outputs[front + at], inner[back + at], ends[at]) for at in range(count)
        )
        axes = exit_.attribute("scan_input_axes", [0] * scanned)
        self.scanned = tuple((outer[count + at], int(axes[at]), entry.outputs[count + at]) for at in range(scanned))
        rest = inner[back + count :]
        axes = exit_.attribute("scan_output_axes", [0] * len(rest))
        self.collected = tuple(
            (name, int(axis), ends[count + at]) for at, (name, axis) in enumerate(zip(rest, axes, strict=True))
        )
        self.limit = "" if self._is_scan or not outer else outer[0]
        self.begins = "" if self._is_scan or len(outer) < 2 else outer[1]
        self.goes_on = "" if self._is_scan else inner[0]

    def iterations(self, graph: Graph, shapes: Shapes) -> int | None:
        """Return the number of iterations where it is constant and known."""
        if self._is_scan:
            lengths = {shapes.dims[name][axis] for name, axis, _ in self.scanned if _has_axis(shapes, name, axis)}
            return lengths.pop() if len(lengths) == 1 else None
        limit = shapes.values.get(self.limit)
        if limit is None or limit.size != 1 or not 0 <= int(limit.reshape(())) <= _MOST_ITERATIONS:
            return None
        begins = not self.begins or _is_true(shapes, self.begins)
        return int(limit.reshape(())) if begins and self._never_ends(graph, shapes) else None

    def _never_ends(self, graph: Graph, shapes: Shapes) -> bool:
        """Whether the condition that the body gives is true, or the one that it was given."""
        name = self.goes_on
        while name not in shapes.values:
            node = graph.producer.get(name)
            if node is self.entry:
                return name == self.entry.outputs[1]
            if node is None or node.op_type != "Identity" or node.domain:
                return False
            name = node.inputs[0]
        return _is_true(shapes, name)

    def set_entry(self, shapes: Shapes, declared: Shapes, doubtful: set[str]) -> None:
        """Record the shapes of what the body takes, but of states that are known to change."""
        if not self._is_scan:
            for name, dtype in zip(self.entry.outputs[:2], (TensorProto.INT64, TensorProto.BOOL), strict=True):
                shapes.dtypes[name] = dtype
                shapes.dims[name] = declared.dims.get(name, ())
        for begin, taken, _, _ in self.states:
            if begin in shapes.dtypes:
                shapes.dtypes[taken] = shapes.dtypes[begin]
            if begin in shapes.dims and taken not in doubtful:
                shapes.dims[taken] = shapes.dims[begin]
        for name, axis, taken in self.scanned:
            if _has_axis(shapes, name, axis):
                dims = list(shapes.dims[name])
                del dims[axis]
                shapes.dims[taken] = tuple(dims)
                shapes.dtypes[taken] = shapes.dtypes[name]

    def set_exit(self, graph: Graph, shapes: Shapes) -> None:
        """Record the shapes of the results."""
        for begin, taken, given, end in self.states:
            known = {shapes.dims.get(name) for name in (begin, taken, given)}
            settled = known.pop() if len(known) == 1 else None
            if end and settled is not None:
                shapes.dims[end] = settled
                shapes.dtypes[end] = shapes.dtypes.get(given, TensorProto.UNDEFINED)
        iterations = self.iterations(graph, shapes)
        for given, axis, end in self.collected:
            dims = shapes.dims.get(given)
            if end and iterations is not None and dims is not None and -len(dims) - 1 <= axis <= len(dims):
                at = axis % (len(dims) + 1)
                shapes.dims[end] = (*dims[:at], iterations, *dims[at:])
                shapes.dtypes[end] = shapes.dtypes.get(given, TensorProto.UNDEFINED)

    def changing(self, shapes: Shapes) -> Iterator[str]:
        """Yield the states whose shape is not the same at each iteration, as far as known."""
        for _, taken, given, _ in self.states:
            if taken in shapes.dims and shapes.dims.get(given) != shapes.dims[taken]:
                yield taken


def loops(graph: Graph) -> list[LoopNode]:
    """Return the loops of a flat graph, inner ones before those around them."""
    entries = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.domain == DOMAIN and node.op_type in ENTRIES and node.outputs
    }
    ends = [node for node in graph.nodes if node.domain == DOMAIN and node.op_type in LOOPS]
    return [LoopNode(entries[node.attribute("entry")], node) for node in ends]


def unsettled(laid_out: list[LoopNode], shapes: Shapes, doubtful: set[str], *, rounds: int) -> set[str]:
    """Return the states that must be doubted, too; after some `rounds` all of those that are left.

    Each round doubts what the one before has shown, so a long chain of loops would take many.
    """
    if rounds > 0:
        return {name for loop in laid_out for name in loop.changing(shapes)} - doubtful
    changing = any(name not in doubtful for loop in laid_out for name in loop.changing(shapes))
    return {taken for loop in laid_out for _, taken, _, _ in loop.states} - doubtful if changing else set()


def iterations_of_nodes(graph: Graph, shapes: Shapes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return how often each node runs: the product of the iterations of the loops around it, where they are known."""
    factors = np.ones(len(graph.nodes) + 1, dtype=np.int64)
    for loop in loops(graph):
        times = loop.iterations(graph, shapes)
        inside = factors[loop.entry.index : loop.exit.index]
        if times is not None and int(inside.max()) * times <= _MOST_ITERATIONS:
            inside *= times
    return factors[:-1]


def _has_axis(shapes: Shapes, name: str, axis: int) -> bool:
    return name in shapes.dims and -len(shapes.dims[name]) <= axis < len(shapes.dims[name])


def _is_true(shapes: Shapes, name: str) -> bool:
    value = shapes.values.get(name)
    return value is not None and value.size == 1 and bool(value.reshape(()))

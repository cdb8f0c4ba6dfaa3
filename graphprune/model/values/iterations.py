# SPDX-License-Identifier: Apache-2.0
"""Loops in the flat graph: how many iterations they take, and the shapes of what goes in and comes out.

The body of a `Loop` or `Scan` stands between two pseudo-operators (see `model.bodies`). One set of shapes
must hold for all its iterations. A state has the shape that it begins with, as long as the body gives it back
in this shape; a state that changes its shape from iteration to iteration is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from graphprune.model.graph import Graph, Node
from graphprune.model.inference.known import Shapes
from graphprune.model.values.bodies import DOMAIN, ENTRIES, LOOPS

__all__ = ["Collected", "LoopNode", "Scanned", "State", "iterations_of_nodes", "loops", "unsettled"]

_MOST_ITERATIONS = 1 << 20
"""Numbers of iterations above this stand for "until the condition says so"."""


class State(NamedTuple):
    """What a loop hands on: what it begins as, what the body takes and gives, and the result ("" where nobody asks).

    The slots are those of the exit: inputs of what it begins as and of what the body gives, and the output.
    """

    begin: str
    taken: str
    given: str
    end: str
    begin_slot: int
    given_slot: int
    end_slot: int


class Scanned(NamedTuple):
    """A tensor that is taken apart: the tensor, its axis, the slice that the body takes, and the input of the exit."""

    tensor: str
    axis: int
    taken: str
    slot: int


class Collected(NamedTuple):
    """What is put together: what the body gives, the axis on which, the result; and the slots of both at the exit."""

    given: str
    axis: int
    end: str
    given_slot: int
    end_slot: int


class LoopNode:
    """A `Loop` or `Scan` that is laid out.

    Attributes
    ----------
    entry, exit : Node
        The pseudo-operators in front of the body and behind it.
    states : tuple of State
    scanned : tuple of Scanned
    collected : tuple of Collected
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
            State(
                *(outer[front + at], entry.outputs[front + at], inner[back + at], ends[at]),
                *(front + at, given + back + at, at),
            )
            for at in range(count)
        )
        axes = exit_.attribute("scan_input_axes", [0] * scanned)
        self.scanned = tuple(
            Scanned(outer[at], int(axis), entry.outputs[at], at) for at, axis in enumerate(axes, start=count)
        )
        rest = inner[back + count :]
        axes = exit_.attribute("scan_output_axes", [0] * len(rest))
        self.collected = tuple(
            Collected(name, int(axis), ends[at], given + back + at, at)
            for at, (name, axis) in enumerate(zip(rest, axes, strict=True), start=count)
        )
        self.limit = "" if self._is_scan or not outer else outer[0]
        self.begins = "" if self._is_scan or len(outer) < 2 else outer[1]
        self.goes_on = "" if self._is_scan else inner[0]

    def iterations(self, graph: Graph, shapes: Shapes) -> int | None:
        """Return the number of iterations where it is constant and known."""
        if self._is_scan:
            lengths = {shapes.dims[it.tensor][it.axis] for it in self.scanned if _has_axis(shapes, it.tensor, it.axis)}
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
        for state in self.states:
            if state.begin in shapes.dtypes:
                shapes.dtypes[state.taken] = shapes.dtypes[state.begin]
            if state.begin in shapes.dims and state.taken not in doubtful:
                shapes.dims[state.taken] = shapes.dims[state.begin]
        for name, axis, taken, _ in self.scanned:
            if _has_axis(shapes, name, axis):
                dims = list(shapes.dims[name])
                del dims[axis]
                shapes.dims[taken] = tuple(dims)
                shapes.dtypes[taken] = shapes.dtypes[name]

    def set_exit(self, graph: Graph, shapes: Shapes) -> None:
        """Record the shapes of the results."""
        for state in self.states:
            if state.end and self.keeps_shape(state, shapes):
                shapes.dims[state.end] = shapes.dims[state.given]
                shapes.dtypes[state.end] = shapes.dtypes.get(state.given, TensorProto.UNDEFINED)
        iterations = self.iterations(graph, shapes)
        for given, axis, end, _, _ in self.collected:
            dims = shapes.dims.get(given)
            if end and iterations is not None and dims is not None and -len(dims) - 1 <= axis <= len(dims):
                at = axis % (len(dims) + 1)
                shapes.dims[end] = (*dims[:at], iterations, *dims[at:])
                shapes.dtypes[end] = shapes.dtypes.get(given, TensorProto.UNDEFINED)

    def keeps_shape(self, state: State, shapes: Shapes) -> bool:
        """Whether a state is known to have one shape from the beginning to the end."""
        known = {shapes.dims.get(name) for name in (state.begin, state.taken, state.given)}
        return len(known) == 1 and None not in known

    def changing(self, shapes: Shapes) -> Iterator[str]:
        """Yield the states whose shape is not the same at each iteration, as far as known."""
        for state in self.states:
            if state.taken in shapes.dims and shapes.dims.get(state.given) != shapes.dims[state.taken]:
                yield state.taken


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
    return {state.taken for loop in laid_out for state in loop.states} - doubtful if changing else set()


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

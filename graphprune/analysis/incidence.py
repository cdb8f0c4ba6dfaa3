# SPDX-License-Identifier: Apache-2.0
"""Incidence: which labels stand on which axes at which nodes, and the shortest way from one to another.

The label space says *that* slices are coupled; this module says *through what*. Its vertices are
pairs (label, place) and (label, node), where a place is one axis of one tensor. A tensor's slice is
joined to every node that reads or makes it, and at a node every coupling joins two labels. All of
it lies in arrays sorted by component, so that a question about one channel costs no more than
what hangs on this channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints
from graphprune.labels.space import Reason
from graphprune.labels.vector import Labels
from graphprune.model.graph import Node

__all__ = ["Branch", "Incidence", "Place", "Trail"]

Place = tuple[str, int]
"""Name of a tensor (an activation, or the stored tensor behind a constant), and one of its axes."""


class _Sorted:
    """Rows of integers, sorted by the component of the label in the first column."""

    def __init__(self, component: Ints, parts: Iterable[tuple[Ints, ...]], columns: int) -> None:
        pieces = list(parts)
        rows = [np.concatenate([np.zeros(0, np.int64), *(part[at] for part in pieces)]) for at in range(columns)]
        owner = component[rows[0]]
        order = np.argsort(owner, kind="stable")
        self._owner = owner[order]
        self._rows = [row[order] for row in rows]

    def of(self, component: int) -> list[Ints]:
        """Return the columns of all rows of one component."""
        start, end = np.searchsorted(self._owner, (component, component + 1))
        return [row[start:end] for row in self._rows]


class Incidence:
    """The incidence of one analysed model.

    Attributes
    ----------
    axes : dict of Place to list of Labels
        Labels along each axis; several vectors where the readers of a constant keep different slices.

    Complexity: O(labels on all inputs and outputs of nodes) once, then O(size of a component) per trail.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.component = analysis.resolution.component
        self.reasons: list[Reason] = [reason for _, reason in analysis.resolution.freezes]
        self.axes: dict[Place, list[Labels]] = {}
        self.places: list[Place] = []
        self._ids: dict[Place, int] = {}
        touches = [(base, np.full(len(base), place), np.full(len(base), node)) for base, place, node in self._touches()]
        self._touch = _Sorted(self.component, touches, 3)
        couplings = [
            (left, right, np.full(len(left), node.index))
            for left, right, node in analysis.resolution.couplings
            if isinstance(node, Node)
        ]
        self._couple = _Sorted(self.component, couplings, 3)
        freezes = [
            (labels, np.full(len(labels), number)) for number, (labels, _) in enumerate(analysis.resolution.freezes)
        ]
        self._freeze = _Sorted(self.component, freezes, 2)

    def at(self, node: Node) -> Iterator[tuple[str, int, Labels]]:
        """Yield (tensor, axis, labels) of a node: constants first, then outputs, then activations that it reads."""
        yield from self._by_node.get(node.index, ())
        values = self._analysis.scope.values
        for name in (*node.outputs, *node.inputs):
            for axis, labels in enumerate(values.get(name, ())):
                yield name, axis, labels

    def stored(self, name: str) -> Iterator[tuple[str, int, Labels]]:
        """Yield (stored tensor, axis, labels) for every way in which a constant is read."""
        for entries in self._by_node.values():
            yield from (entry for entry in entries if entry[0] == name)

    def reasons_of(self, component: int) -> Ints:
        """Return the numbers of all freezes that hold a component, in order."""
        return np.unique(self._freeze.of(component)[1])

    def trail(self, place: Place, label: int) -> Trail:
        """Search from one slice of a tensor through everything that hangs on it."""
        component = int(self.component[label])
        labels, places, nodes = self._touch.of(component)
        left, right, joints = self._couple.of(component)
        held, numbers = self._freeze.of(component)
        width = len(self.places) + len(self._analysis.graph.nodes) + 1  # one key per (label, place or node)
        first_node = len(self.places) + 1  # node -1 is the outside of the graph
        tails = np.concatenate([labels * width + places, left * width + first_node + joints])
        heads = np.concatenate([labels * width + first_node + nodes, right * width + first_node + joints])
        stops = held * width + first_node + self._node_of(numbers)
        start = label * width + self._ids.get(place, first_node - 1)
        keys = np.unique(np.concatenate([tails, heads, stops, [start]]))
        ones = np.ones(len(tails), dtype=np.bool_)
        edges: Any = coo_array((ones, (np.searchsorted(keys, tails), np.searchsorted(keys, heads))), (len(keys),) * 2)
        order, before = breadth_first_order(edges.tocsr(), int(np.searchsorted(keys, start)), directed=False)
        return Trail(self, keys % width, order.astype(np.int64), before, np.searchsorted(keys, stops), numbers)

    def hop(self, code: int) -> Place | Node | None:
        """Return what a vertex stands for: an axis, a node, or the outside of the graph."""
        if code < len(self.places):
            return self.places[code]
        index = code - len(self.places) - 1
        return self._analysis.graph.nodes[index] if index >= 0 else None

    def _node_of(self, numbers: Ints) -> Ints:
        nodes = [reason.node.index if reason.node else -1 for reason in self.reasons]
        return np.array(nodes, dtype=np.int64)[numbers]

    def _place(self, place: Place, labels: Labels) -> int:
        known = self.axes.setdefault(place, [])
        if not any(other.base is labels.base for other in known):
            known.append(labels)
        if place not in self._ids:
            self._ids[place] = len(self.places)
            self.places.append(place)
        return self._ids[place]

    def _touches(self) -> Iterator[tuple[Ints, int, int]]:
        """Yield (labels, place, node) for every axis of every tensor that a node reads or makes, and that is live."""
        self._by_node = self._constants()
        outside = frozenset((*self._analysis.graph.outputs, *self._analysis.graph.captured))
        for node in self._analysis.graph.nodes:
            for name, axis, labels in self.at(node):
                if labels.live:
                    place = self._place((name, axis), labels)
                    base = labels.base[labels.base != 0]
                    yield base, place, node.index
                    if name in outside:
                        yield base, place, -1

    def _constants(self) -> dict[int, list[tuple[str, int, Labels]]]:
        """Return (stored tensor, axis, labels) of the constants that each node reads."""
        by_node: dict[int, list[tuple[str, int, Labels]]] = {}
        trace = self._analysis.constants.trace
        for use in self._analysis.scope.space.uses:
            root = trace(use.tensor)
            entries = by_node.setdefault(use.node.index, [])
            for at, labels in enumerate(use.axes):
                axis = root.axes[at]
                if axis is not None:
                    entries.append((root.tensor, axis, labels))
        return by_node


@dataclass(frozen=True, eq=False)
class Branch:
    """How an axis hangs on another one.

    Attributes
    ----------
    place : Place
    after : Place or None
        The axis from which it was reached; None where it is the start itself, or was reached from there.
    through : tuple of Node
        The nodes on the way, from `after` to `place`.
    """

    place: Place
    after: Place | None
    through: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Trail:
    """All shortest ways from one slice, as found by a breadth-first search.

    Attributes
    ----------
    codes : ndarray of int64
        What each vertex stands for, see `Incidence.hop`.
    order, before : ndarray of int64
        Vertices in the order in which they were reached, and the vertex from which each was.
    stops, numbers : ndarray of int64
        Vertices at which a freeze holds, and the number of the freeze.
    """

    incidence: Incidence
    codes: Ints
    order: Ints
    before: npt.NDArray[np.int32]
    stops: Ints
    numbers: Ints

    def nearest_freeze(self) -> tuple[int, list[Place | Node | None]] | None:
        """Return the number of the nearest freeze and the way to it, or None where nothing can be reached."""
        distance = self._rank(self.stops)
        if not len(distance) or int(distance.min()) == len(self.codes):
            return None
        nearest = int(np.argmin(distance))
        return int(self.numbers[nearest]), self._way(int(self.stops[nearest]))

    def tree(self, wanted: frozenset[Place]) -> Iterator[Branch]:
        """Yield how each of the wanted axes hangs on one that was reached before it, nearest first.

        Complexity: O(vertices), since no vertex is walked twice.
        """
        owner: dict[int, Place] = {}
        done: set[Place] = set()
        for vertex in self.order.tolist():
            place = self.incidence.hop(int(self.codes[vertex]))
            if isinstance(place, tuple) and place in wanted and place not in done:
                done.add(place)
                walked, after = self._walk(vertex, owner)
                nodes = [self.incidence.hop(int(self.codes[step])) for step in walked]
                through = [node for node in nodes if isinstance(node, Node)]
                owner.update((step, place) for step in walked if step not in owner)
                yield Branch(place, after, tuple(dict.fromkeys(through[::-1])))

    def _walk(self, vertex: int, owner: dict[int, Place]) -> tuple[list[int], Place | None]:
        """Walk back to the first vertex on the way to another axis, or to the start."""
        walked: list[int] = []
        vertex = int(self.before[vertex])
        while vertex >= 0:
            walked.append(vertex)
            if vertex in owner:
                return walked, owner[vertex]
            vertex = int(self.before[vertex])
        return walked, None

    def _rank(self, vertices: Ints) -> Ints:
        rank = np.full(len(self.codes), len(self.codes), dtype=np.int64)
        rank[self.order] = np.arange(len(self.order))
        return rank[vertices]

    def _way(self, vertex: int) -> list[Place | Node | None]:
        way: list[Place | Node | None] = []
        while vertex >= 0:
            hop = self.incidence.hop(int(self.codes[vertex]))
            if not way or way[-1] is not hop:
                way.append(hop)
            vertex = int(self.before[vertex])
        return way[::-1]

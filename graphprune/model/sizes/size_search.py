# SPDX-License-Identifier: Apache-2.0
"""Sizes that a graph fixes, although its inputs declare them open: computed from what does not fit.

A classifier that flattens its last maps for a product with 5,184 rows takes images of one size. The first node that
refuses a size says how long some axes must be (`LengthDemand`). Lengths grow with the open dimensions that they depend
on, so the right size is found by bisection; then the next node that refuses is asked, until none does.

=================================  ======================================================================
a length depends on                sizes that are tried
=================================  ======================================================================
one dimension                      the one that gives the length
several dimensions                 the same for all of them: most images are squares
two, and no square gives it        those of all pairs of lengths with this product, next to a square first
=================================  ======================================================================

Where several sizes give one length, since strides round, the one that the strides divide is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Final

from onnx import TensorProto

from graphprune.array_types import Array
from graphprune.model.graph import Graph, Node
from graphprune.model.inference.known import Shapes
from graphprune.model.sizes.demands import own_demands
from graphprune.model.sizes.inputs import OpenSizes, free_dimensions, input_shapes
from graphprune.model.values.shapes import infer

__all__ = ["LengthDemand", "SizeSearch", "unmet"]

_MOST_SIZES: Final = 300
"""Sizes of which the shapes of all values are inferred at most."""
_MOST_PAIRS: Final = 12
_LARGEST: Final = 1 << 20
_LARGEST_STEP: Final = 19
"""The step at which every usual size is the largest: there windows fit that are longer than the first of them."""
_SAME_COUNT: Final = frozenset(
    {"Cast", "Dropout", "Flatten", "Identity", "LeakyRelu", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators whose result has as many elements as their first input."""
_BROADCAST: Final = frozenset({"Add", "Div", "Mul", "Sub"})

Sides = Mapping[str, int]
"""Sizes of the free dimensions (:func:`graphprune.model.sizes.inputs.free_dimensions`)."""


@dataclass(frozen=True)
class LengthDemand:
    """How many elements some axes of a value must have together, as a node wants it."""

    value: str
    axes: tuple[int, ...]
    length: int


def unmet(graph: Graph, shapes: Shapes) -> list[LengthDemand]:
    """Return what the first node that refuses a size wants instead; empty where all is as it should be, or unknown.

    Complexity: O(nodes).
    """
    for node in graph.nodes:
        if node.domain:
            continue
        wanted = [
            demand
            for demand in _demands(graph, node, shapes)
            if (length := _length(shapes, demand)) is not None and length != demand.length
        ]
        if wanted:
            return wanted
    return []


def _length(shapes: Shapes, demand: LengthDemand) -> int | None:
    dims = shapes.dims.get(demand.value)
    return None if dims is None else prod(dims[axis] for axis in demand.axes)


def _demands(graph: Graph, node: Node, shapes: Shapes) -> Iterator[LengthDemand]:
    """Yield what a node wants of the values that it reads."""
    first = node.inputs[0] if node.inputs else ""
    dims = shapes.dims.get(first)
    if node.op_type == "Reshape" and dims is not None:
        target = _target(node, shapes)
        if target is not None:
            rows = dims[0] if dims and target and target[0] == -1 else 1  # what is left open counts samples
            sizes = [dims[at] if size == 0 and at < len(dims) else size for at, size in enumerate(target)]
            known = prod(size for size in sizes if size != -1)
            if -1 not in target or (known and prod(dims) % known):
                yield LengthDemand(first, tuple(range(len(dims))), known * (rows if -1 in target else 1))
        return
    if node.op_type == "Squeeze" and dims is not None:
        axes = node.attribute("axes") or _integers(shapes, node.inputs[1] if len(node.inputs) > 1 else "") or []
        yield from (LengthDemand(first, (axis,), 1) for axis in axes if -len(dims) <= axis < len(dims))
    if node.op_type == "Split" and dims is not None:
        parts = node.attribute("split") or _integers(shapes, node.inputs[1] if len(node.inputs) > 1 else "")
        axis = node.attribute("axis", 0)
        if parts and -len(dims) <= axis < len(dims):
            yield LengthDemand(first, (axis,), sum(parts))
    for slot, name in enumerate(node.inputs):
        read = shapes.dims.get(name)
        if read is None or name in graph.initializers:
            continue
        for axis, size in own_demands(graph, node, slot, len(read)):
            if not (node.op_type in _BROADCAST and read[axis] == 1):
                yield LengthDemand(name, (axis,), size)


def _target(node: Node, shapes: Shapes) -> list[int] | None:
    """Return the fixed target of a Reshape."""
    if node.attribute("allowzero", 0):
        return None
    return _integers(shapes, node.inputs[1] if len(node.inputs) > 1 else "")


def _integers(shapes: Shapes, name: str) -> list[int] | None:
    value = shapes.values.get(name)
    return None if value is None else [int(size) for size in value.ravel()]


class _ExhaustedError(Exception):
    """Enough sizes were tried."""


class SizeSearch:
    """Looks for sizes of open dimensions with which a graph is consistent.

    Parameters
    ----------
    graph : Graph
    read : callable
        Gives the array of an initializer.
    given : mapping of str to sequence of int
        Shapes of inputs that are given.
    """

    def __init__(self, graph: Graph, read: Callable[[TensorProto], Array], given: Mapping[str, Sequence[int]]) -> None:
        self._graph = graph
        self._read = read
        self._given = given
        self._free = free_dimensions(graph, given)
        self._known: dict[tuple[int, ...], Shapes] = {}

    def find(self) -> OpenSizes | None:
        """Return sizes that no node refuses; None where none are found.

        Complexity: the shapes of all values for some dozens of sizes, 300 at most.
        """
        for step in (0, _LARGEST_STEP):
            sides = self._usual(step)
            if not sides or not (unmet(self._graph, self._shapes(sides))):
                continue
            try:
                met = self._meet(sides, frozenset())
            except _ExhaustedError:
                return None
            if met is not None:
                return OpenSizes(step, met)
        return None

    def find_rows(self, shapes: Shapes) -> OpenSizes | None:
        """Return sizes with which rows are whole samples, where shapes are consistent but mix them; None else.

        Parts of one image become several rows of 256 numbers where ``Reshape [-1, 256]`` stands behind maps that are
        larger than they are to be. Rows that are positions of maps (the channels of each) are as they should be.
        """
        sides = self._usual(0)
        demand = next(self._mixed(shapes), None) if sides else None
        if demand is None:
            return None
        try:
            for some in self._solutions(demand, sides, frozenset()):
                met = self._meet({**sides, **some}, frozenset(some))
                if met is not None:
                    return OpenSizes(0, met)
        except _ExhaustedError:
            pass
        return None

    def _mixed(self, shapes: Shapes) -> Iterator[LengthDemand]:
        """Yield what reshapes into rows want that are neither samples nor positions."""
        for node in self._graph.nodes:
            target = _target(node, shapes) if node.op_type == "Reshape" and not node.domain else None
            dims = shapes.dims.get(node.inputs[0]) if target else None
            if not target or not dims or target[0] != -1 or any(size < 1 for size in target[1:]):
                continue
            row = prod(target[1:])
            if any(prod(dims[axis:]) == row for axis in range(1, len(dims))):
                continue
            fixed = self._fixed_end(node.inputs[0])
            if len(target) > 1 and fixed % row and row % fixed == 0:
                yield LengthDemand(node.inputs[0], tuple(range(1, len(dims))), row)

    def _fixed_end(self, name: str) -> int:
        """Return how many elements the last axes of a value have together that depend on no open dimension."""
        one, other = self._shapes(self._usual(0)), self._shapes({key: 2 * size for key, size in self._usual(0).items()})
        fixed = 1
        for before, after in zip(reversed(one.dims.get(name, ())), reversed(other.dims.get(name, ())), strict=False):
            if before != after:
                break
            fixed *= before
        return fixed

    def _usual(self, step: int) -> dict[str, int]:
        shapes = input_shapes(self._graph, self._given, sizes=OpenSizes(step))
        return {key: shapes[places[0][0]][places[0][1]] for key, places in self._free.items()}

    def _shapes(self, sides: Sides) -> Shapes:
        key = tuple(sides.values())
        if key not in self._known:
            if len(self._known) >= _MOST_SIZES:
                raise _ExhaustedError
            inputs = input_shapes(self._graph, self._given, sizes=OpenSizes(0, sides))
            self._known[key] = infer(self._graph, self._read, inputs)
        return self._known[key]

    def _meet(self, sides: Sides, settled: frozenset[str]) -> Sides | None:
        """Return sizes with which all demands are met, of which some are settled; depth first."""
        demands = unmet(self._graph, self._shapes(sides))
        if not demands:
            return sides
        for some in self._solutions(demands[0], sides, settled):
            met = self._meet({**sides, **some}, settled | some.keys())
            if met is not None:
                return met
        return None

    def _solutions(self, demand: LengthDemand, sides: Sides, settled: frozenset[str]) -> Iterator[dict[str, int]]:
        """Yield sizes of dimensions that are not settled with which a demand is met."""

        def length(**other: int) -> int | None:
            return _length(self._shapes({**sides, **other}), demand)

        now = length()
        free = [key for key in sides if key not in settled and length(**{key: 2 * sides[key]}) != now]
        if not free:
            return
        size = _bisected(
            lambda size: length(**dict.fromkeys(free, size)), demand.length, max(sides[key] for key in free)
        )
        if size is not None:
            yield dict.fromkeys(free, size)
        if len(free) == _PAIR:
            yield from self._pairs(demand, sides, free[0], free[1])

    def _pairs(self, demand: LengthDemand, sides: Sides, first: str, second: str) -> Iterator[dict[str, int]]:
        """Yield sizes of two dimensions that make up one length together."""
        apart = self._apart(demand, sides, first, second)
        if apart is None:
            return
        name, axes, product = apart
        halves = [side for side in range(1, isqrt(product) + 1) if product % side == 0]
        pairs = [
            pair
            for side in reversed(halves)
            for pair in dict.fromkeys([(side, product // side), (product // side, side)])
        ]

        def side(key: str, axis: int, wanted: int) -> int | None:
            def length(size: int) -> int | None:
                dims = self._shapes({**sides, key: size}).dims.get(name)
                return None if dims is None else dims[axis]

            return _bisected(length, wanted, sides[key])

        for one, other in pairs[:_MOST_PAIRS]:
            sizes = side(first, axes[0], one), side(second, axes[1], other)
            if sizes[0] is not None and sizes[1] is not None:
                yield {first: sizes[0], second: sizes[1]}

    def _apart(
        self, demand: LengthDemand, sides: Sides, first: str, second: str
    ) -> tuple[str, tuple[int, int], int] | None:
        """Return a value before the demanding one that has an axis for each of two dimensions, and their product."""
        base = self._shapes(sides)
        grown = [self._shapes({**sides, key: 2 * sides[key]}) for key in (first, second)]
        whole = base.dims[demand.value]
        total = demand.length * prod(size for axis, size in enumerate(whole) if axis not in _axes(demand, len(whole)))
        name = demand.value
        while True:
            dims = base.dims.get(name)
            others = [shapes.dims.get(name) for shapes in grown]
            if dims is None or any(other is None or len(other) != len(dims) for other in others):
                return None
            moved = [[axis for axis, size in enumerate(other or ()) if size != dims[axis]] for other in others]
            if all(len(axes) == 1 for axes in moved) and moved[0] != moved[1]:
                axes = moved[0][0], moved[1][0]
                rest = prod(size for axis, size in enumerate(dims) if axis not in axes)
                return (name, axes, total // rest) if total % rest == 0 else None
            node = self._graph.producer.get(name)
            if node is None or node.domain or node.op_type not in _SAME_COUNT:
                return None
            name = node.inputs[0]


_PAIR: Final = 2


def _axes(demand: LengthDemand, rank: int) -> set[int]:
    return {axis % rank for axis in demand.axes}


def _bisected(length: Callable[[int], int | None], wanted: int, start: int) -> int | None:
    """Return the size with a length, which grows with it; of several the one that strides divide.

    As many neighbouring sizes give one length as the strides on the way to it are together. A length that is not known
    is that of a size which is too small.
    """

    def reaches(size: int, least: int) -> bool:
        found = length(size)
        return found is not None and found >= least

    first = _smallest(lambda size: reaches(size, wanted), start)
    if first is None or length(first) != wanted:
        return None
    after = _smallest(lambda size: reaches(size, wanted + 1), first + 1)
    last = first if after is None else after - 1
    stride = last - first + 1
    return last // stride * stride


def _smallest(holds: Callable[[int], bool], start: int) -> int | None:
    """Return the smallest size from which on something holds, looked for around a first one."""
    low, high = 0, start
    while not holds(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high

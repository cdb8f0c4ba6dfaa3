# SPDX-License-Identifier: Apache-2.0
"""Placement: which stored tensor is sliced, copied or folded so that every reader gets its slices.

Readers demand slices; a demand on a value that layout-only nodes compute is passed on to what
they read. Where all readers of a tensor agree it is sliced in place. Where they differ, or
where a value is really computed, a new initializer holds what is demanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from onnx import TensorProto, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array
from graphprune.errors import InternalError, UnsupportedModelError, quote
from graphprune.labels.adapt import whole
from graphprune.model.graph import Node
from graphprune.model.values.scaling import PARAMETERS, is_scaling, spans
from graphprune.surgery.slices import Demand, Slices

__all__ = ["Placement"]

Reader = tuple[int, int]


def _mapped(layout: tuple[int | None, ...], demands: dict[Reader, Demand]) -> bool:
    """Whether nothing is to be cut from an axis that the input does not have."""
    counts = next(iter(demands.values())).counts
    return all(axis is not None or whole(own) for axis, own in zip(layout, counts, strict=True))


class Placement:
    """Decide where every demanded slice is stored.

    Parameters
    ----------
    analysis : Analysis
    slices : Slices
    cuts : bool
        Whether tensors are cut; else only where they would be stored is found out.

    Attributes
    ----------
    in_place : dict of str to TensorProto
        Stored tensors (initializers, or outputs of `Constant` nodes) that are replaced.
    copies : list of TensorProto
        New initializers.
    rewired : dict of (node index, slot) to str
        Readers that read a copy.
    settled : dict of str to Demand
        What is left of stored tensors that are sliced in place, and of values that follow them.
    """

    def __init__(self, analysis: Analysis, slices: Slices, *, cuts: bool = True) -> None:
        self._analysis = analysis
        self._cuts = cuts
        self._suffix = slices.suffix
        self._demands: dict[str, dict[Reader, Demand]] = {}
        for use in analysis.scope.space.uses:
            if use.follows:
                continue  # what it follows will demand it
            demand = slices.demand(use)
            self._demands.setdefault(use.tensor, {})[use.node.index, use.slot] = demand
        self._by_reader = {reader: d for demands in self._demands.values() for reader, d in demands.items()}
        self.in_place: dict[str, TensorProto] = {}
        self.copies: list[TensorProto] = []
        self.rewired: dict[Reader, str] = {}
        self.settled: dict[str, Demand] = {}
        self._place_all()

    def demand(self, node: Node, slot: int) -> Demand | None:
        """Return what a node demands of one of its constants, None where it reads it whole."""
        return self._by_reader.get((node.index, slot))

    def _place_all(self) -> None:
        """Work from the readers back to what is stored: later values first."""
        constants, graph = self._analysis.constants, self._analysis.graph
        order = {name: node.index for name, node in graph.producer.items()}
        number = count()
        pending = [(-order.get(name, -1), next(number), name) for name in self._demands]
        heapify(pending)
        waiting = set(self._demands)
        while pending:
            name = heappop(pending)[-1]
            waiting.remove(name)
            demands = dict(self._demands[name])
            if all(demand.whole for demand in demands.values()) or self._follows(name):
                continue
            node = graph.producer.get(name)
            layout = None if node is None or constants.stored(name) is not None else constants.layout(node)
            if constants.stored(name) is not None:
                self._place_stored(name, demands)
            elif node is not None and layout is not None and self._agreed(name, demands) and _mapped(layout, demands):
                first = next(iter(demands.values()))
                self.settled[name] = first
                passed = first.seen_from(layout, self._analysis.shapes.dims[node.inputs[0]])
                for slot, wanted in self._passed(node, passed):
                    source = node.inputs[slot]
                    self._demands.setdefault(source, {})[node.index, slot] = self._by_reader[node.index, slot] = wanted
                    if source not in waiting:
                        waiting.add(source)
                        heappush(pending, (-order.get(source, -1), next(number), source))
            else:
                self._store_computed(name, demands)

    def _follows(self, name: str) -> bool:
        """Whether a value is made from shapes: where it does not follow by itself, its readers are looked after."""
        constants = self._analysis.constants
        return name in self._analysis.shapes.derived and constants.stored(constants.trace(name).tensor) is None

    def _passed(self, node: Node, passed: Demand) -> Iterator[tuple[int, Demand]]:
        """Yield what a layout-only node demands of its inputs: the data, and scales that lie over it."""
        yield 0, passed
        if is_scaling(node):
            dims = self._analysis.shapes.dims
            for slot in PARAMETERS:
                if slot < len(node.inputs) and node.inputs[slot]:
                    yield slot, passed.laid_over(spans(node, dims[node.inputs[0]], dims[node.inputs[slot]]))

    def _others(self, name: str, demands: dict[Reader, Demand]) -> bool:
        """Whether somebody without a demand reads the value whole."""
        graph = self._analysis.graph
        readers = {
            (node.index, slot)
            for node, slot in graph.consumers.get(name, ())
            if node.op_type not in ("Shape", "Size") or node.domain
        }
        return bool(readers - set(demands)) or name in graph.captured or name in graph.outputs

    def _agreed(self, name: str, demands: dict[Reader, Demand]) -> bool:
        """Whether all readers want the same slices, and the axes that have no source stay whole."""
        return len({demand.key for demand in demands.values()}) == 1 and not self._others(name, demands)

    def _place_stored(self, name: str, demands: dict[Reader, Demand]) -> None:
        """Slice in place for the first kind of reader, unless somebody needs it whole; copy for the others."""
        tensor = self._analysis.constants.stored(name)
        if tensor is None:
            raise InternalError(f"{quote(name)} is not stored")
        free = not self._others(name, demands) and not any(demand.whole for demand in demands.values())
        named: dict[bytes, str] = {}
        for reader, demand in demands.items():
            if demand.whole:
                continue
            if demand.key not in named:
                in_place = free and not named
                named[demand.key] = (
                    name if in_place else self._analysis.graph.unused(f"{name}.{self._suffix}{len(named)}")
                )
                if self._cuts:
                    store = self._analysis.model.tensors
                    cut = demand.cut_tensor(store, tensor, None if in_place else named[demand.key])
                    if in_place:
                        self.in_place[name] = cut
                    else:
                        self.copies.append(cut)
                if in_place:
                    self.settled[name] = demand
            if named[demand.key] != name:
                self.rewired[reader] = named[demand.key]

    def _store_computed(self, name: str, demands: dict[Reader, Demand]) -> None:
        """Store what readers want of a computed constant; whoever reads it whole still computes it."""
        named: dict[bytes, str] = {}
        value: Array | None = None
        for reader, demand in demands.items():
            if demand.whole:
                continue
            if demand.key not in named:
                named[demand.key] = self._analysis.graph.unused(f"{name}.{self._suffix}{len(named)}")
                if self._cuts:
                    value = self._value(name) if value is None else value
                    self.copies.append(numpy_helper.from_array(demand.cut(value), named[demand.key]))
            self.rewired[reader] = named[demand.key]

    def _value(self, name: str) -> Array:
        try:
            return self._analysis.constants.array(name)
        except KeyError as error:
            raise UnsupportedModelError(
                f"{quote(name)} depends on constants only and would have to be cut, but it cannot be computed here",
                hint="let the exporter fold constants",
            ) from error

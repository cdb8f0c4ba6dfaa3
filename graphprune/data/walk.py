# SPDX-License-Identifier: Apache-2.0
"""A walk: a model run part by part over many batches, stopping where values are wanted.

At every stop the caller sees the wanted values of all batches, and may change weights of nodes that
have not run yet; the walk then goes on with them. So each node runs once per batch, however many
stops there are. Only what later parts read is kept in between, on disk where it is large.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper

from graphprune.array_types import Array
from graphprune.data.session import Session
from graphprune.model.files.messages import copy_but
from graphprune.model.files.scratch import ScratchFolder
from graphprune.model.graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from graphprune.model.load import Model

__all__ = ["Walk", "constant_nodes", "cut_subgraph"]


_IN_MEMORY = 1 << 27
"""Bytes of intermediate values kept in memory; further ones go to disk."""


class Walk:
    """One pass of a model over all batches, in subgraphs, one per stop.

    Parameters
    ----------
    model : Model
        Where external weights come from.
    graph : Graph
        What is run. Weights may be replaced in its protobuf message between two stops.
    stops : sequence of sequence of str
        Wanted values at each stop, in an order in which each can be reached.
    feeds : callable
        Returns the graph inputs of batch number i.
    count : int
        Number of batches; all have the same shapes.
    """

    def __init__(
        self,
        model: Model,
        graph: Graph,
        stops: Sequence[Sequence[str]],
        feeds: Callable[[int], Mapping[str, Array]],
        count: int,
    ) -> None:
        self._model = model
        self._graph = graph
        self._feeds = feeds
        self._count = count
        self._stops = stops
        self._constant = constant_nodes(graph)
        self._subgraphs = self._assign()
        self._last_use = self._uses()
        self._kept = _Store()
        self._next = 0

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def _assign(self) -> list[list[Node]]:
        """Give every node to the first stop that needs it."""
        stop_of: dict[int, int] = {}
        for number, wanted in enumerate(self._stops):
            pending = [self._graph.producer[name] for name in wanted if name in self._graph.producer]
            while pending:
                node = pending.pop()
                if node.index in stop_of or node.index in self._constant:
                    continue
                stop_of[node.index] = number
                names = (*node.inputs, *node.captured)
                pending.extend(self._graph.producer[name] for name in names if name in self._graph.producer)
        subgraphs: list[list[Node]] = [[] for _ in self._stops]
        for index in sorted(stop_of):
            subgraphs[stop_of[index]].append(self._graph.nodes[index])
        return subgraphs

    def _uses(self) -> dict[str, int]:
        """Return the last stop that reads or wants each value."""
        last: dict[str, int] = {}
        for number, (nodes, wanted) in enumerate(zip(self._subgraphs, self._stops, strict=True)):
            for name in (*wanted, *(name for node in nodes for name in (*node.inputs, *node.captured))):
                last[name] = number
        return last

    def step(self) -> Iterator[dict[str, Array]]:
        """Go on to the next stop and yield its wanted values, batch by batch. To be used up before the next step."""
        number = self._next
        self._next += 1
        nodes, wanted = self._subgraphs[number], self._stops[number]
        made = [name for node in nodes for name in node.outputs if name]
        out = [name for name in made if name in wanted or self._last_use.get(name, -1) > number]
        read = {name for node in nodes for name in (*node.inputs, *node.captured)}
        known = self._kept.names if number else set(self._graph.inputs)
        needed = sorted(known & read)
        there = (self._kept.get(batch) if number else dict(self._feeds(batch)) for batch in range(self._count))
        for batch, everything in enumerate(self._computed(there, nodes, needed, out)):
            yield {name: everything[name] for name in wanted}
            live = {name: value for name, value in everything.items() if self._last_use.get(name, -1) > number}
            self._kept.put(batch, live)

    def _computed(
        self, there: Iterator[dict[str, Array]], nodes: list[Node], needed: list[str], out: list[str]
    ) -> Iterator[dict[str, Array]]:
        """Yield for every batch the values that are there, and those that some nodes make of them."""
        first = next(there, None)
        if not out or first is None:
            yield from ([] if first is None else [first])
            yield from there
            return
        inputs = {name: first[name] for name in needed}
        session = Session(self._model, cut_subgraph(self._graph, self._constant, nodes, inputs, out))
        for before, values in session.run_each(chain([first], there), out):
            yield {**before, **dict(zip(out, values, strict=True))}


def constant_nodes(graph: Graph) -> frozenset[int]:
    """Return the nodes whose results depend on nothing that is fed."""
    constant: set[int] = set()
    fixed = set(graph.initializers)
    for node in graph.nodes:
        if all(name in fixed for name in (*node.inputs, *node.captured) if name) and not node.op_type.startswith(
            "Random"
        ):
            constant.add(node.index)
            fixed.update(node.outputs)
    return frozenset(constant)


def cut_subgraph(
    graph: Graph, constant: frozenset[int], nodes: Sequence[Node], inputs: Mapping[str, Array], outputs: Sequence[str]
) -> ModelProto:
    """Return a model of some nodes of a graph.

    Parameters
    ----------
    constant : frozenset of int
        Nodes that may be computed anew wherever they are needed.
    inputs : mapping of str to ndarray
        What is fed, with an example of each value.
    outputs : sequence of str
        What is wanted.
    """
    chosen = {node.index for node in nodes}
    pending = [name for node in nodes for name in (*node.proto.input, *node.captured)]
    weights: dict[str, None] = {}
    while pending:
        name = pending.pop()
        if name in inputs:
            continue
        if name in graph.initializers:
            weights[name] = None
            continue
        maker = graph.producer.get(name)
        if maker is not None and maker.index in constant and maker.index not in chosen:
            chosen.add(maker.index)
            pending.extend((*maker.proto.input, *maker.captured))
    subgraph = ModelProto()
    copy_but(graph.proto, subgraph, "graph", "metadata_props", "functions")
    subgraph.graph.name = "subgraph"
    subgraph.graph.node.extend(graph.nodes[index].proto for index in sorted(chosen))
    subgraph.graph.initializer.extend(graph.initializers[name] for name in weights)
    for name, value in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        subgraph.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    subgraph.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    return subgraph


class _Store:
    """Intermediate values by batch and name; what does not fit in memory lies in files."""

    def __init__(self) -> None:
        self._batches: dict[int, dict[str, Array]] = {}
        self._bytes = 0
        self._folder: ScratchFolder | None = None
        self._files = 0

    @property
    def names(self) -> set[str]:
        return set(next(iter(self._batches.values()), {}))

    def get(self, batch: int) -> dict[str, Array]:
        return dict(self._batches.get(batch, {}))

    def put(self, batch: int, values: dict[str, Array]) -> None:
        """Keep exactly these values of a batch; those that are kept already stay where they are."""
        before = self._batches.get(batch, {})
        for name, value in before.items():
            if name not in values:
                self._forget(value)
        kept = {name: before[name] if name in before else self._stored(value) for name, value in values.items()}
        self._batches[batch] = kept

    def _stored(self, value: Array) -> Array:
        if self._bytes + value.nbytes <= _IN_MEMORY or not value.nbytes:
            self._bytes += value.nbytes
            return value
        if self._folder is None:
            self._folder = ScratchFolder()
        path = self._folder.path / f"{self._files}.npy"
        self._files += 1
        np.save(path, value)
        mapped: Array = np.load(path, mmap_mode="r")
        return mapped

    def _forget(self, value: Array) -> None:
        if isinstance(value, np.memmap):
            Path(str(value.filename)).unlink(missing_ok=True)
        else:
            self._bytes -= value.nbytes

    def close(self) -> None:
        """Remove the files."""
        self._batches.clear()
        if self._folder is not None:
            self._folder.remove()

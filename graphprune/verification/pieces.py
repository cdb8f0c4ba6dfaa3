# SPDX-License-Identifier: Apache-2.0
"""Pieces: two models are cut at the same places, so that all their tensors can be compared in bounded memory.

A model is cut between two nodes where everything that later nodes need is a tensor of a type that numpy can carry
over. Nodes that depend on nothing that is fed are computed anew in every piece that needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper

from graphprune.data.walk import constant_nodes, cut_subgraph
from graphprune.model.graph import Graph, Node

__all__ = ["Piece", "cut_in_step", "stops_of"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a model, with the values that it is fed with and those that it gives to later parts."""

    model: ModelProto
    needs: list[str]
    gives: list[str]


def stops_of(nodes: Iterable[tuple[Mapping[str, int], int]], most: int) -> dict[str, int]:
    """Give each tensor to a stop, so that no stop has many more elements than `most`.

    Parameters
    ----------
    nodes : iterable of (dict of str to int, int)
        Tensors that each node makes, with their elements, and elements of weights that it reads, in the order of the
        nodes; a node is not torn.
    """
    stops: dict[str, int] = {}
    stop, taken = 0, 0
    for made, read in nodes:
        count = sum(made.values()) + read
        if taken and taken + count > most:
            stop, taken = stop + 1, 0
        stops.update(dict.fromkeys(made, stop))
        taken += count
    return stops


def cut_in_step(
    models: Sequence[tuple[ModelProto, Mapping[str, str]]],
    stops: Mapping[str, int],
    types: Mapping[str, int],
    shapes: Mapping[str, Sequence[int | None]],
) -> tuple[dict[str, int], list[list[Piece]]]:
    """Cut models at the same stops.

    Parameters
    ----------
    models : sequence of (ModelProto, dict of str to str)
        Each model, and under which name it makes some of the tensors.
    stops : mapping of str to int
        The stop of each tensor.
    types : mapping of str to int
        Element types of values that can be carried over.
    shapes : mapping of str to sequence of (int or None)
        What is known of the shapes of values: onnxruntime opens no `Resize` that is given a list of unknown length.

    Returns
    -------
    dict, list of list of Piece
        The stops, fewer where a model cannot be cut at one, and the pieces of each model.
    """
    cutters = [
        _Cutter(model, {names.get(name, name): stop for name, stop in stops.items()}, types, shapes)
        for model, names in models
    ]
    count = max(stops.values(), default=0) + 1
    ends = [stop for stop in range(count - 1) if all(cutter.can_end(stop) for cutter in cutters)]
    number = {stop: sum(end < stop for end in ends) for stop in range(count)}
    return {name: number[stop] for name, stop in stops.items()}, [
        cutter.pieces(number, len(ends) + 1) for cutter in cutters
    ]


class _Cutter:
    """One model, and to which stop each of its nodes belongs."""

    def __init__(
        self,
        model: ModelProto,
        stops: Mapping[str, int],
        types: Mapping[str, int],
        shapes: Mapping[str, Sequence[int | None]],
    ) -> None:
        self._graph = Graph(model)
        self._shapes = shapes
        self._constant = constant_nodes(self._graph)
        self._fed = [node for node in self._graph.nodes if node.index not in self._constant]
        self._types = {**types, **{name: kind.tensor_type.elem_type for name, kind in self._graph.inputs.items()}}
        self._wanted = stops
        self._stops = [0] * len(self._graph.nodes)
        stop = max(stops.values(), default=0)
        for node in reversed(self._graph.nodes):  # what nobody wants goes with what is wanted next
            stop = min([stop, *(stops[name] for name in node.outputs if name in stops)])
            self._stops[node.index] = stop

    def can_end(self, stop: int) -> bool:
        """Whether all that goes on from one stop to later ones can be carried over."""
        return all(name in self._types for name in self._made(0, stop) & self._read(stop + 1, len(self._stops)))

    def _nodes(self, first: int, last: int) -> list[Node]:
        """Return the nodes of some stops that depend on what is fed."""
        return [node for node in self._fed if first <= self._stops[node.index] <= last]

    def _made(self, first: int, last: int) -> set[str]:
        return {name for node in self._nodes(first, last) for name in node.outputs if name}

    def _read(self, first: int, last: int) -> set[str]:
        return {name for node in self._nodes(first, last) for name in (*node.inputs, *node.captured) if name}

    def pieces(self, number: Mapping[int, int], count: int) -> list[Piece]:
        """Return the pieces; `number` says to which one each stop belongs."""
        last = {piece: stop for stop, piece in sorted(number.items())}
        pieces, first = [], 0
        for at in range(count):
            nodes = self._nodes(first, last[at])
            before = self._made(0, first - 1) | set(self._graph.inputs)
            needs = sorted(before & self._read(first, last[at]))
            gives = sorted(self._made(first, last[at]) & self._read(last[at] + 1, len(self._stops)))
            wanted = [name for name, stop in self._wanted.items() if first <= stop <= last[at]]
            outputs = list(dict.fromkeys((*wanted, *gives)))
            pieces.append(Piece(self._cut(nodes, needs, outputs), needs, gives))
            first = last[at] + 1
        return pieces

    def _cut(self, nodes: list[Node], needs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
        """Return a model of some nodes, with inputs of any size that is not known to be the only one."""
        dtypes = {name: helper.tensor_dtype_to_np_dtype(self._types[name]) for name in needs}
        inputs = {name: np.empty(0, dtype) for name, dtype in dtypes.items()}
        piece = cut_subgraph(self._graph, self._constant, nodes, inputs, outputs)
        for value in piece.graph.input:
            value.type.tensor_type.ClearField("shape")
            if value.name in self._shapes:
                kind = helper.make_tensor_type_proto(self._types[value.name], self._shapes[value.name])
                value.type.CopyFrom(kind)
        return piece

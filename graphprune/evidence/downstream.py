# SPDX-License-Identifier: Apache-2.0
"""Downstream: the part of a network behind the consumers of one group, run with weights refitted to fewer atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Floats, Ints
from graphprune.data.agreement import Agreement
from graphprune.data.feeding import model_batches
from graphprune.data.session import Session
from graphprune.data.walk import Walk, constant_nodes, cut_subgraph
from graphprune.recovery.least_squares import refit
from graphprune.recovery.sites import find_affine
from graphprune.reproducible import settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.data.moments import MomentSummary
    from graphprune.data.source import Source
    from graphprune.evidence.consumers import Consumer
    from graphprune.evidence.elimination import Elimination
    from graphprune.model.graph import Graph, Node
    from graphprune.model.load import Model
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.recover_options import Progress

__all__ = ["Downstream", "DownstreamErrors", "Readings", "behind", "masked_refit", "shift_of"]


@dataclass(frozen=True, eq=False)
class Readings:
    """What the consumers of every group of a network read.

    Attributes
    ----------
    editable : EditableModel
        Of the network.
    consumers : tuple
        By group; None for a group that something else than weights sums over.
    moments : mapping of str to MomentSummary
        By the first output of the consumer.
    orders : tuple of Elimination or None
        By group.
    """

    editable: EditableModel
    consumers: tuple[tuple[Consumer, ...] | None, ...]
    moments: Mapping[str, MomentSummary]
    orders: tuple[Elimination | None, ...]


class DownstreamErrors:
    """Runs what lies behind the consumers of each group with refitted weights, on some samples.

    Parameters
    ----------
    read : Readings
    ridge : float
        As for recovery.
    source : Source
        Samples on which errors are measured.
    teacher : Model, optional
        Whose outputs errors are measured against; by default those of the network itself.
    """

    def __init__(self, read: Readings, ridge: float, source: Source, teacher: Model | None = None) -> None:
        self._editable = read.editable
        self._consumers = read.consumers
        self._orders = read.orders
        self._moments = read.moments
        self._ridge = ridge
        self._source = source
        self._batches = model_batches(read.editable.model, source)
        self._constant = constant_nodes(read.editable.graph)
        self._shifts = {
            consumer.node.index: shift_of(self._editable, consumer)
            for consumers in self._consumers
            for consumer in consumers or ()
        }
        self._own = _outputs(self._editable.model, source, self._batches)
        self._wanted = self._own if teacher is None else _outputs(teacher, source, self._batches)
        self._base = 0.0 if teacher is None else _error(self._own, self._wanted)

    def measure(self, levels: Sequence[Ints], progress: Progress | None = None) -> dict[int, dict[int, float]]:
        """Return the error that every level of every group that has consumers adds.

        Parameters
        ----------
        levels : sequence of ndarray of int64
            Per group; groups without any are passed over.
        progress : callable, optional
            Told how many groups are done.
        """
        graph = self._editable.graph
        downstream = {
            at: behind(graph, [consumer.node for consumer in consumers])
            for at, consumers in enumerate(self._consumers)
            if consumers and len(levels[at])
        }
        order = sorted(downstream, key=lambda at: downstream[at].nodes[0].index)
        stops = [downstream[at].inputs for at in order]
        errors: dict[int, dict[int, float]] = {}
        with Walk(self._editable.model, graph, stops, self._feeds, len(self._batches)) as walk:
            for number, at in enumerate(order):
                errors[at] = self._group(at, downstream[at], levels[at], list(walk.step()))
                for width, error in errors[at].items():  # of the whole error one digit more
                    errors[at][width] = settled(error - self._base, beside=self._base / 10)
                if progress is not None:
                    progress(number + 1, len(order))
        return errors

    def _feeds(self, number: int) -> Mapping[str, Array]:
        return self._source.read(self._batches[number]).feeds

    def _group(self, at: int, part: Downstream, levels: Ints, values: list[dict[str, Array]]) -> dict[int, float]:
        """Return the error of every level of one group, given what the part behind it reads."""
        errors: dict[int, float] = {}
        session: Session | None = None
        for width in levels.tolist():
            fed = self._fed(at, width)
            if session is None:
                inputs = {**values[0], **fed}
                subgraph = cut_subgraph(self._editable.graph, self._constant, part.nodes, inputs, part.outputs)
                session = Session(self._editable.model, subgraph)
            made = session.run_each({**batch, **fed} for batch in values)
            given = [
                {**own, **dict(zip(session.outputs, new, strict=True))}
                for own, (_, new) in zip(self._own, made, strict=True)
            ]
            errors[width] = _error(given, self._wanted)
        return errors

    def _fed(self, at: int, width: int) -> dict[str, Array]:
        """Return the weights of all consumers of a group, refitted to the atoms that stay at a width."""
        order, fed = self._orders[at], {}
        consumers = self._consumers[at]
        if order is None or consumers is None:
            return {}
        kept = order.kept(width)
        for consumer in consumers:
            moments = self._moments[consumer.node.outputs[0]]
            stored = self._editable.read(consumer.kernel.tensor)
            before = consumer.kernel.matrix(stored)
            weight = masked_refit(moments, before, consumer.columns, kept, self._ridge)
            fed[consumer.kernel.tensor] = consumer.kernel.stored(weight).astype(stored.dtype)
            name, factor = self._shifts[consumer.node.index]
            if name:
                present = self._editable.read(name)
                shift = factor * (moments.x_mean[0] @ (before[0] - weight[0]))
                fed[name] = (present + shift.reshape(present.shape)).astype(present.dtype)
        return fed


def shift_of(editable: EditableModel, consumer: Consumer) -> tuple[str, float]:
    """Return the stored vector that shifts the outputs of a consumer, made where there is none, and by which factor.

    The name is empty for a `MatMul` without one.
    """
    node = consumer.node
    affine = find_affine(editable, node)
    if node.op_type == "MatMul":
        return (affine.shift_at, 1.0) if affine else ("", 1.0)
    inputs = node.proto.input
    has_own = len(inputs) > 2 and bool(inputs[2])
    if not has_own and affine is not None and affine.norm is not None and affine.shift_at:
        return affine.shift_at, -1.0
    if not (has_own and editable.own(inputs[2])):
        stored = editable.read(consumer.kernel.tensor)
        zeros = np.zeros(consumer.kernel.outputs)
        editable.set_bias(node, editable.read(inputs[2]) + zeros if has_own else zeros, stored.dtype)
    return inputs[2], 1.0 / consumer.kernel.bias_scale


def _outputs(model: Model, source: Source, batches: Sequence[Ints]) -> list[dict[str, Array]]:
    """Return the outputs of a model for every batch, by name."""
    session = Session(model)
    made = session.run_each(source.read(index).feeds for index in batches)
    return [dict(zip(session.outputs, values, strict=True)) for _, values in made]


def _error(given: Sequence[Mapping[str, Array]], wanted: Sequence[Mapping[str, Array]]) -> float:
    """Return the squared error relative to the variance, as the mean over all outputs."""
    agreement = Agreement(list(wanted[0]))
    for own, other in zip(given, wanted, strict=True):
        agreement.add([own[name] for name in agreement.names], list(other.values()), samples=1)
    return agreement.relative_error


def masked_refit(moments: MomentSummary, weight: Floats, columns: Ints, kept: Ints, ridge: float) -> Floats:
    """Return weights in which the columns of removed atoms are zero, and the others make up for them.

    Parameters
    ----------
    weight : ndarray, shape (1, columns, outputs)
    columns : ndarray of int64, shape (atoms, m)
    kept : ndarray of int64
        Atoms that stay.
    """
    gone = np.delete(columns, kept, axis=0).ravel()
    live = np.ones(weight.shape[1], dtype=np.bool_)
    live[gone] = False
    result = np.zeros_like(weight)
    if live.any():
        result[:, live] = refit(moments.of(live), weight[:, live], ridge)
    return result


@dataclass(frozen=True, eq=False)
class Downstream:
    """The part of a graph behind some nodes, these included.

    Attributes
    ----------
    nodes : list of Node
    inputs : tuple of str
        Values that it reads from the part in front.
    outputs : list of str
        Graph outputs that it makes.
    """

    nodes: list[Node]
    inputs: tuple[str, ...]
    outputs: list[str]


def behind(graph: Graph, first: Sequence[Node]) -> Downstream:
    """Return everything that depends on some nodes."""
    made: set[str] = set()
    start = {node.index for node in first}
    nodes = []
    for node in graph.nodes:
        if node.index in start or any(name in made for name in (*node.inputs, *node.captured)):
            nodes.append(node)
            made.update(node.outputs)
    constant = constant_nodes(graph)
    read = dict.fromkeys(name for node in nodes for name in (*node.inputs, *node.captured))
    front = tuple(
        name
        for name in read
        if name
        and name not in made
        and name not in graph.initializers
        and not (name in graph.producer and graph.producer[name].index in constant)
    )
    return Downstream(nodes, front, [name for name in graph.outputs if name in made])

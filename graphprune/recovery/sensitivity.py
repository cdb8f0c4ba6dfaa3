# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: what the outputs of the dense network lose when one group alone is made narrower.

For every group and width the consumers of the group are refitted to what is left of it, and the rest of the network is
run with them: the error is measured where it counts, at the outputs. Which atoms stay at a width is found by backward
elimination. Nothing is trained and no labels are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.calibrate.agreement import Agreement
from graphprune.calibrate.feeding import whole_batches
from graphprune.calibrate.session import Session
from graphprune.calibrate.signature import input_specs
from graphprune.calibrate.walk import Walk, constant_nodes, cut_piece
from graphprune.recovery.consumers import Consumer, find_consumers
from graphprune.recovery.draft import Draft
from graphprune.recovery.elimination import Elimination, Reading, backward_elimination
from graphprune.recovery.grams import consumer_moments
from graphprune.recovery.least_squares import refit
from graphprune.recovery.sites import find_affine, norm_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis import Analysis
    from graphprune.calibrate.moments import Summary
    from graphprune.calibrate.source import Source
    from graphprune.model.graph import Graph, Node
    from graphprune.model.load import Model
    from graphprune.recovery.options import Progress

__all__ = ["SensitivityOptions", "Table", "measure_sensitivity"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SensitivityOptions:
    """How sensitivities are measured.

    Parameters
    ----------
    fitted : int
        The most samples whose moments the refits use.
    measured : int
        The most samples on which errors are measured.
    ridge : float
        As for recovery.
    steps : int
        Widths tried per group, besides the full one, evenly spaced.
    seed : int
        For the sampled positions.
    """

    fitted: int = 1024
    measured: int = 256
    ridge: float = 1e-3
    steps: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Table:
    """What one group can give up.

    Attributes
    ----------
    group : str
        Its id.
    elimination : Elimination or None
        In which order its atoms go; None where something other than weights reads the group, and nothing is known.
    widths : ndarray of int64, increasing
        Widths that were measured; the last one is the full width.
    errors : ndarray, shape (len(widths),)
        Squared error of the outputs, relative to their variance, non-increasing; 0 at the full width.
    """

    group: str
    elimination: Elimination | None
    widths: Ints
    errors: Floats

    def error(self, width: int) -> float:
        """Return the error at any width, interpolated geometrically between the measured ones."""
        logs = np.log(np.maximum(self.errors, 1e-12))
        return 0.0 if width >= self.widths[-1] else float(np.exp(np.interp(width, self.widths, logs)))


def measure_sensitivity(
    analysis: Analysis,
    source: Source,
    options: SensitivityOptions | None = None,
    levels: Sequence[Ints] | None = None,
    progress: Progress | None = None,
    teacher: Model | None = None,
) -> tuple[Table, ...]:
    """Measure every group of a network.

    Parameters
    ----------
    analysis : Analysis
        Of the dense network.
    source : Source
        Samples; labels are not looked at.
    levels : sequence of ndarray, optional
        Widths to measure, per group; evenly spaced ones by default.
    progress : callable, optional
        Told how many groups are done.
    teacher : Model, optional
        Whose outputs errors are measured against; by default those of the network itself. The error that a network
        has from the start is taken off.

    Returns
    -------
    tuple of Table
        In the order of ``analysis.groups``.
    """
    options = options or SensitivityOptions()
    draft = Draft(analysis.model)
    found = find_consumers(draft, analysis)
    specs = input_specs(analysis.model)
    used = source.limited(options.fitted)
    batches = whole_batches(used, specs)
    moments = consumer_moments(
        draft,
        [consumer for consumers in found if consumers for consumer in consumers],
        lambda number: used.read(batches[number]).feeds,
        len(batches),
        options.seed,
    )
    orders = [None if consumers is None else _eliminate(draft, consumers, moments, options) for consumers in found]
    wanted = [
        _levels(group.size, options.steps) if levels is None else levels[at] for at, group in enumerate(analysis.groups)
    ]
    tails = _Tails(draft, found, orders, moments, options)
    errors = tails.measure(wanted, used.limited(options.measured), progress, teacher)
    tables = []
    for at, group in enumerate(analysis.groups):
        widths = np.unique(np.append(wanted[at], group.size)) if at in errors else np.array([group.size])
        values = np.array([errors[at].get(int(width), 0.0) for width in widths]) if at in errors else np.zeros(1)
        monotone = np.maximum.accumulate(np.maximum(values, 0.0)[::-1])[::-1]
        tables.append(Table(group.id, orders[at], widths.astype(np.int64), monotone))
    return tuple(tables)


def _levels(size: int, steps: int) -> Ints:
    """Return evenly spaced widths from 1 upwards, without the full one."""
    return np.unique(np.maximum(1, np.round(np.arange(1, steps) * size / steps))).astype(np.int64)


def _eliminate(
    draft: Draft, consumers: Sequence[Consumer], moments: Mapping[str, Summary], options: SensitivityOptions
) -> Elimination:
    readings = [
        Reading(
            moments[consumer.node.outputs[0]].xx[0],
            consumer.kernel.matrix(draft.read(consumer.kernel.tensor))[0] * _output_scale(draft, consumer),
            consumer.columns,
        )
        for consumer in consumers
    ]
    return backward_elimination(readings, options.ridge)


def _output_scale(draft: Draft, consumer: Consumer) -> Floats:
    """Return what a following `BatchNormalization` multiplies each output with: errors count behind it."""
    affine = find_affine(draft, consumer.node)
    if affine is None or affine.norm is None:
        return np.ones(consumer.kernel.outputs)
    return norm_map(draft, affine.norm)[0]


class _Tails:
    """Runs what lies behind the consumers of each group with refitted weights."""

    def __init__(
        self,
        draft: Draft,
        consumers: Sequence[tuple[Consumer, ...] | None],
        orders: Sequence[Elimination | None],
        moments: Mapping[str, Summary],
        options: SensitivityOptions,
    ) -> None:
        self._draft = draft
        self._consumers = consumers
        self._orders = orders
        self._moments = moments
        self._options = options
        self._constant = constant_nodes(draft.graph)

    def measure(
        self, levels: Sequence[Ints], source: Source, progress: Progress | None, teacher: Model | None
    ) -> dict[int, dict[int, float]]:
        """Return the error that every level of every group that has consumers adds."""
        graph = self._draft.graph
        batches = whole_batches(source, input_specs(self._draft.model))
        tails = {
            at: behind(graph, [consumer.node for consumer in consumers])
            for at, consumers in enumerate(self._consumers)
            if consumers
        }
        order = sorted(tails, key=lambda at: tails[at].nodes[0].index)
        stops = [tails[at].inputs for at in order]
        found: dict[int, dict[int, float]] = {}
        self._shifts = {
            consumer.node.index: shift_of(self._draft, consumer)
            for consumers in self._consumers
            for consumer in consumers or ()
        }
        own, base = _outputs(self._draft.model, source, batches), 0.0
        dense = own
        if teacher is not None:
            dense = _outputs(teacher, source, batches)
            base = _error(own, dense)
        with Walk(
            self._draft.model, graph, stops, lambda number: source.read(batches[number]).feeds, len(batches)
        ) as walk:
            for number, at in enumerate(order):
                found[at] = self._group(at, tails[at], levels[at], list(walk.step()), (own, dense))
                for width in found[at]:
                    found[at][width] -= base
                if progress is not None:
                    progress(number + 1, len(order))
        return found

    def _group(
        self,
        at: int,
        tail: Tail,
        levels: Ints,
        values: list[dict[str, Array]],
        outputs: tuple[list[dict[str, Array]], list[dict[str, Array]]],
    ) -> dict[int, float]:
        """Return the error of every level of one group, given the outputs of the network itself and the wanted ones."""
        errors: dict[int, float] = {}
        session: Session | None = None
        for width in levels.tolist():
            fed = self._fed(at, width)
            if session is None:
                piece = cut_piece(self._draft.graph, self._constant, tail.nodes, {**values[0], **fed}, tail.outputs)
                session = Session(self._draft.model, piece)
            given = [
                {**own, **dict(zip(session.outputs, session.run({**batch, **fed}), strict=True))}
                for batch, own in zip(values, outputs[0], strict=True)
            ]
            errors[width] = _error(given, outputs[1])
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
            stored = self._draft.read(consumer.kernel.tensor)
            before = consumer.kernel.matrix(stored)
            weight = masked_refit(moments, before, consumer.columns, kept, self._options.ridge)
            fed[consumer.kernel.tensor] = consumer.kernel.stored(weight).astype(stored.dtype)
            name, factor = self._shifts[consumer.node.index]
            if name:
                present = self._draft.read(name)
                shift = factor * (moments.x_mean[0] @ (before[0] - weight[0]))
                fed[name] = (present + shift.reshape(present.shape)).astype(present.dtype)
        return fed


def shift_of(draft: Draft, consumer: Consumer) -> tuple[str, float]:
    """Return the stored vector that shifts the outputs of a consumer, made where there is none, and by which factor.

    The name is empty for a `MatMul` without one.
    """
    node = consumer.node
    affine = find_affine(draft, node)
    if node.op_type == "MatMul":
        return (affine.shift_at, 1.0) if affine else ("", 1.0)
    inputs = node.proto.input
    has_own = len(inputs) > 2 and bool(inputs[2])
    if not has_own and affine is not None and affine.norm is not None and affine.shift_at:
        return affine.shift_at, -1.0
    if not (has_own and draft.own(inputs[2])):
        stored = draft.read(consumer.kernel.tensor)
        zeros = np.zeros(consumer.kernel.outputs)
        draft.set_bias(node, draft.read(inputs[2]) + zeros if has_own else zeros, stored.dtype)
    return inputs[2], 1.0 / consumer.kernel.bias_scale


def _outputs(model: Model, source: Source, batches: Sequence[Ints]) -> list[dict[str, Array]]:
    """Return the outputs of a model for every batch, by name."""
    session = Session(model)
    return [dict(zip(session.outputs, session.run(source.read(index).feeds), strict=True)) for index in batches]


def _error(given: Sequence[Mapping[str, Array]], wanted: Sequence[Mapping[str, Array]]) -> float:
    """Return the squared error relative to the variance, as the mean over all outputs."""
    found = Agreement(list(wanted[0]))
    for own, other in zip(given, wanted, strict=True):
        found.add([own[name] for name in found.names], list(other.values()), samples=1)
    return found.relative_error


def masked_refit(moments: Summary, weight: Floats, columns: Ints, kept: Ints, ridge: float) -> Floats:
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
    part = moments.of(live)
    result = np.zeros_like(weight)
    result[:, live] = refit(part, weight[:, live], ridge)
    return result


@dataclass(frozen=True, eq=False)
class Tail:
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


def behind(graph: Graph, first: Sequence[Node]) -> Tail:
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
    return Tail(nodes, front, [name for name in graph.outputs if name in made])

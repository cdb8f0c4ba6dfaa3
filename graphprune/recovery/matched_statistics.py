# SPDX-License-Identifier: Apache-2.0
"""Matched statistics: samples of another world, seen by every layer as it saw its training data.

A `BatchNormalization` remembers the mean and the variance that its input had over the training data. Where samples
are not of that kind (made images, photographs of other things), its input has others, and what lies behind it works
where it was never meant to. So every normalisation, in the order in which the network runs them, gets the statistics
of the samples in place of its own: its output is then distributed as in training, and the next one is measured in a
network that is matched so far. Pruning is recovered against this *matched dense network*, and the network's own
statistics are put back afterwards. Weights are what recovery is about, and they stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.data.feeding import model_batches
from graphprune.data.statistics import Statistics, measured
from graphprune.data.walk import Walk
from graphprune.recovery.editable_model import EditableModel
from graphprune.verification.fidelity.expectation import Expectation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source
    from graphprune.model.graph import Node
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Progress

__all__ = ["MatchedNetwork", "match_statistics", "put_back", "put_in", "stored_norms"]

_LEAST = 1e-12
"""A variance below this one is none: the channel was constant over the training data."""
_STRETCH = 10.0
"""A channel is stretched by this factor at most: what hardly varies over the samples is noise."""


@dataclass(frozen=True, eq=False)
class MatchedNetwork:
    """A network whose normalisations hold the statistics of some samples.

    Attributes
    ----------
    model : Model
        The matched network.
    own, met : mapping of str to Statistics
        What each normalisation remembers, and what it met in the matched network; by its first output.
    """

    model: Model
    own: Mapping[str, Statistics]
    met: Mapping[str, Statistics]

    @property
    def mismatch(self) -> float:
        """The mean over all normalisations of how far the samples are from what the network remembers.

        What earlier ones make of it has been set right already, so this is what each layer adds.
        """
        return float(np.mean([self.own[name].mismatch(met).mean() for name, met in self.met.items()]))


def stored_norms(editable: EditableModel) -> list[Node]:
    """Return the normalisations whose stored statistics are their own, in the order in which the network runs them."""
    return [
        node
        for node in editable.graph.nodes
        if node.op_type == "BatchNormalization"
        and not node.domain
        and not node.attribute("training_mode", 0)
        and node.inputs[0] in editable.graph.producer
        and all(editable.own(name) for name in node.inputs[3:5])
    ]


def match_statistics(model: Model, source: Source, progress: Progress | None = None) -> MatchedNetwork | None:
    """Give every normalisation of a network the statistics of some samples.

    Parameters
    ----------
    model : Model
        It is not changed.
    source : Source
        Labels are not looked at.
    progress : callable, optional
        Told how many normalisations are done.

    Returns
    -------
    MatchedNetwork or None
        None where the network has no normalisation with statistics of its own.

    Complexity: one pass of the network over the samples.
    """
    editable = EditableModel(model)
    norms = stored_norms(editable)
    if not norms:
        return None
    batches = model_batches(model, source)
    own: dict[str, Statistics] = {}
    met: dict[str, Statistics] = {}
    stops = [(norm.inputs[0],) for norm in norms]
    with Walk(model, editable.graph, stops, lambda number: source.read(batches[number]).feeds, len(batches)) as walk:
        for number, norm in enumerate(norms):
            if progress is not None:
                progress(number, len(norms))
            name = norm.outputs[0]
            own[name] = _read(editable, norm)
            met[name] = measured(values[norm.inputs[0]] for values in walk.step())
            _write(editable, norm, _stood_in(own[name], met[name], norm.attribute("epsilon", 1e-5)))
    return MatchedNetwork(editable.finished(), own, met)


def _read(editable: EditableModel, norm: Node) -> Statistics:
    mean, variance = (editable.read(name).astype(np.float64) for name in norm.inputs[3:5])
    return Statistics(mean, variance)


def _write(editable: EditableModel, norm: Node, statistics: Statistics) -> None:
    for name, value in zip(norm.inputs[3:5], (statistics.mean, statistics.variance), strict=True):
        editable.write(name, value)


def _stood_in(own: Statistics, met: Statistics, epsilon: float) -> Statistics:
    """Return the statistics with which what was met is normalised to what the own ones make of training data."""
    variance = np.maximum(own.variance, _LEAST)
    seen = np.maximum(met.variance, variance / _STRETCH**2)
    return Statistics(met.mean, np.maximum(seen * (1 + epsilon / variance) - epsilon, 0.0))


def put_in(matched: MatchedNetwork, pruned: Model, analysis: Analysis, plan: Plan) -> Model:
    """Return a pruned network with the statistics of the matched one."""
    return _moved(matched, pruned, analysis, plan, back=False)


def put_back(matched: MatchedNetwork, recovered: Model, analysis: Analysis, plan: Plan) -> Model:
    """Return a recovered network with statistics of its own again.

    What recovery added to a mean, where a layer has no bias, stays added.
    """
    return _moved(matched, recovered, analysis, plan, back=True)


def _moved(matched: MatchedNetwork, model: Model, analysis: Analysis, plan: Plan, *, back: bool) -> Model:
    editable, expectation = EditableModel(model), Expectation(analysis, plan)
    dense = EditableModel(matched.model)
    norms = {norm.outputs[0]: norm for norm in stored_norms(dense)}
    for norm in stored_norms(editable):
        name = norm.outputs[0]
        masks = expectation.activation(name)
        if name not in matched.own or masks is None:
            continue
        kept = masks[1]
        stand_in, own, present = _read(dense, norms[name]), matched.own[name], _read(editable, norm)
        before, after = (stand_in, own) if back else (own, stand_in)
        _write(
            editable,
            norm,
            Statistics(present.mean - before.mean[kept] + after.mean[kept], after.variance[kept]),
        )
    return editable.finished()

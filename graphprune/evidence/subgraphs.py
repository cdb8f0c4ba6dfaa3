# SPDX-License-Identifier: Apache-2.0
"""Subgraphs: parts of a masked network, run for many choices on held-out samples."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from graphprune.array_types import Array, Ints
from graphprune.data.agreement import Accuracy, Agreement
from graphprune.data.feeding import model_batches
from graphprune.data.session import Session
from graphprune.data.walk import Walk, constant_nodes, cut_subgraph
from graphprune.evidence.downstream import behind
from graphprune.reproducible import settled
from graphprune.solvers.protocols.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source
    from graphprune.evidence.refits import Refits
    from graphprune.model.graph import Graph, Node
    from graphprune.model.load import Model
    from graphprune.recovery.recover_options import Progress
    from graphprune.solvers.protocols.outcomes import Choose, Profile

__all__ = ["DenseOutputs", "StageSubgraph", "go_forward", "logits_like"]

Values = dict[str, Array]


class DenseOutputs:
    """Held-out samples and what the dense network makes of them.

    Parameters
    ----------
    analysis : Analysis
    held : Source
    """

    def __init__(self, analysis: Analysis, held: Source) -> None:
        self._held = held
        self._batches = model_batches(analysis.model, held)
        session = Session(analysis.model)
        self.names = session.outputs
        made = session.run_each(self.feeds(number) for number in range(self.count))
        self.outputs = [dict(zip(session.outputs, values, strict=True)) for _, values in made]

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def feeds(self, number: int) -> Mapping[str, Array]:
        """Return the inputs of a batch."""
        return self._held.read(self._batches[number]).feeds

    @cached_property
    def measure(self) -> str:
        """What scores are: see :class:`graphprune.solvers.protocols.outcomes.Outcome`."""
        first = self.outputs[0][self.names[0]]
        if not logits_like(first):
            return "error"
        labels = self._labels(0)
        return "agreement" if labels is None or not _are_classes(labels, first) else "accuracy"

    def outcome(self, outputs: Sequence[Mapping[str, Array]]) -> Outcome:
        """Return what the outputs of another network are worth, given batch by batch."""
        accuracy, agreement, samples = Accuracy(), Agreement(self.names), 0
        for number, (own, wanted) in enumerate(zip(outputs, self.outputs, strict=True)):
            agreement.add([own[name] for name in self.names], [wanted[name] for name in self.names], samples=1)
            labels = self._labels(number)
            if self.measure == "accuracy" and labels is not None:
                accuracy.add(own[self.names[0]], labels)
            samples += len(self._batches[number])
        error = settled(agreement.relative_error)
        scores = {"accuracy": accuracy.top1, "agreement": agreement.agreement or 0.0, "error": -error}
        return Outcome(error, scores[self.measure], self.measure, samples)

    def run(self, model: Model) -> Outcome:
        """Return what another network is worth."""
        made = Session(model).run_each((self.feeds(number) for number in range(self.count)), self.names)
        return self.outcome([dict(zip(self.names, values, strict=True)) for _, values in made])

    def _labels(self, number: int) -> Array | None:
        return self._held.read(self._batches[number]).labels if self._held.labelled else None


def logits_like(output: Array) -> bool:
    """Whether an output has one row of logits for each sample."""
    return output.ndim == 2 and output.shape[1] > 1 and output.dtype.kind == "f"


def _are_classes(labels: Array, logits: Array) -> bool:
    """Whether labels are one class of the logits for each sample, and not targets of another kind."""
    fits = labels.shape == logits.shape[:1] and labels.dtype.kind in "iu"
    return fits and bool((labels >= 0).all() and (labels < logits.shape[1]).all())


def go_forward(
    refits: Refits, dense: DenseOutputs, profiles: Sequence[Profile | None], choose: Choose, progress: Progress | None
) -> None:
    """Go through the groups in the order of what reads them, and write what is chosen before going on.

    Parameters
    ----------
    refits : Refits
        Of the dense network; its editable is written to.
    dense : DenseOutputs
    profiles : sequence of Profile or None
        In which order the atoms of each group go.
    choose : callable
        See :mod:`graphprune.solvers.protocols.outcomes`.
    progress : callable, optional
        Told how many groups are done.
    """
    graph = refits.editable.graph
    downstream = {
        group: behind(graph, [consumer.node for consumer in consumers])
        for group, consumers in enumerate(refits.consumers)
        if consumers and profiles[group] is not None
    }
    order = sorted(downstream, key=lambda group: downstream[group].nodes[0].index)
    stops = [downstream[group].inputs for group in order]
    with Walk(refits.editable.model, graph, stops, dense.feeds, dense.count) as walk:
        for number, group in enumerate(order):
            profile, part, values = profiles[group], downstream[group], list(walk.step())
            if profile is None:
                continue
            run = _Runner(refits, part.nodes, part.outputs, values)

            def score(
                width: int, group: int = group, profile: Profile = profile, run: Callable[..., list[Values]] = run
            ) -> float:
                given = run({group: profile.kept(width)})
                return dense.outcome([{**own, **new} for own, new in zip(dense.outputs, given, strict=True)]).score

            refits.write({group: profile.kept(choose(group, profile, score))})
            if progress is not None:
                progress(number + 1, len(order))


class _Runner:
    """Runs some nodes of a editable with other weights."""

    def __init__(self, refits: Refits, nodes: Sequence[Node], outputs: Sequence[str], values: list[Values]) -> None:
        self._refits = refits
        self._nodes, self._outputs, self._values = nodes, outputs, values
        self._session: Session | None = None
        self._constant = constant_nodes(refits.editable.graph)
        self._fed: frozenset[str] = frozenset()

    def __call__(self, kept: Mapping[int, Ints]) -> list[Values]:
        fed = self._refits.fed(kept)
        editable = self._refits.editable
        if self._session is None or self._fed != frozenset(fed):
            inputs = {**self._values[0], **fed}
            self._session = Session(
                editable.model, cut_subgraph(editable.graph, self._constant, self._nodes, inputs, self._outputs)
            )
            self._fed = frozenset(fed)
        session = self._session
        made = session.run_each({**batch, **fed} for batch in self._values)
        return [dict(zip(session.outputs, values, strict=True)) for _, values in made]


class StageSubgraph:
    """The nodes of one stage, fed with what the dense network feeds them.

    Parameters
    ----------
    refits : Refits
    dense : DenseOutputs
    nodes : sequence of Node
        Of the graph of the editable.
    """

    def __init__(self, refits: Refits, dense: DenseOutputs, nodes: Sequence[Node]) -> None:
        graph = refits.editable.graph
        inputs, outputs = _borders(graph, nodes)
        with Walk(refits.editable.model, graph, [inputs, outputs], dense.feeds, dense.count) as walk:
            values = list(walk.step())
            self._wanted = list(walk.step())
        self._run = _Runner(refits, nodes, outputs, values)
        self._names = outputs

    def error(self, kept: Mapping[int, Ints]) -> float:
        """Return the error of what the stage gives if these groups keep these atoms and all others are whole."""
        agreement = Agreement(self._names)
        for own, wanted in zip(self._run(kept), self._wanted, strict=True):
            agreement.add([own[name] for name in self._names], [wanted[name] for name in self._names], samples=1)
        return agreement.relative_error


def _borders(graph: Graph, nodes: Sequence[Node]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what some nodes read from elsewhere, weights left out, and what others read from them."""
    constant = constant_nodes(graph)
    made = {name for node in nodes for name in node.outputs if name}
    own = {node.index for node in nodes}
    read = dict.fromkeys(name for node in nodes for name in (*node.inputs, *node.captured) if name)
    inputs = tuple(
        name
        for name in read
        if name not in made
        and name not in graph.initializers
        and not (name in graph.producer and graph.producer[name].index in constant)
    )
    elsewhere = {name for node in graph.nodes if node.index not in own for name in (*node.inputs, *node.captured)}
    outputs = tuple(sorted(name for name in made if name in elsewhere or name in graph.outputs))
    return inputs, outputs

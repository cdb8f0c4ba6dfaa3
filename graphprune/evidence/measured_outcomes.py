# SPDX-License-Identifier: Apache-2.0
"""MeasuredOutcomes: networks pruned, recovered and measured on held-out samples, for solvers that try things out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Floats, Ints
from graphprune.cost.counting import count_layers
from graphprune.errors import UsageError, quote
from graphprune.evidence.present_network import PresentNetwork
from graphprune.evidence.refits import Refits
from graphprune.evidence.sensitivity import SensitivityOptions, measure_sensitivity, read_consumers
from graphprune.evidence.stages import group_stages, node_stages
from graphprune.evidence.subgraphs import DenseOutputs, StageSubgraph, go_forward
from graphprune.plan.check import group_plan
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Budget, Plan, SolverRecord
from graphprune.planning.bundles import close
from graphprune.planning.records import describe_model
from graphprune.recovery.recover import recover
from graphprune.recovery.recover_options import METHODS, RecoverOptions
from graphprune.reproducible import one_blas_thread, settled, settled_all
from graphprune.rewrites.reference import make_reference
from graphprune.solvers.protocols.outcomes import Profile
from graphprune.surgery.prune import prune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.data.source import Source
    from graphprune.evidence.downstream import Readings
    from graphprune.model.load import Model
    from graphprune.solvers.protocols.outcomes import Choose, Kept, Outcome

__all__ = ["Listen", "MeasuredOutcomes"]

Listen = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is to do."""

_ROWS = 12_288  # whose moments say well enough what atoms are worth
_REMEMBERED = 3  # recovered networks


@dataclass(eq=False)
class MeasuredOutcomes:
    """What becomes of a network; it fulfils :class:`graphprune.solvers.protocols.outcomes.Outcomes`.

    Parameters
    ----------
    analysis : Analysis
        Of the dense network.
    source : Source
        Samples; a quarter of those used is held out. Labels serve for scores only.
    seed : int
        For sampled positions.
    listen : callable, optional
        Told how far things are.
    """

    analysis: Analysis
    source: Source
    seed: int = 0
    listen: Listen | None = None
    _known: dict[tuple[str, bytes], Outcome] = field(default_factory=dict)
    _models: dict[bytes, Model] = field(default_factory=dict)

    @property
    def streams(self) -> tuple[bool, ...]:
        """Per group, whether several layers make its channels."""
        return tuple(
            len({member.node for member in group.members if member.role == "out"}) > 1 for group in self.analysis.groups
        )

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """Per group, the stage that holds all of it; -1 if none does."""
        known = [consumers is not None for consumers in self._refits.consumers]
        return group_stages(self.analysis, self._refits.editable.graph, self._node_stages, known)

    def realise(self, kept: Kept, method: str = "least-squares") -> Outcome:
        """Prune to these atoms, recover, and measure on held-out samples.

        Raises
        ------
        UsageError
            If there is no such method, or there are too few samples.
        PlanError
            If a group is empty and cannot be.
        """
        key = method, _key(kept)
        if key not in self._known:
            self._known[key] = self._dense.run(self._made(kept, method))
        return self._known[key]

    def profiles(self, kept: Kept, levels: Sequence[Ints], count: int) -> tuple[Profile | None, ...]:
        """Measure each group at up to `count` of its levels below its present width, in the recovered network."""
        dense = self._whole(kept)
        present = self.analysis if dense else self._analysed(self._made(kept, "least-squares"))
        wanted = [np.array([group.size]) for group in present.groups]
        found_at = self._places(present, kept)
        for at, atoms, allowed in zip(found_at, kept, levels, strict=True):
            if at is not None:
                wanted[at] = _spread(allowed[allowed < len(atoms)], len(atoms), count)
        tables = measure_sensitivity(
            present,
            self.source,
            self._options,
            wanted,
            self._told("measuring groups"),
            teacher=None if dense else self.analysis.model,
            read=self._read if dense else None,
        )
        profiles: list[Profile | None] = []
        for atoms, at in zip(kept, found_at, strict=True):
            table = None if at is None else tables[at]
            if table is None or table.elimination is None:
                profiles.append(None)
            else:
                profiles.append(Profile(atoms[table.elimination.order], table.widths, table.errors))
        return tuple(profiles)

    def present(self, kept: Kept) -> PresentNetwork:
        """Prune to these atoms, recover, and return the network for its groups to be measured."""
        present = self.analysis if self._whole(kept) else self._analysed(self._roughly(kept))
        options, told = self._quick, self._told("measuring groups")
        read = read_consumers(present, self.source, options, self._told("reading"))
        held = options.divided(self.source)[1]
        places = self._places(present, kept)
        return PresentNetwork(kept, places, read, options.ridge, held, self.analysis.model, told)

    def reconstructions(self, kept: Kept) -> tuple[Profile | None, ...]:
        """Return what the layers that read a group of the dense network lose at every width."""
        return tuple(
            None if elimination is None else _reconstruction(elimination.order, elimination.costs, atoms)
            for elimination, atoms in zip(self._read.orders, kept, strict=True)
        )

    @one_blas_thread()
    def go_forward(self, kept: Kept, choose: Choose) -> None:
        """Go through the groups from the inputs to the outputs; what is chosen for one is there for all that follow."""
        refits = Refits(self.analysis, self._read, self._options.ridge)
        narrowed = {at: atoms for at, atoms in enumerate(kept) if len(atoms) < self.analysis.groups[at].size}
        refits.write(narrowed)
        go_forward(refits, self._dense, self.reconstructions(kept), choose, self._told("searching"))

    @one_blas_thread()
    def stage_errors(self, stage: int, candidates: Sequence[Kept]) -> Floats:
        """Return the error of what a stage gives if the dense network feeds it, for each of some choices."""
        groups = [at for at, own in enumerate(self.stages) if own == stage]
        nodes = [self._refits.editable.graph.nodes[index] for index, own in self._node_stages.items() if own == stage]
        subgraph, told = StageSubgraph(self._refits, self._dense, nodes), self._told(f"stage {stage}")
        errors = []
        for number, kept in enumerate(candidates):
            whole = all(len(kept[at]) == self.analysis.groups[at].size for at in groups)
            errors.append(0.0 if whole else settled(subgraph.error({at: kept[at] for at in groups})))
            told(number + 1, len(candidates))
        return np.array(errors)

    def recovered(self, kept: Kept) -> Model:
        """Return the network that :meth:`realise` measures, recovered by least squares."""
        return self._made(kept, "least-squares")

    @cached_property
    def _options(self) -> SensitivityOptions:
        return SensitivityOptions(seed=self.seed)

    @cached_property
    def _quick(self) -> SensitivityOptions:
        return replace(self._options, rows=_ROWS)

    @cached_property
    def _read(self) -> Readings:
        return read_consumers(self.analysis, self.source, self._options, self._told("reading"))

    @cached_property
    def _refits(self) -> Refits:
        return Refits(self.analysis, self._read, self._options.ridge)

    @cached_property
    def _dense(self) -> DenseOutputs:
        return DenseOutputs(self.analysis, self._options.divided(self.source)[1])

    @cached_property
    def _node_stages(self) -> dict[int, int]:
        return node_stages(self._refits.editable.graph, self.analysis.shapes.dims)

    def _told(self, what: str) -> Callable[[int, int], None]:
        """Return what is to be called with how far something is."""

        def tell(done: int, total: int) -> None:
            if self.listen is not None:
                self.listen(what, done, total)

        return tell

    def _whole(self, kept: Kept) -> bool:
        """Whether every group keeps all of its atoms."""
        return all(len(atoms) == group.size for atoms, group in zip(kept, self.analysis.groups, strict=True))

    def _places(self, present: Analysis, kept: Kept) -> list[int | None]:
        """Return the number of each group in a narrower network; None where it has no group of this name and width."""
        by_name = {group.name: at for at, group in enumerate(present.groups)}
        places = [by_name.get(group.name) for group in self.analysis.groups]
        return [
            None if at is None or present.groups[at].size != len(atoms) else at
            for at, atoms in zip(places, kept, strict=True)
        ]

    def _analysed(self, model: Model) -> Analysis:
        whole = self.analysis
        return whole.of(model)

    def _made(self, kept: Kept, method: str) -> Model:
        """Return the pruned network, recovered; the last few that least squares gave are remembered."""
        key = _key(kept)
        if method == "least-squares" and key in self._models:
            return self._models[key]
        plan = self._plan(kept)
        if plan.is_identity:
            return self.analysis.model
        pruned = self._cut(plan)
        if method == "none":
            return pruned
        known = next((name for name in METHODS if name == method), None)
        if known is None:
            raise UsageError(f"there is no recovery method {quote(method)}", hint=f"none, {', '.join(METHODS)}")
        options = RecoverOptions(known, samples=self._options.samples, held_out=self._options.held_out, seed=self.seed)
        model = recover(self.analysis, plan, pruned, self.source, options, self._told("recovering")).model
        if method == "least-squares":
            self._models[key] = model
            while len(self._models) > _REMEMBERED:
                del self._models[next(iter(self._models))]
        return model

    def _roughly(self, kept: Kept) -> Model:
        """Return the pruned network, recovered well enough for groups to be measured in it, in a third of the time."""
        options = self._quick
        positions = options.positions(len(options.divided(self.source)[0]))
        how = RecoverOptions(
            samples=options.samples, held_out=options.held_out, rounds=0, seed=self.seed, positions=positions
        )
        plan = self._plan(kept)
        return recover(self.analysis, plan, self._cut(plan), self.source, how, self._told("recovering")).model

    def _cut(self, plan: Plan) -> Model:
        """Return the pruned network."""
        whole = all(group.kept for group in plan.groups)
        start = self.analysis if whole else make_reference(self.analysis, plan).start
        return self.analysis.model.replaced(prune(start, keep_mask(self.analysis, plan)))

    def _plan(self, kept: Kept) -> Plan:
        """Return what is needed of a plan to prune and recover; what can only go with an empty group goes with it."""
        emptied = [group for group, atoms in enumerate(kept) if not len(atoms)]
        closed = close(self.analysis, emptied)[0] if emptied else frozenset()
        kept = tuple(atoms[:0] if group in closed else atoms for group, atoms in enumerate(kept))
        analysis, widths = self.analysis, np.array([len(atoms) for atoms in kept], dtype=np.int64)
        flops = analysis.cost.flops
        before, after = flops(analysis.cost.sizes), flops(widths)
        return Plan(
            model=describe_model(analysis),
            budget=Budget("flops", 1.0, before, before, after),
            solver=SolverRecord("outcomes", "", self.seed),
            groups=tuple(group_plan(group, atoms.tolist()) for group, atoms in zip(analysis.groups, kept, strict=True)),
            layers=count_layers(analysis, analysis, widths),
        )


def _key(kept: Kept) -> bytes:
    return b"|".join(atoms.astype(np.int64).tobytes() for atoms in kept)


def _spread(levels: Ints, present: int, count: int) -> Ints:
    """Return at most `count` of some widths, those nearest to the middles of equal parts of the present width."""
    wanted = (np.arange(count) + 0.5) / count * present
    nearest = np.abs(levels[:, None] - wanted).argmin(axis=0) if len(levels) else np.zeros(0, dtype=np.int64)
    chosen: Ints = levels[np.unique(nearest)]
    return chosen


def _reconstruction(order: Ints, costs: Floats, kept: Ints) -> Profile:
    """Return what an elimination says of the atoms that are kept, the others being gone."""
    there = np.isin(order, kept)
    lost = settled_all(np.cumsum(costs[there])[: len(kept) - 1])  # after one atom, two, ... are gone
    return Profile(order[there], np.arange(1, len(kept) + 1, dtype=np.int64), np.append(lost[::-1], 0.0))

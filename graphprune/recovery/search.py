# SPDX-License-Identifier: Apache-2.0
"""Search: widths by measured sensitivity, in stages, each starting from the recovered network of the one before.

The errors of single groups add up only as long as all of them are small. So the budget is approached in steps: what a
further step costs is measured on the network that has been pruned and recovered so far, against the outputs of
the dense one, and every recovery starts from the dense network's weights again. Whether groups that many layers share
(residual streams) are made narrower as well is tried both ways; held-out samples decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis
from graphprune.costs.metrics import cost_of, growing
from graphprune.counting import count_costs
from graphprune.errors import BudgetUnreachableError, InternalError
from graphprune.fidelity.check import check_fidelity
from graphprune.plan.check import group_plan
from graphprune.recovery.allocation import allocate
from graphprune.recovery.options import RecoverOptions, Recovery
from graphprune.recovery.run import recover
from graphprune.recovery.sensitivity import SensitivityOptions, Table, measure_sensitivity
from graphprune.surgery.marks import marks, put_marks
from graphprune.surgery.prune import prune
from graphprune.verification.verdict import keep_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.calibrate.source import Source
    from graphprune.groups import Group
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan

__all__ = ["Found", "SearchOptions", "search", "with_kept"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SearchOptions:
    """How widths are searched.

    Parameters
    ----------
    stages : int
        Steps, at least one, in which the budget is approached.
    measured : int
        Widths measured per group and stage, besides the present one.
    streams : bool
        Also try to narrow groups that several layers make.
    sensitivity : SensitivityOptions
    recovery : RecoverOptions
    """

    stages: int = 2
    measured: int = 4
    streams: bool = True
    sensitivity: SensitivityOptions = field(default_factory=SensitivityOptions)
    recovery: RecoverOptions = field(default_factory=RecoverOptions)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes
    ----------
    plan : Plan
        Of the original model.
    recovery : Recovery
        The pruned and recovered model.
    trace : tuple of dict
        Every candidate: stage, whether streams were narrowed, widths, cost, error on held-out samples.
    """

    plan: Plan
    recovery: Recovery
    trace: tuple[dict[str, object], ...]


@dataclass(frozen=True, eq=False)
class _State:
    """A network on the way: what is kept of each group, and the network itself."""

    kept: tuple[Ints, ...]
    model: Model
    plan: Plan
    recovery: Recovery | None = None


def search(
    analysis: Analysis, plan: Plan, source: Source, allowed: Sequence[Ints], options: SearchOptions | None = None
) -> Found:
    """Choose widths and channels for the budget of a plan.

    Parameters
    ----------
    analysis : Analysis
        Of the dense network.
    plan : Plan
        Any plan for it; its budget is what counts.
    source : Source
        Unlabelled samples.
    allowed : sequence of ndarray of int64, increasing
        Widths that each group may take.

    Raises
    ------
    BudgetUnreachableError
        If groups whose sensitivity can be measured cannot meet the budget alone.
    """
    options = options or SearchOptions()
    cost = growing(cost_of(analysis, plan.budget.metric))
    full = cost(analysis.cost.sizes)
    shares = np.geomspace(1.0, plan.budget.limit / full, options.stages + 1)[1:]
    state = _State(tuple(np.arange(group.size) for group in analysis.groups), analysis.model, plan)
    trace: list[dict[str, object]] = []
    for stage, share in enumerate(shares):
        limit = plan.budget.limit if stage == len(shares) - 1 else int(share * full)
        tables = _tables(analysis, state, allowed, source, options)
        candidates: list[_State] = []
        for streams in (False, True) if options.streams and _shared(analysis) else (True,):
            kept = _choose(analysis, state, tables, allowed, (plan, limit, streams))
            if kept is None or any(_same(kept, other.kept) for other in candidates):
                continue
            candidates.append(_realise(analysis, plan, kept, source, options))
            trace.append(_entry(stage, streams, candidates[-1]))
        if not candidates:
            raise BudgetUnreachableError(
                f"widths of measured groups alone cannot reach {plan.budget.metric} {share:.3g}"
            )
        state = min(candidates, key=_judged)
    if state.recovery is None:
        raise InternalError("the search made no step")
    return Found(state.plan, state.recovery, tuple(trace))


def _same(first: Sequence[Ints], second: Sequence[Ints]) -> bool:
    return all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


def _judged(state: _State) -> float:
    recovery = state.recovery
    return np.inf if recovery is None else min(recovery.after, recovery.before)


def _entry(stage: int, streams: bool, state: _State) -> dict[str, object]:
    widths = [len(kept) for kept in state.kept]
    return {
        "stage": stage,
        "streams": streams,
        "cost": state.plan.budget.after,
        "error": _judged(state),
        "widths": widths,
    }


def _shared(analysis: Analysis) -> bool:
    return any(_is_stream(group) for group in analysis.groups)


def _is_stream(group: Group) -> bool:
    """Whether several layers make the channels of a group."""
    return len({member.node for member in group.members if member.role == "out"}) > 1


def _tables(
    analysis: Analysis, state: _State, allowed: Sequence[Ints], source: Source, options: SearchOptions
) -> list[tuple[Table, Ints] | None]:
    """Return the present sensitivity of each group and its atoms there; None where it cannot be narrowed further."""
    dense = state.model is analysis.model
    present = analysis if dense else Analysis(state.model, analysis.input_shapes, analysis.attention)
    by_name = {group.name: at for at, group in enumerate(present.groups)}
    wanted = [np.array([group.size]) for group in present.groups]
    for group, kept, levels in zip(analysis.groups, state.kept, allowed, strict=True):
        at = by_name.get(group.name)
        if at is not None and present.groups[at].size == len(kept):
            wanted[at] = _spread(levels[levels < len(kept)], options.measured)
    teacher = None if dense else analysis.model
    tables = measure_sensitivity(present, source, options.sensitivity, wanted, teacher=teacher)
    found: list[tuple[Table, Ints] | None] = []
    for group, kept in zip(analysis.groups, state.kept, strict=True):
        at = by_name.get(group.name)
        fits = at is not None and present.groups[at].size == len(kept) and tables[at].elimination is not None
        found.append((tables[at], kept) if fits and at is not None else None)
    return found


def _spread(levels: Ints, count: int) -> Ints:
    """Return at most `count` of some widths, evenly spaced, the smallest and the largest among them."""
    if len(levels) <= count:
        return levels
    return levels[np.unique(np.round(np.linspace(0, len(levels) - 1, count)).astype(np.int64))]


def _choose(
    analysis: Analysis,
    state: _State,
    tables: Sequence[tuple[Table, Ints] | None],
    allowed: Sequence[Ints],
    request: tuple[Plan, int, bool],
) -> tuple[Ints, ...] | None:
    """Return what each group keeps within a limit."""
    plan, limit, streams = request
    levels, errors = [], []
    for group, kept, entry, widths in zip(analysis.groups, state.kept, tables, allowed, strict=True):
        own = np.append(widths[widths < len(kept)], len(kept)).astype(np.int64)
        if entry is None or (_is_stream(group) and not streams):
            own = own[-1:]
        levels.append(own)
        errors.append(np.array([0.0 if entry is None else entry[0].error(int(width)) for width in own]))
    chosen = allocate(errors, levels, growing(cost_of(analysis, plan.budget.metric)), limit)
    if chosen is None:
        return None
    return tuple(
        kept if entry is None or entry[0].elimination is None else kept[entry[0].elimination.kept(int(width))]
        for kept, entry, width in zip(state.kept, tables, chosen, strict=True)
    )


def _realise(analysis: Analysis, plan: Plan, kept: tuple[Ints, ...], source: Source, options: SearchOptions) -> _State:
    """Prune the dense network to what is kept, and recover it."""
    made = with_kept(analysis, plan, kept)
    proto = prune(analysis, keep_mask(analysis, made))
    put_marks(proto, marks(analysis, made))
    check_fidelity(analysis, proto, made)
    recovery = recover(analysis, made, analysis.model.replaced(proto), source, options.recovery)
    return _State(kept, recovery.model, made, recovery)


def with_kept(analysis: Analysis, plan: Plan, kept: Sequence[Ints]) -> Plan:
    """Return a plan that keeps these atoms, with the costs that follow."""
    metrics = [budget.metric for budget in plan.budgets]
    counted = count_costs(analysis, [len(atoms) for atoms in kept], metrics)
    budget, *further = (counted.on(budget) for budget in plan.budgets)
    groups = tuple(group_plan(group, atoms.tolist()) for group, atoms in zip(analysis.groups, kept, strict=True))
    return replace(plan, budget=budget, further=tuple(further), groups=groups, layers=counted.layers)

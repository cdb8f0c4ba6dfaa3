# SPDX-License-Identifier: Apache-2.0
"""Planning: from an analysed model and a budget to a plan.

Scores come from a criterion, allowed widths from the levels, widths from a solver; the atoms
with the highest scores stay. Nothing is removed here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from graphprune.errors import BudgetUnreachableError, NothingToPruneError, UsageError, quote
from graphprune.model.finite import check_finite
from graphprune.plan.check import Costs, group_plan
from graphprune.plan.schema import Budget, LayerPlan, Plan, PlanModel, SolverRecord
from graphprune.plan.structure import structure_digest
from graphprune.solvers import criteria, widths
from graphprune.solvers.criteria import Aggregate
from graphprune.solvers.filters import coupled_filters
from graphprune.solvers.levels import levels
from graphprune.solvers.problem import Limit, Problem
from graphprune.solvers.registry import Setting, chosen
from graphprune.solvers.saliency import importance, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis import Analysis
    from graphprune.groups import Group
    from graphprune.plan.budget import BudgetRequest
    from graphprune.solvers.problem import Solution
    from graphprune.solvers.saliency import Scores

__all__ = ["SolveOptions", "count_costs", "describe_model", "make_plan"]


_REASONS = 3
_WORTH_NAMING = 0.005  # share of the FLOPs


@dataclass(frozen=True)
class SolveOptions:
    """How a plan is found.

    Parameters
    ----------
    solver : str
        How widths are chosen: a name in :mod:`graphprune.solvers.widths`.
    criterion : str
        How important a channel is: a name in :mod:`graphprune.solvers.criteria`.
    round_to : int or "auto"
        Widths are multiples of this number of channels; 1 switches alignment off.
    min_keep : int
        The fewest channels that a group keeps; a narrower group stays whole.
    seed : int
        For criteria and solvers that draw.
    aggregate : {"", "sum", "mean", "max", "first"}
        How the scores of a group's members become one; "" leaves it to the criterion.
    settings : mapping of str to bool, int, float or str
        Settings that a solver or criterion has of its own, by name.
    """

    solver: str = "bisection"
    criterion: str = "bn-scale"
    round_to: int | Literal["auto"] = "auto"
    min_keep: int = 1
    seed: int = 0
    aggregate: Aggregate = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.min_keep < 1:
            raise UsageError(f"a group keeps at least one channel, min_keep is {self.min_keep}")
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}, but must not be negative")
        if self.aggregate not in get_args(Aggregate):
            known = ", ".join(name for name in get_args(Aggregate) if name)
            raise UsageError(f"scores of members cannot be aggregated by {quote(self.aggregate)}: there are {known}")


def make_plan(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> Plan:
    """Choose what to remove so that all budgets hold and no further step of any group fits into them.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity.
    UsageError
        If there is no such solver, criterion, setting or rounding, or a metric is limited twice.
    NothingToPruneError
        If a budget asks for less and the model has no group.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more.

    Complexity: that of the criterion (each weight is read once) and of the solver.
    """
    score, solve = criteria.get(options.criterion), widths.get(options.solver)
    for_solver, for_criterion = chosen(options.settings, solve, score)
    limits = _limits(analysis, requests)
    # A channel with NaN in it would look like the most important or the least important one, by chance.
    check_finite(analysis.model, {member.initializer for group in analysis.groups for member in group.members})
    material = criteria.Material(analysis.groups, analysis.read, options.seed, options.aggregate)
    scores = score(material, **for_criterion)
    problem, relaxed = _problem(analysis, scores, limits, options)
    if not problem.fits(problem.narrowest):
        raise _unreachable(analysis, problem, requests, options)
    solution = solve(problem, **for_solver)
    counted = count_costs(analysis, solution.widths)
    budget, *further = (
        counted.on(Budget(request.metric, request.target, limit.limit, before=0, after=0))
        for request, limit in zip(requests, limits, strict=True)
    )
    return Plan(
        model=describe_model(analysis),
        budget=budget,
        solver=SolverRecord(
            name=options.solver,
            criterion=options.criterion,
            seed=options.seed,
            options=_record(analysis, options, scores, relaxed=relaxed),
            trace=tuple(solution.trace),
        ),
        groups=tuple(
            group_plan(group, atoms.tolist())
            for group, atoms in zip(analysis.groups, _kept(scores, solution), strict=True)
        ),
        layers=counted.layers,
        further=tuple(further),
    )


def count_costs(analysis: Analysis, atoms: Sequence[int] | npt.NDArray[np.int64]) -> Costs:
    """Return what the model costs before and after, in all and by layer, with so many atoms kept per group."""
    cost, after = analysis.cost, np.asarray(atoms, dtype=np.int64)
    totals = {name: (cost.metric(name)(cost.sizes), cost.metric(name)(after)) for name in ("flops", "params", "size")}
    return Costs(totals, _layers(analysis, after))


def _limits(analysis: Analysis, requests: Sequence[BudgetRequest]) -> tuple[Limit, ...]:
    """Return what the requests limit."""
    metrics = [request.metric for request in requests]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise UsageError(f"two budgets are given for {metric}", hint="give one for each metric")
    limits = []
    for request in requests:
        cost = analysis.cost.metric(request.metric)
        before = cost(analysis.cost.sizes)
        limit = request.limit(before)
        if request.target != 1 and not (analysis.groups and before):
            nothing = f"the model has no {request.metric} to save"
            what = nothing if analysis.groups else "no channel of this model may be removed"
            raise NothingToPruneError(what, hint=_held_by(analysis))
        limits.append(Limit(request.metric, cost, limit))
    return tuple(limits)


def _problem(
    analysis: Analysis, scores: Scores, limits: tuple[Limit, ...], options: SolveOptions
) -> tuple[Problem, bool]:
    """Return the problem to solve, and whether its levels were relaxed to reach the budgets."""
    for relaxed in (False, True):
        problem = Problem(
            groups=tuple(group.id for group in analysis.groups),
            sizes=analysis.cost.sizes,
            scores=scores.per_group,
            importance=importance(scores),
            limits=limits,
            levels=tuple(_levels(group, options, relaxed=relaxed) for group in analysis.groups),
            seed=options.seed,
            filters=lambda index: coupled_filters(analysis.groups[index], analysis.read),
            comparable=scores.comparable,
        )
        if problem.fits(problem.narrowest):
            break
    return problem, relaxed


def _kept(scores: Scores, solution: Solution) -> tuple[npt.NDArray[np.int64], ...]:
    """Return which atoms stay: those that the solver chose, or the most salient ones."""
    if solution.kept is not None:
        return solution.kept
    return tuple(select(values, int(width)) for values, width in zip(scores.per_group, solution.widths, strict=True))


def _levels(group: Group, options: SolveOptions, *, relaxed: bool) -> npt.NDArray[np.int64]:
    fewest = min(group.size, math.ceil(options.min_keep / group.channels))
    return levels(group.size, group.channels, options.round_to, minimum=fewest, relaxed=relaxed)


def _unreachable(
    analysis: Analysis, problem: Problem, requests: Sequence[BudgetRequest], options: SolveOptions
) -> BudgetUnreachableError:
    """Say what the narrowest widths cost, for the first limit that they do not meet."""
    costs = zip(problem.costs(problem.narrowest), problem.costs(problem.sizes), strict=True)
    pairs = zip(requests, problem.limits, costs, strict=True)
    request, missed, (smallest, before) = next(found for found in pairs if found[2][0] > found[1].limit)
    asked = request.target if isinstance(request.target, str) else f"{request.target:g}"
    return BudgetUnreachableError(
        f"cannot reach {missed.metric} {asked} ({missed.limit:,} of {before:,}): "
        f"the smallest reachable is {_rounded_up(smallest / before):g} ({smallest:,})",
        hint=_held_by(analysis, options),
    )


def _rounded_up(share: float) -> float:
    """Return a share to three digits or more, rounded up, so that it is itself reachable."""
    digits = max(3, 2 - math.floor(math.log10(share))) if share else 3
    return float(math.ceil(share * 10**digits) / 10**digits)


def _held_by(analysis: Analysis, options: SolveOptions | None = None) -> str:
    """Name what keeps the cost up: the options, and the largest reasons for freezing by the FLOPs of their layers."""
    total = max(1, analysis.cost.flops(analysis.cost.sizes))
    held = []
    if options and options.round_to not in ("auto", 1):
        held.append(f"widths in multiples of {options.round_to} (--round-to)")
    if options and options.min_keep > 1:
        held.append(f"at least {options.min_keep} channels a group (--min-keep)")
    held += [
        f"{entry.kind} ({100 * entry.flops / total:.0f} % of the FLOPs)"
        for entry in analysis.frozen[:_REASONS]
        if entry.flops >= total * _WORTH_NAMING
    ]
    shown = f"held by {', '.join(held)}; " if held else ""
    return f"{shown}`graphprune inspect` shows what is frozen and why"


def _choices(analysis: Analysis) -> list[dict[str, str | None]]:
    """Say which axes carry the channels wherever there was a choice."""
    return [
        {"node": choice.node.label, "carried": None if taken is None else taken.name}
        for choice, taken in analysis.resolution.committed
        if len(choice.alternatives) > 1
    ]


def _layers(analysis: Analysis, chosen: npt.NDArray[np.int64]) -> tuple[LayerPlan, ...]:
    sizes = analysis.cost.sizes
    return tuple(
        LayerPlan(
            node=layer.node,
            op=layer.op,
            width=layer.width.full,
            pruned_width=layer.width.at(chosen),
            flops_before=layer.flops(sizes),
            flops_after=layer.flops(chosen),
            params_before=layer.params(sizes),
            params_after=layer.params(chosen),
        )
        for layer in analysis.layers
    )


def describe_model(analysis: Analysis) -> PlanModel:
    """Return what a plan records of its model."""
    model = analysis.model
    opset = max((entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    inputs = {name: tuple(int(size) for size in shape) for name, shape in analysis.input_shapes.items()}
    return PlanModel(model.name, model.sha256, int(model.proto.ir_version), int(opset), inputs)


def _record(analysis: Analysis, options: SolveOptions, scores: Scores, *, relaxed: bool) -> dict[str, Any]:
    """Return what else is needed to follow or repeat the choice."""
    return {
        "round_to": options.round_to,
        "min_keep": options.min_keep,
        **({"aggregate": options.aggregate} if options.aggregate else {}),
        **({"settings": dict(sorted(options.settings.items()))} if options.settings else {}),
        "relaxed": relaxed,
        "attention": analysis.attention,
        "approximate": analysis.approximate,
        "scores_from": dict(sorted(Counter(scores.source).items())),
        "choices": _choices(analysis),
        "structure": structure_digest(analysis.model.proto),
    }

# SPDX-License-Identifier: Apache-2.0
"""Planning: from an analysed model and a budget to a plan.

Scores come from a criterion, allowed widths from the levels, widths from a solver; the atoms
with the highest scores stay. Nothing is removed here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from graphprune.errors import BudgetUnreachableError, NothingToPruneError, UsageError
from graphprune.model.finite import check_finite
from graphprune.plan.check import Costs, group_plan
from graphprune.plan.schema import Budget, LayerPlan, Plan, PlanModel, SolverRecord
from graphprune.plan.structure import structure_digest
from graphprune.solvers import criteria, widths
from graphprune.solvers.levels import levels
from graphprune.solvers.problem import Problem
from graphprune.solvers.saliency import importance, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis import Analysis
    from graphprune.groups import Group
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Metric
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
    """

    solver: str = "bisection"
    criterion: str = "bn-scale"
    round_to: int | Literal["auto"] = "auto"
    min_keep: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_keep < 1:
            raise UsageError(f"a group keeps at least one channel, min_keep is {self.min_keep}")
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}, but must not be negative")


def make_plan(analysis: Analysis, request: BudgetRequest, options: SolveOptions) -> Plan:
    """Choose what to remove so that the budget holds and no further step of any group fits into it.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity.
    UsageError
        If there is no such solver, criterion or rounding.
    NothingToPruneError
        If the budget asks for less and the model has no group.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more.

    Complexity: that of the criterion (each weight is read once) and of the solver.
    """
    score, solve = criteria.get(options.criterion), widths.get(options.solver)
    groups, sizes = analysis.groups, analysis.cost.sizes
    cost = analysis.cost.metric(request.metric)
    before = cost(sizes)
    limit = request.limit(before)
    if request.target < 1 and not (groups and before):
        what = f"the model has no {request.metric} to save" if groups else "no channel of this model may be removed"
        raise NothingToPruneError(what, hint=_held_by(analysis))
    # A channel with NaN in it would look like the most important or the least important one, by chance.
    check_finite(analysis.model, {member.initializer for group in groups for member in group.members})
    scores = score(groups, analysis.read, options.seed)
    problem, relaxed = _problem(analysis, scores, request, options)
    solution = solve(problem)
    kept = [select(values, int(width)) for values, width in zip(scores.per_group, solution.widths, strict=True)]
    counted = count_costs(analysis, request.metric, solution.widths)
    return Plan(
        model=describe_model(analysis),
        budget=Budget(request.metric, float(request.target), limit, before, counted.after),
        solver=SolverRecord(
            name=options.solver,
            criterion=options.criterion,
            seed=options.seed,
            options=_record(analysis, options, scores, relaxed=relaxed),
            trace=tuple(solution.trace),
        ),
        groups=tuple(group_plan(group, atoms.tolist()) for group, atoms in zip(groups, kept, strict=True)),
        layers=counted.layers,
    )


def count_costs(analysis: Analysis, metric: Metric, chosen: Sequence[int] | npt.NDArray[np.int64]) -> Costs:
    """Return what the model costs before and after, in all and by layer, with ``chosen`` atoms kept per group."""
    cost = analysis.cost.metric(metric)
    widths_after = np.asarray(chosen, dtype=np.int64)
    return Costs(cost(analysis.cost.sizes), cost(widths_after), _layers(analysis, widths_after))


def _problem(analysis: Analysis, scores: Scores, request: BudgetRequest, options: SolveOptions) -> tuple[Problem, bool]:
    """Return the problem to solve, and whether its levels had to be relaxed to reach the budget."""
    cost = analysis.cost.metric(request.metric)
    limit = request.limit(cost(analysis.cost.sizes))
    for relaxed in (False, True):
        allowed = tuple(_levels(group, options, relaxed=relaxed) for group in analysis.groups)
        smallest = np.array([widths_[0] for widths_ in allowed], dtype=np.int64)
        if cost(smallest) <= limit:
            problem = Problem(
                groups=tuple(group.id for group in analysis.groups),
                sizes=analysis.cost.sizes,
                scores=scores.per_group,
                importance=importance(scores),
                cost=cost,
                limit=limit,
                levels=allowed,
                seed=options.seed,
            )
            return problem, relaxed
    raise _unreachable(analysis, request, options, cost(smallest))


def _levels(group: Group, options: SolveOptions, *, relaxed: bool) -> npt.NDArray[np.int64]:
    fewest = min(group.size, math.ceil(options.min_keep / group.channels))
    return levels(group.size, group.channels, options.round_to, minimum=fewest, relaxed=relaxed)


def _unreachable(
    analysis: Analysis, request: BudgetRequest, options: SolveOptions, smallest: int
) -> BudgetUnreachableError:
    before = analysis.cost.metric(request.metric)(analysis.cost.sizes)
    share = smallest / before
    digits = max(3, 2 - math.floor(math.log10(share))) if share else 3
    rounded = math.ceil(share * 10**digits) / 10**digits
    return BudgetUnreachableError(
        f"cannot reach {request.metric} {request.target:g} ({request.limit(before):,} of {before:,}): "
        f"the smallest reachable is {rounded:g} ({smallest:,})",
        hint=_held_by(analysis, options),
    )


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
        "relaxed": relaxed,
        "attention": analysis.attention,
        "approximate": analysis.approximate,
        "scores_from": dict(sorted(Counter(scores.source).items())),
        "choices": _choices(analysis),
        "structure": structure_digest(analysis.model.proto),
    }

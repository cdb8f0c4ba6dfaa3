# SPDX-License-Identifier: Apache-2.0
"""Planning: from an analysed model and a budget to a plan.

Scores come from a criterion, allowed widths from the levels, widths from a solver; the atoms
with the highest scores stay. Nothing is removed here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from graphprune.errors import UnsupportedModelError, quote
from graphprune.planning.choose_channels import choose_channels
from graphprune.planning.choose_widths import check_reachable, choose_widths
from graphprune.planning.planning_task import PlanningTask, limited_costs
from graphprune.planning.records import record_plan
from graphprune.planning.score_groups import score_groups
from graphprune.planning.solve_options import SolveOptions
from graphprune.planning.solver_choice import settled_solver
from graphprune.solvers import criteria, widths
from graphprune.solvers.registry import chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.cost.latency.measure import MeasuredLatency
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["SolveOptions", "check_installed", "check_request", "is_met", "make_plan", "score_groups"]


def check_request(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> None:
    """Refuse what :func:`make_plan` would refuse for what it says, before samples are made or read for it.

    Raises
    ------
    UsageError
        If there is no such solver, criterion, setting, rounding or group, or a metric is limited twice.
    NothingToPruneError
        If a budget asks for less and the model has no group.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more than what is counted may; a latency is measured first.
    UnsupportedModelError
        If an input is no tensor.
    """
    _check_inputs(analysis)
    methods = (widths.get(options.solver), criteria.get(options.criterion), *map(criteria.get, options.adapt))
    chosen(options.settings, *methods)
    options = replace(options, round_to=options.width_rule)
    counted = limited_costs(analysis, [request for request in requests if request.metric != "latency"], None)
    check_reachable(analysis, counted, options)


def _check_inputs(analysis: Analysis) -> None:
    """Refuse a model that nothing can be fed to."""
    for value in analysis.model.proto.graph.input:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise UnsupportedModelError(
                f"input {quote(value.name)} is no tensor, so the model cannot be run, which a proof needs",
                hint="cut the model behind what unpacks it, so that tensors go in",
            )


def check_installed(options: SolveOptions) -> None:
    """Refuse criteria that need packages which are not installed.

    Raises
    ------
    UsageError
        If there are any.
    """
    for name in (options.criterion, *options.adapt):
        criteria.require(name, options.settings)


def is_met(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> bool:
    """Whether the model is within all budgets as it is, and nobody asks for widths: then nothing has to be done.

    A latency has to be measured, so that nothing is known of it here.
    """
    if options.constraints.widths or options.constraints.start or any(each.metric == "latency" for each in requests):
        return False
    return all(each.cost.before <= each.limit for each in limited_costs(analysis, requests, None))


def make_plan(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    latency: MeasuredLatency | None = None,
    scores: Scores | None = None,
    evidence: Evidence | None = None,
) -> Plan:
    """Choose what to remove so that all budgets hold and no further step of any group fits into them.

    Parameters
    ----------
    analysis : Analysis
    requests : sequence of BudgetRequest
        The first one leads.
    options : SolveOptions
    latency : MeasuredLatency, optional
        What was measured, where a request limits the latency.
    scores : Scores, optional
        From :func:`score_groups` with the same options, if they are there already.
    evidence : Evidence, optional
        What samples say, for criteria and solvers that need some.

    Raises
    ------
    UnsupportedModelError
        If a weight that may lose channels holds NaN or infinity, or an input is no tensor.
    UsageError
        If there is no such solver, criterion, setting or rounding, or a metric is limited twice.
    NothingToPruneError
        If a budget asks for less and the model has no group.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more.

    Complexity: that of the criterion (each weight is read once) and of the solver.
    """
    _check_inputs(analysis)
    options = settled_solver(analysis, None, requests, options)
    solve = widths.get(options.solver)
    for_solver, *_ = chosen(options.settings, solve, criteria.get(options.criterion), *map(criteria.get, options.adapt))
    options = replace(options, round_to=options.width_rule)
    budgets = limited_costs(analysis, requests, latency)
    if scores is None:
        scores = score_groups(analysis, options, evidence)
    task = PlanningTask(analysis, budgets, options, scores, evidence)
    chosen_widths = choose_widths(task, partial(solve, **for_solver))
    return record_plan(task, chosen_widths, choose_channels(task, chosen_widths), for_solver)

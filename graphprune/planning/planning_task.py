# SPDX-License-Identifier: Apache-2.0
"""The planning task: what widths and channels are chosen from, and what is limited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.cost.metrics import ModelCost, model_cost
from graphprune.errors import InternalError, NothingToPruneError, UsageError
from graphprune.planning.constraints.reach import held_by
from graphprune.planning.constraints.start import kept_by, ranked
from graphprune.solvers.problem import Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Floats
    from graphprune.cost.latency.measure import MeasuredLatency
    from graphprune.plan.budget import BudgetRequest
    from graphprune.planning.solve_options import SolveOptions
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["LimitedCost", "PlanningTask", "limited_costs"]


@dataclass(frozen=True, eq=False)
class LimitedCost:
    """One budget on one model.

    Attributes
    ----------
    request : BudgetRequest
    cost : ModelCost
    limit : int
        The most that the pruned model may cost.
    """

    request: BudgetRequest
    cost: ModelCost
    limit: int

    def as_limit(self, *, exact_whole: bool = False) -> Limit:
        """Return the limit for a solver: on what is written, or on a cost that is exact at full width."""
        cost = self.cost.exact_whole if exact_whole else self.cost.written
        return Limit(self.request.metric, cost, self.limit)

    def on_rest(self, start: Analysis) -> Limit:
        """Return the limit on what is written of a graph from which some groups are gone already."""
        return Limit(self.request.metric, self.cost.rest(start), self.limit)


@dataclass(frozen=True, eq=False)
class PlanningTask:
    """What a plan is made from.

    Attributes
    ----------
    analysis : Analysis
    budgets : tuple of LimitedCost
        The first one leads.
    options : SolveOptions
        With a rounding that is resolved for this machine.
    scores : Scores
        By the criterion of the options.
    evidence : Evidence, optional
        What samples say, for criteria and solvers that need some.
    """

    analysis: Analysis
    budgets: tuple[LimitedCost, ...]
    options: SolveOptions
    scores: Scores
    evidence: Evidence | None = None

    def ranked(self, scores: tuple[Floats, ...]) -> tuple[Floats, ...]:
        """Return scores of each group in the order that a plan to start from demands, if there is one."""
        start = self.options.constraints.start
        return scores if start is None else ranked(scores, kept_by(self.analysis, start))


def limited_costs(
    analysis: Analysis, requests: Sequence[BudgetRequest], latency: MeasuredLatency | None
) -> tuple[LimitedCost, ...]:
    """Return what the requests limit.

    Raises
    ------
    UsageError
        If a metric is limited twice.
    NothingToPruneError
        If a budget asks for less and the model has no group.
    """
    metrics = [request.metric for request in requests]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise UsageError(f"two budgets are given for {metric}", hint="give one for each metric")
    budgets = []
    for request in requests:
        cost = _cost(analysis, request.metric, latency)
        limit = request.limit(cost.before)
        if request.target != 1 and not (analysis.groups and cost.before):
            nothing = f"the model has no {request.metric} to save"
            what = nothing if analysis.groups else "no channel of this model may be removed"
            raise NothingToPruneError(what, hint=held_by(analysis))
        budgets.append(LimitedCost(request, cost, limit))
    return tuple(budgets)


def _cost(analysis: Analysis, metric: str, latency: MeasuredLatency | None) -> ModelCost:
    if metric != "latency":
        return model_cost(analysis, metric)
    if latency is None:
        raise InternalError("a latency has to be measured before it can be limited")
    return ModelCost.of(latency.cost, analysis.cost.sizes, latency.rest)

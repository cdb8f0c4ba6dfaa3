# SPDX-License-Identifier: Apache-2.0
"""Reconciling: a stored plan against the model that it is to be applied to, and where its surgery then starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphprune.cost.counting import count_costs
from graphprune.errors import PlanError, quote
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.check import derive, settle
from graphprune.planning.made_for import check_made_for
from graphprune.planning.records import describe_model
from graphprune.rewrites.reference import Reference, make_reference

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import Plan

__all__ = ["Reconciled", "reconcile"]


@dataclass(frozen=True)
class Reconciled:
    """A plan that was held against its model.

    Attributes
    ----------
    plan : Plan
        With every figure right.
    notes : tuple of str
        What had to be said on the way.
    reference : Reference
        Where the surgery of the plan starts, with the analysis of the original.
    """

    plan: Plan
    notes: tuple[str, ...]
    reference: Reference


def reconcile(analysis: Analysis, plan: Plan, *, rebind: bool = False) -> Reconciled:
    """Check that a plan fits a model; recompute what an edit of its ``kept`` indices made stale.

    Parameters
    ----------
    analysis : Analysis
        Of the model that the plan was made for.
    plan : Plan
        The plan, perhaps edited.
    rebind : bool
        Accept another model of the same structure: another checkpoint, or another export.

    Raises
    ------
    PlanError
        If the plan was made for another model, contradicts itself, claims wrong costs, or asks for what no surgery
        can carry out.
    """
    notes: tuple[str, ...] = ()
    described = describe_model(analysis)
    if plan.model.sha256 != described.sha256:
        check_made_for(plan, analysis.model, rebind=rebind)
        notes = (f"the plan was made for another file of the same structure, {quote(plan.model.name)}",)
        plan = _rebased(replace(plan, model=described), analysis)
    elif replace(plan.model, name=described.name) != described:
        raise PlanError("the plan's facts about its model are not those of the model", hint="edit only `kept`")
    derived = derive(plan, analysis.groups)
    reference = make_reference(analysis, plan)
    widths = [len(group.kept) for group in derived.plan.groups]
    costs = count_costs(analysis, widths, [budget.metric for budget in plan.budgets], reference.start)
    settled = settle(plan, derived, costs)
    return Reconciled(settled.plan, notes + settled.notes, reference)


def _rebased(plan: Plan, analysis: Analysis) -> Plan:
    """Return a plan with the file size of another model: names and what else is in a file differ between exports."""
    costs = count_costs(analysis, [len(group.kept) for group in plan.groups], ("size",))
    first, *further = (
        replace(on := costs.on(budget), limit=BudgetRequest(on.metric, on.target).limit(on.before))
        if budget.metric == "size"
        else budget
        for budget in plan.budgets
    )
    return replace(plan, budget=first, further=tuple(further))

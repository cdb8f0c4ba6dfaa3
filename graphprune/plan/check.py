# SPDX-License-Identifier: Apache-2.0
"""The plan check: a stored plan against the groups of the model it is to be applied to.

Three states are told apart. The plan is as it was written: all figures must be right. Somebody
edited ``kept`` of a group: what follows from it is stale and computed again. Somebody edited
something else, or the file is damaged: refused, because what is meant is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import PlanError, quote
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.inherited import check_inherited
from graphprune.plan.schema import GroupPlan, MemberPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from graphprune.analysis.groups import Group, Member
    from graphprune.plan.schema import Budget, LayerPlan, Plan

    Facts = tuple[str, int, str, bool]

__all__ = ["Costs", "Derived", "Settled", "derive", "group_plan", "settle"]

_REMADE = "make a new plan with `graphprune solve`"
_EDIT_KEPT = "edit only `kept` of a group; everything else follows from it"


@dataclass(frozen=True)
class Costs:
    """What a plan costs on its model: by metric before and after, as far as that can be counted, and by layer."""

    totals: Mapping[str, tuple[int, int]]
    layers: tuple[LayerPlan, ...]

    def on(self, budget: Budget) -> Budget:
        """Return a budget with these costs; one that can only be measured stays as it is."""
        before, after = self.totals.get(budget.metric, (budget.before, budget.after))
        return replace(budget, before=before, after=after)


@dataclass(frozen=True)
class Derived:
    """A plan whose groups follow from what they keep, but whose figures may be stale.

    Attributes
    ----------
    plan : Plan
    edited : tuple of str
        Ids of the groups whose ``kept`` was edited.
    """

    plan: Plan
    edited: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settled:
    """A plan whose every figure is right, and what had to be said on the way."""

    plan: Plan
    notes: tuple[str, ...] = ()


def group_plan(group: Group, kept: Sequence[int]) -> GroupPlan:
    """Return what keeping the atoms ``kept`` (ascending) means for every member of a group."""
    stays = np.zeros(group.size, dtype=bool)
    stays[list(kept)] = True
    members = tuple(
        MemberPlan(
            initializer=member.initializer,
            axis=int(member.axis),
            role=member.role or "per_channel",
            removed=tuple(_removed(member, stays)),
            masked=bool(member.masked),
        )
        for member in group.members
    )
    kept_atoms = tuple(int(atom) for atom in kept)
    return GroupPlan(group.id, group.name, int(group.size), kept_atoms, bool(group.exact), members)


def derive(plan: Plan, groups: Sequence[Group]) -> Derived:
    """Check the groups of a plan against those of a model; recompute what an edit of ``kept`` made stale in them.

    Parameters
    ----------
    plan : Plan
        As read from its file.
    groups : sequence of Group
        Of the model that it is to be applied to.

    Raises
    ------
    PlanError
        If the groups or members are not those of the model, or the members of a group contradict each other.
    """
    _same_groups(plan, groups)
    check_inherited(plan)
    derived = tuple(
        replace(group_plan(group, stored.kept), merged=stored.merged, folded=stored.folded)
        for stored, group in zip(plan.groups, groups, strict=True)
    )
    edited = tuple(
        group.id
        for stored, right, group in zip(plan.groups, derived, groups, strict=True)
        if _is_edited(stored, right, group)
    )
    return Derived(replace(plan, groups=derived), edited)


def settle(plan: Plan, derived: Derived, costs: Costs) -> Settled:
    """Check the figures of a plan; recompute those that an edit of ``kept`` made stale.

    Parameters
    ----------
    plan : Plan
        As read from its file.
    derived : Derived
        What :func:`derive` made of it.
    costs : Costs
        Of what its groups keep.

    Raises
    ------
    PlanError
        If the claimed costs of the model are wrong, or nothing was edited and yet another figure is.
    """
    budget, *further = (costs.on(budget) for budget in plan.budgets)
    right = replace(derived.plan, layers=costs.layers, budget=budget, further=tuple(further))
    for claimed, actual in zip(plan.budgets, right.budgets, strict=True):
        if claimed.before != actual.before:
            raise PlanError(
                f"the plan says the model costs {claimed.before} {claimed.metric}, but it is {actual.before}"
            )
    edited = derived.edited
    if not edited:
        _claims_hold(plan, right)
        return Settled(plan, _over_budget(plan))
    right = _not_measured(right)
    shown = ", ".join(edited[:5]) + (", ..." if len(edited) > 5 else "")
    where = f"{len(edited)} {'group' if len(edited) == 1 else 'groups'} ({shown})"
    note = f"kept was edited in {where}; the figures that follow from it are computed anew"
    stale = "the time on record is that of the plan before its edit; `graphprune solve` or --bench measure again"
    measured = plan.timing is not None or any(budget.metric == "latency" for budget in plan.budgets)
    return Settled(right, (note, *((stale,) if measured else ()), *_over_budget(right)))


def _not_measured(plan: Plan) -> Plan:
    """Return a plan that does not claim what was measured of another one."""
    first, *further = (replace(budget, measured=None) for budget in plan.budgets)
    return replace(plan, budget=first, further=tuple(further), timing=None)


def _over_budget(plan: Plan) -> tuple[str, ...]:
    """Say that a plan costs more than was asked for; only an edit makes one so, and that is its author's will."""
    return tuple(
        f"the edited plan costs {budget.after} {budget.metric}, more than its budget of {budget.limit}"
        for budget in plan.budgets
        if budget.after > budget.limit
    )


def _removed(member: Member, stays: npt.NDArray[np.bool_]) -> list[int]:
    """Return the positions of a member that go, ascending."""
    removed: list[int] = np.sort(member.positions[~stays[member.atoms]]).tolist()
    return removed


def _same_groups(plan: Plan, groups: Sequence[Group]) -> None:
    """Refuse a plan whose groups, sizes or members are not those of the model."""
    present = [group.id for group in groups]
    stored = [group.id for group in plan.groups]
    if present != stored:
        missing, unknown = sorted(set(present) - set(stored)), sorted(set(stored) - set(present))
        what = f"lacks the group {quote(missing[0])}" if missing else "has its groups in another order"
        if unknown:
            what = f"has a group {quote(unknown[0])} that the model does not have"
        raise PlanError(f"the plan {what}", hint=_REMADE)
    for mine, group in zip(plan.groups, groups, strict=True):
        label = f"group {quote(mine.id)}"
        if mine.size != group.size:
            raise PlanError(f"{label} has size {mine.size} in the plan and {group.size} in the model", hint=_REMADE)
        if (mine.name, mine.exact) != (group.name, group.exact):
            raise PlanError(f"{label}: name or exactness are not those of the model", hint=_EDIT_KEPT)
        expected = [_facts(member) for member in group.members]
        actual = [_facts(member) for member in mine.members]
        if expected != actual:
            raise PlanError(f"{label}: {_first_difference(actual, expected)}", hint=_EDIT_KEPT)


def _facts(member: Member | MemberPlan) -> Facts:
    return member.initializer, member.axis, member.role, member.masked


def _first_difference(actual: list[Facts], expected: list[Facts]) -> str:
    for index, (mine, right) in enumerate(zip(actual, expected, strict=False)):
        if mine != right:
            return f"member {index} is {_member(mine)} in the plan and {_member(right)} in the model"
    return f"{len(actual)} members in the plan, {len(expected)} in the model"


def _member(facts: Facts) -> str:
    name, axis, role, masked = facts
    return f"{quote(name)} axis {axis} ({role}{', masked' if masked else ''})"


def _is_edited(stored: GroupPlan, right: GroupPlan, group: Group) -> bool:
    """Tell whether ``kept`` was edited after the members were written.

    Members that agree with ``kept`` were not; members that all say the same other thing were
    left behind by an edit of ``kept``; anything else is a contradiction.
    """
    wrong = [index for index, (a, b) in enumerate(zip(stored.members, right.members, strict=True)) if a != b]
    if not wrong:
        return False
    before = group_plan(group, _implied(stored.members[wrong[0]], group.members[wrong[0]], group.size))
    for index, (mine, former) in enumerate(zip(stored.members, before.members, strict=True)):
        if mine != former:
            member = stored.members[index] if index in wrong else stored.members[wrong[0]]
            raise PlanError(
                f"group {quote(stored.id)}: the removed indices of {quote(member.initializer)} axis {member.axis} "
                "contradict kept and the other members",
                hint=_EDIT_KEPT,
            )
    return True


def _implied(mine: MemberPlan, member: Member, size: int) -> list[int]:
    """Return the atoms that stay if those go of which the member removes a slice."""
    gone = np.unique(member.atoms[np.isin(member.positions, np.array(mine.removed, dtype=np.int64))])
    stays: list[int] = np.setdiff1d(np.arange(size), gone).tolist()
    return stays


def _claims_hold(plan: Plan, right: Plan) -> None:
    """Refuse figures that nothing explains."""
    for budget, actual_budget in zip(plan.budgets, right.budgets, strict=True):
        _claim_holds(budget, actual_budget)
    for index, (claimed, actual) in enumerate(zip(plan.layers, right.layers, strict=False)):
        if claimed != actual:
            raise PlanError(f"layer {index} ({quote(claimed.node)}): the claimed widths or costs are wrong")
    if len(plan.layers) != len(right.layers):
        raise PlanError(f"the plan has {len(plan.layers)} layers, the model {len(right.layers)}")


def _claim_holds(claimed: Budget, actual: Budget) -> None:
    if claimed.after != actual.after:
        raise PlanError(
            f"the plan claims a cost of {claimed.after} {claimed.metric}, but it is {actual.after}", hint=_EDIT_KEPT
        )
    limit = BudgetRequest(claimed.metric, claimed.target).limit(claimed.before)
    if claimed.after > claimed.limit != limit:  # with the right limit, it is what was made of a wider edit
        raise PlanError(
            f"the plan costs {claimed.after}, more than its limit of {claimed.limit}, which should be {limit}",
            hint=_EDIT_KEPT,
        )

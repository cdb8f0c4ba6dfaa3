# SPDX-License-Identifier: Apache-2.0
"""A stored plan against its model: an edit of ``kept`` is followed, any other edit is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.analysis.groups import Group, Member
from graphprune.errors import PlanError
from graphprune.plan.check import Costs, Settled, derive, group_plan, settle
from graphprune.plan.schema import Budget, LayerPlan, MemberPlan, Plan, PlanModel, SolverRecord, Timing

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (4, 3)


def member(name: str, axis: int, role: str, atoms: Sequence[int], offset: int = 0) -> Member:
    return Member(
        initializer=name,
        axis=axis,
        role=role,  # type: ignore[arg-type]
        op="Conv",
        slot=1,
        node=name,
        positions=np.arange(len(atoms)) + offset,
        atoms=np.array(atoms),
        masked=True,
    )


def make_group(index: int, size: int) -> Group:
    members = (
        member(f"w{index}", 0, "out", range(size)),
        member(f"w{index + 1}", 1, "in", [atom for atom in range(size) for _ in range(2)], offset=5),
    )
    return Group(f"g{index:03d}", f"conv{index}", size, 1, members, True)


GROUPS = tuple(make_group(index, size) for index, size in enumerate(SIZES))


def count(widths: tuple[int, ...]) -> Costs:
    layers = tuple(
        LayerPlan(f"conv{index}", "Conv", size, width, 10 * size, 10 * width, size, width)
        for index, (size, width) in enumerate(zip(SIZES, widths, strict=True))
    )
    return Costs({"flops": (10 * sum(SIZES), 10 * sum(widths))}, layers)


def make_plan(*kept: Sequence[int]) -> Plan:
    costs = count(tuple(len(atoms) for atoms in kept))
    return Plan(
        model=PlanModel("net", "0" * 64, 8, 17, {"x": (1, 3)}),
        budget=Budget("flops", 0.8, 56, costs.totals["flops"][0], costs.totals["flops"][1]),
        solver=SolverRecord("bisection", "l1", 0),
        groups=tuple(group_plan(group, atoms) for group, atoms in zip(GROUPS, kept, strict=True)),
        layers=costs.layers,
    )


def reconcile(plan: Plan) -> Settled:
    """Check a plan as `graphprune.reconcile` does."""
    derived = derive(plan, GROUPS)
    return settle(plan, derived, count(tuple(len(group.kept) for group in derived.plan.groups)))


def edited(plan: Plan, index: int, **changes: object) -> Plan:
    groups = list(plan.groups)
    groups[index] = replace(groups[index], **changes)  # type: ignore[arg-type]
    return replace(plan, groups=tuple(groups))


def with_member(plan: Plan, group: int, index: int, **changes: object) -> Plan:
    members: list[MemberPlan] = list(plan.groups[group].members)
    members[index] = replace(members[index], **changes)  # type: ignore[arg-type]
    return edited(plan, group, members=tuple(members))


def test_positions_of_the_removed_atoms_go() -> None:
    found = group_plan(GROUPS[0], (0, 2))
    assert [entry.removed for entry in found.members] == [(1, 3), (7, 8, 11, 12)]


def test_a_plan_as_written_passes_unchanged() -> None:
    plan = make_plan((0, 2), (1,))
    found = reconcile(plan)
    assert found.plan is plan
    assert found.notes == ()


@given(st.data())
def test_an_edit_of_kept_is_followed(data: st.DataObject) -> None:
    def draw(size: int) -> tuple[int, ...]:
        return tuple(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))

    stored, wanted = (tuple(draw(size) for size in SIZES) for _ in range(2))
    plan = make_plan(*stored)
    for index, kept in enumerate(wanted):
        plan = edited(plan, index, kept=kept)
    found = reconcile(plan)
    assert found.plan == make_plan(*wanted)
    over = found.plan.budget.after > found.plan.budget.limit
    assert len(found.notes) == (stored != wanted) + over
    again = reconcile(found.plan)
    assert again.plan is found.plan
    assert len(again.notes) == over


def test_an_edit_over_the_budget_is_noted() -> None:
    found = reconcile(edited(make_plan((0, 2), (1,)), 0, kept=(0, 1, 2, 3)))
    assert found.plan.budget.after == 50
    assert len(found.notes) == 1
    found = reconcile(edited(make_plan((0, 1, 2, 3), (1,)), 1, kept=(0, 1, 2)))
    assert "costs 70 flops, more than its budget of 56" in found.notes[1]


def test_an_edited_plan_was_not_timed() -> None:
    plan = replace(make_plan((0, 2), (1,)), timing=Timing(0.2, 0.1, 0.5, 25, "onnxruntime"))
    assert reconcile(plan).plan.timing == plan.timing
    found = reconcile(edited(plan, 0, kept=(0,)))
    assert found.plan.timing is None
    assert "the time on record is that of the plan before its edit" in found.notes[1]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (edited(make_plan((0, 2), (1,)), 1, id="g009"), "a group 'g009' that the model does not have"),
        (replace(make_plan((0, 2), (1,)), groups=make_plan((0, 2), (1,)).groups[:1]), "lacks the group 'g001'"),
        (replace(make_plan((0,), (1,)), groups=make_plan((0,), (1,)).groups[::-1]), "in another order"),
        (edited(make_plan((0, 2), (1,)), 0, size=5), "group 'g000' has size 5 in the plan and 4 in the model"),
        (edited(make_plan((0, 2), (1,)), 0, exact=False), "name or exactness"),
        (edited(make_plan((0, 2), (1,)), 0, members=()), "0 members in the plan, 2 in the model"),
        (with_member(make_plan((0, 2), (1,)), 0, 1, axis=0), "member 1 is 'w1' axis 0 .* 'w1' axis 1"),
        (with_member(make_plan((0, 2), (1,)), 0, 0, initializer="logits"), "'logits' axis 0"),
        (with_member(make_plan((0, 2), (1,)), 0, 0, masked=False), "member 0"),
        (with_member(make_plan((0, 2), (1,)), 0, 0, removed=(1,)), "group 'g000': .* 'w0' axis 0 contradict"),
        (with_member(make_plan((0, 2), (1,)), 0, 1, removed=(7, 8)), "group 'g000': .* 'w1' axis 1 contradict"),
        (with_member(make_plan((0, 2), (1,)), 0, 1, removed=(7, 8, 11)), "'w1' axis 1 contradict"),
        (with_member(make_plan((0, 2), (1,)), 0, 1, removed=(7, 8, 11, 12, 99)), "'w1' axis 1 contradict"),
        (
            edited(with_member(make_plan((0, 2), (1,)), 0, 1, removed=(7, 8)), 0, kept=(0, 1)),
            "'w1' axis 1 contradict",
        ),
    ],
)
def test_any_other_edit_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        reconcile(plan)


def test_claims_that_are_wrong_are_refused() -> None:
    plan = make_plan((0, 2), (1,))
    with pytest.raises(PlanError, match="claims a cost of 29 flops, but it is 30"):
        reconcile(replace(plan, budget=replace(plan.budget, after=29)))
    with pytest.raises(PlanError, match="says the model costs 71 flops, but it is 70"):
        reconcile(replace(plan, budget=replace(plan.budget, before=71)))
    with pytest.raises(PlanError, match="more than its limit of 20"):
        reconcile(replace(plan, budget=replace(plan.budget, limit=20)))
    with pytest.raises(PlanError, match=r"layer 1 \('conv1'\)"):
        reconcile(replace(plan, layers=(plan.layers[0], replace(plan.layers[1], flops_after=1))))
    with pytest.raises(PlanError, match="1 layers, the model 2"):
        reconcile(replace(plan, layers=plan.layers[:1]))

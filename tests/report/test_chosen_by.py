# SPDX-License-Identifier: Apache-2.0
"""By what channels were chosen: what a plan says of it, for every way in which a solver can choose them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from recovery_models import block, samples

import graphprune
from graphprune.plan.schema import CHOSEN_BY, Plan, SolverRecord
from graphprune.report.chosen_by import channel_choice


@pytest.fixture(scope="module")
def plan() -> Plan:
    options = graphprune.SolveOptions(solver="bisection", criterion="l1")
    return graphprune.solve(graphprune.load(block(norm=True)), flops=0.5, options=options)


def record(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, solver=replace(plan.solver, **changes))


def narrowed(plan: Plan) -> set[str]:
    return {group.id for group in plan.groups if 0 < len(group.kept) < group.size}


def test_where_saliencies_decide_it_says_so(plan: Plan) -> None:
    choice = channel_choice(plan)
    assert CHOSEN_BY not in plan.solver.options
    assert choice.line == "saliency (l1)"
    assert choice.ways.keys() == narrowed(plan) and all(map(choice.by_saliency, narrowed(plan)))


@pytest.mark.parametrize("solver", ["sensitivity", "stage-wise", "cap"])
def test_a_solver_that_measures_says_that_it_chose_by_elimination(solver: str) -> None:
    model = graphprune.load(block(norm=True))
    options = graphprune.SolveOptions(solver=solver)
    choice = channel_choice(graphprune.solve(model, flops=0.5, options=options, data=samples(model.proto)))
    assert "backward elimination" in choice.line
    assert not all(map(choice.by_saliency, choice.ways))


def test_exemplars_and_plans_to_start_from_are_named(plan: Plan) -> None:
    model = graphprune.load(block(norm=True))
    found = graphprune.solve(model, flops=0.5, options=graphprune.SolveOptions(solver="exemplar"))
    assert channel_choice(found).line == "exemplars"
    begun = graphprune.SolveOptions(solver="bisection", constraints=graphprune.Constraints(start=plan))
    assert channel_choice(graphprune.solve(model, flops=0.3, options=begun)).line == "the plan that it started from"


def test_groups_that_were_chosen_in_two_ways_are_counted(plan: Plan) -> None:
    first, *others = sorted(narrowed(plan))
    assert others
    choice = channel_choice(record(plan, options={CHOSEN_BY: {"backward elimination": [first]}}))
    assert "backward elimination in 1 group" in choice.line and "saliency (l1) in" in choice.line
    assert not choice.by_saliency(first) and all(map(choice.by_saliency, others))


def test_a_contest_training_and_lossless_plans_are_told_apart(plan: Plan) -> None:
    won = channel_choice(record(plan, name="sensitivity", options={"adapt": {"chosen": "fpgm"}}))
    assert won.criterion == "fpgm" and won.line == "saliency (fpgm)"
    assert channel_choice(record(plan, name="csgd", criterion="trained")).line == "training (csgd)"
    lossless = channel_choice(replace(plan, lossless=True, solver=SolverRecord("lossless", "", 0)))
    assert "nothing changes" in lossless.line and not lossless.criterion


def test_an_older_plan_of_a_solver_that_measures_is_not_said_to_go_by_saliency(plan: Plan) -> None:
    choice = channel_choice(record(plan, name="sensitivity", options={}))
    assert choice.line == "what sensitivity measured on samples"
    assert not any(map(choice.by_saliency, choice.ways))


@pytest.mark.parametrize("said", [None, 1, ["g000"], {"by": 1}, {"by": {"g000": 1}}, {"by": [["g000"]]}])
def test_a_record_of_another_form_is_no_fault(plan: Plan, said: object) -> None:
    channel_choice(record(plan, options={CHOSEN_BY: said}))

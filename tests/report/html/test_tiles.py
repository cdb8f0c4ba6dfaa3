# SPDX-License-Identifier: Apache-2.0
"""The figures that stand first on a report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recovery_models import block

import graphprune
from graphprune.plan.schema import Budget, Plan, Step, Timing
from graphprune.report.html.contents import plan_contents
from graphprune.report.html.tiles import KnownFigures, Tile, plan_tiles
from graphprune.report.summary import Total


@pytest.fixture(scope="module")
def plan() -> Plan:
    return graphprune.solve(graphprune.load(block(norm=True)), flops=0.5)


def tile(plan: Plan, label: str, figures: KnownFigures | None = None) -> Tile:
    (found,) = [each for each in plan_tiles(plan, None, figures or KnownFigures()) if each.label == label]
    return found


def test_totals_are_those_of_the_command_where_they_are_known(plan: Plan) -> None:
    assert "in the layers below" in tile(plan, "parameters").note
    total = Total(1000, 250)
    assert tile(plan, "parameters", KnownFigures({"params": total})) == Tile("parameters", "25.0 %", "1.00 k → 250")
    assert tile(plan, "file", KnownFigures({"file size": total})) == Tile("file", "25.0 %", "1.00 kB → 250 B")
    limited = replace(plan, further=(Budget("params", 0.3, 300, 1000, 250),))
    assert tile(limited, "parameters") == Tile("parameters", "25.0 %", "1.00 k → 250")


@pytest.mark.parametrize("measure", ["accuracy", "agreement"])
def test_shares_of_samples_are_percent(plan: Plan, measure: str) -> None:
    judged = replace(plan, steps=(Step("eval", measure, measure, 1.0, 0.9140625, True),))
    assert tile(judged, measure).value == "91.41 %"
    trained = replace(plan, steps=(Step("finetune", "distill", measure, 0.5, 0.9140625, True),))
    assert tile(trained, f"finetune: {measure}") == Tile(f"finetune: {measure}", "91.41 %", "before: 50.00 %")


def test_what_was_timed_is_named_with_its_runtime(plan: Plan) -> None:
    timing = Timing(0.002, 0.001, 0.5, 25, "openvino")
    wanted = Tile("time in openvino", "50.0 %", "2 ms → 1 ms, median of 25 pairs")
    assert tile(replace(plan, timing=timing), "time in openvino") == wanted


@pytest.mark.parametrize(
    ("measured", "used", "verdict"),
    [
        (None, "93.4 %", "met"),
        (310_000, "97.9 %", "met"),
        (325_000, "102.6 %", "met within 5 %"),
        (389_205, "122.9 %", "not met"),
    ],
)
def test_a_latency_budget_is_held_against_what_was_measured(
    plan: Plan, measured: int | None, used: str, verdict: str
) -> None:
    budget = Budget("latency", 0.7, 316_642, 452_347, 295_772, measured)
    options = {**plan.solver.options, "latency": {"runtime": "openvino", "rounds": 3}}
    limited = replace(plan, budget=budget, solver=replace(plan.solver, options=options))
    shown = plan_contents(limited)
    assert shown.budgets[0]["metric"] == "latency in openvino"
    assert (shown.budgets[0]["used"], shown.budgets[0]["verdict"]) == (used, verdict)
    missed = [note for note in shown.notes if "is not met" in note]
    assert bool(missed) == (verdict == "not met")
    assert all("of 3 plans none came nearer" in note for note in missed)
    assert tile(limited, "latency in openvino").note.endswith("predicted" if measured is None else "measured")


def test_one_plan_is_not_said_to_be_many(plan: Plan) -> None:
    limited = replace(plan, budget=Budget("latency", 0.7, 316_642, 452_347, 295_772, 389_205))
    (note,) = [note for note in plan_contents(limited).notes if "is not met" in note]
    assert "1 plans" not in note and "takes 389 µs here; the tables" in note


def test_a_plan_that_was_edited_to_keep_more_does_not_meet_its_budget(plan: Plan) -> None:
    edited = replace(plan, budget=replace(plan.budget, after=plan.budget.limit + 1))
    assert plan_contents(edited).budgets[0]["verdict"] == "not met"

# SPDX-License-Identifier: Apache-2.0
"""What the report reads again of a plan: the scores that its channels were chosen by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from recovery_models import block

import graphprune
from graphprune.analysis.analysis import Analysis
from graphprune.cli.report_file import known_scores
from graphprune.plan.schema import Plan


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return graphprune.analyze(graphprune.load(block(norm=True)))


def planned(analysis: Analysis, **options: object) -> Plan:
    return graphprune.solve(analysis, flops=0.5, options=graphprune.SolveOptions(**options))  # type: ignore[arg-type]


def test_scores_are_those_of_the_options_that_a_plan_records(analysis: Analysis) -> None:
    plan = planned(analysis, criterion="l1", aggregate="max")
    scores, usual = known_scores(analysis, plan), known_scores(analysis, planned(analysis, criterion="l1"))
    assert scores and usual
    pairs = zip(scores.per_group, usual.per_group, strict=True)
    assert not all(np.array_equal(one, two) for one, two in pairs)
    for values, group in zip(scores.per_group, plan.groups, strict=True):
        stays = np.isin(np.arange(group.size), group.kept)
        assert stays.all() or values[stays].min() >= values[~stays].max()


def test_scores_of_a_contest_are_those_of_its_winner(analysis: Analysis) -> None:
    plan = planned(analysis, criterion="l1")
    won = replace(plan, solver=replace(plan.solver, options={"adapt": {"chosen": "l2"}}))
    scores, wanted = known_scores(analysis, won), known_scores(analysis, planned(analysis, criterion="l2"))
    assert scores and wanted
    assert all(np.array_equal(*pair) for pair in zip(scores.per_group, wanted.per_group, strict=True))


@pytest.mark.parametrize("criterion", ["", "trained", "of-nobody", "taylor"])
def test_nothing_is_known_where_no_weights_say_it(analysis: Analysis, criterion: str) -> None:
    plan = planned(analysis)
    assert known_scores(analysis, replace(plan, solver=replace(plan.solver, criterion=criterion))) is None


@pytest.mark.parametrize(
    "options", [{"settings": 1}, {"settings": {"no-such": []}}, {"aggregate": 3}, {"aggregate": "x"}]
)
def test_options_of_another_form_are_no_fault(analysis: Analysis, options: dict[str, object]) -> None:
    plan = planned(analysis)
    known_scores(analysis, replace(plan, solver=replace(plan.solver, options=options)))

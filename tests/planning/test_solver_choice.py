# SPDX-License-Identifier: Apache-2.0
"""Which solver is chosen follows from counted work alone, and is explained with what would take more or less."""

from __future__ import annotations

import pytest
from recovery_models import block

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.solve_options import SolveOptions
from graphprune.planning.solver_choice import (
    BOUNDS,
    STAGE_WISE_PASSES,
    SolverChoice,
    choose_made_solver,
    choose_solver,
    decides_channels,
    sensitivity_passes,
    settled_solver,
)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(load(block(norm=True)))


def passes_of(analysis: Analysis) -> tuple[int, float]:
    return analysis.cost.flops(analysis.cost.sizes) // 2, sensitivity_passes(analysis)


def bounds(most: int) -> dict[str, int]:
    return dict.fromkeys(BOUNDS, most)


def test_the_best_that_the_work_allows_is_chosen(analysis: Analysis) -> None:
    macs, passes = passes_of(analysis)
    assert passes > STAGE_WISE_PASSES
    by_work = {
        round(100 * macs * passes): "sensitivity",
        round(100 * macs * passes) - 1: "stage-wise",
        100 * macs * STAGE_WISE_PASSES: "stage-wise",
        100 * macs * STAGE_WISE_PASSES - 1: "bisection",
    }
    for most_work, name in by_work.items():
        assert choose_solver(analysis, 100, bounds=bounds(most_work)).name == name


def test_a_choice_says_what_takes_more_and_what_less(analysis: Analysis) -> None:
    macs, _ = passes_of(analysis)
    most = choose_solver(analysis, 100)
    assert "less: --solver stage-wise or --solver bisection" in most.reason
    middle = choose_solver(analysis, 100, bounds=bounds(100 * macs * STAGE_WISE_PASSES))
    assert "more: --solver sensitivity would take" in middle.reason
    assert "less: --solver bisection" in middle.reason
    least = choose_solver(analysis, 100, bounds=bounds(1))
    assert "--solver sensitivity would take" in least.reason and "--solver stage-wise would take" in least.reason
    assert "less:" not in least.reason


def test_a_limited_latency_takes_several_rounds(analysis: Analysis) -> None:
    macs, passes = passes_of(analysis)
    most = bounds(round(100 * macs * passes))
    latency = (BudgetRequest("latency", 0.5),)
    assert choose_solver(analysis, 100, latency, most).name != choose_solver(analysis, 100, (), most).name


def test_a_few_samples_measure_nothing(analysis: Analysis) -> None:
    assert choose_solver(analysis, 7).name == "bisection"
    assert choose_solver(analysis, 8).name == "sensitivity"


@pytest.mark.parametrize(
    ("options", "who"),
    [
        (SolveOptions(solver="auto", criterion="fpgm"), "--criterion fpgm decides"),
        (SolveOptions(solver="auto", adapt=("l1", "l2")), "--adapt l1,l2 decides"),
    ],
)
def test_who_names_a_criterion_is_obeyed(options: SolveOptions, who: str, analysis: Analysis) -> None:
    choice = decides_channels(options)
    assert choice and choice.name == "bisection" and choice.reason.startswith(who)
    assert settled_solver(analysis, 1000, (), options).solver == "bisection"
    assert settled_solver(analysis, 1000, (), SolveOptions(solver="auto")).solver == "sensitivity"


def test_made_samples_show_stages() -> None:
    general = SolverChoice("sensitivity", "within its bound")
    assert choose_made_solver(general, matched=True, measures=True).name == "stage-wise"
    assert choose_made_solver(general, matched=True, measures=False).name == "bisection"
    assert choose_made_solver(general, matched=False, measures=True) is general
    beyond = SolverChoice("bisection", "beyond all bounds")
    assert choose_made_solver(beyond, matched=False, measures=True).name == "stage-wise"


def test_what_lies_behind_a_group_is_counted(analysis: Analysis) -> None:
    """Each group is measured through the layers from the first one that reads it on."""
    costs = [layer.flops(analysis.cost.sizes) for layer in analysis.layers]
    passes = sensitivity_passes(analysis)
    assert 4 < passes <= 4 + 2 * len(analysis.groups)
    assert passes < 4 + 2 * len(analysis.groups) * (sum(costs) - costs[0]) / sum(costs) + 1e-9

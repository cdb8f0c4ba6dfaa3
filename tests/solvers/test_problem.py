# SPDX-License-Identifier: Apache-2.0
"""The width problem refuses parts that contradict each other, and budgets out of reach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from solver_cases import Multilinear, limited, problem

from graphprune.errors import BudgetUnreachableError, InternalError
from graphprune.solvers.problem import Limit, Solution, ensure_reachable, ensure_sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ("a",)}, "1 groups, but sizes"),
        ({"scores": (np.ones(4),)}, "entries"),
        ({"scores": (np.ones(4), np.ones(5))}, "'g001' has 6 atoms"),
        ({"importance": np.array([1.0, np.nan])}, "not a finite number"),
        ({"importance": np.array([1.0, np.inf])}, "not a finite number"),
        ({"levels": (np.array([1, 4]), np.array([1, 7]))}, "'g001' must ascend"),
        ({"levels": (np.array([4, 1]), np.array([6]))}, "'g000' must ascend"),
        ({"levels": (np.array([-1, 4]), np.array([6]))}, "'g000' must ascend"),
        ({"limits": ()}, "nothing is limited"),
        ({"levels": (np.array([1, 1, 4]), np.array([6]))}, "'g000' must ascend"),
        ({"levels": (np.array([], dtype=np.int64), np.array([6]))}, "'g000' must ascend"),
        ({"levels": (np.array([1.0, 4.0]), np.array([6]))}, "'g000' must ascend"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(InternalError, match=message):
        dataclasses.replace(problem([4, 6]), **change)


def test_the_smallest_cost_is_that_of_the_narrowest_levels():
    case = problem([8, 12], round_to=4)
    assert case.narrowest.tolist() == [4, 4]
    assert ensure_reachable(case) == case.cost(np.array([4, 4]))


def test_a_budget_out_of_reach_says_what_is_in_reach():
    case = problem([8, 12], round_to=4)
    full, least = case.cost(case.sizes), case.cost(case.narrowest)
    with pytest.raises(BudgetUnreachableError) as raised:
        ensure_reachable(limited(case, least - 1))
    assert f"{least - 1:,}" in raised.value.message
    assert f"of {full:,}" in raised.value.message
    assert f"the smallest reachable is {least:,} ({100 * least / full:.3g} %)" in raised.value.message
    assert "--round-to 1" in str(raised.value.hint)
    assert raised.value.exit_code == 1


def test_several_limits_hold_together_and_a_change_weighs_more_where_less_is_allowed():
    case = problem([8, 12])
    (flops,) = case.limits
    tight = Limit("params", Multilinear(np.array([1]), np.array([[0, 1]]), np.array([[[1, 1], [0, 0]]])), 10)
    both = dataclasses.replace(case, limits=(flops, tight))
    wide, narrow = np.array([4, 7]), np.array([4, 6])
    assert case.fits(wide)
    assert not both.fits(wide)
    assert both.fits(narrow)
    assert both.costs(narrow) == (case.cost(narrow), 10)
    assert both.price((flops.limit, 10)) == 2 * flops.limit
    assert case.price((3,)) == 3


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (Solution(np.array([4]), []), r"widths of shape \(1,\)"),
        (Solution(np.array([4.0, 4.0]), []), "type float64"),
        (Solution(np.array([4, 3]), []), "'g001' 3 atoms, which is not a level"),
        (Solution(np.array([8, 8]), []), "cost .* flops, more than"),
        (Solution(np.array([4, 4]), [], (np.arange(4), np.arange(3))), "'g001' 4 atoms, but not which"),
        (Solution(np.array([4, 4]), [], (np.arange(4), np.array([0, 2, 1, 3]))), "'g001' 4 atoms, but not which"),
        (Solution(np.array([4, 4]), [], chosen_by=("exemplars",)), "ways of choosing for 1 of 2 groups"),
    ],
)
def test_a_solver_that_breaks_its_promise_is_named(solution: Solution, message: str) -> None:
    case = problem([8, 8], share=0.5, round_to=4)
    ensure_sound(case, Solution(np.array([4, 4]), [], (np.arange(4), np.arange(4))), "fine")
    with pytest.raises(InternalError, match=f"the solver 'cheat' gave .*{message}"):
        ensure_sound(case, solution, "cheat")


def test_results_of_other_packages_are_looked_at() -> None:
    from graphprune.solvers import criteria, widths
    from graphprune.solvers.saliency import Scores

    given = problem([4, 4])
    assert "not a Solution" in (widths._fault(None, given) or "")
    assert "type float64" in (widths._fault(Solution(np.array([1.5, 2.0]), []), given) or "")
    assert "could be wider" in (widths._fault(Solution(given.narrowest, []), given) or "")
    assert widths._fault(widths.get("uniform")(given), given) is None
    material = criteria.Material((), lambda name: np.zeros(0))
    assert "not Scores" in (criteria._fault([1.0], material) or "")
    assert criteria._fault(Scores((), ()), material) is None

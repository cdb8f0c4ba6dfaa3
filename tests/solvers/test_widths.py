# SPDX-License-Identifier: Apache-2.0
"""Width solvers find the last affordable point of their path, fill the budget, and never exceed it."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from solver_cases import limited, odd_problems, problem, problems

from graphprune.errors import BudgetUnreachableError
from graphprune.solvers import widths
from graphprune.solvers.moves.path import FLOOR, width_path
from graphprune.solvers.widths.bisection import solve as bisection
from graphprune.solvers.widths.uniform import solve as uniform

SOLVERS = ("bisection", "exemplar", "global", "greedy", "uniform")


def rounded(share: float | Fraction, size: int, levels: np.ndarray) -> int:
    """Return a share of a size, rounded half up to atoms and then to the nearest level, ties up."""
    atoms = math.floor(share * size + Fraction(1, 2))
    return min(levels.tolist(), key=lambda level: (abs(level - atoms), -level))


def brute_force(case, importance, floor):
    """Return the largest affordable cost among the widths at all values of t where something can change."""
    mean = (case.sizes * importance).sum() / case.sizes.sum()
    knots = [
        (atoms - 0.5) / size * mean / value
        for size, value in zip(case.sizes, importance, strict=True)
        for atoms in range(1, size + 1)
    ]
    best = None
    for t in [0.0, *(knot * (1 + 1e-9) for knot in knots)]:
        shares = np.clip(t * importance / mean, floor, 1)
        found = np.array([rounded(*each) for each in zip(shares, case.sizes.tolist(), case.levels, strict=True)])
        cost = case.cost(found)
        if cost <= case.limits[0].limit and (best is None or cost > best):
            best = cost
    return best


def best_on_path(case, solution):
    return max(
        record["cost"]
        for record in solution.trace
        if record["stage"] == "path" and record["cost"] <= case.limits[0].limit
    )


@given(problems())
def test_bisection_finds_the_best_point_of_the_path(case):
    expected = brute_force(case, case.importance, FLOOR)
    if expected is None:  # the floor cannot be afforded: then it is the floor that shrinks
        expected = max(
            cost
            for share in sorted(
                {(atoms - 0.5) / size for size in case.sizes.tolist() for atoms in range(1, size + 1)} | {0}
            )
            if share <= FLOOR
            for found in [
                np.array([rounded(share + 1e-9, *each) for each in zip(case.sizes.tolist(), case.levels, strict=True)])
            ]
            if (cost := case.cost(found)) <= case.limits[0].limit
        )
    assert best_on_path(case, bisection(case)) == expected


@given(problems(largest=200))
def test_bisection_evaluates_the_cost_a_logarithmic_number_of_times(case):
    case.limits[0].cost.evaluations = 0
    solution = bisection(case)
    knots = len(width_path(case, case.importance).knots)
    assert (
        len([record for record in solution.trace if record["stage"] == "path"]) <= math.ceil(math.log2(knots + 1)) + 1
    )
    assert case.limits[0].cost.evaluations <= math.ceil(math.log2(knots + 1)) + 3


@pytest.mark.parametrize("name", SOLVERS)
@settings(deadline=None, max_examples=40)
@given(case=st.one_of(problems(), odd_problems()))
def test_no_budget_is_exceeded_and_no_step_is_left(name, case):
    solution = widths.get(name)(case)
    assert case.fits(solution.widths)
    for group, (width, levels) in enumerate(zip(solution.widths, case.levels, strict=True)):
        assert width in levels
        above = levels[levels > width]
        if len(above):
            wider = solution.widths.copy()
            wider[group] = above[0]
            assert not case.fits(wider)
    if solution.kept is not None:
        for atoms, width, size in zip(solution.kept, solution.widths, case.sizes, strict=True):
            assert len(atoms) == width
            assert (np.diff(atoms) > 0).all()
            assert set(atoms.tolist()) <= set(range(size))


@pytest.mark.parametrize("name", SOLVERS)
@settings(deadline=None, max_examples=40)
@given(case=problems())
def test_the_trace_is_json_and_ends_at_the_cost_found(name, case):
    solution = widths.get(name)(case)
    assert json.loads(json.dumps(solution.trace)) == solution.trace
    assert solution.trace[-1] == {"stage": "fill", "cost": case.cost(solution.widths)}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_whole_budget_keeps_everything(name):
    case = problem([7, 20, 33], share=1.0, round_to=4)
    assert widths.get(name)(case).widths.tolist() == [7, 20, 33]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_smallest_reachable_budget_is_met(name):
    case = problem([70, 200, 33])
    case = limited(case, case.cost(case.narrowest))
    assert widths.get(name)(case).widths.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_budget_below_that_is_refused(name):
    case = problem([70, 200, 33])
    with pytest.raises(BudgetUnreachableError, match="the smallest reachable is"):
        widths.get(name)(limited(case, case.cost(case.narrowest) - 1))


@given(problems(), st.floats(1e-6, 1e6))
@example(problem([10, 20, 30]), 1 / 3)
def test_the_scale_of_importance_does_not_matter(case, factor):
    scaled = dataclasses.replace(case, importance=case.importance * factor)
    assert bisection(scaled).widths.tolist() == bisection(case).widths.tolist()


@given(problems(), st.floats(1e-3, 1e3))
def test_equal_importance_is_uniform(case, value):
    equal = dataclasses.replace(case, importance=np.full(len(case.sizes), value))
    assert bisection(equal).widths.tolist() == uniform(case).widths.tolist()
    assert bisection(case, exponent=0.0).widths.tolist() == uniform(case).widths.tolist()


def test_importance_zero_everywhere_is_uniform():
    case = problem([10, 20, 30])
    for value in (0.0, -1.0):
        nothing = dataclasses.replace(case, importance=np.full(3, value))
        assert bisection(nothing).widths.tolist() == uniform(case).widths.tolist()


@given(problems())
def test_the_path_only_climbs(case):
    path = width_path(case, case.importance)
    points = np.array([path.widths(point) for point in range(len(path.knots) + 1)])
    assert (np.diff(points, axis=0) >= 0).all()
    assert (np.diff(points, axis=0).max(axis=1, initial=0) > 0).all()
    assert points[0].tolist() == case.narrowest.tolist()
    assert points[-1].tolist() == case.sizes.tolist()


@given(problems())
def test_more_important_groups_keep_a_larger_share(case):
    assume(all(len(levels) == levels[-1] for levels in case.levels))
    path = width_path(case, case.importance)
    order = np.argsort(case.importance)
    for point in range(len(path.knots) + 1):
        shares = path.widths(point) / case.sizes
        half_atom = 0.5 / case.sizes + 1e-9  # shares agree with the path up to rounding to atoms, at least one
        low = np.maximum(shares - half_atom, 0) * (path.widths(point) > 1)
        high = np.where(path.widths(point) == case.sizes, 1.0, shares + half_atom)
        assert (np.maximum.accumulate(low[order]) <= high[order] + 1e-9).all()


def test_groups_of_one_size_are_ordered_by_importance():
    case = problem([50] * 6, importance=np.array([0.3, 1.0, 0.5, 2.0, 0.5, 0.0]))
    path = width_path(case, case.importance)
    for point in range(len(path.knots) + 1):
        found = path.widths(point)
        assert (np.diff(found[np.argsort(case.importance, kind="stable")]) >= 0).all()
        assert found[2] == found[4]


def test_a_group_without_importance_stays_at_the_floor():
    case = problem([50, 50, 15], importance=np.array([1.0, 0.0, 0.0]))
    path = width_path(case, case.importance)
    assert path.widths(len(path.knots)).tolist() == [50, 5, 2]  # a tenth, rounded half up


def test_a_point_that_costs_exactly_the_budget_is_taken():
    case = problem([9, 20, 31])
    path = width_path(case, case.importance)
    for point in range(len(path.knots) + 1):
        tight = limited(case, case.cost(path.widths(point)))
        solution = bisection(tight)
        assert solution.widths.tolist() == path.widths(point).tolist()
        assert best_on_path(tight, solution) == tight.limits[0].limit


def test_an_exponent_spreads_widths():
    case = problem([100, 100, 100], share=0.4, importance=np.array([1.0, 1.2, 1.4]))
    spread = [np.ptp(bisection(case, exponent=exponent).widths) for exponent in (0.5, 1.0, 3.0)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("name", SOLVERS)
def test_solutions_do_not_depend_on_chance(name):
    case = problem(list(range(3, 60, 4)), round_to=2)
    first, second = widths.get(name)(case), widths.get(name)(case)
    assert first.widths.tolist() == second.widths.tolist()
    assert first.trace == second.trace


def test_no_groups_at_all():
    case = problem([])
    assert bisection(limited(case, 10**9)).widths.tolist() == []

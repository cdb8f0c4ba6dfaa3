# SPDX-License-Identifier: Apache-2.0
"""milp equals exhaustive search, and no bound is below what some widths keep."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from bound_cases import Opaque, all_widths, problems
from hypothesis import given, settings
from solver_cases import limited, problem

from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.solvers.bounds.certify import certify
from graphprune.solvers.bounds.search import Search
from graphprune.solvers.fill import fill
from graphprune.solvers.problem import Solution
from graphprune.solvers.saliency import comparable, kept_saliency
from graphprune.solvers.widths.milp import solve


def best(case):
    scaled = comparable(case)
    return max(kept_saliency(scaled, widths) for widths in all_widths(case))


@settings(deadline=None, max_examples=40)
@given(problems())
def test_milp_equals_exhaustive_search(case):
    solution, optimum = solve(case), best(case)
    assert kept_saliency(comparable(case), solution.widths) == pytest.approx(optimum, rel=1e-9)
    assert optimum <= solution.bound <= optimum * (1 + 1e-6)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_milp_stays_within_all_limits_and_leaves_no_step(case):
    widths = solve(case).widths
    assert case.fits(widths)
    assert fill(case, widths).tolist() == widths.tolist()


@settings(deadline=None, max_examples=40)
@given(problems(least_score=-np.inf))
def test_no_bound_is_below_the_optimum(case):
    optimum = best(case)
    search = Search(comparable(case))
    search.relax()
    assert search.bound >= optimum
    assert solve(case).bound >= optimum
    assert certify(case, Solution(case.narrowest, [])).bound >= optimum


@settings(deadline=None, max_examples=20)
@given(problems())
def test_a_cost_that_cannot_be_read_leaves_a_valid_bound(case):
    hidden = replace(case, limits=(replace(case.limits[0], cost=Opaque(case.limits[0].cost)), *case.limits[1:]))
    solution = solve(hidden)
    assert case.fits(solution.widths)
    assert solution.bound >= best(case)
    assert {"stage": "relaxation", "without": "cost0"} in solution.trace or solution.trace[-1]["stage"] == "fill"


@settings(deadline=None, max_examples=10)
@given(problems())
def test_the_trace_is_json_and_the_same_each_time(case):
    first, again = solve(case), solve(case)
    assert json.loads(json.dumps(first.trace)) == first.trace == again.trace
    assert first.widths.tolist() == again.widths.tolist()
    assert first.trace[-1] == {"stage": "fill", "cost": case.cost(first.widths)}


@settings(deadline=None, max_examples=20)
@given(problems())
def test_a_certificate_counts_the_atoms_that_are_kept(case):
    scaled = comparable(case)
    kept = tuple(np.arange(size - width, size) for size, width in zip(case.sizes, case.narrowest, strict=True))
    proof = certify(case, Solution(case.narrowest, [], kept=kept))
    assert proof.objective == pytest.approx(sum(s[k].sum() for s, k in zip(scaled.scores, kept, strict=True)))
    assert 0 <= proof.gap <= 1


def small(share=0.5):
    return problem([8, 8], share=share)


def test_a_solution_of_its_own_bound_is_not_bounded_again():
    assert certify(small(), Solution(np.array([1, 1]), [], bound=7.0)).bound == 7.0


def test_limits_that_nothing_meets_are_refused():
    case = small()
    with pytest.raises(BudgetUnreachableError):
        solve(limited(case, case.cost(case.narrowest) - 1))


@pytest.mark.parametrize("setting", [{"time_limit": 0.0}, {"node_limit": 0}])
def test_limits_of_the_search_that_are_not_positive_are_refused(setting):
    with pytest.raises(UsageError, match="positive"):
        solve(small(), **setting)

# SPDX-License-Identifier: Apache-2.0
"""The global threshold is the best of all thresholds, on scores of one scale."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from solver_cases import limited, odd_problems, problem, problems

from graphprune.errors import UsageError
from graphprune.solvers.fill import fill
from graphprune.solvers.saliency import comparable
from graphprune.solvers.widths.threshold import Ranking, solve


def brute_force(case):
    """Return the widths of the lowest threshold within the limits, one atom after the other."""
    scores = comparable(case).scores
    atoms = [(-value, group, atom) for group, values in enumerate(scores) for atom, value in enumerate(values)]
    left = sorted(atoms)
    while True:
        counts = [sum(group == at for _, at, _ in left) for group in range(len(case.sizes))]
        found = [
            min([level for level in levels.tolist() if level >= count], default=levels[-1])
            for levels, count in zip(case.levels, counts, strict=True)
        ]
        if case.fits(np.array(found, dtype=np.int64)):
            return np.array(found, dtype=np.int64)
        left.pop()


@settings(deadline=None)
@given(odd_problems())
def test_bisection_equals_brute_force_over_all_thresholds(case):
    solution = solve(case)
    expected = brute_force(case)
    assert solution.widths.tolist() == fill(case, expected).tolist()
    affordable = [record for record in solution.trace if record["stage"] == "threshold"]
    assert case.cost(expected) in [record["cost"] for record in affordable]


@settings(deadline=None)
@given(problems())
def test_the_cost_is_evaluated_a_logarithmic_number_of_times(case):
    case.limits[0].cost.evaluations = 0
    solve(case)
    assert case.limits[0].cost.evaluations <= math.ceil(math.log2(case.sizes.sum() + 1)) + 3


@settings(deadline=None)
@given(problems())
def test_widths_grow_with_the_atoms_kept(case):
    ranking = Ranking(comparable(case))
    points = np.array([ranking.widths(kept) for kept in range(ranking.atoms + 1)])
    assert (np.diff(points, axis=0) >= 0).all()
    assert points[-1].tolist() == case.sizes.tolist()


def test_of_equal_scores_those_of_the_first_group_stay():
    case = problem([4, 4], scores=[np.ones(4), np.ones(4)])
    assert Ranking(case).widths(5).tolist() == [4, 1]


def test_groups_compete_on_one_scale_unless_asked_otherwise():
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), 1000 * np.array([1.0, 2.0, 3.0, 4.0])]
    case = problem([4, 4], scores=scores)
    case = limited(case, case.cost(np.array([3, 3])))
    assert solve(case).widths.tolist() == [3, 3]
    raw = solve(case, normalize="none").widths
    assert raw[1] == 4
    assert solve(dataclasses.replace(case, comparable=True)).widths.tolist() == raw.tolist()
    with pytest.raises(UsageError, match="'normalize' cannot be 'median'"):
        solve(case, normalize="median")

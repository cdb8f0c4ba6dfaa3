# SPDX-License-Identifier: Apache-2.0
"""Filling spends what is left of a budget on the best steps that fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from solver_cases import Multilinear, problem, problems

from graphprune.errors import InternalError
from graphprune.solvers.fill import fill
from graphprune.solvers.problem import Limit


def separate(prices: list[int], size: int, scores: list[np.ndarray], limit: int):
    """Return a problem in which each atom of a group has a fixed price."""
    count = len(prices)
    slopes = np.zeros((count, 2, count), dtype=np.int64)
    slopes[np.arange(count), 0, np.arange(count)] = 1
    offsets = np.tile([0, 1], (count, 1))
    case = problem([size] * count, scores=scores, importance=np.ones(count))
    return dataclasses.replace(case, limits=(Limit("flops", Multilinear(np.array(prices), offsets, slopes), limit),))


@given(problems())
def test_afterwards_no_single_step_fits(case):
    filled = fill(case, case.narrowest)
    assert (filled >= case.narrowest).all()
    assert case.cost(filled) <= case.limits[0].limit
    for group, levels in enumerate(case.levels):
        for level in levels[levels > filled[group]][:1]:
            assert case.cost(filled) + case.limits[0].cost.change(filled, group, int(level)) > case.limits[0].limit


@given(problems(largest=120))
def test_few_steps_are_evaluated_again(case):
    filled = fill(case, case.narrowest)
    steps = sum(int(np.searchsorted(levels, width)) for levels, width in zip(case.levels, filled, strict=True))
    assert case.limits[0].cost.changes <= 3 * (steps + len(case.levels))


def test_the_most_salient_step_per_cost_comes_first():
    scores = [np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 9.0, 1.0, 1.0])]  # relative: 1 each; 3, 1/3, 1/3, 1/3
    case = separate([1, 1], 4, scores, limit=5)
    assert fill(case, np.array([1, 1])).tolist() == [4, 1]
    cheap = separate([1, 4], 4, [np.ones(4), np.ones(4)], limit=8)
    assert fill(cheap, np.array([1, 1])).tolist() == [4, 1]


def test_a_step_that_does_not_fit_leaves_room_for_others():
    case = separate([100, 3], 4, [np.array([5.0, 5, 5, 5]), np.array([5.0, 0.1, 0.1, 0.1])], limit=110)
    assert fill(case, np.array([1, 1])).tolist() == [1, 3]


def test_equal_steps_go_to_the_first_group():
    case = separate([1, 1, 1], 4, [np.ones(4)] * 3, limit=5)
    assert fill(case, np.array([1, 1, 1])).tolist() == [3, 1, 1]


def test_free_steps_are_always_taken():
    case = separate([0, 5], 4, [np.zeros(4), np.ones(4)], limit=5)
    assert fill(case, np.array([1, 1])).tolist() == [4, 1]


def test_scores_that_are_not_finite_count_nothing():
    case = separate([1, 1], 4, [np.full(4, np.nan), np.array([1.0, np.nan, 1.0, -1.0])], limit=6)
    assert fill(case, np.array([1, 1])).tolist() == [4, 2]


def test_of_several_limits_all_hold_and_none_is_left_unused():
    case = separate([1, 1], 6, [np.ones(6), np.ones(6)], limit=9)
    (flops,) = case.limits
    (other,) = separate([3, 0], 6, [np.ones(6), np.ones(6)], limit=9).limits
    both = dataclasses.replace(case, limits=(flops, other))
    assert fill(both, np.array([1, 1])).tolist() == [3, 6]
    assert fill(dataclasses.replace(both, limits=(other, flops)), np.array([1, 1])).tolist() == [3, 6]


def test_the_widths_given_are_left_alone():
    case = problem([8, 8])
    start = case.narrowest
    fill(case, start)
    assert start.tolist() == [1, 1]


def test_it_starts_from_levels_within_the_limit():
    case = problem([8, 8], round_to=4)
    with pytest.raises(InternalError, match="5 is not an allowed width of group 'g001'"):
        fill(case, np.array([4, 5]))
    with pytest.raises(InternalError, match="exceed the limit"):
        fill(case, np.array([8, 8]))


def test_few_steps_are_evaluated_again_where_all_groups_share_all_layers():
    shared = Multilinear(np.ones(5, dtype=np.int64), np.zeros((5, 2), np.int64), np.ones((5, 2, 60), np.int64))
    case = problem([64] * 60, scores=[np.ones(64)] * 60, round_to=4)
    case = dataclasses.replace(case, limits=(Limit("flops", shared, shared(case.sizes) // 2),))
    steps = (fill(case, case.narrowest) // 4 - 1).sum()
    assert shared.changes <= 20 * (steps + 60)


def test_two_hundred_groups_are_filled_with_few_evaluations():
    case = problem([256] * 200, share=0.5, round_to=4)
    filled = fill(case, case.narrowest)
    steps = sum(int(np.searchsorted(levels, width)) for levels, width in zip(case.levels, filled, strict=True))
    assert case.limits[0].cost.changes <= 3 * (steps + len(case.levels))

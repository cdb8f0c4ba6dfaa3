# SPDX-License-Identifier: Apache-2.0
"""Trimming, exchanging and the greedy solver keep much saliency, and never lose any on the way."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from solver_cases import Multilinear, odd_problems, problem, problems

from graphprune.errors import InternalError, UsageError
from graphprune.solvers.fill import fill
from graphprune.solvers.moves.exchange import exchange
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.moves.trim import trim
from graphprune.solvers.problem import Limit
from graphprune.solvers.saliency import comparable, kept_saliency
from graphprune.solvers.widths.greedy import solve


def separate(prices: list[list[int]], scores: list[np.ndarray], limits: list[int]):
    """Return a problem with, for each limit, a price per atom of each group."""
    count = len(scores)
    slopes = np.zeros((count, 2, count), dtype=np.int64)
    slopes[np.arange(count), 0, np.arange(count)] = 1
    offsets = np.tile([0, 1], (count, 1))
    case = problem([len(values) for values in scores], scores=scores, importance=np.ones(count))
    costs = [Multilinear(np.array(each), offsets, slopes) for each in prices]
    both = tuple(Limit(f"m{at}", cost, limit) for at, (cost, limit) in enumerate(zip(costs, limits, strict=True)))
    return dataclasses.replace(case, limits=both, comparable=True)


def optimum(case) -> float:
    """Return the most saliency that any widths within the limits keep."""
    scores = comparable(case)
    return max(
        kept_saliency(scores, np.array(found))
        for found in itertools.product(*(levels.tolist() for levels in case.levels))
        if case.fits(np.array(found))
    )


@settings(deadline=None)
@given(odd_problems())
def test_stairs_keep_what_the_most_salient_atoms_are_worth(case):
    stairs = Stairs(case)
    scores = comparable(case)
    for found in (case.narrowest, case.widest):
        assert stairs.kept(found) == pytest.approx(kept_saliency(scores, found))
    gained = sum(sum(gains) for gains in stairs.gains)
    assert gained == pytest.approx(stairs.kept(case.widest) - stairs.kept(case.narrowest))


@settings(deadline=None)
@given(odd_problems())
def test_trimming_ends_within_the_limits_and_with_a_step_that_was_needed(case):
    trimmed = trim(case, case.widest)
    assert case.fits(trimmed)
    assert (trimmed >= case.narrowest).all()
    if case.fits(case.widest):
        assert trimmed.tolist() == case.widest.tolist()
    else:  # taking the last step back exceeds a limit
        back = [
            np.where(np.arange(len(trimmed)) == group, levels[levels > trimmed[group]][0], trimmed)
            for group, levels in enumerate(case.levels)
            if trimmed[group] < levels[-1]
        ]
        assert any(not case.fits(wider) for wider in back)


@settings(deadline=None)
@given(problems(largest=120))
def test_few_steps_are_evaluated_again(case):
    trimmed = trim(case, case.widest)
    steps = sum(
        len(levels) - 1 - int(np.searchsorted(levels, width))
        for levels, width in zip(case.levels, trimmed, strict=True)
    )
    assert case.limits[0].cost.changes <= 3 * (steps + len(case.levels))


def test_the_least_loss_per_saving_goes_first():
    case = separate([[1, 4]], [np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0])], [17])
    assert trim(case, np.array([4, 4])).tolist() == [4, 3]  # 1 for 4 before 1 for 1
    tighter = separate([[1, 4]], [np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0])], [12])
    assert trim(tighter, np.array([4, 4])).tolist() == [4, 2]


def test_only_savings_in_exceeded_limits_count():
    """A group that saves much of what is not scarce stays."""
    case = separate([[1, 2], [100, 0]], [np.ones(4), 1.5 * np.ones(4)], [8, 1000])
    assert trim(case, np.array([4, 4])).tolist() == [4, 2]


def test_steps_that_save_nothing_come_last():
    case = separate([[0, 1]], [0.01 * np.ones(4), np.ones(4)], [2])
    assert trim(case, np.array([4, 4])).tolist() == [4, 2]


def test_of_equal_steps_the_last_group_goes():
    case = separate([[1, 1, 1]], [np.ones(4)] * 3, [10])
    assert trim(case, np.array([4, 4, 4])).tolist() == [4, 4, 2]


def test_trimming_stops_where_it_is_told():
    case = separate([[1, 1]], [np.ones(4), np.ones(4)], [5])
    assert trim(case, np.array([4, 4]), narrowest=np.array([1, 4])).tolist() == [1, 4]
    with pytest.raises(InternalError, match="even the narrowest levels exceed a limit"):
        trim(case, np.array([4, 4]), narrowest=np.array([2, 4]))
    with pytest.raises(InternalError, match="5 is not an allowed width of group 'g001'"):
        trim(case, np.array([4, 5]))


def test_filling_stops_where_it_is_told():
    case = separate([[1, 1]], [np.ones(4), np.ones(4)], [6])
    assert fill(case, np.array([1, 1]), widest=np.array([2, 4])).tolist() == [2, 4]


def test_an_exchange_mends_what_greedy_steps_get_wrong():
    """The best value per price leaves room that nothing fits in; two steps of another group use all of it."""
    case = separate([[3, 2]], [np.array([3.3]), np.array([2.0, 2.0])], [4])
    case = dataclasses.replace(case, levels=(np.array([0, 1]), np.array([0, 1, 2])))
    greedy = fill(case, np.array([0, 0]))
    assert greedy.tolist() == [1, 0]
    assert exchange(case, greedy, 3)[0].tolist() == [0, 2]
    assert exchange(case, greedy, 0) == (greedy, 0)


@settings(deadline=None)
@given(odd_problems())
def test_exchanges_only_gain(case):
    start = fill(case, trim(case, case.widest))
    found, count = exchange(case, start, 2)
    scores = comparable(case)
    gain = kept_saliency(scores, found) - kept_saliency(scores, start)
    assert case.fits(found)
    assert gain > 0 if count else found is start


@settings(deadline=None)
@given(odd_problems())
def test_greedy_keeps_at_least_what_adding_or_removing_alone_keeps(case):
    scores = comparable(case)
    found = kept_saliency(scores, solve(case).widths)
    for plain in (fill(case, case.narrowest), fill(case, trim(case, case.widest))):
        assert found >= kept_saliency(scores, plain) - 1e-9 * abs(found)


def test_greedy_is_close_to_the_optimum():
    gaps = []
    for seed in range(25):
        case = problem([9, 12, 7, 10], share=0.35 + 0.02 * (seed % 15), round_to=2, seed=seed)
        best = optimum(case)
        gaps.append(1 - kept_saliency(comparable(case), solve(case).widths) / best)
    assert min(gaps) > -1e-9
    assert max(gaps) < 0.05
    assert np.mean(gaps) < 0.005


def test_settings_of_greedy():
    case = problem([9, 12, 7, 10])
    plain = solve(case, rounds=0)
    assert [record["stage"] for record in plain.trace] == ["from the top", "from the bottom", "exchange", "fill"]
    assert plain.trace[2]["exchanges"] == 0
    with pytest.raises(UsageError, match="'rounds' is -1"):
        solve(case, rounds=-1)
    with pytest.raises(UsageError, match="'normalize' cannot be ''"):
        solve(case, normalize="")

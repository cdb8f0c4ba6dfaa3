# SPDX-License-Identifier: Apache-2.0
"""Solvers that look at samples keep what all solvers promise, and do what their methods say."""

from __future__ import annotations

import itertools
import json

import bound_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_outcomes import with_evidence
from solver_cases import limited, odd_problems, problem, problems

from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.solvers import widths
from graphprune.solvers.moves.allocation import allocate
from graphprune.solvers.protocols.outcomes import Profile
from graphprune.solvers.widths._knapsack import choose
from graphprune.solvers.widths._profiles import errors_at_levels, kept_at, narrowed, starting

SOLVERS = tuple(name for name in widths.names() if widths.needs_samples(name))


def test_there_are_some():
    assert set(SOLVERS) == {"cap", "sensitivity", "stage-wise"}
    assert not widths.needs_samples("uniform")


@pytest.mark.parametrize("name", SOLVERS)
@settings(deadline=None, max_examples=15)
@given(case=st.one_of(problems(12), odd_problems(10)), data=st.data())
def test_no_budget_is_exceeded_and_no_step_is_left(name, case, data):
    groups = len(case.sizes)
    unknown = data.draw(st.frozensets(st.integers(0, groups - 1)))
    streams = tuple(data.draw(st.lists(st.booleans(), min_size=groups, max_size=groups)))
    stages = tuple(data.draw(st.lists(st.integers(-1, 2), min_size=groups, max_size=groups)))
    case = with_evidence(case, unknown=unknown, streams=streams, stages=stages)
    solution = widths.get(name)(case)
    assert case.fits(solution.widths)
    for group, (width, levels) in enumerate(zip(solution.widths, case.levels, strict=True)):
        assert width in levels
        for above in levels[levels > width][:1]:
            wider = solution.widths.copy()
            wider[group] = above
            assert not case.fits(wider)
    assert solution.kept is not None
    for atoms, width, start in zip(solution.kept, solution.widths, starting(case), strict=True):
        assert len(atoms) == width
        assert (np.diff(atoms) > 0).all()
        assert set(atoms.tolist()) <= set(start.tolist())
    assert json.loads(json.dumps(solution.trace)) == solution.trace
    assert solution.trace[-1] == {"stage": "fill", "cost": case.cost(solution.widths)}
    again = widths.get(name)(case)
    assert again.widths.tolist() == solution.widths.tolist() and again.trace == solution.trace


@pytest.mark.parametrize("name", SOLVERS)
def test_the_ends(name):
    whole = widths.get(name)(with_evidence(problem([7, 20, 33], share=1.0)))
    assert whole.widths.tolist() == [7, 20, 33]
    case = problem([7, 20, 33])
    least = with_evidence(limited(case, case.cost(case.narrowest)))
    assert widths.get(name)(least).widths.tolist() == [1, 1, 1]
    with pytest.raises(BudgetUnreachableError, match="the smallest reachable is"):
        widths.get(name)(with_evidence(limited(case, case.cost(case.narrowest) - 1)))


@pytest.mark.parametrize("name", SOLVERS)
def test_without_samples_it_says_how_to_give_some(name):
    with pytest.raises(UsageError, match=f"'{name}' looks at samples") as raised:
        widths.get(name)(problem([7, 20]))
    assert "--calib" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sensitivity", {"stages": 0}),
        ("sensitivity", {"measured": -1}),
        ("sensitivity", {"measure": "some"}),
        ("sensitivity", {"streams": "some"}),
        ("cap", {"trials": 0}),
        ("cap", {"passes": 0}),
        ("stage-wise", {"candidates": 1}),
    ],
)
def test_settings_without_a_meaning_are_refused(name, wrong):
    with pytest.raises(UsageError):
        widths.get(name)(with_evidence(problem([7, 20])), **wrong)


@settings(deadline=None, max_examples=40)
@given(case=bound_cases.problems(), seed=st.integers(0, 1000))
def test_allocation_is_the_best_there_is(case, seed):
    rng = np.random.default_rng(seed)
    errors = [np.append(np.sort(rng.exponential(size=len(levels) - 1))[::-1], 0.0) for levels in case.levels]

    def total(chosen):
        each = zip(errors, case.levels, chosen, strict=True)
        return sum(own[np.searchsorted(levels, width)] for own, levels, width in each)

    found = allocate(case, errors)
    assert case.fits(found)
    assert total(found) <= min(map(total, bound_cases.all_widths(case))) + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_allocation_is_good_where_a_cost_does_not_say_what_it_is_made_of(seed):
    rng, case = np.random.default_rng(seed), problem([5, 6, 4, 5], share=0.5, seed=seed)
    errors = [np.append(np.sort(rng.exponential(size=len(levels) - 1))[::-1], 0.0) for levels in case.levels]

    def total(chosen):
        return sum(own[width - 1] for own, width in zip(errors, chosen, strict=True))

    found = allocate(case, errors)
    assert case.fits(found)
    assert total(found) <= 1.1 * min(map(total, bound_cases.all_widths(case)))


def test_sensitivity_keeps_the_atoms_that_matter():
    case = with_evidence(problem([8, 16, 12], share=0.5))
    found = widths.get("sensitivity")(case, stages=3)
    for atoms, weights in zip(found.kept, case.evidence.outcomes.weights, strict=True):
        assert weights[atoms].min() >= np.delete(weights, atoms).max(initial=0)


def test_sensitivity_tries_streams_both_ways_and_takes_the_better_one():
    case = with_evidence(problem([8, 16, 12], share=0.5), streams=(True, False, False))
    without = widths.get("sensitivity")(case, streams="no")
    assert without.widths[0] == 8 and not case.evidence.outcomes.realised
    free = widths.get("sensitivity")(case, streams="yes")
    tried = widths.get("sensitivity")(case, stages=1, streams="try")
    made = case.evidence.outcomes
    assert made.error(tried.kept) <= min(made.error(without.kept), made.error(free.kept)) + 1e-9
    assert [entry["streams"] for entry in tried.trace[:-1]] == [False, True]
    # Where the budget cannot do without them, streams get narrower whatever was said.
    tight = with_evidence(
        limited(problem([8, 16, 12]), case.limits[0].cost(np.array([4, 1, 1]))), streams=case.evidence.outcomes.streams
    )
    assert widths.get("sensitivity")(tight, streams="no").widths[0] < 8


def test_a_group_that_cannot_be_measured_is_as_sensitive_as_the_most_sensitive_one():
    case = problem([8, 8, 8])
    curves = (np.linspace(4, 0, 8), np.linspace(1, 0, 8))
    measured = [Profile(np.arange(8), np.arange(1, 9), curve) for curve in curves]
    errors = errors_at_levels(case, [measured[0], None, measured[1]])
    assert (errors[1] >= np.maximum(errors[0], errors[2]) - 1e-9).all()
    assert errors[1][-1] == 0
    kept = kept_at(case, starting(case), [measured[0], None, measured[1]], np.array([3, 3, 8]))
    assert kept[0].tolist() == [5, 6, 7]
    assert kept[1].tolist() == np.sort(np.argsort(-case.scores[1])[:3]).tolist()
    nobody = errors_at_levels(case, [None, None, None])
    assert nobody[0].tolist() == nobody[2].tolist() and (np.diff(nobody[0]) < 0).all()


def test_no_level_above_the_present_width():
    case = problem([8, 8], round_to=4)
    part = narrowed(case, (np.arange(6), np.arange(8)), held=(False, True))
    assert [levels.tolist() for levels in part.levels] == [[4, 6], [8]]


def test_thresholds_of_cap_fall_in_equal_steps():
    case = with_evidence(problem([30, 30, 30], share=0.5))
    found = widths.get("cap")(case, trials=20, passes=8)
    last = [record for record in found.trace if record["stage"] == "pass" and record["cost"] <= case.limits[0].limit]
    tolerance = min(record["tolerance"] for record in last)
    outcomes = case.evidence.outcomes
    outcomes.scores.clear()
    chosen = {}

    def threshold(group, profile, score):
        passing = [width for width in range(1, 31) if score(width) >= 1 - tolerance * (group + 1) / 3]
        chosen[group] = min(passing)
        return chosen[group]

    outcomes.go_forward(starting(case), threshold)
    # Filling spends what the best tolerance leaves of the budget, so widths are at least those of the search.
    assert (found.widths >= np.array([chosen[group] for group in range(3)])).all()
    assert case.cost(found.widths) >= min(record["cost"] for record in last)


def test_cap_gives_groups_that_it_cannot_measure_the_share_of_the_others():
    case = with_evidence(problem([30, 30, 30], share=0.5), unknown=frozenset({1}))
    found = widths.get("cap")(case)
    assert 1 <= found.widths[1] < 30
    for name in SOLVERS:
        blind = widths.get(name)(with_evidence(problem([30, 30, 30]), unknown=frozenset({0, 1, 2})))
        assert blind.widths.min() >= 8  # nothing is known, so nobody vanishes


@pytest.mark.parametrize("seed", range(5))
def test_the_knapsack_is_solved_exactly(seed):
    rng = np.random.default_rng(seed)
    errors = [rng.exponential(size=5) for _ in range(3)]
    costs = [rng.integers(1, 10**6, (5, 2)).astype(float) for _ in range(3)]
    least = np.inf
    for room in (0.5e6, 1e6, 1.5e6, 2e6, 4e6):
        allowed = np.array([room, 1.2 * room])
        every = [
            (sum(own[at] for own, at in zip(errors, picked, strict=True)), picked)
            for picked in itertools.product(range(5), repeat=3)
            if (sum(own[at] for own, at in zip(costs, picked, strict=True)) <= allowed).all()
        ]
        found = choose(errors, costs, allowed)
        if not every:
            assert found is None
            continue
        assert found is not None
        total = sum(own[at] for own, at in zip(errors, found, strict=True))
        assert total == pytest.approx(min(every)[0])
        assert total <= least + 1e-12  # more room never costs more
        least = total


def test_no_class_at_all():
    assert choose([], [], np.array([0.0])) == []
    assert choose([], [], np.array([-1.0])) is None


def test_groups_between_stages_share_one_width_and_the_best_share_wins():
    case = with_evidence(problem([16, 16, 16], share=0.5), stages=(0, -1, 1))
    found = widths.get("stage-wise")(case)
    records = [record for record in found.trace if record["stage"] == "knapsack"]
    assert records and [record["error"] for record in records] == sorted(
        (record["error"] for record in records), reverse=True
    )
    counts = [record["candidates"] for record in found.trace if "candidates" in record]
    assert len(counts) == 2 and all(8 <= count <= 16 for count in counts)  # equal ones count once


@pytest.mark.parametrize("name", ["sensitivity", "cap", "stage-wise"])
def test_a_solver_says_of_which_groups_it_chose_the_atoms(name):
    case = with_evidence(problem([8, 16, 12], share=0.5), unknown=frozenset({1}))
    found = widths.get(name)(case)
    assert found.chosen_by == ("backward elimination", "", "backward elimination")

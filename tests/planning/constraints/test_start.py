# SPDX-License-Identifier: Apache-2.0
"""Starting from a plan: what it removes goes first, its widths are filled up or narrowed, and the result is maximal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from constraint_cases import analysis, plan, widths
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_cases import limited, problem, problems

from graphprune.errors import PlanError
from graphprune.plan.schema import digest
from graphprune.planning.constraints.start import ranked, solve_from
from graphprune.solvers.problem import Problem, Solution
from graphprune.solvers.saliency import select
from graphprune.solvers.widths import bisection, uniform


def stays(widths: list[int], case: Problem) -> tuple[np.ndarray, ...]:
    """Keep the least salient atoms, the opposite of what the scores say."""
    return tuple(
        np.isin(np.arange(len(scores)), select(-scores, width))
        for width, scores in zip(widths, case.scores, strict=True)
    )


def start(case: Problem, keep: tuple[np.ndarray, ...]) -> Problem:
    return replace(case, scores=ranked(case.scores, keep))


@st.composite
def started(draw: st.DrawFn) -> tuple[Problem, tuple[np.ndarray, ...]]:
    case = draw(problems())
    keep = stays([draw(st.integers(1, int(size))) for size in case.sizes], case)
    return start(case, keep), keep


@given(started(), st.sampled_from([uniform.solve, bisection.solve]))
@settings(max_examples=60, deadline=None)
def test_within_the_limits_maximal_and_ranked_by_the_plan(case: tuple[Problem, tuple[np.ndarray, ...]], solve) -> None:  # type: ignore[no-untyped-def]
    given_problem, keep = case
    found = solve_from(given_problem, keep, solve)
    assert given_problem.fits(found.widths)
    assert found.kept is not None
    for group, (levels, width) in enumerate(zip(given_problem.levels, found.widths.tolist(), strict=True)):
        assert width in levels
        for wider in levels[levels > width][:1]:
            grown = found.widths.copy()
            grown[group] = wider
            assert not given_problem.fits(grown)
        kept = np.isin(np.arange(len(keep[group])), found.kept[group])
        assert kept.sum() == width
        assert (kept & ~keep[group]).any() <= bool((kept >= keep[group]).all())  # others only once all of the plan stay


def test_a_plan_that_costs_less_is_filled_up() -> None:
    case = problem([12, 20, 16], share=0.6)
    keep = stays([6, 7, 8], case)
    found = solve_from(start(case, keep), keep, never)
    assert (found.widths >= [6, 7, 8]).all() and found.widths.sum() > 21
    assert [step["stage"] for step in found.trace] == ["start", "fill"]


def never(_: Problem) -> Solution:
    raise AssertionError("a plan that costs less needs no solver")


def test_a_plan_that_costs_more_is_narrowed() -> None:
    case = problem([12, 20, 16], share=0.2)
    keep = stays([12, 6, 16], case)
    seen = []

    def watched(given_problem: Problem) -> Solution:
        seen.append(given_problem)
        return uniform.solve(given_problem)

    found = solve_from(start(case, keep), keep, watched)
    assert [levels[-1] for levels in seen[0].levels] == [12, 6, 16]
    assert found.widths[1] <= 6 or case.cost(np.array([12, 6, 16])) <= case.limits[0].limit
    assert found.trace[0]["stage"] == "start" and found.trace[-1]["stage"] == "fill"


def test_a_width_below_every_level_starts_at_the_narrowest() -> None:
    case = problem([16, 16], share=0.9, round_to=8)
    keep = stays([3, 16], case)
    found = solve_from(start(case, keep), keep, uniform.solve)
    assert found.widths[0] in (8, 16)
    tight = limited(case, case.cost(case.narrowest))
    assert solve_from(start(tight, keep), keep, uniform.solve).widths.tolist() == [8, 8]


def test_what_a_solver_chose_comes_before_other_atoms_of_the_plan() -> None:
    case = problem([8], share=0.5)
    keep = (np.array([True] * 6 + [False] * 2),)

    def chooses(_: Problem) -> Solution:
        return Solution(np.array([2]), [], kept=(np.array([5, 7]),))

    found = solve_from(limited(start(case, keep), case.cost(np.array([3]))), keep, chooses)
    assert found.kept is not None
    assert 5 in found.kept[0] and 7 not in found.kept[0] and len(found.kept[0]) == 3


@pytest.mark.parametrize(
    "scores", [[5.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, 5.0, -3.0], [0.0, 1e-300, 1e300, 2.0]]
)
def test_scores_of_what_goes_rank_below_and_keep_their_order(scores: list[float]) -> None:
    values, stay = np.array(scores), np.array([False, True, False, True])
    (found,) = ranked([values], (stay,))
    assert found[~stay].max() < found[stay].min()
    assert (found[stay] == values[stay]).all()
    assert (np.argsort(found[~stay], kind="stable") == np.argsort(values[~stay], kind="stable")).all()
    assert (ranked([values], (np.ones(4, dtype=bool),))[0] == values).all()


def test_a_plan_from_a_plan_through_the_api() -> None:
    first = plan(0.5)
    for share in (0.3, 0.8):
        found = plan(share, criterion="random", start=first)
        assert found.budget.after <= found.budget.limit
        assert found.solver.options["constraints"] == {"from": digest(first)}
        for before, after in zip(first.groups, found.groups, strict=True):
            assert set(after.kept) <= set(before.kept) or set(after.kept) >= set(before.kept)
    assert widths(plan(0.8, start=first)).sum() > widths(first).sum()


def test_a_plan_of_another_model_is_refused() -> None:
    first = plan(0.5)
    other = replace(first, model=replace(first.model, sha256="0" * 64))
    assert plan(0.4, start=other).budget.after  # another checkpoint of the same structure will do
    strange = replace(other, solver=replace(other.solver, options={}))
    with pytest.raises(PlanError, match="was made for another model"):
        plan(0.4, start=strange)
    with pytest.raises(PlanError, match="the groups of the plan"):
        plan(0.4, start=replace(first, groups=first.groups[:-1]))
    assert analysis().groups

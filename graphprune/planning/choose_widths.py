# SPDX-License-Identifier: Apache-2.0
"""Choosing widths: the problem of a planning task, what a solver makes of it, and which groups go as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.latency.efficiency import efficiency
from graphprune.planning.constraints.bounds import Bounds
from graphprune.planning.constraints.reach import unreachable
from graphprune.planning.constraints.start import kept_by, solve_from
from graphprune.planning.emptying import best_attempt, measured_attempt
from graphprune.planning.planning_task import LimitedCost, PlanningTask
from graphprune.planning.solve_options import SolveOptions
from graphprune.solvers import widths
from graphprune.solvers.filters import coupled_filters
from graphprune.solvers.problem import Limit, Problem, Solution, ensure_sound
from graphprune.solvers.saliency import Scores, importance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints

    Solve = Callable[[Problem], Solution]

__all__ = ["ChosenWidths", "check_reachable", "choose_widths"]


@dataclass(frozen=True, eq=False)
class ChosenWidths:
    """How wide every group is to be.

    Attributes
    ----------
    problem : Problem
        That was solved.
    solution : Solution
    start : Analysis
        Of the graph without the groups that go as a whole; that of the original where none does.
    spent : tuple of int
        What each budget counts after pruning.
    relaxed : bool
        Whether the allowed widths were relaxed to reach the budgets.
    emptied : frozenset of int
        Groups that go as a whole.
    """

    problem: Problem
    solution: Solution
    start: Analysis
    spent: tuple[int, ...]
    relaxed: bool
    emptied: frozenset[int] = frozenset()


def choose_widths(task: PlanningTask, solve: Solve) -> ChosenWidths:
    """Choose widths so that all budgets hold and no further step of any group fits into them.

    Parameters
    ----------
    task : PlanningTask
    solve : callable
        A width solver with its settings.

    Raises
    ------
    BudgetUnreachableError
        If even the narrowest allowed widths cost more.
    """
    problem, relaxed = _whole_problem(task)
    find = partial(_solution, task, solve)
    chosen = _with_emptied(task, problem, find, relaxed=relaxed) if task.options.allow_empty else None
    if chosen is None:
        _check_fits(task, problem)
        solution = find(problem)
        spent = tuple(budget.cost.after(solution.widths) for budget in task.budgets)
        chosen = ChosenWidths(problem, solution, task.analysis, spent, relaxed)
    ensure_sound(chosen.problem, chosen.solution, task.options.solver)
    return chosen


def check_reachable(analysis: Analysis, budgets: Sequence[LimitedCost], options: SolveOptions) -> None:
    """Refuse constraints that mean nothing and budgets that no widths meet, before anything is known of saliencies.

    Raises
    ------
    UsageError
        If a constraint names no group, or allows no width.
    BudgetUnreachableError
        If even the narrowest allowed widths cost more, and no group may go as a whole.
    """
    if options.allow_empty or not budgets:
        Bounds(analysis, options.rules)
        return
    alike = Scores(tuple(np.ones(group.size) for group in analysis.groups), ("",) * len(analysis.groups))
    task = PlanningTask(analysis, tuple(budgets), options, alike, None)
    _check_fits(task, _whole_problem(task, rated=False)[0])


def _check_fits(task: PlanningTask, problem: Problem) -> None:
    if not problem.fits(problem.narrowest):
        requests = [budget.request for budget in task.budgets]
        raise unreachable(task.analysis, problem, requests, task.options.rules)


def _with_emptied(task: PlanningTask, whole: Problem, find: Solve, *, relaxed: bool) -> ChosenWidths | None:
    """Choose which groups go as a whole, and the widths of the others; None where nothing meets the budgets."""
    attempted = measured_attempt if widths.needs_samples(task.options.solver) else best_attempt
    best = attempted(task.analysis, whole, partial(_rest_problem, task), find)
    if best is None:
        return None
    found = best.solution.widths
    spent = best.problem.costs(found) if best.emptied else tuple(budget.cost.after(found) for budget in task.budgets)
    return ChosenWidths(best.problem, best.solution, best.rest, spent, relaxed, best.emptied)


def _whole_problem(task: PlanningTask, *, rated: bool = True) -> tuple[Problem, bool]:
    """Return the problem in which no group goes as a whole, and whether its levels were relaxed."""
    return _problem(task, _limits(task, Bounds(task.analysis, task.options.rules).levels()), rated=rated)


def _rest_problem(task: PlanningTask, start: Analysis, emptied: frozenset[int]) -> Problem:
    """Return the problem in which some groups are empty, with the limits on what is left of the graph."""
    problem, _ = _problem(task, tuple(budget.on_rest(start) for budget in task.budgets), emptied)
    return problem


def _limits(task: PlanningTask, levels: tuple[Ints, ...]) -> tuple[Limit, ...]:
    """Return the limits, on costs that are those of the original at full width if all limits allow that.

    The written size of a pruned model is bounded from above, which would not let the model stay as it is.
    """
    sizes = task.analysis.cost.sizes
    allowed = all(own[-1] == size for own, size in zip(levels, sizes, strict=True))
    fits = all(budget.cost.before <= budget.limit for budget in task.budgets)
    return tuple(budget.as_limit(exact_whole=allowed and fits) for budget in task.budgets)


def _problem(
    task: PlanningTask, limits: tuple[Limit, ...], emptied: frozenset[int] = frozenset(), *, rated: bool = True
) -> tuple[Problem, bool]:
    """Return the problem to solve, and whether its levels were relaxed to reach the budgets.

    Parameters
    ----------
    emptied : frozenset of int
        Groups whose width is given: nothing.
    rated : bool
        Whether it is solved, so that it matters which groups cost more time than others.
    """
    analysis, scores, options = task.analysis, task.scores, task.options
    nothing = np.zeros(1, dtype=np.int64)
    bounds = Bounds(analysis, options.rules)
    rates = efficiency(analysis) if rated and isinstance(options.round_to, str) else None
    for relaxed in (False, True):
        problem = Problem(
            groups=tuple(group.id for group in analysis.groups),
            sizes=analysis.cost.sizes,
            scores=task.ranked(scores.per_group),
            importance=importance(scores),
            limits=limits,
            levels=tuple(
                nothing if number in emptied else levels for number, levels in enumerate(bounds.levels(relaxed=relaxed))
            ),
            seed=options.seed,
            filters=lambda index: coupled_filters(analysis.groups[index], analysis.read),
            comparable=scores.comparable,
            efficiency=rates,
            evidence=task.evidence,
        )
        if problem.fits(problem.narrowest):
            break
    return problem, relaxed


def _solution(task: PlanningTask, solve: Solve, problem: Problem) -> Solution:
    """Solve a problem, from a given plan if there is one."""
    start = task.options.constraints.start
    return solve(problem) if start is None else solve_from(problem, kept_by(task.analysis, start), solve)

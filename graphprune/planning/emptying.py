# SPDX-License-Identifier: Apache-2.0
"""Planning with groups that may go as a whole (`--allow-empty`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UnsupportedModelError
from graphprune.planning.bundles import close, find_bundles
from graphprune.planning.emptying_search import Attempt, filled, search
from graphprune.rewrites.shorten import shorten
from graphprune.solvers.saliency import comparable

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.solvers.problem import Problem, Solution

__all__ = ["EmptyingAttempt", "best_attempt", "measured_attempt"]

EmptyingAttempt = Attempt["Analysis"]
"""What a solver makes of the groups that are left, and the graph without the others."""
Solve = Callable[["Problem"], "Solution"]
Build = Callable[["Analysis", frozenset[int]], "Problem"]


def best_attempt(analysis: Analysis, whole: Problem, build: Build, solve: Solve) -> EmptyingAttempt | None:
    """Return the best plan with whole groups removed; None where no one meets the budgets.

    Parameters
    ----------
    whole : Problem
        Without empty groups; groups that have a given width there are never emptied.
    build : callable
        Gives the problem in which these groups are empty, from the analysis of the graph without them.
    solve : callable
        A width solver.
    """
    attempts = _Attempts(analysis, whole, build, solve)
    return search(sorted(_bundles(analysis, whole), key=partial(_loss, whole)), attempts.attempt, attempts.fits)


def measured_attempt(analysis: Analysis, whole: Problem, build: Build, solve: Solve) -> EmptyingAttempt | None:
    """Return a plan without the groups that a solver lets go; None where nothing meets the budgets.

    To the solver, nothing is a width like any other: one group of each bundle may take it. Which groups go is what it
    says; then it solves what is left of the network, whose costs are those of the graph without them.

    Parameters
    ----------
    whole, build
        As for :func:`best_attempt`.
    solve : callable
        A width solver that measures how much an empty group loses.
    """
    attempts = _Attempts(analysis, whole, build, solve)
    offered = {max(bundle, key=partial(_saved, whole)): bundle for bundle in _bundles(analysis, whole)}
    levels = tuple(
        np.insert(own, 0, 0) if group in offered and own[0] > 0 else own for group, own in enumerate(whole.levels)
    )
    free = replace(whole, levels=levels)
    if not free.fits(free.narrowest):  # only without more groups than one of each bundle
        return best_attempt(analysis, whole, build, solve)
    solution = solve(free)
    gone = [bundle for group, bundle in offered.items() if not solution.widths[group]]
    if not gone:
        return Attempt(frozenset(), whole, solution, _saliency(whole, solution), analysis)
    left = attempts.attempt(frozenset().union(*gone))
    return None if left is None else filled(sorted(gone, key=sorted), left, attempts.attempt, attempts.fits)


def _bundles(analysis: Analysis, whole: Problem) -> set[frozenset[int]]:
    """Return the groups that may go, each with those that go with it."""
    free = {number for number, levels in enumerate(whole.levels) if len(levels) > 1}
    return {bundle for bundle in find_bundles(analysis).values() if bundle <= free}


class _Attempts:
    """What a solver makes of the groups that are left, for any that are emptied."""

    def __init__(self, analysis: Analysis, whole: Problem, build: Build, solve: Solve) -> None:
        self._analysis = analysis
        self._whole = whole
        self._build = build
        self._solve = solve
        self._known: dict[frozenset[int], Problem | None] = {frozenset(): whole}
        self._starts: dict[frozenset[int], Analysis] = {frozenset(): analysis}

    def _problem(self, emptied: frozenset[int]) -> Problem | None:
        """Return what is left to solve; None where these groups cannot go."""
        if emptied not in self._known:
            self._known[emptied] = None
            start = _start(self._analysis, emptied)
            if start is not None:
                self._starts[emptied] = start
                self._known[emptied] = self._build(start, emptied)
        return self._known[emptied]

    def attempt(self, emptied: frozenset[int]) -> EmptyingAttempt | None:
        """Solve without some groups; None where they cannot go or the budgets are not met."""
        rest = self._problem(emptied)
        if rest is None or not rest.fits(rest.narrowest):
            return None
        solution = self._solve(rest)
        return Attempt(emptied, rest, solution, _saliency(rest, solution), self._starts[emptied])

    def fits(self, emptied: frozenset[int], now: EmptyingAttempt) -> bool:
        """Whether the widths of an attempt, with fewer groups emptied and these narrowest, meet the budgets."""
        whole = self._whole
        back = list(now.emptied - emptied)
        widths = now.solution.widths.copy()
        widths[back] = whole.narrowest[back]
        if self._analysis.cost.flops(widths) > min(
            (limit.limit for limit in whole.limits if limit.metric == "flops"), default=np.iinfo(np.int64).max
        ):
            return False  # layers that vanish cost no FLOPs, so this needs no look at the graph without them
        rest = self._problem(emptied)
        return rest is not None and rest.fits(widths)


def _start(analysis: Analysis, emptied: frozenset[int]) -> Analysis | None:
    """Return the graph without some groups, None where that is impossible."""
    closed, effects = close(analysis, emptied)
    if effects.why or closed != emptied:
        return None
    keep = ~np.isin(analysis.grouping.group_of, list(emptied))
    try:
        return shorten(analysis, keep, effects).analysis
    except UnsupportedModelError:
        return None


def _saved(whole: Problem, group: int) -> float:
    """Return what emptying a single group saves at least."""
    widths = whole.sizes.copy()
    widths[group] = 0
    return whole.price([a - b for a, b in zip(whole.costs(whole.sizes), whole.costs(widths), strict=True)])


def _loss(whole: Problem, bundle: frozenset[int]) -> tuple[float, Sequence[int]]:
    """Return the saliency that emptying loses per unit of cost that it saves."""
    widths = whole.sizes.copy()
    widths[list(bundle)] = 0
    saved = whole.price([a - b for a, b in zip(whole.costs(whole.sizes), whole.costs(widths), strict=True)])
    scores = comparable(whole).scores
    lost = float(sum(scores[number].sum() for number in bundle))
    return (lost / saved if saved > 0 else np.inf), sorted(bundle)


def _saliency(problem: Problem, solution: Solution) -> float:
    """Return the saliency that stays, on one scale for all groups."""
    scores = comparable(problem).scores
    if solution.kept is not None:
        return float(sum(values[kept].sum() for values, kept in zip(scores, solution.kept, strict=True)))
    return float(sum(-np.sort(-values)[:width].sum() for values, width in zip(scores, solution.widths, strict=True)))

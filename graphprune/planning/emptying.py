# SPDX-License-Identifier: Apache-2.0
"""Planning with groups that may go as a whole (`--allow-empty`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.metrics import model_cost
from graphprune.errors import UnsupportedModelError
from graphprune.planning.bundles import close, find_bundles
from graphprune.planning.emptying_search import Attempt, search
from graphprune.rewrites.shorten import shorten
from graphprune.solvers.saliency import comparable

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.solvers.problem import Limit, Problem, Solution

__all__ = ["EmptyingAttempt", "best_attempt"]

EmptyingAttempt = Attempt["Analysis"]
"""What a solver makes of the groups that are left, and the graph without the others."""
Solve = Callable[["Problem"], "Solution"]


def best_attempt(
    analysis: Analysis, whole: Problem, build: Callable[[tuple[Limit, ...], frozenset[int]], Problem], solve: Solve
) -> EmptyingAttempt | None:
    """Return the best plan with whole groups removed; None where no one meets the budgets.

    Parameters
    ----------
    whole : Problem
        Without empty groups; groups that have a given width there are never emptied.
    build : callable
        Gives the problem with these limits in which these groups are empty.
    solve : callable
        A width solver.
    """
    free = {number for number, levels in enumerate(whole.levels) if len(levels) > 1}
    bundles = {bundle for bundle in find_bundles(analysis).values() if bundle <= free}
    known: dict[frozenset[int], Problem | None] = {frozenset(): whole}
    starts: dict[frozenset[int], Analysis] = {frozenset(): analysis}

    def problem(emptied: frozenset[int]) -> Problem | None:
        if emptied not in known:
            known[emptied] = None
            start = _start(analysis, emptied)
            if start is not None:
                starts[emptied] = start
                limits = (replace(limit, cost=model_cost(start, limit.metric).written) for limit in whole.limits)
                known[emptied] = build(tuple(limits), emptied)
        return known[emptied]

    def attempt(emptied: frozenset[int]) -> EmptyingAttempt | None:
        rest = problem(emptied)
        if rest is None or not rest.fits(rest.narrowest):
            return None
        solution = solve(rest)
        return Attempt(emptied, rest, solution, _saliency(rest, solution), starts[emptied])

    def fits(emptied: frozenset[int], now: EmptyingAttempt) -> bool:
        back = list(now.emptied - emptied)
        widths = now.solution.widths.copy()
        widths[back] = whole.narrowest[back]
        if analysis.cost.flops(widths) > min(
            (limit.limit for limit in whole.limits if limit.metric == "flops"), default=np.iinfo(np.int64).max
        ):
            return False  # layers that vanish cost no FLOPs, so this needs no look at the graph without them
        rest = problem(emptied)
        return rest is not None and rest.fits(widths)

    return search(sorted(bundles, key=partial(_loss, whole)), attempt, fits)


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

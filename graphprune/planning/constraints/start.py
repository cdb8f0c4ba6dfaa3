# SPDX-License-Identifier: Apache-2.0
"""Starting from a plan: what it removes goes first, and its widths are filled up or narrowed to the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import PlanError, quote
from graphprune.plan.structure import structure_digest
from graphprune.solvers.fill import fill
from graphprune.solvers.problem import Problem, Solution, TraceRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import Plan

    Stays = tuple[npt.NDArray[np.bool_], ...]

__all__ = ["kept_by", "ranked", "solve_from"]

STARTED = "the plan that it started from"
"""By what atoms are chosen then."""

_BELOW = 1 - 2.0**-20


def kept_by(analysis: Analysis, plan: Plan) -> Stays:
    """Return which atoms of each group a plan keeps, bool of shape (size,).

    Raises
    ------
    PlanError
        If the plan was made for another structure, or for other groups of it.
    """
    same = plan.model.sha256 == analysis.model.sha256
    if not same and plan.solver.options.get("structure") != structure_digest(analysis.model.proto):
        raise PlanError(
            f"the plan to start from was made for another model ({quote(plan.model.name)}), "
            f"{quote(analysis.model.name)} has another structure"
        )
    if [(group.id, group.size) for group in plan.groups] != [(group.id, group.size) for group in analysis.groups]:
        raise PlanError(
            "the groups of the plan to start from are not those of this analysis",
            hint="give the --attention and --allow-approximate with which the plan was made",
        )
    per_group = []
    for group in plan.groups:
        stays = np.zeros(group.size, dtype=bool)
        stays[list(group.kept)] = True
        per_group.append(stays)
    return tuple(per_group)


def ranked(scores: Sequence[npt.NDArray[np.float64]], stays: Stays) -> tuple[npt.NDArray[np.float64], ...]:
    """Return scores of the same order, except that in each group what goes ranks below all that stays.

    Positive scores stay positive: those of what goes are scaled down as far as needed. Scores that are not finite
    count as 0.
    """
    return tuple(_ranked(values, stay) for values, stay in zip(scores, stays, strict=True))


def _ranked(scores: npt.NDArray[np.float64], stays: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    known = np.where(np.isfinite(scores), scores, 0.0)
    if stays.all() or not stays.any():
        return known
    least, most = float(known[stays].min()), float(known[~stays].max())
    if most < least:
        return known
    if least > 0:
        lowered = known * np.where(known > 0, least / most * _BELOW, 1.0)
    else:
        lowered = known - (most - least) - max(abs(most), abs(least), 1.0) * (1 - _BELOW)
    return np.where(stays, known, lowered)


def solve_from(problem: Problem, stays: Stays, solve: Callable[[Problem], Solution]) -> Solution:
    """Return widths that start at those of a plan.

    Where the plan's widths, taken down to levels, keep within the limits, they are filled up. Otherwise the solver
    chooses among the levels up to them, and what it leaves of the budget is filled up with all levels. Either way no
    step that fits is left.

    Parameters
    ----------
    problem : Problem
        With scores by :func:`ranked`.
    stays : tuple of ndarray of bool
        Which atoms of each group the plan keeps.
    solve : callable
        A width solver with its settings.
    """
    planned = [int(stay.sum()) for stay in stays]
    capped = tuple(
        levels[: max(1, int(np.searchsorted(levels, width, side="right")))]
        for levels, width in zip(problem.levels, planned, strict=True)
    )
    widths = np.array([levels[-1] for levels in capped], dtype=np.int64)
    start = Solution(widths, [{"stage": "start", "cost": problem.cost(widths)}])
    if not problem.fits(widths):
        narrowed = solve(replace(problem, levels=capped))
        start = replace(narrowed, trace=[*start.trace, *narrowed.trace])
    filled = fill(problem, start.widths)
    trace: list[TraceRecord] = [*start.trace, {"stage": "fill", "cost": problem.cost(filled)}]
    # A bound on the levels up to the plan's says nothing of all levels.
    kept, given = _kept(problem, stays, start, filled), (STARTED,) * len(stays)
    return replace(start, widths=filled, trace=trace, kept=kept, bound=None, chosen_by=given)


def _kept(
    problem: Problem, stays: Stays, solution: Solution, widths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return which atoms stay: of the plan's before others, and among these the solver's before others."""
    kept = []
    for number, (stay, scores, width) in enumerate(zip(stays, problem.scores, widths.tolist(), strict=True)):
        chosen = np.zeros(len(stay), dtype=bool)
        if solution.kept is not None:
            chosen[solution.kept[number]] = True
        order = np.lexsort((-scores, ~chosen, ~stay))
        kept.append(np.sort(order[:width]).astype(np.int64))
    return tuple(kept)

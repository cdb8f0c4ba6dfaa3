# SPDX-License-Identifier: Apache-2.0
"""Greedy: step by step, the group that loses least saliency per cost saved gives up a level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import UsageError
from graphprune.solvers.fill import fill, finish
from graphprune.solvers.moves.exchange import exchange
from graphprune.solvers.moves.trim import trim
from graphprune.solvers.problem import ensure_reachable
from graphprune.solvers.saliency import comparable, kept_saliency
from graphprune.solvers.widths import solver

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, Solution, TraceRecord

__all__ = ["solve"]


@solver("greedy")
def solve(problem: Problem, *, normalize: str = "auto", rounds: int = 3) -> Solution:
    """Remove what loses least saliency per cost saved until the budget holds, then exchange steps while that helps.

    Removing starts from the full widths. Where that keeps less than adding steps to the narrowest ones, the latter is
    where exchanging starts.

    Parameters
    ----------
    problem : Problem
    normalize : {"auto", "mean", "l2", "none"}
        How scores of different groups are brought to one scale: divided by the mean of their group, by its L2 norm, or
        taken as they are. "auto" is the mean, and nothing where the criterion made its scores for comparing.
    rounds : int, at least 0
        How often to try an exchange of every group, at most.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        For any other `normalize`, or negative `rounds`.

    Complexity: about two evaluations of a step's cost for every step, and for every group and round those of two
    fillings and a trimming.
    """
    if rounds < 0:
        raise UsageError(f"the setting 'rounds' is {rounds}, but must not be negative")
    ensure_reachable(problem)
    problem = comparable(problem, normalize)
    trimmed = fill(problem, trim(problem, problem.widest))
    filled = fill(problem, problem.narrowest)
    saliency = [kept_saliency(problem, widths) for widths in (trimmed, filled)]
    widths = trimmed if saliency[0] >= saliency[1] else filled
    trace: list[TraceRecord] = [
        {"stage": stage, "kept": kept, "cost": problem.cost(end)}
        for stage, kept, end in zip(("from the top", "from the bottom"), saliency, (trimmed, filled), strict=True)
    ]
    widths, count = exchange(problem, widths, rounds)
    kept = kept_saliency(problem, widths)
    trace.append({"stage": "exchange", "exchanges": count, "kept": kept, "cost": problem.cost(widths)})
    return finish(problem, widths, trace)

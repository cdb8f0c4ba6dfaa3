# SPDX-License-Identifier: Apache-2.0
"""Integer programming: the widths that keep the most saliency within the budgets, with proof (HiGHS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import UsageError
from graphprune.solvers.problem import Solution, ensure_reachable
from graphprune.solvers.saliency import comparable
from graphprune.solvers.widths import solver

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, TraceRecord

__all__ = ["solve"]


@solver("milp")
def solve(problem: Problem, *, normalize: str = "auto", time_limit: float = 60.0, node_limit: int = 2_000) -> Solution:
    """Return the widths with the largest kept saliency within all limits, and a bound that says how good they are.

    A Lagrangian dual over a tree decomposition of the groups (:mod:`graphprune.solvers.bounds`) gives a bound and good
    widths; what could still be better is left to HiGHS. The node limit ends that repeatably; the time limit, counted
    for HiGHS alone, is for slow machines, and the trace says if it was what ended it.

    Parameters
    ----------
    problem : Problem
    normalize : {"auto", "mean", "l2", "none"}
        How scores of different groups are brought to one scale, see :func:`~graphprune.solvers.saliency.comparable`.
    time_limit : float
        Seconds, more than 0.
    node_limit : int
        Nodes of the search tree of HiGHS, more than 0.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        For limits that are not positive.
    """
    if not (time_limit > 0 and node_limit > 0):
        raise UsageError(f"time_limit and node_limit must be positive, got {time_limit:g} and {node_limit}")
    ensure_reachable(problem)
    from graphprune.solvers.bounds.search import Search

    search = Search(comparable(problem, normalize))
    search.offer(problem.narrowest)
    tree = search.relax()
    if tree is not None and not search.closed:
        search.finish(tree, time_limit, node_limit)
    trace: list[TraceRecord] = [*search.trace, {"stage": "fill", "cost": problem.cost(search.widths)}]
    return Solution(search.widths, trace, bound=search.bound)

# SPDX-License-Identifier: Apache-2.0
"""Global threshold: one ranking of all atoms of all groups, of which the lowest go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.fill import finish
from graphprune.solvers.problem import ensure_reachable
from graphprune.solvers.saliency import comparable
from graphprune.solvers.widths import solver

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem, Solution, TraceRecord

__all__ = ["Ranking", "solve"]


@solver("global")
def solve(problem: Problem, *, normalize: str = "auto") -> Solution:
    """Keep as many of the most salient atoms of the whole network as the budget allows, then fill up.

    Parameters
    ----------
    problem : Problem
    normalize : {"auto", "mean", "l2", "none"}
        How scores of different groups are brought to one scale: divided by the mean of their group, by its L2 norm, or
        taken as they are. "auto" is the mean, and nothing where the criterion made its scores for comparing.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        For any other `normalize`.

    Notes
    -----
    Source: a single threshold for all layers is that of Liu et al., Learning Efficient Convolutional Networks through
    Network Slimming, ICCV 2017, arXiv:1708.06519.

    Complexity: ``ceil(log2(atoms + 1)) + 1`` evaluations of each cost, besides those of the filling.
    """
    smallest = ensure_reachable(problem)
    problem = comparable(problem, normalize)
    ranking = Ranking(problem)
    trace: list[TraceRecord] = [{"stage": "threshold", "kept": 0, "cost": smallest}]
    low, high = 0, ranking.atoms
    while low < high:
        middle = (low + high + 1) // 2
        costs = problem.costs(ranking.widths(middle))
        trace.append({"stage": "threshold", "kept": middle, "cost": costs[0]})
        low, high = (middle, high) if problem.allows(costs) else (low, middle - 1)
    return finish(problem, ranking.widths(low), trace)


class Ranking:
    """All atoms of a problem, the most salient first; of equals the first group's, and in it the first.

    Parameters
    ----------
    problem : Problem
        With scores on one scale.
    """

    def __init__(self, problem: Problem) -> None:
        self._levels = problem.levels
        groups = np.repeat(np.arange(len(problem.sizes)), problem.sizes)
        scores = np.concatenate([np.zeros(0), *problem.scores])
        self._ranked = groups[np.argsort(-scores, kind="stable")]

    @property
    def atoms(self) -> int:
        """How many atoms there are."""
        return len(self._ranked)

    def widths(self, kept: int) -> npt.NDArray[np.int64]:
        """Return the widths, shape (groups,), with the first `kept` atoms left: the next level that holds a group's.

        A group with more than its widest level takes that.
        """
        counts = np.bincount(self._ranked[:kept], minlength=len(self._levels))
        pairs = zip(counts, self._levels, strict=True)
        return np.array(
            [levels[min(int(np.searchsorted(levels, count)), len(levels) - 1)] for count, levels in pairs],
            dtype=np.int64,
        )

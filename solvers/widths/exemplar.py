# SPDX-License-Identifier: Apache-2.0
"""Exemplar: every group keeps the filters that stand for the others, as many as its filters differ (EPruner)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError, NothingToPruneError
from graphprune.solvers.fill import finish
from graphprune.solvers.problem import ensure_reachable
from graphprune.solvers.saliency import select
from graphprune.solvers.widths import solver
from graphprune.solvers.widths._affinity import Exemplars

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem, Solution, TraceRecord

    Atoms = npt.NDArray[np.int64]

__all__ = ["solve"]

_LARGEST = 64.0  # beta at which no group of a real network has more than a few exemplars
_FINEST = 2.0**-10  # of beta, relative: below that, bisection ends


@solver("exemplar")
def solve(problem: Problem, *, precision: float = 0.01) -> Solution:
    """Keep the exemplars of every group, found by clustering its filters, with one `beta` that meets the budget.

    `beta` says how reluctantly a filter becomes an exemplar (`graphprune.solvers.widths._affinity.Exemplars`): at small
    values all do, at large ones none but a few. So it is found by bisection. The number of exemplars is not strictly
    monotone in it, hence the best widths within the limits that were seen are taken, not the last ones.

    A group is as wide as its next level that holds all its exemplars. What the level or the budget leaves is filled
    with the most salient other atoms; where exemplars are more than the widest level, the most salient ones stay. A
    group whose clustering does not converge keeps the exemplars of the next lower `beta`.

    Parameters
    ----------
    problem : Problem
    precision : float, 0 to 1
        The bisection ends where this share of a budget, or less, is left; filling spends it.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    NothingToPruneError
        When the budget asks for less and no weights are known by which atoms could be compared.

    Notes
    -----
    Source: Lin et al., Network Pruning Using Adaptive Exemplar Filters, arXiv:2101.07985, which sets `beta` by hand and
    compares filters of single layers inside residual blocks only.

    Complexity: O(n**2) memory and O(n**2) per iteration for each group of n atoms, at most 2048 of them at a time.
    """
    smallest = ensure_reachable(problem)
    search = _Search(problem)
    best = _best(search, problem, precision)
    if problem.allows(best.costs):
        solution = finish(problem, best.widths, search.trace)
    else:
        search.trace.append({"stage": "narrowest", "cost": smallest})
        solution = finish(problem, problem.narrowest, search.trace)
    return replace(
        solution,
        kept=tuple(
            _kept(scores, exemplars, width)
            for scores, exemplars, width in zip(problem.scores, best.exemplars, solution.widths.tolist(), strict=True)
        ),
        chosen_by=("exemplars",) * len(problem.groups),
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """What a `beta` leads to: the exemplars of each group, levels that hold them, and what these cost."""

    beta: float
    exemplars: tuple[Atoms, ...]
    widths: npt.NDArray[np.int64]
    costs: tuple[int, ...]


def _best(search: _Search, problem: Problem, precision: float) -> _Point:
    """Return the best point within the limits that a bisection meets, or that of the largest `beta` if none is."""
    low = search.whole()
    if problem.allows(low.costs):
        return low
    high = search.at(1.0, low, None)
    while not problem.allows(high.costs) and high.beta < _LARGEST:
        low, high = high, search.at(2 * high.beta, high, None)
    best = high
    if not problem.allows(high.costs):
        return high
    while high.beta - low.beta > _FINEST * high.beta and _spent(problem, best) < 1 - precision:
        middle = search.at((low.beta + high.beta) / 2, low, high)
        if problem.allows(middle.costs):
            high = middle
            best = max(best, middle, key=lambda point: problem.price(point.costs))
        else:
            low = middle
    return best


def _spent(problem: Problem, point: _Point) -> float:
    """Return the largest share of a limit that a point costs."""
    return max(cost / max(1, limit.limit) for cost, limit in zip(point.costs, problem.limits, strict=True))


class _Search:
    """Evaluates values of `beta`, and remembers how that went."""

    def __init__(self, problem: Problem) -> None:
        if problem.filters is None:
            raise InternalError("the problem has no filters to compare")
        self._problem = problem
        self._clusters: list[Exemplars | None] = []
        self.trace: list[TraceRecord] = []

    def whole(self) -> _Point:
        """Return the point of `beta` 0: every filter is an exemplar."""
        return self._point(0.0, [np.arange(size) for size in self._problem.sizes.tolist()], unconverged=0)

    def at(self, beta: float, low: _Point, high: _Point | None) -> _Point:
        """Return the point of a `beta` between those of two points.

        A group that has the same width at both is not clustered again.
        """
        exemplars, unconverged = list((high or low).exemplars), 0
        for group, clusters in enumerate(self._clustered()):
            same = high is not None and low.widths[group] == high.widths[group]
            if clusters is None or same:
                continue
            centres, converged = clusters.at(beta)
            exemplars[group] = centres if converged else low.exemplars[group]
            unconverged += not converged
        return self._point(beta, self._with_the_rest(exemplars), unconverged)

    def _clustered(self) -> list[Exemplars | None]:
        """Return what clusters each group, None for groups without filters; distances are computed once."""
        filters = self._problem.filters
        if not self._clusters and filters is not None:
            for group in range(len(self._problem.sizes)):
                rows = filters(group)
                self._clusters.append(Exemplars(rows, self._problem.seed) if rows.shape[1] else None)
            if not any(self._clusters):
                raise NothingToPruneError(
                    "no weights are known by which channels could be compared", hint="use another --solver"
                )
        return self._clusters

    def _with_the_rest(self, exemplars: list[Atoms]) -> list[Atoms]:
        """Give groups without filters the same share as all others have together, of their most salient atoms."""
        sizes = self._problem.sizes
        known = [group for group, clusters in enumerate(self._clusters) if clusters is not None]
        share = sum(len(exemplars[group]) for group in known) / int(sizes[known].sum())
        return [
            own if clusters is not None else select(scores, max(1, round(share * len(scores))))
            for own, clusters, scores in zip(exemplars, self._clusters, self._problem.scores, strict=True)
        ]

    def _point(self, beta: float, exemplars: list[Atoms], unconverged: int) -> _Point:
        pairs = zip(exemplars, self._problem.levels, strict=True)
        places = [(min(int(np.searchsorted(levels, len(own))), len(levels) - 1), levels) for own, levels in pairs]
        widths = np.array([levels[place] for place, levels in places], dtype=np.int64)
        point = _Point(beta, tuple(exemplars), widths, self._problem.costs(widths))
        count = sum(map(len, exemplars))
        record: TraceRecord = {"stage": "exemplars", "beta": beta, "exemplars": count, "cost": point.costs[0]}
        self.trace.append({**record, "unconverged": unconverged} if unconverged else record)
        return point


def _kept(scores: npt.NDArray[np.float64], exemplars: Atoms, width: int) -> Atoms:
    """Return `width` atoms, ascending: exemplars before others, and of either the most salient ones."""
    if width <= len(exemplars):
        return exemplars[select(scores[exemplars], width)]
    others = np.setdiff1d(np.arange(len(scores)), exemplars)
    return np.sort(np.concatenate([exemplars, others[select(scores[others], width - len(exemplars))]]))

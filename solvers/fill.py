# SPDX-License-Identifier: Apache-2.0
"""Filling: spend what a solver left of the budget, one step of one group at a time, until no step fits."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

from graphprune.errors import InternalError
from graphprune.solvers.moves.stairs import INDIFFERENCE, Stairs
from graphprune.solvers.problem import Solution

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem, TraceRecord

__all__ = ["fill", "finish"]


def fill(
    problem: Problem,
    widths: npt.NDArray[np.int64],
    stairs: Stairs | None = None,
    widest: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return widths of at least `widths` within the budget, from which no group can take its next level.

    Each step goes to the group that gains most saliency per unit of cost (of all limited costs, `Problem.price`).
    Saliency is brought to one scale first (:func:`~graphprune.solvers.saliency.comparable`), so that groups compete
    fairly; of equal steps the group that comes first wins. A step that was best before others were taken is still taken
    if it has become worse than the next by less than 1 %: where all groups share all layers, each step makes all others
    dearer, and exactness would cost 16 times the evaluations.

    Costs never fall when groups grow, so a group whose step does not fit is done for good: what is returned has no
    step left that fits. Where the cost of a step does not fall either when other groups grow, which is true of sums of
    products, an old gain per cost in the queue is an upper bound, and only the head of the queue is evaluated again;
    for other costs the order is that much less exact. (A step of negative saliency may be taken a little early; it is
    last in line anyhow.)

    Parameters
    ----------
    problem : Problem
    widths : ndarray of int64, shape (groups,)
        Each one of its group's levels, together within the limits; not changed.
    stairs : Stairs, optional
        Those of the problem, for callers that fill it many times.
    widest : ndarray of int64, shape (groups,), optional
        The level at which each group stops; by default its widest.

    Returns
    -------
    ndarray of int64, shape (groups,)

    Raises
    ------
    InternalError
        When a width is not a level of its group, or `widths` exceed a limit.
    """
    filling = _Filling(problem, widths, stairs or Stairs(problem), problem.widest if widest is None else widest)
    queue = [step for group in range(len(widths)) if (step := filling.next_step(group))]
    heapq.heapify(queue)
    while queue:
        step = heapq.heappop(queue)
        if step.age != filling.age:  # other groups grew since: what the step costs may have risen
            fresh = filling.next_step(step.group)
            if fresh is None:
                continue
            if queue and fresh.priority * (1 + INDIFFERENCE) > queue[0].priority:
                heapq.heappush(queue, fresh)
                continue
            step = fresh
        filling.take(step)
        if following := filling.next_step(step.group):
            heapq.heappush(queue, following)
    return filling.widths


def finish(problem: Problem, widths: npt.NDArray[np.int64], trace: list[TraceRecord]) -> Solution:
    """Return the solution that filling makes of `widths`, and end its trace.

    Raises
    ------
    InternalError
        When a limit does not hold.
    """
    widths = fill(problem, widths)
    costs = problem.costs(widths)
    if not problem.allows(costs):
        raise InternalError(f"the widths found cost {costs}, more than a limit allows")
    return Solution(widths, [*trace, {"stage": "fill", "cost": costs[0]}])


class _Step(NamedTuple):
    """The step of a group to its next level; steps sort best first, then by group."""

    priority: float
    group: int
    width: int
    costs: tuple[int, ...]
    age: int


class _Filling:
    """The widths as they grow; `age` counts the steps taken."""

    def __init__(
        self, problem: Problem, widths: npt.NDArray[np.int64], stairs: Stairs, widest: npt.NDArray[np.int64]
    ) -> None:
        self._problem = problem
        self.widths = widths.copy()
        self.age = 0
        self._height = stairs.heights(widths)
        self._top = stairs.heights(widest)
        self._gains = stairs.gains
        self._rooms = [limit.limit - limit.cost(self.widths) for limit in problem.limits]
        for room, limit in zip(self._rooms, problem.limits, strict=True):
            if room < 0:
                raise InternalError(
                    f"the widths to fill up exceed the limit of {limit.limit} {limit.metric} by {-room}"
                )

    def next_step(self, group: int) -> _Step | None:
        """Return the next step of a group at its present cost, or None if it has none or it does not fit."""
        height = self._height[group]
        if height >= self._top[group]:
            return None
        width = int(self._problem.levels[group][height + 1])
        costs = tuple(limit.cost.change(self.widths, group, width) for limit in self._problem.limits)
        if any(cost > room for cost, room in zip(costs, self._rooms, strict=True)):
            return None
        price = self._problem.price(costs)
        return _Step(_priority(self._gains[group][height], price), group, width, costs, self.age)

    def take(self, step: _Step) -> None:
        """Carry out a step whose cost is up to date."""
        self.widths[step.group] = step.width
        self._height[step.group] += 1
        self._rooms = [room - cost for room, cost in zip(self._rooms, step.costs, strict=True)]
        self.age += 1


def _priority(gain: float, price: float) -> float:
    """Return the key by which steps sort, least first; a step that costs nothing comes before all others."""
    return -gain / price if price > 0 else -math.inf

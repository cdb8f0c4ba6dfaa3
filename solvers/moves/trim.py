# SPDX-License-Identifier: Apache-2.0
"""Trimming: give up what is over the budget, one step of one group at a time, until all limits hold."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

from graphprune.errors import InternalError
from graphprune.solvers.moves.stairs import INDIFFERENCE, Stairs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

__all__ = ["trim"]


def trim(
    problem: Problem,
    widths: npt.NDArray[np.int64],
    stairs: Stairs | None = None,
    narrowest: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return widths of at most `widths` within the budget.

    The mirror image of :func:`~graphprune.solvers.fill.fill`: each step to a lower level is one of the group that loses
    least saliency per unit of cost saved. Only savings in limits that are still exceeded count, weighed as in
    `Problem.price`; steps that save nothing there come last, the one of least saliency first. Of equal steps that of
    the last group is taken.

    Where the cost of a step does not rise when other groups shrink, which is true of sums of products, an old loss per
    saving in the queue is a lower bound, and only the head of the queue is evaluated again.

    Parameters
    ----------
    problem : Problem
    widths : ndarray of int64, shape (groups,)
        Each one of its group's levels; not changed.
    stairs : Stairs, optional
        Those of the problem, for callers that trim it many times.
    narrowest : ndarray of int64, shape (groups,), optional
        The level at which each group stops; by default its narrowest.

    Returns
    -------
    ndarray of int64, shape (groups,)

    Raises
    ------
    InternalError
        When a width is not a level of its group, or not even `narrowest` is within the limits.
    """
    bottom = problem.narrowest if narrowest is None else narrowest
    trimming = _Trimming(problem, widths, stairs or Stairs(problem), bottom)
    queue = [step for group in range(len(widths)) if (step := trimming.next_step(group))]
    heapq.heapify(queue)
    while trimming.exceeds:
        if not queue:
            raise InternalError("even the narrowest levels exceed a limit")
        step = heapq.heappop(queue)
        if step.age != trimming.age:  # other groups shrank since: what the step saves may have fallen
            fresh = trimming.next_step(step.group)
            if fresh and queue and _worse(fresh, queue[0]):
                heapq.heappush(queue, fresh)
                continue
            step = fresh or step
        trimming.take(step)
        if following := trimming.next_step(step.group):
            heapq.heappush(queue, following)
    return trimming.widths


class _Step(NamedTuple):
    """The step of a group to its next lower level; steps sort best first, then the last group first."""

    ratio: float
    loss: float
    backwards: int
    group: int
    width: int
    costs: tuple[int, ...]
    age: int


def _worse(step: _Step, other: _Step) -> bool:
    """Whether a step is so much worse than another that its turn is over."""
    if math.isinf(step.ratio):
        return step > other
    return step.ratio > other.ratio + INDIFFERENCE * abs(other.ratio)


class _Trimming:
    """The widths as they shrink; `age` counts the steps taken."""

    def __init__(
        self, problem: Problem, widths: npt.NDArray[np.int64], stairs: Stairs, narrowest: npt.NDArray[np.int64]
    ) -> None:
        self._problem = problem
        self.widths = widths.copy()
        self.age = 0
        self._height = stairs.heights(widths)
        self._bottom = stairs.heights(narrowest)
        self._gains = stairs.gains
        self._excess = [limit.cost(self.widths) - limit.limit for limit in problem.limits]

    @property
    def exceeds(self) -> bool:
        """Whether any limit does not hold."""
        return any(excess > 0 for excess in self._excess)

    def next_step(self, group: int) -> _Step | None:
        """Return the next step of a group at its present saving, or None if it has none."""
        if self._height[group] <= self._bottom[group]:
            return None
        height = self._height[group] - 1
        width = int(self._problem.levels[group][height])
        costs = tuple(limit.cost.change(self.widths, group, width) for limit in self._problem.limits)
        saved = self._problem.price(
            [-cost if excess > 0 else 0 for cost, excess in zip(costs, self._excess, strict=True)]
        )
        loss = self._gains[group][height]
        return _Step(loss / saved if saved > 0 else math.inf, loss, -group, group, width, costs, self.age)

    def take(self, step: _Step) -> None:
        """Carry out a step whose saving is up to date."""
        self.widths[step.group] = step.width
        self._height[step.group] -= 1
        self._excess = [excess + cost for excess, cost in zip(self._excess, step.costs, strict=True)]
        self.age += 1

# SPDX-License-Identifier: Apache-2.0
"""Filling: spend what a solver left of the budget, one step of one group at a time, until no step fits."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError, quote

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

__all__ = ["fill"]


def fill(problem: Problem, widths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return widths of at least `widths` within the budget, from which no group can take its next level.

    Each step goes to the group that gains most saliency per unit of cost. Saliency is divided by the mean of its
    group, so that groups on different scales compete fairly; of equal steps the group that comes first wins.

    The cost of a step never falls when other groups grow. So a group whose step does not fit is done for good, and
    an old gain per cost in the queue is an upper bound: only the head of the queue is evaluated again.

    Parameters
    ----------
    problem : Problem
    widths : ndarray of int64, shape (groups,)
        Each one of its group's levels, together within the limit; not changed.

    Returns
    -------
    ndarray of int64, shape (groups,)

    Raises
    ------
    InternalError
        When a width is not a level of its group, or `widths` exceed the limit.
    """
    widths = widths.astype(np.int64, copy=True)
    height = _heights(problem, widths)
    room = problem.limit - problem.cost(widths)
    if room < 0:
        raise InternalError(f"the widths to fill up from cost {-room} more than the limit of {problem.limit}")
    gains = [_gains(scores, levels) for scores, levels in zip(problem.scores, problem.levels, strict=True)]
    queue = [(-math.inf, group) for group, gain in enumerate(gains) if height[group] < len(gain)]  # a valid heap
    while queue:
        _, group = heapq.heappop(queue)
        target = int(problem.levels[group][height[group] + 1])
        cost = problem.cost.change(widths, group, target)
        if cost > room:
            continue
        entry = (_priority(gains[group][height[group]], cost), group)
        if queue and entry > queue[0]:
            heapq.heappush(queue, entry)
            continue
        widths[group] = target
        height[group] += 1
        room -= cost
        if height[group] < len(gains[group]):
            heapq.heappush(queue, (-math.inf, group))
    return widths


def _heights(problem: Problem, widths: npt.NDArray[np.int64]) -> list[int]:
    """Return the index of each width among the levels of its group."""
    heights = []
    for name, levels, width in zip(problem.groups, problem.levels, widths, strict=True):
        height = int(np.searchsorted(levels, width))
        if height == len(levels) or levels[height] != width:
            raise InternalError(f"{width} is not an allowed width of group {quote(name)}")
        heights.append(height)
    return heights


def _gains(scores: npt.NDArray[np.float64], levels: npt.NDArray[np.int64]) -> list[float]:
    """Return the saliency gained by each step from a level to the next, in units of the group's mean saliency."""
    known = np.where(np.isfinite(scores), scores, 0.0)
    mean = known.mean()
    descending = -np.sort(-known) / (mean if mean > 0 else 1.0)
    total = np.concatenate([[0.0], np.cumsum(descending)])
    gained: list[float] = np.diff(total[levels]).tolist()
    return gained


def _priority(gain: float, cost: int) -> float:
    """Return the key by which the queue sorts, least first; a step that costs nothing comes before all others."""
    return -gain / cost if cost > 0 else -math.inf

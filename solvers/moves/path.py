# SPDX-License-Identifier: Apache-2.0
"""A width path: all widths as functions of one parameter, searched exactly for the last point within the budget.

With importance ``s`` and full widths ``C``, group ``g`` keeps the share ``r_g(t) = clip(t * s_g / mean, floor, 1)``
of its atoms, where ``mean`` is the average of ``s`` over all atoms. ``r_g(t) * C_g`` is rounded half up to atoms and
then to the nearest level, ties up. As ``t`` grows, every group climbs its levels one by one; the values of ``t``
where one does are the knots of the path. The widths are constant between knots, so a binary search over the knots
finds the best point of the path, not an approximation.

The floor keeps unimportant groups from vanishing as long as the budget allows it. Below ``t = 0`` the path goes on:
there every group sits at the floor, and the floor itself shrinks to 0. So each budget that the narrowest levels
meet is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.fill import finish
from graphprune.solvers.problem import Problem, Solution, TraceRecord, ensure_reachable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FLOOR", "WidthPath", "solve_on_path", "width_path"]

FLOOR = 0.1  # share of its atoms that a group keeps on the path for as long as the budget allows it
_TIE_BITS = 40  # knots that agree to this many bits are one: importances that differ by rounding count as equal


@dataclass(frozen=True, eq=False)
class WidthPath:
    """The path of a problem: point 0 has the narrowest levels, point ``i`` those just after knot ``i - 1``.

    Attributes
    ----------
    knots : ndarray of float64, shape (K,), strictly increasing
        Positive: the parameter ``t``. Negative or 0: the floor is ``(1 + knot) * floor``, and ``t`` is 0.
    ends : ndarray of int64, shape (K,)
        How many of `climbers` have climbed at each knot.
    climbers : ndarray of int64
        The groups in the order in which they climb one level each.
    levels : tuple of ndarray of int64
    floor : float
    """

    knots: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]
    climbers: npt.NDArray[np.int64]
    levels: tuple[npt.NDArray[np.int64], ...]
    floor: float

    def widths(self, point: int) -> npt.NDArray[np.int64]:
        """Return the widths at a point of the path, shape (groups,)."""
        climbed = self.climbers[: self.ends[point - 1]] if point else self.climbers[:0]
        height = np.bincount(climbed, minlength=len(self.levels))
        return np.array([levels[step] for levels, step in zip(self.levels, height, strict=True)], dtype=np.int64)

    def record(self, point: int, cost: int) -> TraceRecord:
        """Return the trace record of a point."""
        knot = float(self.knots[point - 1]) if point else -1.0
        floor = self.floor * (1.0 + min(knot, 0.0))
        return {"stage": "path", "t": max(knot, 0.0), "floor": floor, "cost": int(cost)}


def width_path(problem: Problem, importance: npt.NDArray[np.float64], floor: float = FLOOR) -> WidthPath:
    """Return the path along which widths grow in proportion to `importance`.

    Parameters
    ----------
    problem : Problem
    importance : ndarray of float64, shape (groups,)
        Negative values count as 0. A group of importance 0 stays at the floor; if all are 0 they count as equal.
    floor : float, 0 <= floor < 1
    """
    counts = [len(levels) - 1 for levels in problem.levels]
    group = np.repeat(np.arange(len(counts)), counts)
    lower = np.concatenate([levels[:-1] for levels in problem.levels] or [np.zeros(0, dtype=np.int64)])
    upper = np.concatenate([levels[1:] for levels in problem.levels] or [np.zeros(0, dtype=np.int64)])
    atoms = (lower + upper + 1) // 2  # the fewest atoms that are nearer to the upper level, or as near
    share = (atoms - 0.5) / problem.sizes[group]
    with np.errstate(divide="ignore"):
        knot = share / _relative(problem.sizes, importance)[group]
    if floor > 0:
        knot = np.where(share <= floor, share / floor - 1.0, knot)
    return _sorted_path(problem, group, knot, floor)


def solve_on_path(problem: Problem, importance: npt.NDArray[np.float64]) -> Solution:
    """Return the last widths of the path within the budget, with what is left of the budget filled up.

    Raises
    ------
    BudgetUnreachableError
        When even the narrowest levels cost more than the limit.

    Complexity: at most ``ceil(log2(knots + 1)) + 2`` evaluations of each cost, besides those of the filling.
    """
    smallest = ensure_reachable(problem)
    path = width_path(problem, importance)
    trace = [path.record(0, smallest)]
    point = _last_affordable(problem, path, trace)
    return finish(problem, path.widths(point), trace)


def _relative(sizes: npt.NDArray[np.int64], importance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the importance of each group relative to the average over all atoms."""
    largest = importance.max(initial=0.0)
    if largest <= 0:
        return np.ones(len(sizes), dtype=np.float64)
    scaled = np.maximum(importance, 0.0) / largest
    average = float((sizes * scaled).sum()) / int(sizes.sum())
    relative: npt.NDArray[np.float64] = scaled / average
    return relative


def _sorted_path(
    problem: Problem, group: npt.NDArray[np.int64], knot: npt.NDArray[np.float64], floor: float
) -> WidthPath:
    mantissa, exponent = np.frexp(knot)
    knot = np.ldexp(np.round(np.ldexp(mantissa, _TIE_BITS)), exponent - _TIE_BITS)
    order = np.argsort(knot, kind="stable")
    order = order[np.isfinite(knot[order])]
    knots, counts = np.unique(knot[order], return_counts=True)
    return WidthPath(knots, np.cumsum(counts), group[order], problem.levels, floor)


def _last_affordable(problem: Problem, path: WidthPath, trace: list[TraceRecord]) -> int:
    """Return the last point of the path within all limits; point 0 is known to be, and costs never fall."""
    low, high = 0, len(path.knots)
    while low < high:
        middle = (low + high + 1) // 2
        costs = problem.costs(path.widths(middle))
        trace.append(path.record(middle, costs[0]))
        low, high = (middle, high) if problem.allows(costs) else (low, middle - 1)
    return low

# SPDX-License-Identifier: Apache-2.0
"""Exchange: give up a step of one group for steps of others, or the other way round, while that keeps more saliency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.fill import fill
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.moves.trim import trim

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

    Widths = npt.NDArray[np.int64]

__all__ = ["exchange"]

_WORTHWHILE = 1e-9  # less than this share of the saliency is rounding


def exchange(problem: Problem, widths: Widths, rounds: int, stairs: Stairs | None = None) -> tuple[Widths, int]:
    """Return widths that keep as much saliency as `widths` or more, and the number of exchanges that made them.

    Each round tries two moves of every group, in turn: give up a step and fill up with steps of others, and take a step
    and trim others until all limits hold again. A move that keeps more is made at once. Local search of this kind finds
    what greedy steps miss: they pay for each step by itself, although steps make each other cheaper.

    Parameters
    ----------
    problem : Problem
    widths : ndarray of int64, shape (groups,)
        Levels within the limits, with no step left that fits; not changed.
    rounds : int
        The most rounds; a round without an improvement is the last.
    stairs : Stairs, optional
        What levels are worth, where that is something else than saliency.

    Complexity: two fillings and a trimming per group and round.
    """
    search = _Search(problem, widths, stairs or Stairs(problem))
    for _ in range(rounds):
        before = search.improvements
        for group in range(len(widths)):
            search.give_up(group)
            search.take(group)
        if search.improvements == before:
            break
    return search.widths, search.improvements


class _Search:
    """The best widths so far."""

    def __init__(self, problem: Problem, widths: Widths, stairs: Stairs) -> None:
        self._problem = problem
        self._stairs = stairs
        self._kept = self._stairs.kept(widths)
        self.widths = widths
        self.improvements = 0

    def give_up(self, group: int) -> None:
        """Try a step down, with what that saves spent on other groups."""
        lower = self._moved(group, -1)
        if lower is None:
            return
        widest = self._problem.widest
        widest[group] = lower[group]
        self._consider(fill(self._problem, lower, self._stairs, widest))

    def take(self, group: int) -> None:
        """Try a step up, paid for by other groups."""
        upper = self._moved(group, +1)
        if upper is None:
            return
        narrowest = self._problem.narrowest
        narrowest[group] = upper[group]
        if self._problem.fits(narrowest):
            self._consider(trim(self._problem, upper, self._stairs, narrowest))

    def _moved(self, group: int, by: int) -> Widths | None:
        """Return the widths with one group a level higher or lower, None if it has no such level."""
        levels = self._problem.levels[group]
        height = int(np.searchsorted(levels, self.widths[group])) + by
        if not 0 <= height < len(levels):
            return None
        moved = self.widths.copy()
        moved[group] = levels[height]
        return moved

    def _consider(self, widths: Widths) -> None:
        """Fill up widths, and take them if they keep more."""
        filled = fill(self._problem, widths, self._stairs)
        kept = self._stairs.kept(filled)
        if kept > self._kept + _WORTHWHILE * abs(self._kept):
            self.widths, self._kept = filled, kept
            self.improvements += 1

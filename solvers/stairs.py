# SPDX-License-Identifier: Apache-2.0
"""Stairs: the levels of each group as steps, and the saliency that each step gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError, quote
from graphprune.solvers.saliency import comparable

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

__all__ = ["INDIFFERENCE", "Stairs"]

INDIFFERENCE = 0.01
"""Where the best step is sought, one that became worse than the next by less than this share is still taken."""


class Stairs:
    """Levels and gains of a problem, for whoever goes up and down in steps.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    gains : list of list of float
        Per group, the saliency gained by each step from a level to the next, on one scale for all groups.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._kept = []
        for scores, levels in zip(comparable(problem).scores, problem.levels, strict=True):
            total = np.concatenate([[0.0], np.cumsum(-np.sort(-scores))])
            self._kept.append(total[levels])
        self.gains: list[list[float]] = [np.diff(kept).tolist() for kept in self._kept]

    def heights(self, widths: npt.NDArray[np.int64]) -> list[int]:
        """Return the index of each width among the levels of its group.

        Raises
        ------
        InternalError
            When a width is not a level of its group.
        """
        found = []
        for name, levels, width in zip(self._problem.groups, self._problem.levels, widths, strict=True):
            height = int(np.searchsorted(levels, width))
            if height == len(levels) or levels[height] != width:
                raise InternalError(f"{width} is not an allowed width of group {quote(name)}")
            found.append(height)
        return found

    def kept(self, widths: npt.NDArray[np.int64]) -> float:
        """Return the saliency that stays at `widths`, which must be levels."""
        return float(sum(kept[height] for kept, height in zip(self._kept, self.heights(widths), strict=True)))

# SPDX-License-Identifier: Apache-2.0
"""Stairs: the levels of each group as steps, and the saliency, or another value, that each step gains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InternalError, quote
from graphprune.solvers.saliency import comparable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    values : sequence of ndarray of float64, optional
        Per group, what each of its levels is worth; by default the saliency of the atoms that stay, on one scale for
        all groups.

    Attributes
    ----------
    values : tuple of ndarray of float64
        Per group, what each of its levels is worth.
    gains : list of list of float
        Per group, what is gained by each step from a level to the next.
    """

    def __init__(self, problem: Problem, values: Sequence[npt.NDArray[np.float64]] | None = None) -> None:
        self._problem = problem
        self.values = tuple(_saliencies(problem) if values is None else values)
        self.gains: list[list[float]] = [np.diff(worth).tolist() for worth in self.values]

    def heights(self, widths: npt.NDArray[np.int64]) -> list[int]:
        """Return the index of each width among the levels of its group.

        Raises
        ------
        InternalError
            When a width is not a level of its group.
        """
        heights = []
        for name, levels, width in zip(self._problem.groups, self._problem.levels, widths, strict=True):
            height = int(np.searchsorted(levels, width))
            if height == len(levels) or levels[height] != width:
                raise InternalError(f"{width} is not an allowed width of group {quote(name)}")
            heights.append(height)
        return heights

    def kept(self, widths: npt.NDArray[np.int64]) -> float:
        """Return what `widths`, which must be levels, are worth together."""
        return float(sum(worth[height] for worth, height in zip(self.values, self.heights(widths), strict=True)))


def _saliencies(problem: Problem) -> Iterator[npt.NDArray[np.float64]]:
    """Yield per group the saliency that stays at each of its levels."""
    for scores, levels in zip(comparable(problem).scores, problem.levels, strict=True):
        yield np.concatenate([[0.0], np.cumsum(-np.sort(-scores))])[levels]

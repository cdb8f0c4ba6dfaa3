# SPDX-License-Identifier: Apache-2.0
"""The problem of choosing widths: groups with saliencies and allowed widths, a cost, and a limit on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from graphprune.errors import BudgetUnreachableError, InternalError, quote

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Cost", "Problem", "Solution", "TraceRecord", "ensure_reachable"]

TraceRecord = dict[str, int | float | str]


class Cost(Protocol):
    """The cost of a network as a function of its group widths.

    It must be non-decreasing in every width, and the cost of a step of one group must not fall when other
    groups grow. Sums of products of non-decreasing, non-negative factors have both properties.
    """

    def __call__(self, widths: npt.NDArray[np.int64], /) -> int:
        """Return the cost at `widths`, int64 of shape (groups,)."""

    def change(self, widths: npt.NDArray[np.int64], group: int, width: int, /) -> int:
        """Return by how much the cost changes when `group` moves from ``widths[group]`` to `width`."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a width solver is given.

    Attributes
    ----------
    groups : tuple of str
        The id of each group.
    sizes : ndarray of int64, shape (groups,)
        Full widths in atoms.
    scores : tuple of ndarray of float64, each of shape (size,)
        Saliency per atom, higher is more important.
    importance : ndarray of float64, shape (groups,)
        Importance of each group for the choice of widths; by default the mean of its scores.
    cost : Cost
    limit : int
        A solution has ``cost(widths) <= limit``.
    levels : tuple of ndarray of int64, ascending
        The widths each group may take; the last one is its size.
    seed : int
        For solvers that draw.

    Raises
    ------
    InternalError
        When the parts contradict each other.
    """

    groups: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    scores: tuple[npt.NDArray[np.float64], ...]
    importance: npt.NDArray[np.float64]
    cost: Cost
    limit: int
    levels: tuple[npt.NDArray[np.int64], ...]
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that the parts agree."""
        count = len(self.groups)
        lengths = (len(self.sizes), len(self.scores), len(self.importance), len(self.levels))
        if any(length != count for length in lengths):
            raise InternalError(
                f"{count} groups, but sizes, scores, importance and levels have {', '.join(map(str, lengths))} entries"
            )
        if not np.isfinite(self.importance).all():
            raise InternalError("the importance of a group is not a finite number")
        for name, size, scores, levels in zip(self.groups, self.sizes, self.scores, self.levels, strict=True):
            if scores.shape != (size,):
                raise InternalError(f"group {quote(name)} has {size} atoms, but scores of shape {scores.shape}")
            _check_levels(name, int(size), levels)

    @property
    def smallest(self) -> npt.NDArray[np.int64]:
        """The narrowest allowed widths, shape (groups,)."""
        return np.array([levels[0] for levels in self.levels], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Solution:
    """What a width solver returns.

    Attributes
    ----------
    widths : ndarray of int64, shape (groups,)
        How many atoms each group keeps: one of its levels.
    trace : list of dict
        How the solver came there, one JSON-able record per step.
    """

    widths: npt.NDArray[np.int64]
    trace: list[TraceRecord]


def ensure_reachable(problem: Problem) -> int:
    """Return the smallest reachable cost, that of the narrowest allowed widths.

    Raises
    ------
    BudgetUnreachableError
        When it is above the limit.
    """
    smallest = problem.cost(problem.smallest)
    if smallest <= problem.limit:
        return smallest
    full = problem.cost(problem.sizes)
    raise BudgetUnreachableError(
        f"cannot reach a cost of {problem.limit:,} ({_share(problem.limit, full)} of {full:,}): "
        f"the smallest reachable is {smallest:,} ({_share(smallest, full)})",
        hint="allow narrower widths with --round-to 1, freeze fewer groups, or raise the budget",
    )


def _share(part: int, full: int) -> str:
    return f"{100 * part / full:.3g} %" if full else "0 %"


def _check_levels(name: str, size: int, levels: npt.NDArray[np.int64]) -> None:
    ascending = levels.ndim == 1 and len(levels) > 0 and levels[0] >= 1 and bool((np.diff(levels) > 0).all())
    if not ascending or levels[-1] != size or levels.dtype != np.int64:
        raise InternalError(
            f"the allowed widths of group {quote(name)} must ascend from at least 1 to its {size} atoms, got {levels}"
        )

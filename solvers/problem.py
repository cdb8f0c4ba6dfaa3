# SPDX-License-Identifier: Apache-2.0
"""The problem of choosing widths: groups with saliencies and allowed widths, and limits on what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from graphprune.errors import BudgetUnreachableError, InternalError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.polynomial import Length
    from graphprune.solvers.evidence import Evidence

__all__ = [
    "Cost",
    "Factor",
    "Factored",
    "Filters",
    "Limit",
    "Problem",
    "Solution",
    "TraceRecord",
    "ensure_reachable",
    "ensure_sound",
]

TraceRecord = dict[str, int | float | str]
Filters = Callable[[int], "npt.NDArray[np.float64]"]  # the filters of a group's atoms, shape (size, features)


class Cost(Protocol):
    """The cost of a network as a function of its group widths.

    It must be non-decreasing in every width. Sums of products of non-decreasing, non-negative factors are, and so is
    the largest of several such sums.
    """

    def __call__(self, widths: npt.NDArray[np.int64], /) -> int:
        """Return the cost at `widths`, int64 of shape (groups,)."""

    def change(self, widths: npt.NDArray[np.int64], group: int, width: int, /) -> int:
        """Return by how much the cost changes when `group` moves from ``widths[group]`` to `width`."""


class Factor(Protocol):
    """A summand of a cost: a non-decreasing function of the lengths of a few axes."""

    @property
    def lengths(self) -> tuple[Length, ...]:
        """The lengths it depends on, each an affine function of the widths."""

    def values(self, *lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return its values for many lengths at once, one array for each of `lengths`; they broadcast."""


@runtime_checkable
class Factored(Protocol):
    """A cost that says what it is made of, so that bounds can be found: the largest of sums of factors."""

    def alternatives(self) -> Sequence[Sequence[Factor]]:
        """Return the sums; the cost is the largest of them at any widths, and at least each of them."""


@dataclass(frozen=True, eq=False)
class Limit:
    """One budget: ``cost(widths) <= limit``.

    Attributes
    ----------
    metric : str
        What is counted, for messages: "flops".
    cost : Cost
    limit : int
    """

    metric: str
    cost: Cost
    limit: int


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
    limits : tuple of Limit
        All of them hold for a solution. The first one leads: traces show its cost.
    levels : tuple of ndarray of int64, ascending
        The widths each group may take, at most its size; a single one where the width is given.
    seed : int
        For solvers that draw.
    filters : callable, optional
        Gives the filters that make the atoms of a group, one row each, for solvers that compare atoms. Nothing is
        read before it is called.
    comparable : bool
        Whether scores of different groups may be compared as they are.
    efficiency : ndarray of float64, shape (groups,), optional
        FLOPs that the channels of each group cost for the time that they take, relative to the other groups; given
        where widths are to be what runtimes like.
    evidence : Evidence, optional
        What samples say, for solvers that need some.

    Raises
    ------
    InternalError
        When the parts contradict each other.
    """

    groups: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    scores: tuple[npt.NDArray[np.float64], ...]
    importance: npt.NDArray[np.float64]
    limits: tuple[Limit, ...]
    levels: tuple[npt.NDArray[np.int64], ...]
    seed: int = 0
    filters: Filters | None = None
    comparable: bool = False
    efficiency: npt.NDArray[np.float64] | None = None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        """Check that the parts agree."""
        count = len(self.groups)
        lengths = (len(self.sizes), len(self.scores), len(self.importance), len(self.levels))
        if any(length != count for length in lengths):
            raise InternalError(
                f"{count} groups, but sizes, scores, importance and levels have {', '.join(map(str, lengths))} entries"
            )
        if not self.limits:
            raise InternalError("nothing is limited")
        if not np.isfinite(self.importance).all():
            raise InternalError("the importance of a group is not a finite number")
        for name, size, scores, levels in zip(self.groups, self.sizes, self.scores, self.levels, strict=True):
            if scores.shape != (size,):
                raise InternalError(f"group {quote(name)} has {size} atoms, but scores of shape {scores.shape}")
            _check_levels(name, int(size), levels)

    @property
    def narrowest(self) -> npt.NDArray[np.int64]:
        """The narrowest allowed widths, shape (groups,)."""
        return np.array([levels[0] for levels in self.levels], dtype=np.int64)

    @property
    def widest(self) -> npt.NDArray[np.int64]:
        """The widest allowed widths, shape (groups,)."""
        return np.array([levels[-1] for levels in self.levels], dtype=np.int64)

    def cost(self, widths: npt.NDArray[np.int64]) -> int:
        """Return the cost that the leading limit counts."""
        return self.limits[0].cost(widths)

    def costs(self, widths: npt.NDArray[np.int64]) -> tuple[int, ...]:
        """Return what each limit counts."""
        return tuple(limit.cost(widths) for limit in self.limits)

    def allows(self, costs: Sequence[int]) -> bool:
        """Whether costs, one for each limit, are all within it."""
        return all(cost <= limit.limit for cost, limit in zip(costs, self.limits, strict=True))

    def fits(self, widths: npt.NDArray[np.int64]) -> bool:
        """Whether all limits hold at `widths`."""
        return self.allows(self.costs(widths))

    def price(self, changes: Sequence[int]) -> float:
        """Return one figure for the changes of all costs: a change weighs more where less is allowed.

        With one limit it is the change itself.
        """
        leading = max(1, self.limits[0].limit)
        return sum(change * (leading / max(1, limit.limit)) for change, limit in zip(changes, self.limits, strict=True))


@dataclass(frozen=True, eq=False)
class Solution:
    """What a width solver returns.

    Attributes
    ----------
    widths : ndarray of int64, shape (groups,)
        How many atoms each group keeps: one of its levels.
    trace : list of dict
        How the solver came there, one JSON-able record per step.
    kept : tuple of ndarray of int64, ascending, optional
        Which atoms each group keeps, as many as its width; the most salient ones if the solver does not say.
    chosen_by : tuple of str, optional
        By what `kept` was chosen, per group, for people: "backward elimination"; empty where saliencies decided.
    bound : float, optional
        If the solver proved one: no widths within the limits keep more saliency, on the scale that it compares on.
    """

    widths: npt.NDArray[np.int64]
    trace: list[TraceRecord]
    kept: tuple[npt.NDArray[np.int64], ...] | None = None
    bound: float | None = None
    chosen_by: tuple[str, ...] | None = None


def ensure_reachable(problem: Problem) -> int:
    """Return the smallest reachable cost that the leading limit counts, that of the narrowest allowed widths.

    Raises
    ------
    BudgetUnreachableError
        When a cost of theirs is above its limit.
    """
    costs = problem.costs(problem.narrowest)
    for least, limit in zip(costs, problem.limits, strict=True):
        if least > limit.limit:
            full = limit.cost(problem.sizes)
            raise BudgetUnreachableError(
                f"cannot reach {limit.metric} {limit.limit:,} ({_share(limit.limit, full)} of {full:,}): "
                f"the smallest reachable is {least:,} ({_share(least, full)})",
                hint="allow narrower widths with --round-to 1, freeze fewer groups, or raise the budget",
            )
    return costs[0]


def ensure_sound(problem: Problem, solution: Solution, solver: str) -> None:
    """Check what a solver promises: widths that are levels and within all limits, and as many atoms as that.

    Raises
    ------
    InternalError
        When it breaks its promise; names it as `solver`.
    """
    what = f"the solver {quote(solver)}"
    widths = np.asarray(solution.widths)
    if widths.shape != problem.sizes.shape or widths.dtype != np.int64:
        raise InternalError(f"{what} gave widths of shape {widths.shape} and type {widths.dtype}")
    for name, levels, width in zip(problem.groups, problem.levels, widths.tolist(), strict=True):
        if width not in levels:
            raise InternalError(f"{what} gave group {quote(name)} {width} atoms, which is not a level")
    for cost, limit in zip(problem.costs(widths), problem.limits, strict=True):
        if cost > limit.limit:
            raise InternalError(f"{what} gave widths that cost {cost} {limit.metric}, more than {limit.limit}")
    kept = solution.kept if solution.kept is not None else ()
    for name, width, atoms in zip(problem.groups, widths.tolist(), kept, strict=bool(kept)):
        if len(atoms) != width or (np.diff(atoms) <= 0).any():
            raise InternalError(f"{what} gave group {quote(name)} {width} atoms, but not which")
    if solution.chosen_by is not None and len(solution.chosen_by) != len(problem.groups):
        said = f"{len(solution.chosen_by)} of {len(problem.groups)} groups"
        raise InternalError(f"{what} gave ways of choosing for {said}")


def _share(part: int, full: int) -> str:
    return f"{100 * part / full:.3g} %" if full else "0 %"


def _check_levels(name: str, size: int, levels: npt.NDArray[np.int64]) -> None:
    ascending = levels.ndim == 1 and len(levels) > 0 and levels[0] >= 0 and bool((np.diff(levels) > 0).all())
    if not ascending or levels[-1] > size or levels.dtype != np.int64:
        raise InternalError(
            f"the allowed widths of group {quote(name)} must ascend to at most its {size} atoms, got {levels}"
        )

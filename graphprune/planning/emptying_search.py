# SPDX-License-Identifier: Apache-2.0
"""Which groups to empty: a search outside the width solvers, which then see groups of the given width 0.

Groups that can only be emptied together are one candidate. Candidates are added in the order of the saliency that they
lose per unit of cost that they save, as long as what the solver makes of the rest gets better; where the budget cannot
be met otherwise, as many as it needs. In the end every candidate comes back whose narrowest widths fit into what is
left, so that no step that fits is left out, not even from nothing to something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, Solution

__all__ = ["Attempt", "filled", "search"]

_STEPS = 12  # how finely the number of candidates is tried
_PATIENCE = 2  # tries without gain before the search ends

T = TypeVar("T")
Bundle = frozenset[int]


@dataclass(frozen=True, eq=False)
class Attempt(Generic[T]):
    """What a solver makes of the rest.

    Attributes
    ----------
    emptied : frozenset of int
    problem : Problem
    solution : Solution
    saliency : float
        What stays, on one scale for all groups.
    rest : object
        What the caller wants to remember.
    """

    emptied: Bundle
    problem: Problem
    solution: Solution
    saliency: float
    rest: T


def search(
    candidates: Sequence[Bundle],
    attempt: Callable[[Bundle], Attempt[T] | None],
    fits: Callable[[Bundle, Attempt[T]], bool],
) -> Attempt[T] | None:
    """Return the best attempt; None where no one meets the budgets.

    Parameters
    ----------
    candidates : sequence of frozenset of int
        Groups that can be emptied together, the best candidate first.
    attempt : callable
        Solves with these groups emptied; None where that is impossible or meets no budget.
    fits : callable
        Whether the widths of an attempt, with fewer groups emptied and the others at their narrowest, meet the budgets.

    Complexity: at most `_STEPS` attempts, and one for each candidate that comes back.
    """
    best: Attempt[T] | None = None
    idle = 0
    for count in _counts(len(candidates)):
        tried = attempt(frozenset().union(*candidates[:count]))
        if tried is not None and (best is None or tried.saliency > best.saliency):
            best, idle = tried, 0
        elif best is not None:
            idle += 1
            if idle == _PATIENCE:
                break
    return None if best is None else filled(candidates, best, attempt, fits)


def _counts(most: int) -> list[int]:
    return sorted({round(most * step / _STEPS) for step in range(_STEPS + 1)})


def filled(
    candidates: Sequence[Bundle],
    best: Attempt[T],
    attempt: Callable[[Bundle], Attempt[T] | None],
    fits: Callable[[Bundle, Attempt[T]], bool],
) -> Attempt[T]:
    """Let emptied candidates come back, those that stand last first, until none fits.

    Parameters
    ----------
    candidates, attempt, fits
        As for :func:`search`.
    best : Attempt
    """
    while True:
        used = [bundle for bundle in candidates if bundle <= best.emptied]
        for number in range(len(used) - 1, -1, -1):
            others = frozenset[int]().union(*used[:number], *used[number + 1 :])
            if others < best.emptied and fits(others, best):
                tried = attempt(others)
                if tried is not None:
                    best = tried
                    break
        else:
            return best

# SPDX-License-Identifier: Apache-2.0
"""Certifying: how much saliency a solution keeps, and how much any solution could keep at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.solvers.saliency import comparable, kept_saliency

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, Solution

__all__ = ["Proof", "certify"]


@dataclass(frozen=True)
class Proof:
    """What a solution keeps, and what no solution exceeds.

    Attributes
    ----------
    objective : float
        Sum of the scores of the atoms that stay, on one scale for all groups.
    bound : float
        At least the objective of every solution within the limits.
    """

    objective: float
    bound: float

    @property
    def gap(self) -> float:
        """How much more a solution could keep at most, as a share of the bound."""
        return max(0.0, (self.bound - self.objective) / self.bound) if self.bound > 0 else 0.0


def certify(problem: Problem, solution: Solution, normalize: str = "auto") -> Proof:
    """Return what a solution keeps and a bound: its own, or that of the Lagrangian dual, in about a second.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    normalize : {"auto", "mean", "l2", "none"}
        How scores of different groups are brought to one scale: the solver's own setting, if it has one.
    """
    scaled = comparable(problem, normalize)
    if solution.kept is None:
        objective = kept_saliency(scaled, solution.widths)
    else:
        objective = float(sum(scores[kept].sum() for scores, kept in zip(scaled.scores, solution.kept, strict=True)))
    if solution.bound is not None:
        return Proof(objective, solution.bound)
    from graphprune.solvers.bounds.search import Search

    search = Search(scaled)
    for widths in (problem.widest, solution.widths, problem.narrowest):
        search.offer(widths)
    if not search.closed:
        search.relax()
    return Proof(objective, search.bound)

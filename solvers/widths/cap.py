# SPDX-License-Identifier: Apache-2.0
"""CaP: every group gives up as much as leaves the score above a threshold that falls from group to group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Ints
from graphprune.errors import UsageError
from graphprune.reproducible import settled
from graphprune.solvers.evidence import needed
from graphprune.solvers.fill import fill
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.problem import Solution, ensure_reachable
from graphprune.solvers.widths import solver
from graphprune.solvers.widths._profiles import chosen_by, errors_at_levels, kept_at, starting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphprune.solvers.problem import Problem, TraceRecord
    from graphprune.solvers.protocols.outcomes import Kept, Outcomes, Profile

__all__ = ["solve"]


_SMALLEST = -9.0  # power of 2: a smaller tolerance is less than held-out samples can tell


@solver("cap", samples=True)
def solve(problem: Problem, *, trials: int = 4, passes: int = 6) -> Solution:
    """Search widths group by group against falling thresholds, with the tolerance that meets the budget.

    From the inputs to the outputs, every group is made as narrow as a bisection over its levels allows: what reads it
    is compensated, and the score on held-out samples (accuracy with labels, agreement with the dense network without)
    must not fall below a threshold, which falls in equal steps from the score of the whole network to that score less
    a tolerance. What was chosen for a group is there for all that follow.

    The method is given a tolerance and takes the widths that come of it; here a budget is given, and the tolerance is
    found by bisection. What is left of the budget then, or missing where not even the largest tolerance meets it, goes
    by the reconstruction errors of what reads each group.

    Parameters
    ----------
    problem : Problem
    trials : int, at least 1
        Widths tried per group and pass.
    passes : int, at least 1
        Tolerances tried.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        Without samples, or for settings that are not positive.

    Notes
    -----
    Source: Xie et al., Pruning with Compensation: Efficient Channel Pruning for Deep Convolutional Neural Networks,
    arXiv:2108.13728: compensation and the thresholds of the structural search. Bisecting the tolerance is ours.
    """
    if trials < 1 or passes < 1:
        raise UsageError(f"trials and passes must be positive, got {trials} and {passes}")
    outcomes = needed(problem.evidence, "cap").outcomes
    ensure_reachable(problem)
    kept = starting(problem)
    if problem.fits(problem.widest):
        return Solution(problem.widest, [{"stage": "fill", "cost": problem.cost(problem.widest)}], kept)
    search = _Search(problem, outcomes, kept, trials)
    profiles = outcomes.reconstructions(kept)
    stairs = Stairs(problem, [-errors for errors in errors_at_levels(problem, profiles)])
    widths = fill(problem, _bisected(search, passes), stairs)
    search.trace.append({"stage": "fill", "cost": problem.cost(widths)})
    atoms = kept_at(problem, kept, profiles, widths)
    return Solution(widths, search.trace, atoms, chosen_by=chosen_by(profiles))


def _bisected(search: _Search, passes: int) -> Ints:
    """Return the widths of the smallest tolerance seen that meets the budget, else the narrowest ones."""
    low, high, best = _SMALLEST, 0.0, search.problem.narrowest  # exponents of 2
    for _ in range(passes):
        middle = (low + high) / 2
        widths = search.run(2.0**middle)
        if search.problem.fits(widths):
            high, best = middle, widths
        else:
            low = middle
    return best


class _Search:
    """Searches widths for a tolerance."""

    def __init__(self, problem: Problem, outcomes: Outcomes, kept: Kept, trials: int) -> None:
        self.problem = problem
        self.trace: list[TraceRecord] = []
        self._outcomes = outcomes
        self._kept = kept
        self._trials = trials

    def run(self, tolerance: float) -> Ints:
        """Return the widths that come of a tolerance."""
        problem = self.problem
        widths, start = problem.widest, 0.0
        known = [profile is not None for profile in self._outcomes.reconstructions(self._kept)]
        free = [group for group, levels in enumerate(problem.levels) if known[group] and len(levels) > 1]
        done = 0

        def choose(group: int, profile: Profile, score: Callable[[int], float]) -> int:
            nonlocal done, start
            if group in free:
                start = start if done else score(int(widths[group]))
                done += 1
                threshold = start - tolerance * done / len(free)
                widths[group] = self._narrowest(problem.levels[group], score, threshold)
            return int(widths[group])

        self._outcomes.go_forward(self._kept, choose)
        widths = self._with_the_rest(widths, free, known)
        record: TraceRecord = {"stage": "pass", "tolerance": tolerance, "score": settled(start)}
        self.trace.append(record | {"cost": problem.cost(widths)})
        return widths

    def _narrowest(self, levels: Ints, score: Callable[[int], float], threshold: float) -> int:
        """Return the narrowest level that a bisection finds above a threshold; the widest is taken to be there."""
        low, high = -1, len(levels) - 1
        for _ in range(self._trials):
            if high - low <= 1:
                break
            middle = (low + high) // 2
            low, high = (low, middle) if score(int(levels[middle])) >= threshold else (middle, high)
        return int(levels[high])

    def _with_the_rest(self, widths: Ints, free: Sequence[int], known: Sequence[bool]) -> Ints:
        """Give groups that cannot be measured the share of their atoms that the others keep together."""
        full = int(self.problem.widest[free].sum())
        share = int(widths[free].sum()) / full if full else 0.0
        for group, levels in enumerate(self.problem.levels):
            if not known[group]:
                below = int(np.searchsorted(levels, share * int(levels[-1]), side="right")) - 1
                widths[group] = levels[max(0, below)]
        return widths

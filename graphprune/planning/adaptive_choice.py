# SPDX-License-Identifier: Apache-2.0
"""Adaptive inheritance: criteria compete for which channels stay, at widths that are chosen already (AdaPruner).

Every candidate is built, recalibrated and measured on held-out samples, by accuracy where there are labels and by
agreement with the dense network where there are none. The best one is kept, and the plan records the contest. What a
solver chose itself takes part under its name.

Source: Liu et al., AdaPruner: Adaptive Channel Pruning and Effective Weights Inheritance, arXiv:2109.06397, of which
the abstract is public.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, quote
from graphprune.reproducible import settled
from graphprune.solvers.evidence import needed
from graphprune.solvers.saliency import select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem, Solution
    from graphprune.solvers.protocols.outcomes import Kept

__all__ = ["RECALIBRATION", "Candidates", "adapt"]

RECALIBRATION = "bn"
"""How candidates are recovered before they are measured."""


@dataclass(frozen=True)
class Candidates:
    """Who competes.

    Parameters
    ----------
    candidates : tuple of str
        Criteria; none for no contest.
    criterion : str
        Whose scores the problem has.
    solver : str
        The name under which a solver's own choice of channels takes part.
    """

    candidates: tuple[str, ...]
    criterion: str
    solver: str


def adapt(
    problem: Problem,
    solution: Solution,
    contest: Candidates,
    score: Callable[[str], Sequence[npt.NDArray[np.float64]]],
) -> tuple[Kept, dict[str, Any]]:
    """Return which atoms stay at the widths of a solution, and what a plan records of the contest, if there was one.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    contest : Candidates
    score : callable
        Gives the scores of each group by a criterion.

    Raises
    ------
    UsageError
        Without samples, or if a candidate is named twice or is no criterion.
    """
    own = tuple(select(scores, width) for scores, width in zip(problem.scores, solution.widths.tolist(), strict=True))
    present = solution.kept or own
    if not contest.candidates:
        return present, {}
    for name in contest.candidates:
        if contest.candidates.count(name) > 1:
            raise UsageError(f"the criterion {quote(name)} is to compete twice")
    outcomes = needed(problem.evidence, "adapt").outcomes
    candidates: dict[str, Kept] = {}
    for name in contest.candidates:
        scores = problem.scores if name == contest.criterion else score(name)
        candidates[name] = tuple(select(*each) for each in zip(scores, solution.widths.tolist(), strict=True))
    if solution.kept is not None:
        candidates[contest.solver] = solution.kept
    outcome_of = {name: outcomes.realise(kept, RECALIBRATION) for name, kept in candidates.items()}
    # Of equal ones the first.
    best = max(outcome_of, key=lambda name: (outcome_of[name].score, -outcome_of[name].error))
    results = [{"name": name, "score": settled(one.score), "error": one.error} for name, one in outcome_of.items()]
    facts = {"chosen": best, "measure": outcome_of[best].measure, "samples": outcome_of[best].samples}
    return candidates[best], {"adapt": {**facts, "recovered": RECALIBRATION, "contest": results}}

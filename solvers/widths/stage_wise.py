# SPDX-License-Identifier: Apache-2.0
"""Stage-wise: candidates for every stage of the network by themselves, combined by a multiple-choice knapsack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.errors import UsageError
from graphprune.reproducible import settled
from graphprune.solvers.evidence import needed
from graphprune.solvers.fill import fill
from graphprune.solvers.moves.allocation import allocate
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.problem import Solution, ensure_reachable
from graphprune.solvers.widths import solver
from graphprune.solvers.widths._knapsack import choose
from graphprune.solvers.widths._profiles import chosen_by, errors_at_levels, kept_at, starting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.problem import Problem, TraceRecord
    from graphprune.solvers.protocols.outcomes import Kept, Outcomes, Profile

__all__ = ["solve"]


_RELUCTANCE = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0)
"""Shares of their atoms that groups between stages may keep."""


@solver("stage-wise", samples=True)
def solve(problem: Problem, *, candidates: int = 16) -> Solution:
    """Choose widths for each stage from candidates that were measured on the stage alone.

    A stage lies between two changes of resolution. Its candidates are widths of the groups inside it: the widest ones,
    the narrowest ones, those with the least reconstruction error at several costs, and some that are drawn. Each is
    compensated and measured by the error of what the stage gives when the dense network feeds it, so stages do not
    depend on one another, and the best sum within the budget is a multiple-choice knapsack, solved exactly.

    Groups that lie between stages, such as a residual stream that several of them share, are whole while stages are
    measured. They keep a common share of their atoms, at the price of their reconstruction error; of some shares the
    best one is taken.

    Parameters
    ----------
    problem : Problem
    candidates : int, at least 2
        Per stage.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        Without samples, or with fewer than two candidates.

    Notes
    -----
    Source: Zhang et al., Stage-wise Channel Pruning for Model Compression, arXiv:2011.04908, of which only the abstract
    is known here; it trains a supernet per stage. Candidates without training, and their proxy, are ours.
    """
    if candidates < 2:
        raise UsageError(f"the setting 'candidates' is {candidates}, but there are at least two")
    outcomes = needed(problem.evidence, "stage-wise").outcomes
    ensure_reachable(problem)
    kept = starting(problem)
    if problem.fits(problem.widest):
        return Solution(problem.widest, [{"stage": "fill", "cost": problem.cost(problem.widest)}], kept)
    search = _Search(problem, outcomes, kept)
    stages = search.measured(candidates)
    stairs = Stairs(problem, [-errors for errors in search.errors])
    widths = fill(problem, search.combined(stages), stairs)
    search.trace.append({"stage": "fill", "cost": problem.cost(widths)})
    atoms = kept_at(problem, kept, search.profiles, widths)
    return Solution(widths, search.trace, atoms, chosen_by=chosen_by(search.profiles))


@dataclass(frozen=True, eq=False)
class _Stage:
    """The candidates of one stage.

    Attributes
    ----------
    groups : list of int
    widths : list of ndarray of int64
        Of these groups, per candidate.
    errors : ndarray of float64, shape (candidates,)
    """

    groups: list[int]
    widths: list[Ints]
    errors: Floats


class _Search:
    """Measures candidates and combines them."""

    def __init__(self, problem: Problem, outcomes: Outcomes, kept: Kept) -> None:
        self._problem = problem
        self._outcomes = outcomes
        self._kept = kept
        self._random = np.random.default_rng(problem.seed)
        self.profiles: tuple[Profile | None, ...] = outcomes.reconstructions(kept)
        self.errors = errors_at_levels(problem, self.profiles)
        self.trace: list[TraceRecord] = []

    def measured(self, count: int) -> list[_Stage]:
        """Return every stage with groups that may get narrower, and what its candidates lose."""
        of_group = self._outcomes.stages
        stages = []
        for stage in sorted({own for own in of_group if own >= 0}):
            groups = [g for g, own in enumerate(of_group) if own == stage and len(self._problem.levels[g]) > 1]
            if not groups:
                continue
            widths = self._candidates(groups, count)
            kept = [kept_at(self._problem, self._kept, self.profiles, self._with(groups, own)) for own in widths]
            errors = self._outcomes.stage_errors(stage, kept)
            stages.append(_Stage(groups, widths, errors))
            self.trace.append({"stage": f"stage {stage}", "groups": len(groups), "candidates": len(widths)})
        return stages

    def _with(self, groups: Sequence[int], widths: Ints) -> Ints:
        """Return the widest levels with other widths of some groups."""
        widest = self._problem.widest
        widest[list(groups)] = widths
        return widest

    def _candidates(self, groups: Sequence[int], count: int) -> list[Ints]:
        """Return different widths of the groups of a stage: both ends, the best by reconstruction, some at random."""
        problem = self._problem
        levels = tuple(own if g in groups else own[-1:] for g, own in enumerate(problem.levels))
        alone = replace(problem, levels=levels)
        errors = [own if g in groups else own[-1:] for g, own in enumerate(self.errors)]
        least, most = np.array(problem.costs(alone.narrowest)), np.array(problem.costs(alone.widest))
        drawn = [alone.widest, alone.narrowest]
        for share in np.linspace(0, 1, (count + 1) // 2 + 1)[1:-1]:
            limits = tuple(
                replace(limit, limit=int(low + share * (high - low)))
                for limit, low, high in zip(problem.limits, least, most, strict=True)
            )
            drawn.append(allocate(replace(alone, limits=limits), errors))
        while len(drawn) < count:
            low = self._random.random()
            drawn.append(
                np.array([own[int(len(own) * self._random.uniform(low, 1))] for own in levels], dtype=np.int64)
            )
        unique = dict.fromkeys(tuple(widths[list(groups)].tolist()) for widths in drawn)
        return [np.array(widths, dtype=np.int64) for widths in unique]

    def combined(self, stages: Sequence[_Stage]) -> Ints:
        """Return the widths with the least sum of errors over all shares of the groups between stages."""
        inside = {group for stage in stages for group in stage.groups}
        best, least = self._problem.narrowest, np.inf
        for share in _RELUCTANCE:
            base = self._problem.widest
            for group, levels in enumerate(self._problem.levels):
                if group not in inside:
                    base[group] = levels[
                        max(0, int(np.searchsorted(levels, share * int(levels[-1]), side="right")) - 1)
                    ]
            between = sum(
                float(errors[int(np.searchsorted(levels, width))])
                for g, (errors, levels, width) in enumerate(zip(self.errors, self._problem.levels, base, strict=True))
                if g not in inside
            )
            widths, error = self._knapsack(stages, base)
            total = settled(error + between)
            if widths is not None and total < least:
                best, least = widths, total
                self.trace.append(
                    {"stage": "knapsack", "share": share, "error": least, "cost": self._problem.cost(widths)}
                )
        return best

    def _knapsack(self, stages: Sequence[_Stage], base: Ints) -> tuple[Ints | None, float]:
        """Return the best widths with the groups between stages as given; None if the budget allows no candidates."""
        problem = self._problem
        costs, start = [], np.array(problem.costs(base))
        for stage in stages:
            own = []
            for widths in stage.widths:
                tried = base.copy()
                tried[stage.groups] = widths
                own.append(np.array(problem.costs(tried)) - start)
            costs.append(np.array(own, dtype=np.float64))
        room = np.array([limit.limit for limit in problem.limits]) - start
        picked = choose([stage.errors for stage in stages], costs, room.astype(np.float64))
        if picked is None:
            return None, np.inf
        chosen = base.copy()
        for stage, at in zip(stages, picked, strict=True):
            chosen[stage.groups] = stage.widths[at]
        error = sum(float(stage.errors[at]) for stage, at in zip(stages, picked, strict=True))
        # Where what a stage costs depends on other stages (peak memory), the sum is not what the whole costs.
        return (chosen, error) if problem.fits(chosen) else (None, np.inf)

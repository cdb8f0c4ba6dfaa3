# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: the widths with the least measured error of the outputs, approached in stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.errors import UsageError
from graphprune.solvers.evidence import needed
from graphprune.solvers.fill import fill
from graphprune.solvers.moves.allocation import allocate
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.problem import Solution, ensure_reachable
from graphprune.solvers.registry import one_of
from graphprune.solvers.widths import solver
from graphprune.solvers.widths._profiles import (
    ELIMINATION,
    errors_at_levels,
    kept_at,
    narrowed,
    starting,
    values_at_levels,
)
from graphprune.solvers.widths._scaled_curves import ScaledCurves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.problem import Limit, Problem, TraceRecord
    from graphprune.solvers.protocols.outcomes import Kept, Outcomes, Profile

__all__ = ["solve"]

_STREAMS = ("yes", "no", "try")
_DEFAULT = MappingProxyType({"scaled": 3, "full": 4})
"""Ways of measuring, and at how many widths of a group each of them measures in a stage."""


@solver("sensitivity", samples=True)
def solve(
    problem: Problem, *, stages: int = 2, measure: str = "scaled", measured: int = 0, streams: str = "yes"
) -> Solution:
    """Measure what the outputs lose when one group alone gets narrower, and allocate widths by that.

    The errors of single groups add up only as long as all of them are small. So the budget is approached in stages:
    what a further step costs is measured in the network that has been pruned and recovered so far, against the
    outputs of the dense one. Every recovery starts from the dense network's weights again.

    How much the layers that read a group lose as it gets narrower is known in closed form, from one elimination of its
    atoms. What that does to the outputs takes a run of the network behind these layers: it is measured at the width
    that the allocation chooses, the curve is scaled to go through it
    (:mod:`graphprune.solvers.widths._scaled_curves`), and widths are allocated again. "full" measures widths that are
    spread evenly instead, and interpolates.

    Which atoms go from a group is decided by backward elimination on what reads it; in a group that cannot be measured
    (:mod:`graphprune.solvers.widths._profiles`) the least salient ones go.

    Parameters
    ----------
    problem : Problem
    stages : int, at least 1
        Steps in which the budget is approached.
    measure : {"scaled", "full"}
        Where the errors of the outputs are measured: at the widths that allocations choose, or at evenly spread ones.
    measured : int
        Widths measured per group and stage at most, besides the present one; 0 stands for 3, or 4 of those spread.
    streams : {"yes", "no", "try"}
        Whether groups that several layers make, as along residual streams, get narrower. Where the budget needs them,
        they do. "try" realises the widths with them and without at every stage, and held-out samples decide.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than a limit.
    UsageError
        Without samples, or for settings that mean nothing.
    """
    if stages < 1 or measured < 0:
        raise UsageError(f"stages must be positive and measured not negative, got {stages} and {measured}")
    one_of("measure", measure, tuple(_DEFAULT))
    one_of("streams", streams, _STREAMS)
    outcomes = needed(problem.evidence, "sensitivity").outcomes
    ensure_reachable(problem)
    search = _Search(problem, outcomes, measure, measured, streams)
    state = _State(starting(problem))
    for stage in range(1, stages + 1):
        state = search.step(state, stage, stages)
    search.trace.append({"stage": "fill", "cost": problem.cost(state.widths)})
    return Solution(state.widths, search.trace, state.kept, chosen_by=tuple(search.chosen_by))


@dataclass(frozen=True, eq=False)
class _State:
    """What is kept of each group, and what went, the last to go last."""

    kept: Kept
    gone: Kept = ()

    @property
    def widths(self) -> Ints:
        return np.array([len(atoms) for atoms in self.kept], dtype=np.int64)

    def same(self, other: _State) -> bool:
        return all(np.array_equal(one, two) for one, two in zip(self.kept, other.kept, strict=True))


class _Search:
    """Goes from stage to stage."""

    def __init__(self, problem: Problem, outcomes: Outcomes, measure: str, measured: int, streams: str) -> None:
        self._problem = problem
        self._outcomes = outcomes
        self._measure = measure
        self._measured = measured or _DEFAULT[measure]
        self._scales: Floats | None = None
        self._streams = outcomes.streams
        some = any(stream and len(levels) > 1 for stream, levels in zip(self._streams, problem.levels, strict=True))
        self._ways = (False, True) if some and streams != "yes" else (True,)
        self._both = streams == "try"
        self.chosen_by = [""] * len(problem.groups)
        self.trace: list[TraceRecord] = []

    def step(self, state: _State, stage: int, stages: int) -> _State:
        """Return the best state found within the limits of a stage."""
        limits = tuple(self._limit(limit, stage / stages) for limit in self._problem.limits)
        problem = replace(self._problem, limits=limits)
        if problem.fits(state.widths):
            return state
        profiles = self._profiles(state, problem)
        for group, profile in enumerate(profiles):
            if profile is not None:
                self.chosen_by[group] = ELIMINATION
        candidates: list[_State] = []
        for narrow in self._ways:
            held = [stream and not narrow for stream in self._streams]
            part = narrowed(problem, state.kept, held)
            if (candidates and not self._both) or not part.fits(part.narrowest):
                continue
            candidate = self._candidate(state, part, problem, profiles)
            if not any(candidate.same(other) for other in candidates):
                candidates.append(candidate)
                record: TraceRecord = {"stage": f"{stage} of {stages}", "streams": narrow}
                self.trace.append(record | {"cost": problem.cost(candidate.widths)})
        return candidates[0] if len(candidates) == 1 else self._best(candidates)

    def _profiles(self, state: _State, problem: Problem) -> tuple[Profile | None, ...]:
        """Return what every group can give up, measured in the network of a state."""
        if self._measure == "full":
            return self._outcomes.profiles(state.kept, problem.levels, self._measured)
        present = self._outcomes.present(state.kept)
        curves = ScaledCurves(present.curves, self._scales)
        part = narrowed(problem, state.kept)
        for _ in range(self._measured):
            point = allocate(part, errors_at_levels(part, curves.profiles()))
            widths = curves.worth_measuring(_probes(part, point))
            if (widths < 0).all():
                break
            curves.add(widths, present.errors(widths))
        self._scales = curves.scales
        return curves.profiles()

    def _candidate(self, state: _State, part: Problem, problem: Problem, profiles: Sequence[Profile | None]) -> _State:
        """Return what the profiles advise, with what they leave of the limits given back to what went last."""
        errors = errors_at_levels(part, profiles)
        before = state.gone or tuple(atoms[:0] for atoms in state.kept)
        kept = kept_at(part, state.kept, profiles, allocate(part, errors))
        gone = tuple(_gone(*each) for each in zip(before, state.kept, kept, profiles, strict=True))
        new = _State(kept, gone)
        return _grown(new, fill(problem, new.widths, Stairs(problem, values_at_levels(problem, part, errors))))

    def _best(self, candidates: Sequence[_State]) -> _State:
        """Return the state with the least error on held-out samples."""
        errors = []
        for state, record in zip(candidates, self.trace[-len(candidates) :], strict=True):
            outcome = self._outcomes.realise(state.kept)
            errors.append(outcome.error)
            record["error"] = outcome.error
        return candidates[int(np.argmin(errors))]

    def _limit(self, limit: Limit, progress: float) -> Limit:
        """Return what is allowed on the way from the widest levels to a limit, in equal ratios."""
        start = max(limit.cost(self._problem.widest), limit.limit)
        if progress >= 1 or limit.limit < 1:
            return limit
        return replace(limit, limit=max(limit.limit, int(start * (limit.limit / start) ** progress)))


def _probes(part: Problem, point: Ints) -> Ints:
    """Return the widths at which groups are to be measured: those of a point, below the present width in any case.

    A group that keeps all of its atoms there is measured where it has lost a quarter of them.
    """
    probes = point.copy()
    for group, levels in enumerate(part.levels):
        if point[group] == levels[-1] and len(levels) > 1:
            below = levels[:-1]
            probes[group] = below[np.abs(below - 0.75 * levels[-1]).argmin()]
    return probes


def _grown(state: _State, widths: Ints) -> _State:
    """Return a state in which the atoms that went last are there again, as many as the widths say."""
    kept, gone = [], []
    for there, went, width in zip(state.kept, state.gone, widths.tolist(), strict=True):
        back = width - len(there)
        kept.append(np.sort(np.append(there, went[len(went) - back :])))
        gone.append(went[: len(went) - back])
    return _State(tuple(kept), tuple(gone))


def _gone(before: Ints, present: Ints, kept: Ints, profile: Profile | None) -> Ints:
    """Return what went before and now, the last to go last."""
    order = present if profile is None else profile.order
    return np.append(before, order[~np.isin(order, kept)])

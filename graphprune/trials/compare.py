# SPDX-License-Identifier: Apache-2.0
"""Compare: every solver with every criterion under the same budgets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphprune import api
from graphprune.errors import RequestError, UsageError, quote
from graphprune.planning.make_plan import SolveOptions, score_groups
from graphprune.planning.solver_choice import MADE_SOLVER
from graphprune.report.trials import Trial
from graphprune.solvers import criteria, widths
from graphprune.solvers.evidence import needed
from graphprune.solvers.registry import settings
from graphprune.trials.attempt import attempt, described
from graphprune.trials.meter import Measures, Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.budget import BudgetRequest
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["ALL", "Contest", "compare"]

ALL = "all"


@dataclass(frozen=True)
class Contest:
    """What is tried.

    Parameters
    ----------
    solvers, criteria : tuple of str
        Names; ``("all",)`` stands for all that there are; without samples for all that need none, and for what `solve`
        takes where samples are made.
    options : SolveOptions
        What holds for all; its solver and criterion do not count. A setting goes to the methods that have it.
    measures : Measures
        What is measured of each result: latency, accuracy. Nothing is pruned for nothing.

    Raises
    ------
    UsageError
        If there is no such solver, criterion or setting, a name is given twice, or a method needs samples and there are
        none.
    """

    solvers: tuple[str, ...] = (ALL,)
    criteria: tuple[str, ...] = ("bn-scale",)
    options: SolveOptions = field(default_factory=SolveOptions)
    measures: Measures = field(default_factory=Measures)

    def __post_init__(self) -> None:
        methods = [*map(widths.get, self.all_solvers), *map(criteria.get, self.all_criteria)]
        known = sorted({name for method in methods for name in settings(method)})
        for name in self.options.settings:
            if name not in known:
                there = f"these methods have {', '.join(known)}" if known else "these methods have none"
                raise UsageError(f"unknown setting {quote(name)}: {there}")
        asking = [
            *(name for name in self.all_solvers if widths.needs_samples(name)),
            *(name for name in self.all_criteria if criteria.needs_samples(name)),
        ]
        if asking and not self.measures.samples:
            needed(None, asking[0])

    @property
    def all_solvers(self) -> tuple[str, ...]:
        """The names of the solvers."""
        return self._names(self.solvers, widths.names, widths.needs_samples)

    @property
    def all_criteria(self) -> tuple[str, ...]:
        """The names of the criteria."""
        return self._names(self.criteria, criteria.names, criteria.needs_samples)

    @property
    def count(self) -> int:
        """How many solvers with how many criteria that are."""
        return len(self.all_solvers) * len(self.all_criteria)

    def _names(
        self, given: tuple[str, ...], known: Callable[[], tuple[str, ...]], asks: Callable[[str], bool]
    ) -> tuple[str, ...]:
        names = _names(given, known)
        if ALL not in given or self.measures.calib:
            return names
        measured = (MADE_SOLVER,) if self.measures.alone else ()
        return tuple(name for name in names if not asks(name) or name in measured)

    @property
    def one_scale(self) -> bool:
        """Whether what one trial keeps can be held against the bound of another of the same criterion.

        A plan to start from and the setting `normalize` change the scale of what is kept.
        """
        return self.options.constraints.start is None and "normalize" not in self.options.settings

    def choice(self, solver: str, criterion: str) -> SolveOptions:
        """Return the options of one trial."""
        known = {**settings(widths.get(solver)), **settings(criteria.get(criterion))}
        own = {name: value for name, value in self.options.settings.items() if name in known}
        return replace(self.options, solver=solver, criterion=criterion, settings=own)


def compare(
    model: Model | Analysis,
    budget: BudgetRequest | Sequence[BudgetRequest],
    contest: Contest | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Trial, ...]:
    """Try solvers and criteria on one model under the same budgets; nothing is written.

    Parameters
    ----------
    model : Model or Analysis
    budget : BudgetRequest or sequence of them
        What is limited. Of several all hold, and the first one leads.
    contest : Contest, optional
        What is tried: all solvers with `bn-scale` if nothing is said.
    progress : callable, optional
        Called with what is tried, how much of it is done, and how much there is to do.

    Returns
    -------
    tuple of Trial
        Criterion by criterion, in the order of the solvers. One that cannot meet the budget says why in its note.

    Raises
    ------
    BudgetUnreachableError, NothingToPruneError
        If none can.
    """
    contest = contest or Contest()
    requests = (budget,) if not isinstance(budget, (list, tuple)) else tuple(budget)
    analysis = model if isinstance(model, api.Analysis) else api.analyze(model)
    meter = Meter(analysis, contest.measures, contest.options.seed, contest.options.runtime)
    evidence = meter.evidence  # before anything is timed
    trials: list[Trial] = []
    refused: list[RequestError] = []
    for criterion in contest.all_criteria:
        started = time.perf_counter()
        scores = score_groups(analysis, contest.choice(contest.all_solvers[0], criterion), evidence)
        scoring = time.perf_counter() - started
        own: list[Trial] = []
        for solver in contest.all_solvers:
            if progress is not None:
                progress(f"{solver}, {criterion}", len(trials) + len(own), contest.count)
            options = contest.choice(solver, criterion)
            options = replace(options, certify=options.certify and not contest.one_scale)
            try:
                trial = attempt(analysis, requests, options, scores, meter, evidence)
                own.append(replace(trial, seconds=trial.seconds + scoring))
            except RequestError as error:
                refused.append(error)
                own.append(Trial(solver, criterion, described(requests), requests[0].metric, note=error.message))
        trials += _certified(analysis, requests, contest, own, (scores, evidence))
    if len(refused) == len(trials):
        raise refused[0]
    return tuple(trials)


def _certified(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    contest: Contest,
    trials: list[Trial],
    known: tuple[Scores, Evidence | None],
) -> list[Trial]:
    """Hold the trials of one criterion against one bound: they solve the same problem."""
    scores, evidence = known
    done = [trial for trial in trials if not trial.note]
    if not (contest.one_scale and contest.options.certify and done):
        return trials
    if all(trial.bound is None for trial in done):
        first = replace(contest.choice(done[0].solver, done[0].criterion), certify=True)
        done.append(attempt(analysis, requests, first, scores, evidence=evidence))
    bound = min(trial.bound for trial in done if trial.bound is not None)
    return [trial if trial.note else replace(trial, bound=bound) for trial in trials]


def _names(given: tuple[str, ...], known: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    if ALL in given:
        if len(given) > 1:
            raise UsageError(f"{ALL!r} stands for every name, so give no other one")
        return known()
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"{quote(name)} is given twice")
    if not given:
        raise UsageError("no name is given", hint=f"give some of {', '.join(known())}")
    return given

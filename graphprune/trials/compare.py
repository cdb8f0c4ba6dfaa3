# SPDX-License-Identifier: Apache-2.0
"""Compare: every solver with every criterion under the same budgets."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune import api
from graphprune.checks import contained
from graphprune.errors import UsageError
from graphprune.plan.budget import BudgetRequest, given_requests
from graphprune.planning.analyze_options import AnalyzeOptions
from graphprune.report.trials import Trial
from graphprune.trials.attempt import attempt
from graphprune.trials.contest import Contest
from graphprune.trials.trier import Errand, Trier, try_elsewhere
from graphprune.trials.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.trials.trier import Tried

__all__ = ["compare"]


@contained
def compare(
    model: Model | Analysis,
    budget: BudgetRequest | Sequence[BudgetRequest],
    contest: Contest | None = None,
    *,
    workers: Workers | None = None,
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
    workers : Workers, optional
        The processes that work, by default this one.
    progress : callable, optional
        Called with what is tried or was tried, how much is done, and how much there is to do.

    Returns
    -------
    tuple of Trial
        Criterion by criterion, in the order of the solvers. One that cannot meet the budget says why in its note.

    Raises
    ------
    BudgetUnreachableError, NothingToPruneError
        If none can.
    """
    contest, workers = contest or Contest(), workers or Workers()
    requests = given_requests(budget, {})
    if not requests:
        raise UsageError("no budget is given", hint='give one, e.g. BudgetRequest("flops", 0.5)')
    trier = Trier(model if isinstance(model, api.Analysis) else api.analyze(model), contest)
    points = [_options(contest, solver, name) for name in contest.all_criteria for solver in contest.all_solvers]
    work = _here(trier, requests, points, progress) if workers.none else _elsewhere(trier, requests, points, workers)
    done: dict[tuple[str, str], Tried] = {}
    with closing(work):
        for tried in work:
            done[tried.trial.criterion, tried.trial.solver] = tried
            if progress is not None and not workers.none:
                progress(f"{tried.trial.solver}, {tried.trial.criterion}", len(done), len(points))
    refused = [tried.refused for tried in done.values() if tried.refused is not None]
    if len(refused) == len(points):
        raise refused[0]
    trials: list[Trial] = []
    for name in contest.all_criteria:
        own = [done[name, solver] for solver in contest.all_solvers]
        trials += _certified(trier, requests, [_timed(tried) for tried in own])
    return tuple(trials)


def _options(contest: Contest, solver: str, criterion: str) -> SolveOptions:
    """Return the options of one trial; trials on one scale get one bound together."""
    options = contest.choice(solver, criterion)
    return replace(options, certify=options.certify and not contest.one_scale)


def _here(
    trier: Trier,
    requests: tuple[BudgetRequest, ...],
    points: Sequence[SolveOptions],
    progress: Callable[[str, int, int], None] | None,
) -> Generator[Tried]:
    """Yield what comes of each point in this process."""
    for number, options in enumerate(points):
        if progress is not None:
            progress(f"{options.solver}, {options.criterion}", number, len(points))
        yield trier.tried(options, requests)


def _elsewhere(
    trier: Trier, requests: tuple[BudgetRequest, ...], points: Sequence[SolveOptions], workers: Workers
) -> Generator[Tried]:
    """Yield what comes of each point in other processes, as they are done."""
    analysis = trier.analysis
    errand = Errand.of(analysis.model, AnalyzeOptions.like(analysis), trier.contest, far=workers.far)
    rule = errand.contest.options.round_to
    calls = [(replace(options, round_to=rule), requests) for options in points]
    yield from workers.results(try_elsewhere, errand, calls)


def _timed(tried: Tried) -> Trial:
    """Return a trial whose time holds that of the scores."""
    return tried.trial if tried.refused else replace(tried.trial, seconds=tried.trial.seconds + tried.scoring)


def _certified(trier: Trier, requests: Sequence[BudgetRequest], trials: list[Trial]) -> list[Trial]:
    """Hold the trials of one criterion against one bound: they solve the same problem."""
    contest, done = trier.contest, [trial for trial in trials if not trial.note]
    if not (contest.one_scale and contest.options.certify and done):
        return trials
    if all(trial.bound is None for trial in done):
        first = replace(contest.choice(done[0].solver, done[0].criterion), certify=True)
        done.append(attempt(trier.analysis, requests, first, trier.scores(first.criterion), evidence=trier.evidence))
    bound = min(trial.bound for trial in done if trial.bound is not None)
    return [trial if trial.note else replace(trial, bound=bound) for trial in trials]

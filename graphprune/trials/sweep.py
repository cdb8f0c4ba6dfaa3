# SPDX-License-Identifier: Apache-2.0
"""Sweep: solvers and criteria over many budgets, in parallel processes; a run that was ended goes on.

The table is written anew, atomically, after every trial, so that it holds all that is known at every instant.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune import api
from graphprune.choices import Device
from graphprune.data.providers import on, wanted
from graphprune.errors import RequestError, UsageError
from graphprune.model.lifeline import follow_parent
from graphprune.model.write import write_bytes_atomically
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.schema import Metric
from graphprune.planning.make_plan import score_groups
from graphprune.report.trials import Trial
from graphprune.trials.attempt import attempt, described
from graphprune.trials.compare import Contest
from graphprune.trials.meter import Meter
from graphprune.trials.rows import Key, dumps, key_of, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from graphprune.solvers.saliency import Scores

__all__ = ["DEFAULT", "Sweep", "sweep"]

DEFAULT: tuple[Metric, tuple[float | str, ...]] = ("flops", (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1))
"""What is limited where nothing is said, and to which shares."""


@dataclass(frozen=True)
class Sweep:
    """What is tried.

    Parameters
    ----------
    metric : str
        The cost that is limited.
    targets : tuple of float or str
        Shares to keep, or amounts with their unit.
    contest : Contest
        Solvers, criteria and what holds for all.
    analysis : AnalyzeOptions
        How the model is analysed.
    jobs : int
        Processes that work at the same time.

    Raises
    ------
    UsageError
        If a target is no budget, is given twice, or there is none, or `jobs` is not positive.
    """

    metric: Metric = DEFAULT[0]
    targets: tuple[float | str, ...] = DEFAULT[1]
    contest: Contest = field(default_factory=Contest)
    analysis: api.AnalyzeOptions = field(default_factory=api.AnalyzeOptions)
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"{self.jobs} processes cannot work")
        if not self.targets:
            raise UsageError("no budget is given")
        for request in self.requests:
            if self.targets.count(request.target) > 1:
                raise UsageError(f"the budget {request.metric} {request.target} is given twice")

    @property
    def requests(self) -> tuple[BudgetRequest, ...]:
        """The budgets, one for each point of the sweep."""
        return tuple(BudgetRequest(self.metric, target) for target in self.targets)

    def digest(self, sha256: str) -> str:
        """Return a digest of the model and of all options that change a row, but not of the points of the sweep."""
        options = self.contest.options
        content = {
            "model": sha256,
            "inputs": {name: list(shape) for name, shape in sorted(self.analysis.input_shapes.items())},
            "attention": self.analysis.attention,
            "approximate": self.analysis.approximate,
            "constraints": options.constraints.record(),
            "settings": dict(sorted(options.settings.items())),
            "measures": self.contest.measures.record(),
            **_plain(options),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:16]


def sweep(
    path: str | Path,
    output: str | Path,
    what: Sweep | None = None,
    *,
    force: bool = False,
    report: Callable[[Trial], None] | None = None,
) -> tuple[Trial, ...]:
    """Try solvers and criteria over many budgets and keep a table of what comes out.

    Rows that the table has already are not made again, so a run that was ended goes on where it was.

    Parameters
    ----------
    path : str or Path
        The model.
    output : str or Path
        The table, CSV.
    what : Sweep, optional
    force : bool
        Start anew where the table is one of another model or of other options.
    report : callable, optional
        Is given every new trial.

    Returns
    -------
    tuple of Trial
        Criterion by criterion, solver by solver, in the order of the budgets.

    Raises
    ------
    UsageError
        If the table is one of another model or of other options, and `force` is false.
    OutputError
        If it cannot be written.
    """
    what, path, output = what or Sweep(), Path(path), Path(output)
    request = what.digest(api.load(path).sha256)
    points = [
        (criterion, solver, budget)
        for criterion in what.contest.all_criteria
        for solver in what.contest.all_solvers
        for budget in what.requests
    ]
    keys: list[Key] = [(solver, criterion, described([budget])) for criterion, solver, budget in points]
    kept = [] if force else read_rows(output, request)
    done = {key_of(trial): trial for trial in kept}
    others = [trial for trial in kept if key_of(trial) not in keys]
    missing = [point for point, key in zip(points, keys, strict=True) if key not in done]
    with closing(_trials(_Job(path, request, what, wanted()), missing)) as trials:
        for trial in trials:
            done[key_of(trial)] = trial
            rows = [*(done[key] for key in keys if key in done), *others]
            write_bytes_atomically(dumps(rows, request).encode("utf-8"), output, force=True)
            if report:
                report(trial)
    return tuple(done[key] for key in keys)


@dataclass(frozen=True)
class _Job:
    """What a process has to know: the model, what is tried, a name for both, where networks run, and who asks."""

    path: Path
    request: str
    what: Sweep
    device: Device
    asked_by: int = field(default_factory=os.getpid)


def _trials(job: _Job, points: list[tuple[str, str, BudgetRequest]]) -> Generator[Trial, None, None]:
    """Yield a trial for every point as it is done."""
    from joblib import Parallel, delayed

    if job.what.jobs == 1:
        state = _State(job.path, job.what) if points else None
        yield from (_trial(state, *point) for point in points if state is not None)
        return
    parallel = Parallel(n_jobs=job.what.jobs, return_as="generator_unordered", batch_size=1, max_nbytes=None)
    yield from parallel(delayed(_trial_of_worker)(job, *point) for point in points)


def _trial_of_worker(job: _Job, criterion: str, solver: str, budget: BudgetRequest) -> Trial:
    """Try one point in a process of its own, which analyses the model once."""
    if not _worker:
        follow_parent(job.asked_by)
    with on(job.device):  # a process of its own knows nothing of what was chosen here
        if job.request not in _worker:
            _worker.clear()
            _worker[job.request] = _State(job.path, job.what)
        return _trial(_worker[job.request], criterion, solver, budget)


def _trial(state: _State, criterion: str, solver: str, budget: BudgetRequest) -> Trial:
    """Try one point."""
    options = state.contest.choice(solver, criterion)
    try:
        return attempt(state.analysis, (budget,), options, state.scores(criterion), state.meter, state.meter.evidence)
    except RequestError as error:
        return Trial(solver, criterion, described([budget]), budget.metric, note=error.message)


class _State:
    """What a process keeps from one trial to the next."""

    def __init__(self, path: Path, what: Sweep) -> None:
        self.analysis = api.analyze(api.load(path), what.analysis)
        options = what.contest.options
        self.meter = Meter(self.analysis, what.contest.measures, options.seed, options.runtime)
        self.contest = what.contest
        self._scores: dict[str, Scores] = {}

    def scores(self, criterion: str) -> Scores:
        """Return the scores of a criterion."""
        if criterion not in self._scores:
            options = self.contest.choice(self.contest.all_solvers[0], criterion)
            # Points come criterion by criterion.
            self._scores = {criterion: score_groups(self.analysis, options, self.meter.evidence)}
        return self._scores[criterion]


_worker: dict[str, _State] = {}
"""What a worker process keeps, by request; empty in the process that was asked."""


def _plain(options: Any) -> dict[str, Any]:
    """Return the options that are plain values; what a contest chooses itself is left out."""
    return {
        name: value
        for name, value in sorted(vars(options).items())
        if name not in ("solver", "criterion") and isinstance(value, bool | int | float | str | tuple)
    }

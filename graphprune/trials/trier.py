# SPDX-License-Identifier: Apache-2.0
"""Trying solvers and criteria of a contest on one model: scores and samples are there once for all trials.

:func:`try_elsewhere` does so in another process, which analyses the model itself, once.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune import api
from graphprune.choices import Device
from graphprune.data.providers import on, wanted
from graphprune.data.synthesis.make_samples import read_request
from graphprune.errors import RequestError
from graphprune.model.files.scratch import ScratchFolder
from graphprune.planning.make_plan import score_groups
from graphprune.report.trials import Trial
from graphprune.solvers.moves.levels import rule_for
from graphprune.trials.attempt import attempt, described
from graphprune.trials.contest import Contest
from graphprune.trials.meter import Meter
from graphprune.trials.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.budget import BudgetRequest
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores

__all__ = ["Errand", "Tried", "Trier", "try_elsewhere"]


@dataclass(frozen=True)
class Tried:
    """What came of a trial.

    Attributes
    ----------
    trial : Trial
        With a note where the budget cannot be met.
    scoring : float
        Seconds that the scores took, which all trials of a criterion share.
    refused : RequestError, optional
        Why there is nothing else.
    """

    trial: Trial
    scoring: float
    refused: RequestError | None = None


class Trier:
    """Tries solvers and criteria on one model.

    Parameters
    ----------
    analysis : Analysis
    contest : Contest
    places : mapping of str to Path
        Where samples are that have another place than their name says.
    """

    def __init__(self, analysis: Analysis, contest: Contest, places: Mapping[str, Path] | None = None) -> None:
        self.analysis = analysis
        self.contest = contest
        options = contest.options
        self._meter = Meter(analysis, contest.measures, options.seed, places, options.runtime)
        self._scored: tuple[str, Scores, float] | None = None

    @property
    def evidence(self) -> Evidence | None:
        """What samples say, for solvers and criteria."""
        return self._meter.evidence

    def scores(self, criterion: str) -> Scores:
        """Return the scores of a criterion; those of the last one are kept, for trials come criterion by criterion."""
        return self._scores(criterion)[0]

    def _scores(self, criterion: str) -> tuple[Scores, float]:
        if self._scored is None or self._scored[0] != criterion:
            evidence = self.evidence  # before anything is timed
            started = time.perf_counter()
            options = self.contest.choice(self.contest.all_solvers[0], criterion)
            scores = score_groups(self.analysis, options, evidence)
            self._scored = criterion, scores, time.perf_counter() - started
        return self._scored[1:]

    def tried(self, options: SolveOptions, requests: Sequence[BudgetRequest]) -> Tried:
        """Try one solver with one criterion under some budgets, all of which hold."""
        scores, seconds = self._scores(options.criterion)
        try:
            trial = attempt(self.analysis, requests, options, scores, self._meter, self.evidence)
            return Tried(trial, seconds)
        except RequestError as error:
            note = error.message
            trial = Trial(options.solver, options.criterion, described(requests), requests[0].metric, note=note)
            return Tried(trial, seconds, error)


@dataclass(frozen=True)
class Errand:
    """What a process has to know that tries something.

    Parameters
    ----------
    model : Parcel
    reading : AnalyzeOptions
        How the model is analysed.
    contest : Contest
    device : {"auto", "cpu", "cuda"}
        Where networks run.
    samples : mapping of str to Parcel
        Those that are files, by the name that the contest has for them.
    name : str
        Of this errand alone.
    """

    model: Parcel
    reading: api.AnalyzeOptions
    contest: Contest
    device: Device
    samples: dict[str, Parcel]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, model: Model, reading: api.AnalyzeOptions, contest: Contest, *, far: bool) -> Errand:
        """Return what is to be known; to machines far away files are sent. Widths suit the processor of this one."""
        names = {contest.measures.data, contest.measures.calib} - {""}
        paths = {name: Path(name) for name in sorted(names) if read_request(name) is None and Path(name).exists()}
        samples = {name: Parcel.of(path, sent=far) for name, path in paths.items()}
        options = replace(contest.options, round_to=rule_for(contest.options.round_to))
        contest = replace(contest, options=options)
        return cls(Parcel.of_model(model, sent=far), reading, contest, wanted(), samples)


class _Place:
    """What a process that tries something keeps from one trial to the next."""

    def __init__(self, errand: Errand) -> None:
        self.name = errand.name
        self._folder = ScratchFolder()
        model = api.load(errand.model.opened(self._folder.path / "model"))
        places = {
            name: parcel.opened(self._folder.path / f"samples-{number}")
            for number, (name, parcel) in enumerate(errand.samples.items())
        }
        self.trier = Trier(api.analyze(model, errand.reading), errand.contest, places)


_kept: dict[str, _Place] = {}
"""What this process keeps, by errand; empty where nothing was tried for another process."""

_one_at_a_time = threading.Lock()
"""A worker of Dask may have several threads."""


def try_elsewhere(errand: Errand, options: SolveOptions, requests: tuple[BudgetRequest, ...]) -> Tried:
    """Try one solver with one criterion in a process of its own."""
    with _one_at_a_time, on(errand.device):  # a process of its own knows nothing of what was chosen here
        if errand.name not in _kept:
            _kept.clear()
            _kept[errand.name] = _Place(errand)
        return _kept[errand.name].trier.tried(options, requests)

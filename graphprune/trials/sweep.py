# SPDX-License-Identifier: Apache-2.0
"""Sweep: solvers and criteria over many budgets, in parallel processes; a run that was ended goes on.

The table is written anew, atomically, after every trial, so that it holds all that is known at every instant.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune import api
from graphprune.checks import contained
from graphprune.errors import UsageError
from graphprune.model.write import write_bytes_atomically
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.schema import Metric
from graphprune.trials.attempt import described
from graphprune.trials.contest import Contest
from graphprune.trials.rows import Key, dumps, key_of, read_rows
from graphprune.trials.trier import Errand, Trier, try_elsewhere
from graphprune.trials.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from graphprune.model.load import Model
    from graphprune.report.trials import Trial
    from graphprune.trials.trier import Tried

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
    workers : Workers
        The processes that work.

    Raises
    ------
    UsageError
        If a target is no budget, is given twice, or there is none.
    """

    metric: Metric = DEFAULT[0]
    targets: tuple[float | str, ...] = DEFAULT[1]
    contest: Contest = field(default_factory=Contest)
    analysis: api.AnalyzeOptions = field(default_factory=api.AnalyzeOptions)
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
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


@contained
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
    model = api.load(path)
    request = what.digest(model.sha256)
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
    with closing(_tried(model, what, missing)) as results:
        for tried in results:
            done[key_of(tried.trial)] = tried.trial
            rows = [*(done[key] for key in keys if key in done), *others]
            write_bytes_atomically(dumps(rows, request).encode("utf-8"), output, force=True)
            if report:
                report(tried.trial)
    return tuple(done[key] for key in keys)


def _tried(model: Model, what: Sweep, points: Sequence[tuple[str, str, BudgetRequest]]) -> Generator[Tried]:
    """Yield what comes of every point as it is done."""
    if not points:
        return
    if what.workers.none:
        trier = Trier(api.analyze(model, what.analysis), what.contest)
        for criterion, solver, budget in points:
            yield trier.tried(what.contest.choice(solver, criterion), (budget,))
        return
    errand = Errand.of(model, what.analysis, what.contest, far=what.workers.far)
    calls = [(errand.contest.choice(solver, criterion), (budget,)) for criterion, solver, budget in points]
    yield from what.workers.results(try_elsewhere, errand, calls)


def _plain(options: Any) -> dict[str, Any]:
    """Return the options that are plain values; what a contest chooses itself is left out."""
    return {
        name: value
        for name, value in sorted(vars(options).items())
        if name not in ("solver", "criterion") and isinstance(value, bool | int | float | str | tuple)
    }

# SPDX-License-Identifier: Apache-2.0
"""`graphprune sweep`: solvers and criteria over many budgets, as a table and a chart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.choices import AnalysisChoices, Budgets, Comparing, Constraining, Measuring
from graphprune.cli.console import Talk, print_json, print_tables
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_target
from graphprune.errors import RequestError, UsageError, quote

if TYPE_CHECKING:
    from graphprune.report.trials import Trial

__all__ = ["sweep"]


@spread
def sweep(
    model: opt.ModelFile,
    budgets: Budgets,
    comparing: Comparing,
    constraining: Constraining,
    reading: AnalysisChoices,
    measuring: Measuring,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="INT", min=1, help="Processes that work at a time.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The table. [default: MODEL.sweep.csv]", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Start the table anew.")] = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Compare solvers and criteria over many budgets.

    Commas separate budgets, e.g. --flops 0.7,0.5,0.3; without any they go from 0.9 of the FLOPs to 0.1.
    Writes a table with a row for each, and a chart beside it (.svg) with what is kept at which cost. A run
    that was ended goes on: rows that are there already stay.
    """
    limited = budgets.targets()
    table = output or beside(model, ".sweep.csv")
    options = replace(comparing.options(), constraints=constraining.constraints())
    inputs = [path for path in (model, constraining.widths, constraining.start) if path is not None]
    picture = table.with_name(table.stem + ".svg")
    if picture == table:
        raise UsageError(f"the table and its chart would both go to {quote(str(table))}", hint="name it .csv")
    for path in (table, picture):
        check_target(path, inputs, force=True)

    from graphprune.model.write import write_bytes_atomically
    from graphprune.report.chart import chart
    from graphprune.report.trials import trial_json, trial_tables
    from graphprune.trials.compare import Contest
    from graphprune.trials.rows import front, key_of
    from graphprune.trials.sweep import DEFAULT, Sweep
    from graphprune.trials.sweep import sweep as run

    contest = Contest(comparing.solvers(), comparing.criteria(), options, measuring.measures())
    what = Sweep(*(limited or DEFAULT), contest, reading.options(), jobs)
    talk = Talk(verbose=verbose)

    def told(trial: Trial) -> None:
        talk.detail(f"{trial.budget}, {trial.solver}, {trial.criterion}: {trial.note or f'{trial.seconds:.2f} s'}")

    trials = run(model, table, what, force=force, report=told)
    best = front(trials)
    write_bytes_atomically(chart(model.stem, trials, best), picture, force=True)
    if as_json:
        files = {"table": str(table), "chart": str(picture)}
        found = [{**trial_json(trial), "front": key_of(trial) in best} for trial in trials]
        print_json({"command": "sweep", "model": str(model), **files, "trials": found})
    else:
        print_tables(trial_tables(model.stem, trials))
    if trials and all(trial.note for trial in trials):
        raise RequestError(f"none of the budgets can be met: {trials[-1].note}")

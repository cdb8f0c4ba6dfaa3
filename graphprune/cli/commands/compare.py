# SPDX-License-Identifier: Apache-2.0
"""`graphprune compare`: what several solvers and criteria make of a model under the same budget."""

from __future__ import annotations

from dataclasses import replace

from graphprune.cli import options as opt
from graphprune.cli.choices import AnalysisChoices, Budgets, Comparing, Constraining, Measuring
from graphprune.cli.console import Talk, print_json, print_tables
from graphprune.cli.spread import spread

__all__ = ["compare"]


@spread
def compare(
    model: opt.ModelFile,
    budgets: Budgets,
    comparing: Comparing,
    constraining: Constraining,
    reading: AnalysisChoices,
    measuring: Measuring,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Compare solvers and criteria under one budget.

    Prints a line for each: the share of every group's channels that stays as a bar, costs, how much
    saliency is kept, how much more there could be, and the time it took. Writes nothing.
    """
    requests = budgets.requests()
    options, analysed = replace(comparing.options(), constraints=constraining.constraints()), reading.options()

    from graphprune import api
    from graphprune.report.trials import trial_json, trial_tables
    from graphprune.trials.compare import Contest
    from graphprune.trials.compare import compare as run

    contest = Contest(comparing.solvers(), comparing.criteria(), options, measuring.measures())
    talk = Talk(verbose=verbose)
    with talk.stage("analysis"):
        analysis = api.analyze(api.load(model), analysed)
    with talk.stage("solving"):
        trials = run(analysis, requests, contest)
    if as_json:
        print_json({"command": "compare", "model": str(model), "trials": [trial_json(trial) for trial in trials]})
    else:
        print_tables(trial_tables(analysis.model.name, trials))

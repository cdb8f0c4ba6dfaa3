# SPDX-License-Identifier: Apache-2.0
"""`graphprune compare`: what several solvers and criteria make of a model under the same budget."""

from __future__ import annotations

from graphprune.cli.console import print_json, print_tables
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import Budgets
from graphprune.cli.options.channel_choice import ComparedChannels
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Printing
from graphprune.cli.options.processes import Processes
from graphprune.cli.options.samples import MeasuringSamples
from graphprune.cli.options.widths import ComparedWidths
from graphprune.cli.spread import spread

__all__ = ["compare"]


@examples(
    "graphprune compare model.onnx --flops 0.5 --calib photos/",
    "graphprune compare model.onnx --flops 0.5 --quick",
    "graphprune compare model.onnx --params 0.3 --solver bisection,global --criterion l1,bn-scale",
)
@spread
def compare(
    budgets: Budgets,
    widths: ComparedWidths,
    channels: ComparedChannels,
    reading: ModelReading,
    measuring: MeasuringSamples,
    processes: Processes,
    printing: Printing,
) -> None:
    """Compare solvers and criteria under one budget.

    Prints a line for each, the best first: what it is worth once it is recovered, on samples that are given or
    that are made from what the file remembers; the share of every group's channels that stays as a bar, costs,
    how much saliency is kept, how much more there could be, and the time it took. Writes nothing.
    """
    requests, options, analysed = budgets.requests(), channels.solve_options(widths), reading.options()
    widths.check_threads(budgets.latency)

    from graphprune import api
    from graphprune.report.trials import trial_json, trial_tables
    from graphprune.trials.compare import compare as run
    from graphprune.trials.contest import Contest

    talk, model = printing.talk(), reading.model
    measuring.running.select(talk)
    contest = Contest(widths.solvers(), channels.criteria(), options, measuring.measures(model, talk))
    with talk.stage("analysis"):
        analysis = api.analyze(api.load(model), analysed)
    with talk.steps("solving") as progress:
        trials = run(analysis, requests, contest, workers=processes.workers(), progress=progress)
    if printing.as_json:
        print_json({"command": "compare", "model": str(model), "trials": [trial_json(trial) for trial in trials]})
    else:
        print_tables(trial_tables(analysis.model.name, trials))

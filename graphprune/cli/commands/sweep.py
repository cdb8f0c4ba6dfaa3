# SPDX-License-Identifier: Apache-2.0
"""`graphprune sweep`: solvers and criteria over many budgets, as a table and a chart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json, print_line, print_tables
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import Budgets
from graphprune.cli.options.channel_choice import ComparedChannels
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Output, Printing
from graphprune.cli.options.processes import Processes
from graphprune.cli.options.samples import MeasuringSamples
from graphprune.cli.options.widths import ComparedWidths
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets
from graphprune.errors import RequestError, UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphprune.report.trials import Trial

__all__ = ["sweep"]

_SUFFIX = ".csv"


@dataclass(frozen=True)
class _Table(Output):
    """Where the table and its chart go."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The table. [default: MODEL.sweep.csv]", show_default=False
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", "-f", help="Start the table anew.")] = False

    def paths(self, model: Path, inputs: Iterable[Path | str | None], log: Path | None) -> tuple[Path, Path]:
        """Return where the table and its chart go.

        Raises
        ------
        OutputError, UsageError
            If one of them cannot be written, or would destroy the other or an input.
        """
        table = self.output or beside(model, f".sweep{_SUFFIX}")
        picture = table.with_name(table.stem + ".svg")
        check_targets({"table": table}, inputs, force=True)
        if table.suffix != _SUFFIX:
            raise UsageError(
                f"the table cannot be written as {quote(str(table))}",
                hint=f"let its name end in {_SUFFIX}; the chart goes beside it, as .svg",
            )
        check_targets({"table": table, "chart": picture}, inputs, force=True, log=log)
        if not table.exists():  # a chart beside a table is that of an earlier run; one alone is somebody else's
            check_targets({"chart": picture}, inputs, force=self.force)
        return table, picture


@examples(
    "graphprune sweep model.onnx --flops 0.7,0.5,0.3 --quick",
    "graphprune sweep model.onnx --solver bisection --data validation/ -o sweep.csv",
)
@spread
def sweep(
    budgets: Budgets,
    widths: ComparedWidths,
    channels: ComparedChannels,
    reading: ModelReading,
    measuring: MeasuringSamples,
    processes: Processes,
    output: _Table,
    printing: Printing,
) -> None:
    """Compare solvers and criteria over many budgets.

    Commas separate budgets, e.g. --flops 0.7,0.5,0.3; without any they go from 0.9 of the FLOPs to 0.1.
    Each result is recovered and measured as by `graphprune compare`, which takes a while; --quick leaves that out.
    Writes a table with a row for each, and a chart beside it (.svg) with what is left at which cost. A run that
    was ended goes on: rows that are there already stay.
    """
    limited = budgets.targets()
    widths.check_threads(budgets.latency)
    options = channels.solve_options(widths)
    model = reading.model
    given = [model, *widths.limits.inputs, measuring.data, measuring.calib]
    table, picture = output.paths(model, given, printing.log)

    from graphprune.model.write import write_bytes_atomically
    from graphprune.report.chart import chart
    from graphprune.report.trials import trial_json, trial_tables
    from graphprune.trials.contest import Contest
    from graphprune.trials.rows import front, key_of
    from graphprune.trials.sweep import DEFAULT, Sweep
    from graphprune.trials.sweep import sweep as run

    talk = printing.talk()
    measuring.running.select(talk)
    contest = Contest(widths.solvers(), channels.criteria(), options, measuring.measures(model, talk))
    what = Sweep(*(limited or DEFAULT), contest, reading.options(), processes.workers())

    total = contest.count * len(what.requests)

    with talk.steps("trying") as progress:
        done = 0

        def told(trial: Trial) -> None:
            nonlocal done
            done += 1
            name = f"{trial.budget}, {trial.solver}, {trial.criterion}"
            progress(name, done, total)
            talk.detail(f"{name}: {trial.note or f'{trial.seconds:.2f} s'}")

        trials = run(model, table, what, force=output.force, report=told)
    best = front(trials)
    write_bytes_atomically(chart(model.stem, trials, best), picture, force=True)
    if printing.as_json:
        files = {"table": str(table), "chart": str(picture)}
        rows = [{**trial_json(trial), "front": key_of(trial) in best} for trial in trials]
        print_json({"command": "sweep", "model": str(model), **files, "trials": rows})
    else:
        print_tables(trial_tables(model.stem, trials))
        print_line("table", str(table))
        print_line("chart", str(picture))
    if trials and all(trial.note for trial in trials):
        raise RequestError(f"none of the budgets can be met: {trials[-1].note}")

# SPDX-License-Identifier: Apache-2.0
"""`graphprune report`: a plan, two plans or the table of a sweep as one page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.output import Output, Printing
from graphprune.cli.report_file import known_scores, write_report
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_target
from graphprune.errors import UsageError, near_file, quote
from graphprune.extras import require

if TYPE_CHECKING:
    from graphprune.report.html.report_page import ReportSubject

__all__ = ["report"]

_MOST_PLANS = 2


@dataclass(frozen=True)
class _Models:
    """What the first plan belongs to."""

    panel: ClassVar[str] = "Model"

    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The original: shows the group graph, what stays and why, and saliencies.",
            show_default=False,
        ),
    ] = None
    pruned: Annotated[
        Path | None,
        typer.Option(metavar="PRUNED", help="The result: shows its size and verification.", show_default=False),
    ] = None


@examples(
    "graphprune report model.plan.json --model model.onnx --pruned model.pruned.onnx",
    "graphprune report uniform.plan.json measured.plan.json -o both.html",
    "graphprune report model.sweep.csv",
)
@spread
def report(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="PLAN|TABLE...", help="A plan, two plans, or the table of a sweep.", show_default=False),
    ],
    models: _Models,
    output: Output,
    printing: Printing,
) -> None:
    """Write a page that shows what was pruned, where, and why.

    Widths and FLOPs of every layer, coupled groups with the channels that stay, budgets, what recovery brought; with
    --model also what is frozen and why. The page is one file and loads nothing. Needs the extra `report`.
    """
    require("report", "`graphprune report`")
    target = output.output or files[0].with_name(_stem(files[0]) + ".report.html")
    check_target(target, [*files, *filter(None, (models.model, models.pruned))], force=output.force)

    talk = printing.talk()
    with talk.stage("reading"):
        subject = _subject(files, models)
    with talk.stage("drawing"):
        title = subject.plans[0].model.name if subject.plans else files[0].stem
        write_report(target, title, subject, force=output.force)
    if printing.as_json:
        print_json({"command": "report", "files": [str(file) for file in files], "output": str(target)})
    else:
        typer.echo(f"report  {target}")


def _stem(file: Path) -> str:
    """Return the name of the model that a plan or a table is named after."""
    return file.stem.removesuffix(".plan").removesuffix(".sweep")


def _subject(files: list[Path], models: _Models) -> ReportSubject:
    """Read everything that the report is about.

    Raises
    ------
    UsageError
        If the files do not go together.
    """
    from graphprune import api
    from graphprune.plan.file import read_plan
    from graphprune.report.html.report_page import ReportSubject
    from graphprune.trials.rows import front, read_rows

    for file in files:
        if not file.exists():
            raise UsageError(f"{quote(str(file))} does not exist", hint=near_file(file))
    tables = [file for file in files if file.suffix.lower() == ".csv"]
    plans = tuple(read_plan(file) for file in files if file not in tables)
    if len(tables) > 1 or len(plans) > _MOST_PLANS:
        raise UsageError(
            f"a report cannot show {len(plans)} plans and {len(tables)} tables",
            hint="give a plan, two plans of the same model, or the table of a sweep",
        )
    trials = tuple(read_rows(tables[0])) if tables else ()
    analysis = scores = pruned = None
    if models.model is not None and plans:
        analysis = api.analyze_for(api.load(models.model), plans[0])
        scores = known_scores(analysis, plans[0])
    if models.pruned is not None:
        pruned = api.load(models.pruned)
    return ReportSubject(plans, analysis, pruned, scores, trials, frozenset(front(trials)))

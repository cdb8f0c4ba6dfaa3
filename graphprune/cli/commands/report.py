# SPDX-License-Identifier: Apache-2.0
"""`graphprune report`: a plan, two plans, the table of a sweep or a folder of these as one page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.output import Output, Printing
from graphprune.cli.report_file import check_page_name, known_scores, write_report
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_targets
from graphprune.errors import PlanError, UsageError, near_file, quote
from graphprune.extras import require
from graphprune.regular_file import check_regular

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.report.html.report_page import ReportSubject
    from graphprune.report.html.tiles import KnownFigures

__all__ = ["report"]

_MOST_PLANS = 2
_PLAN, _TABLE = ".plan.json", ".csv"


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
        typer.Argument(
            metavar="PLAN|TABLE|FOLDER...",
            help="A plan, two plans, the table of a sweep, or the folder that it is in.",
            show_default=False,
        ),
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
    files = [found for file in files for found in _found(file)]
    target = output.output or files[0].with_name(_stem(files[0]) + ".report.html")
    check_page_name(target)
    check_targets({"report": target}, [*files, models.model, models.pruned], force=output.force, log=printing.log)

    talk = printing.talk()
    with talk.stage("reading"):
        subject = _subject(files, models)
    with talk.stage("drawing"):
        title = subject.plans[0].model.name if subject.plans else _stem(files[0])
        write_report(target, title, subject, force=output.force)
    if printing.as_json:
        print_json({"command": "report", "files": [str(file) for file in files], "output": str(target)})
    else:
        typer.echo(f"report  {target}")


def _stem(file: Path) -> str:
    """Return the name of the model that a plan or a table is named after."""
    return file.stem.removesuffix(".plan").removesuffix(".sweep")


def _found(file: Path) -> list[Path]:
    """Return a file, or what there is to show in a folder: the table of a sweep, else its plans.

    Raises
    ------
    UsageError
        If there is no such file, it is a pipe or a device, or the folder does not hold one table, one plan or two.
    """
    if not file.exists():
        raise UsageError(f"{quote(str(file))} does not exist", hint=near_file(file))
    check_regular(file, UsageError)
    if file.is_file():
        return [file]
    tables = sorted(each for each in file.glob(f"*{_TABLE}") if each.is_file() and _is_sweep(each))
    plans = sorted(each for each in file.glob(f"*{_PLAN}") if each.is_file())
    if len(tables) == 1:
        return tables
    if not tables and 1 <= len(plans) <= _MOST_PLANS:
        return plans
    many = tables or plans
    held = ", ".join(quote(each.name) for each in many[:3]) + (", ..." if len(many) > 3 else "")
    raise UsageError(
        f"the folder {quote(str(file))} holds {held or 'no plan and no table of a sweep'}",
        hint="name the one that you mean"
        if many
        else "give a plan, two plans of the same model, or the table of a sweep",
    )


def _is_sweep(file: Path) -> bool:
    """Whether a file begins as the table of a sweep does."""
    from graphprune.trials.rows import COLUMNS

    with file.open("rb") as stream:
        return stream.readline(4096).decode(errors="replace").strip() == ",".join(COLUMNS)


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

    tables = [file for file in files if file.suffix.lower() == _TABLE]
    plans = tuple(read_plan(file) for file in files if file not in tables)
    if len(tables) > 1 or len(plans) > _MOST_PLANS:
        raise UsageError(
            f"a report cannot show {len(plans)} plans and {len(tables)} tables",
            hint="give a plan, two plans of the same model, or the table of a sweep",
        )
    if not plans and (models.model or models.pruned):
        option = "--model" if models.model else "--pruned"
        raise UsageError(
            f"{option} belongs to a plan, and {quote(str(files[0]))} is the table of a sweep",
            hint=f"leave out {option}, or give a plan",
        )
    trials = tuple(read_rows(tables[0])) if tables else ()
    pruned = None if models.pruned is None else api.load(models.pruned)
    if pruned is not None:
        _check_pruned(pruned, plans[0], next(file for file in files if file not in tables))
    analysis = scores = figures = None
    if models.model is not None:
        analysis = api.analyze_for(api.load(models.model), plans[0])
        figures = _figures(analysis, plans[0], pruned)
        scores = known_scores(analysis, plans[0])
    return ReportSubject(plans, analysis, pruned, scores, figures, trials, frozenset(front(trials)))


def _figures(analysis: Analysis, plan: Plan, pruned: Model | None) -> KnownFigures:
    """Return what the model costs before and after."""
    from graphprune import api
    from graphprune.report.html.tiles import KnownFigures
    from graphprune.report.summary import count_totals

    reconciled = api.reconcile(analysis, plan)
    return KnownFigures(count_totals(reconciled.reference, reconciled.plan, pruned))


def _check_pruned(pruned: Model, plan: Plan, file: Path) -> None:
    """Refuse a model that the plan did not make; one that names no plan may have been exported anew.

    Raises
    ------
    PlanError
        If it names another plan, or has other inputs.
    """
    from graphprune.verification.pair import parted

    if apart := parted(pruned, file, plan):
        raise PlanError(apart)
    stored = {tensor.name for tensor in pruned.proto.graph.initializer}
    inputs = {value.name for value in pruned.proto.graph.input} - stored
    if inputs != {*plan.model.inputs}:
        raise PlanError(
            f"{quote(str(pruned.path))} was not made by {quote(str(file))}: its inputs are "
            f"{', '.join(map(quote, sorted(inputs)))}, those of the plan {', '.join(map(quote, plan.model.inputs))}",
            hint="give the model that `solve` wrote beside the plan",
        )

# SPDX-License-Identifier: Apache-2.0
"""`graphprune inspect`: look at a model's groups and what is frozen, or at the widths of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from graphprune.cli.completion import names_in_model
from graphprune.cli.console import print_json, print_tables
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import GraphReading
from graphprune.cli.options.output import Printing
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_targets
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis

__all__ = ["inspect"]


@dataclass(frozen=True)
class _Questions:
    """What is to be shown."""

    panel: ClassVar[str] = "Questions"

    why: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Explain one node, initializer, value or group: what can go, and what stays; with -v, through what.",
            show_default=False,
            autocompletion=names_in_model,
        ),
    ] = None
    graph: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the groups and the layers between them: a .svg, .html or .dot file. Of a plan: the widths and "
            "FLOPs of all layers before and after, a .svg or .png file.",
            show_default=False,
        ),
    ] = None
    votes: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Of a plan of `train --method white-box`: which classes want the channels of these groups; '*' for "
            "all.",
            show_default=False,
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.", rich_help_panel="Output")] = (
        False
    )


@examples(
    "graphprune inspect model.onnx",
    "graphprune inspect model.onnx --why Conv_12 --graph groups.svg",
    "graphprune inspect model.plan.json --graph widths.svg",
)
@spread
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file or a plan file.", show_default=False)],
    questions: _Questions,
    reading: GraphReading,
    printing: Printing,
) -> None:
    """Show what can be pruned in a model, or the widths of a plan.

    Of a model: the coupled channel groups with their share of the cost, and what is frozen and why; with -v also the
    members of each group. --why explains one part of it, --graph draws it. Of a plan: every layer before and after,
    which --graph draws. Where classes voted on a plan, --votes shows which of them want a channel.
    """
    if file.suffix.lower() == ".json":
        if questions.why is not None:
            raise UsageError("--why is a question about a model, not about a plan", hint="name the MODEL.onnx")
        _inspect_plan(file, questions, printing)
    else:
        if questions.votes is not None:
            raise UsageError("--votes is a question about a plan, not about a model", hint="name the MODEL.plan.json")
        _inspect_model(file, reading, questions, printing)


def _inspect_plan(file: Path, questions: _Questions, printing: Printing) -> None:
    from graphprune.plan.file import read_plan
    from graphprune.report.summary import plan_json
    from graphprune.report.tables import plan_tables
    from graphprune.verification.pair import partner_note

    if questions.graph is not None:
        from graphprune.report.widths_chart import check_chart_format

        check_chart_format(questions.graph)
        check_targets({"drawing": questions.graph}, [file], force=questions.force, log=printing.log)
    plan, as_json = read_plan(file), printing.as_json
    if note := partner_note(file):
        printing.talk().note(note)
    if questions.graph is not None:
        from graphprune.report.widths_chart import save_widths

        save_widths(plan, questions.graph, force=questions.force)
    if questions.votes is not None:
        from graphprune.report.votes import read_votes, votes_json, votes_tables

        votes = read_votes(plan, questions.votes)
        if as_json:
            print_json(votes_json(plan, votes))
        else:
            print_tables(votes_tables(plan, votes))
    elif as_json:
        print_json(plan_json(plan) | ({"graph": str(questions.graph)} if questions.graph else {}))
    else:
        print_tables(plan_tables(plan))
    if questions.graph is not None and not as_json:
        typer.echo(f"graph  {questions.graph}")


def _inspect_model(file: Path, reading: GraphReading, questions: _Questions, printing: Printing) -> None:
    options = reading.options()

    from graphprune import api
    from graphprune.report.picture import check_format, save_drawing
    from graphprune.verification.pair import partner_note

    if questions.graph is not None:
        check_format(questions.graph)
        check_targets({"drawing": questions.graph}, [file], force=questions.force, log=printing.log)
    talk = printing.talk()
    with talk.stage("loading"):
        loaded = api.load(file)
    if note := partner_note(file):
        talk.note(note)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, options)
    data, tables = _report(analysis, questions.why, printing)
    if questions.graph is not None:
        with talk.stage("drawing"):
            save_drawing(analysis, questions.graph, force=questions.force)
        data["graph"] = str(questions.graph)
    if printing.as_json:
        print_json(data)
        return
    if isinstance(tables, str):
        typer.echo(tables)
    else:
        print_tables(tables)
    if questions.graph is not None:
        typer.echo(f"graph  {questions.graph}")


def _report(analysis: Analysis, why: str | None, printing: Printing) -> tuple[dict[str, Any], Any]:
    """Return what is to be printed, for machines and for people; only one of the two is made."""
    if why is None:
        from graphprune.report.overview import model_json, model_tables

        return (
            (model_json(analysis), None) if printing.as_json else ({}, model_tables(analysis, members=printing.verbose))
        )
    from graphprune.analysis.explain import explain
    from graphprune.report.reasons import explanation_json, explanation_lines, explanation_tables

    explanation = explain(analysis, why)
    if printing.as_json:
        return explanation_json(explanation), None
    return {}, explanation_tables(explanation) if printing.verbose else explanation_lines(explanation)

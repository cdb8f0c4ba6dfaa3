# SPDX-License-Identifier: Apache-2.0
"""`graphprune inspect`: look at a model's groups and what is frozen, or at the widths of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json, print_tables
from graphprune.cli.targets import check_target
from graphprune.errors import UsageError

__all__ = ["inspect"]

Why = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Explain one node, initializer or value: what goes with it, or what keeps it.",
        show_default=False,
    ),
]
Graph = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the groups and the layers between them: a .svg, .html or .dot file.",
        show_default=False,
    ),
]
Votes = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Of a plan of `train --method white-box`: which classes want the channels of these groups; '*' for all.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class _Wish:
    """What is to be shown of a model, and how."""

    why: str | None
    graph: Path | None
    force: bool
    as_json: bool
    verbose: bool


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file or a plan file.", show_default=False)],
    why: Why = None,
    graph: Graph = None,
    votes: Votes = None,
    input_shape: opt.InputShapes = None,
    attention: opt.AttentionAxis = opt.Attention.heads,
    allow_approximate: opt.Approximate = False,
    force: opt.Force = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show what can be pruned in a model, or the widths of a plan.

    Of a model: the coupled channel groups with their share of the cost, and what is frozen and why; with -v also the
    members of each group. --why explains one part of it, --graph draws it. Of a plan that classes voted on, --votes
    shows which of them want a channel.
    """
    choices = opt.parse_shapes(input_shape), attention.value, allow_approximate
    if file.suffix.lower() == ".json":
        if why is not None or graph is not None:
            raise UsageError("--why and --graph are questions about a model, not about a plan")
        _inspect_plan(file, votes, as_json=as_json)
    else:
        if votes is not None:
            raise UsageError("--votes is a question about a plan, not about a model", hint="name the MODEL.plan.json")
        _inspect_model(file, choices, _Wish(why, graph, force, as_json, verbose))


def _inspect_plan(file: Path, votes: str | None, *, as_json: bool) -> None:
    from graphprune.plan.file import read_plan
    from graphprune.report.summary import plan_json
    from graphprune.report.tables import plan_tables

    plan = read_plan(file)
    if votes is not None:
        from graphprune.report.votes import read_votes, votes_json, votes_tables

        found = read_votes(plan, votes)
        if as_json:
            print_json(votes_json(plan, found))
        else:
            print_tables(votes_tables(plan, found))
    elif as_json:
        print_json(plan_json(plan))
    else:
        print_tables(plan_tables(plan))


def _inspect_model(file: Path, choices: tuple[Any, ...], wish: _Wish) -> None:
    from graphprune import api
    from graphprune.report.picture import check_format, save_drawing

    if wish.graph is not None:
        check_format(wish.graph)
        check_target(wish.graph, [file], force=wish.force)
    talk = Talk(verbose=wish.verbose)
    with talk.stage("loading"):
        loaded = api.load(file)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, api.AnalyzeOptions(*choices))
    data, tables = _report(analysis, wish)
    if wish.graph is not None:
        with talk.stage("drawing"):
            save_drawing(analysis, wish.graph, force=wish.force)
        data["graph"] = str(wish.graph)
    if wish.as_json:
        print_json(data)
        return
    print_tables(tables)
    if wish.graph is not None:
        typer.echo(f"graph  {wish.graph}")


def _report(analysis: Any, wish: _Wish) -> tuple[dict[str, Any], Any]:
    """Return what is to be printed, for machines and for people; only one of the two is made."""
    if wish.why is None:
        from graphprune.report.overview import model_json, model_tables

        return (model_json(analysis), None) if wish.as_json else ({}, model_tables(analysis, members=wish.verbose))
    from graphprune.analysis.explain import explain
    from graphprune.report.reasons import explanation_json, explanation_tables

    found = explain(analysis, wish.why)
    return (explanation_json(found), None) if wish.as_json else ({}, explanation_tables(found, everything=wish.verbose))

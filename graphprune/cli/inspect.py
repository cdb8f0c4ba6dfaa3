# SPDX-License-Identifier: Apache-2.0
"""`graphprune inspect`: look at a model's groups and what is frozen, or at the widths of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json, print_tables

__all__ = ["inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file or a plan file.", show_default=False)],
    input_shape: opt.InputShapes = None,
    attention: opt.AttentionAxis = opt.Attention.heads,
    allow_approximate: opt.Approximate = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show what can be pruned in a model, or the widths of a plan.

    Of a model: the coupled channel groups with their share of the cost, and what is frozen and why; with -v also the
    members of each group.
    """
    choices = opt.parse_shapes(input_shape), attention.value, allow_approximate
    if file.suffix.lower() == ".json":
        _inspect_plan(file, as_json=as_json)
    else:
        _inspect_model(file, choices, verbose=verbose, as_json=as_json)


def _inspect_plan(file: Path, *, as_json: bool) -> None:
    from graphprune.plan_file import read_plan
    from graphprune.report.summary import plan_json
    from graphprune.report.tables import plan_tables

    plan = read_plan(file)
    if as_json:
        print_json(plan_json(plan))
    else:
        print_tables(plan_tables(plan))


def _inspect_model(file: Path, choices: tuple[Any, ...], *, verbose: bool, as_json: bool) -> None:
    from graphprune import api
    from graphprune.report.overview import model_json, model_tables

    talk = Talk(verbose=verbose)
    with talk.stage("loading"):
        loaded = api.load(file)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, api.AnalyzeOptions(*choices))
    if as_json:
        print_json(model_json(analysis))
    else:
        print_tables(model_tables(analysis, members=verbose))

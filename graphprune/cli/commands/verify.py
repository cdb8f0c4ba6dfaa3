# SPDX-License-Identifier: Apache-2.0
"""`graphprune verify`: compare a pruned file with the masked original of its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json

__all__ = ["verify"]


def verify(
    model: opt.ModelFile,
    pruned: Annotated[
        Path, typer.Argument(metavar="PRUNED", help="The file that is to be checked.", show_default=False)
    ],
    plan: opt.PlanFile,
    rebind: Annotated[
        bool, typer.Option("--rebind", help="Accept another checkpoint or re-export of the same structure.")
    ] = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Compare a pruned model with the masked original.

    Compares the files field by field, then runs both in onnxruntime and compares outputs and
    intermediate tensors. Exit code 101 if they differ.
    """
    from dataclasses import asdict

    from graphprune import api
    from graphprune.plan.file import read_plan
    from graphprune.report.tables import check_text

    talk = Talk(verbose=verbose)
    stored = read_plan(plan)
    with talk.stage("loading"):
        original, candidate = api.load(model), api.load(pruned)
    with talk.stage("analysis"):
        analysis = api.analyze_for(original, stored, rebind=rebind)
        current = api.reconcile(analysis, stored, rebind=rebind)
    for note in current.notes:
        talk.note(note)
    with talk.stage("verification"):
        found = api.verify(analysis, candidate, current.plan)
    if as_json:
        print_json(
            {"command": "verify", "model": str(model), "pruned": str(pruned), "plan": str(plan), **asdict(found)}
        )
    else:
        typer.echo(check_text(found))

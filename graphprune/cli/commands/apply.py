# SPDX-License-Identifier: Apache-2.0
"""`graphprune apply`: carry out a stored plan, which may have been edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.console import Talk
from graphprune.cli.targets import Targets, beside

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan

__all__ = ["apply"]


def apply(
    model: opt.ModelFile,
    plan: opt.PlanFile,
    output: opt.Output = None,
    updated_plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Write the plan as applied, with all figures brought up to date."),
    ] = None,
    rebind: Annotated[
        bool, typer.Option("--rebind", help="Accept another checkpoint or re-export of the same structure.")
    ] = False,
    force: opt.Force = False,
    unverified: opt.Unverified = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time both models in onnxruntime.")] = False,
    as_json: opt.Json = False,
    dry_run: opt.DryRun = False,
    verbose: opt.Verbose = False,
) -> None:
    """Prune a model as a plan file says.

    Writes MODEL.pruned.onnx. The kept indices of each group decide. Where they were edited,
    everything that follows from them is computed again; a plan that contradicts itself is refused.
    """
    targets = Targets(output or beside(model, ".pruned.onnx"), updated_plan, force, dry_run)
    targets.check([model, plan])

    from graphprune import api
    from graphprune.plan.file import read_plan

    talk = Talk(verbose=verbose)
    stored = read_plan(plan)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("analysis"):
        analysis = api.analyze_for(loaded, stored, rebind=rebind)
    current = api.reconcile(analysis, stored, rebind=rebind)
    notes = (*current.notes, *_not_repeated(current.plan))
    for note in notes:
        talk.note(note)
    pruned_only = replace(current, plan=replace(current.plan, steps=()))
    job = Job("apply", analysis, pruned_only.plan, targets, unverified, bench, notes, reconciled=pruned_only)
    show(carry_out(job, talk), as_json=as_json)


def _not_repeated(plan: Plan) -> tuple[str, ...]:
    """Say that what followed pruning when the plan was made does not follow now."""
    done = " and ".join(step.name for step in plan.steps if step.applied)
    return (f"the plan records that {done} followed; here the model is only pruned",) if done else ()

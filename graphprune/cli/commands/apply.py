# SPDX-License-Identifier: Apache-2.0
"""`graphprune apply`: carry out a stored plan, which may have been edited."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.accuracy_report import NextStep
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import RunningDevice, verify_on
from graphprune.cli.options.model_reading import ModelFile, PlanFile, Rebind
from graphprune.cli.options.output import AppliedOutput, Printing
from graphprune.cli.options.widths import checked_runtime
from graphprune.cli.spread import spread

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan

__all__ = ["apply"]


@examples(
    "graphprune apply model.onnx model.plan.json",
    "graphprune apply retrained.onnx model.plan.json --rebind --plan retrained.plan.json",
)
@spread
def apply(
    model: ModelFile,
    plan: PlanFile,
    *,
    rebind: Rebind = False,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="Where --bench measures, as for `solve`.", rich_help_panel="Output")
    ] = "onnxruntime",
    device: RunningDevice,
    output: AppliedOutput,
    printing: Printing,
) -> None:
    """Prune a model as a plan file says.

    Writes MODEL.pruned.onnx. The kept indices of each group decide. Where they were edited,
    everything that follows from them is computed again; a plan that contradicts itself is refused.
    """
    targets = output.targets(model)
    targets.check([model, plan], printing.log)

    from graphprune import api
    from graphprune.plan.file import read_plan
    from graphprune.verification.pair import partner_note

    talk = printing.talk()
    device.select(talk)
    verify_on(output.verify_device, talk)
    stored = read_plan(plan)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("analysis"):
        analysis = api.analyze_for(loaded, stored, rebind=rebind)
    current = api.reconcile(analysis, stored, rebind=rebind)
    parted = partner_note(plan) if targets.output.exists() else ""
    notes = (*current.notes, *_not_repeated(current.plan), *filter(None, (parted,)))
    for note in notes:
        talk.note(note)
    pruned_only = replace(current, plan=replace(current.plan, steps=()))
    job = Job(
        "apply",
        analysis,
        pruned_only.plan,
        targets,
        output.unverified,
        output.bench,
        checked_runtime(runtime),
        notes,
        reconciled=pruned_only,
        next_step=NextStep(model, targets, output.plan_file or plan, rebind=rebind and output.plan_file is None),
    )
    summary = carry_out(job, talk)
    if not printing.as_json:  # who reads the table has read these above it
        summary = replace(summary, notes=tuple(note for note in summary.notes if note not in notes))
    show(summary, as_json=printing.as_json, verbose=printing.verbose)


def _not_repeated(plan: Plan) -> tuple[str, ...]:
    """Say that what followed pruning when the plan was made does not follow now."""
    from graphprune.report.summary import MEASURED

    done = " and ".join(step.name for step in plan.steps if step.applied and step.name != MEASURED)
    return (f"the plan records that {done} followed; here the model is only pruned",) if done else ()

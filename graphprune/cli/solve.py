# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.choices import Budgets, Choosing, Constraining, Reading
from graphprune.cli.console import Talk
from graphprune.cli.data import Calibrating
from graphprune.cli.groups import spread
from graphprune.cli.restoring import Restoration, Restoring
from graphprune.cli.targets import Targets, beside

__all__ = ["solve"]


@spread
def solve(
    model: opt.ModelFile,
    budgets: Budgets,
    choosing: Choosing,
    constraining: Constraining,
    reading: Reading,
    calibrating: Calibrating,
    restoring: Restoring,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Remove only what changes nothing, without a budget.")
    ] = False,
    output: opt.Output = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the plan goes. [default: MODEL.plan.json]", show_default=False),
    ] = None,
    force: opt.Force = False,
    unverified: opt.Unverified = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time both models in onnxruntime.")] = False,
    as_json: opt.Json = False,
    dry_run: opt.DryRun = False,
    verbose: opt.Verbose = False,
) -> None:
    """Prune a model to a budget.

    Writes MODEL.pruned.onnx and MODEL.plan.json. Finds the channels that hang together, chooses
    which to remove so that the cost stays within the budget, removes them, and proves in
    onnxruntime that the result equals the original with the removed channels masked out.
    --recover and --finetune then bring accuracy back; the plan says what each of them brought.
    """
    requests = budgets.requests(needed=not lossless)
    options, analysed = (
        replace(choosing.options(), constraints=constraining.constraints(), lossless=lossless),
        reading.options(),
    )
    targets = Targets(output or beside(model, ".pruned.onnx"), plan or beside(model, ".plan.json"), force, dry_run)
    restoring.check(calibrating.calib)
    targets.check([path for path in (model, constraining.widths, constraining.start) if path is not None])

    from graphprune import api
    from graphprune.report.summary import plan_notes, uncounted_notes

    talk = Talk(verbose=verbose)
    with talk.stage("loading"):
        loaded = api.load(model)
        samples, lessons = calibrating.open(loaded), replace(calibrating, calib=restoring.data).open(loaded)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, analysed)
    with talk.steps("solving") as progress:
        solution = api.solve(analysis, requests, options, data=samples, progress=progress)
    notes = (*plan_notes(solution), *uncounted_notes(analysis))
    wanted = restoring.recover is not None or restoring.finetune
    afterwards = Restoration(restoring, options.seed, samples, lessons) if wanted else None
    job = Job("solve", analysis, solution, targets, unverified, bench, notes, afterwards)
    show(carry_out(job, talk), as_json=as_json)

# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.choices import AnalysisChoices, Budgets, Choosing, Constraining
from graphprune.cli.console import Talk
from graphprune.cli.data_options import Calibrating
from graphprune.cli.restoring import Restoration, Restoring
from graphprune.cli.spread import spread
from graphprune.cli.targets import Targets, beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.planning.make_plan import SolveOptions

__all__ = ["solve"]


@spread
def solve(
    model: opt.ModelFile,
    budgets: Budgets,
    choosing: Choosing,
    constraining: Constraining,
    reading: AnalysisChoices,
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
        solution, used = _solved(analysis, requests, options, samples, progress)
    notes = (*plan_notes(solution), *uncounted_notes(analysis))
    if not used and not restoring.reads_calib:
        notes = (*notes, _unread(options))
    wanted = restoring.recover is not None or restoring.finetune
    afterwards = Restoration(restoring, options.seed, samples, lessons) if wanted else None
    job = Job("solve", analysis, solution, targets, unverified, bench, notes, afterwards)
    show(carry_out(job, talk), as_json=as_json)


def _solved(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    samples: Source | None,
    progress: Callable[[str, int, int], None],
) -> tuple[Plan, bool]:
    """Return the plan, and whether all samples that were given were of use."""
    from graphprune import api
    from graphprune.data.source import Watched

    if samples is None:
        return api.solve(analysis, requests, options, progress=progress), True
    source, watched = Watched.over(samples)
    return api.solve(analysis, requests, options, data=source, progress=progress), watched.used


def _unread(options: SolveOptions) -> str:
    """Say that samples changed nothing, and what would look at them."""
    who = "--lossless does not look" if options.lossless else f"neither {options.solver} nor {options.criterion} looks"
    return f"the samples of --calib are not read: {who} at any; --recover, and some solvers and criteria, would"

# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.console import Talk
from graphprune.cli.targets import Targets, beside

__all__ = ["solve"]


def solve(
    model: opt.ModelFile,
    flops: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Share of the FLOPs to keep, e.g. 0.5. 1 keeps all.", show_default=False),
    ] = None,
    params: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Share of the parameters to keep.", show_default=False)
    ] = None,
    output: opt.Output = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the plan goes. [default: MODEL.plan.json]", show_default=False),
    ] = None,
    solver: Annotated[
        str, typer.Option(metavar="NAME", help="How widths are chosen: bisection, uniform.")
    ] = "bisection",
    criterion: Annotated[
        str, typer.Option(metavar="NAME", help="How important a channel is: bn-scale, l1, l2, random.")
    ] = "bn-scale",
    round_to: Annotated[
        str, typer.Option(metavar="auto|INT", help="Widths are multiples of this; 1 switches alignment off.")
    ] = "auto",
    min_keep: Annotated[int, typer.Option(metavar="INT", min=1, help="Fewest channels a group keeps.")] = 1,
    input_shape: opt.InputShapes = None,
    attention: opt.AttentionAxis = opt.Attention.heads,
    allow_approximate: opt.Approximate = False,
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For criteria that draw.")] = 0,
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
    """
    from graphprune.plan.budget import one_budget, parse_share

    request = one_budget(
        flops=None if flops is None else parse_share(flops, "--flops"),
        params=None if params is None else parse_share(params, "--params"),
    )
    rounding, shapes = opt.parse_rounding(round_to), opt.parse_shapes(input_shape)
    targets = Targets(output or beside(model, ".pruned.onnx"), plan or beside(model, ".plan.json"), force, dry_run)
    targets.check([model])

    from graphprune import api
    from graphprune.report.summary import plan_notes, uncounted_notes

    talk = Talk(verbose=verbose)
    choices = api.SolveOptions(solver, criterion, rounding, min_keep, seed)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, api.AnalyzeOptions(shapes, attention.value, allow_approximate))
    with talk.stage("solving"):
        solution = api.solve(analysis, request, choices)
    notes = (*plan_notes(solution), *uncounted_notes(analysis))
    job = Job("solve", analysis, solution, targets, unverified, bench, notes)
    show(carry_out(job, talk), as_json=as_json)

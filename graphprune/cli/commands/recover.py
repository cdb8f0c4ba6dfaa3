# SPDX-License-Identifier: Apache-2.0
"""`graphprune recover`: bring the accuracy of a pruned model back without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import data_options as dat
from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json
from graphprune.cli.restoring import RecoveryMethod
from graphprune.cli.targets import beside, check_target
from graphprune.errors import NotImprovedError, UsageError

if TYPE_CHECKING:
    from graphprune.recovery.recover_options import Recovery

__all__ = ["recover"]


def recover(
    pruned: Annotated[Path, typer.Argument(metavar="PRUNED", help="The pruned ONNX file.", show_default=False)],
    teacher: Annotated[Path, typer.Option(metavar="MODEL", help="The original that it was made of.")],
    plan: Annotated[Path, typer.Option(metavar="PLAN", help="The plan by which it was pruned.")],
    calib: Annotated[str, typer.Option(metavar="SOURCE", help=f"Samples, labels are not needed: {dat.SOURCE_HELP}.")],
    output: opt.Output = None,
    method: Annotated[
        RecoveryMethod, typer.Option(help="Refit weights, estimate BatchNormalization anew, or shift biases only.")
    ] = RecoveryMethod.least_squares,
    rescale: Annotated[
        bool, typer.Option("--rescale", help="After least squares, give every output the variance of its target.")
    ] = False,
    samples: Annotated[int, typer.Option(metavar="N", min=2, help="The most samples used.")] = 1024,
    mean: dat.Mean = None,
    std: dat.Std = None,
    size: dat.Size = None,
    layout: dat.LayoutOption = None,
    rebind: Annotated[bool, typer.Option("--rebind", help="Accept a teacher that the plan was not made for.")] = False,
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For the sampled positions.")] = 0,
    force: opt.Force = False,
    as_json: opt.Json = False,
    dry_run: opt.DryRun = False,
    verbose: opt.Verbose = False,
) -> None:
    """Bring accuracy back without training, from unlabelled samples.

    Writes PRUNED.recovered.onnx: the same network with other weights. Every layer that pruning has reached is refitted,
    in order, so that it gives what the original gives there. A part of the samples is held out; where the error of the
    outputs on it does not fall, nothing is written.
    """
    from graphprune import accuracy, api
    from graphprune.plan.file import read_plan
    from graphprune.recovery.recover_options import RecoverOptions
    from graphprune.verification.check_runs import check_runs

    target = output or beside(pruned, ".recovered.onnx")
    inputs = (pruned, teacher, plan)
    if not dry_run and all(path.exists() for path in inputs):
        check_target(target, inputs, force=force)
    talk = Talk(verbose=verbose)
    stored = read_plan(plan)
    with talk.stage("loading"):
        original, candidate = api.load(teacher), api.load(pruned)
        source = dat.open_data(calib, original, mean, std, (size, layout))
    with talk.stage("analysis"):
        analysis = api.analyze_for(original, stored, rebind=rebind)
        current = api.reconcile(analysis, stored, rebind=rebind).plan
    if rescale and method is not RecoveryMethod.least_squares:
        raise UsageError(f"--rescale goes with least squares, not with {method.value}")
    options = RecoverOptions(method=method.value, samples=samples, rescale=rescale, seed=seed)
    with talk.progress("recovering") as progress:
        found = accuracy.recover(analysis, candidate, current, source, options, progress=progress)
    if found.improved and not dry_run:
        with talk.stage("writing"):
            check_runs(found.model, candidate, current.model.inputs)
            api.save(found.model, target, force=force)
    _show(found, None if dry_run or not found.improved else target, as_json=as_json)
    if not found.improved:
        raise NotImprovedError(
            "recovery did not help: the error of the outputs on held-out samples did not fall; nothing was written",
            hint="try more samples, or another --method",
        )


def _show(found: Recovery, target: Path | None, *, as_json: bool) -> None:
    """Print what recovery brought."""
    if as_json:
        print_json(
            {
                "command": "recover",
                "method": found.method,
                "improved": found.improved,
                "error_before": found.before,
                "error_after": found.after,
                "agreement": found.agreement,
                "samples": found.samples,
                "held_out": found.held_out,
                "layers": len(found.nodes),
                "left": list(found.left),
                "output": None if target is None else str(target),
            }
        )
        return
    outcome = f"{100 * found.before:.3g} % -> {100 * found.after:.3g} % of the variance of the outputs"
    lines = [
        ("recovered" if found.improved else "unchanged", f"{len(found.nodes)} layers by {found.method}"),
        ("error", f"{outcome}, on {found.held_out} samples held out of {found.samples + found.held_out}"),
    ]
    if found.agreement is not None:
        lines.append(
            ("agreement", f"{found.agreement[0]:.1%} -> {found.agreement[1]:.1%} with the classes of the original")
        )
    if found.left:
        lines.append(("bias only", f"{len(found.left)} layers have too many inputs to be refitted"))
    if target is not None:
        lines.append(("output", str(target)))
    typer.echo("\n".join(f"{name:<10} {value}" for name, value in lines))

# SPDX-License-Identifier: Apache-2.0
"""`graphprune recover`: bring the accuracy of a pruned model back without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import PrunedFile
from graphprune.cli.options.output import DryOutput, Printing
from graphprune.cli.options.recovery import Refitting
from graphprune.cli.options.samples import RecoverySamples
from graphprune.cli.recovery_steps import added_samples
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets
from graphprune.errors import NotImprovedError

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.recovery.recover_options import Recovery
    from graphprune.recovery.without_data import Restorer

__all__ = ["recover"]


@examples(
    "graphprune recover model.pruned.onnx --teacher model.onnx --plan model.plan.json --calib photos/",
    "graphprune recover model.pruned.onnx --teacher model.onnx --plan model.plan.json --calib photos/ --method bn",
)
@spread
def recover(
    pruned: PrunedFile,
    *,
    teacher: Annotated[
        Path, typer.Option(metavar="MODEL", help="The original that it was made of.", rich_help_panel="Model")
    ],
    plan: Annotated[
        Path, typer.Option(metavar="PLAN", help="The plan by which it was pruned.", rich_help_panel="Model")
    ],
    rebind: Annotated[
        bool, typer.Option("--rebind", help="Accept a teacher that the plan was not made for.", rich_help_panel="Model")
    ] = False,
    calibration: RecoverySamples,
    refitting: Refitting,
    output: DryOutput,
    printing: Printing,
) -> None:
    """Bring accuracy back without training, from unlabelled samples.

    Writes PRUNED.recovered.onnx: the same network with other weights. Every layer that pruning has reached is refitted,
    in order, so that it gives what the original gives there. A part of the samples is held out; where the error of the
    outputs on it does not fall, nothing is written.
    """
    from graphprune import accuracy, api
    from graphprune.data.synthesis.make_samples import SampleOptions, read_request
    from graphprune.plan.file import read_plan
    from graphprune.recovery.without_data import restorer_for
    from graphprune.verification.check_runs import check_runs
    from graphprune.verification.pair import parted

    target = output.output or beside(pruned, ".recovered.onnx")
    given = (pruned, teacher, plan, calibration.calib)
    check_targets({"model": target}, given, force=output.force or output.dry_run, log=printing.log)
    options = refitting.options(calibration.samples)
    calibration.check()
    talk = printing.talk()
    calibration.running.select(talk)
    stored = read_plan(plan)
    with talk.stage("loading"):
        original, candidate = api.load(teacher), api.load(pruned)
        request = read_request(calibration.calib)
        source: Source | Restorer | None = calibration.open(original, talk) if request is None else None
    with talk.stage("analysis"):
        analysis = api.analyze_for(original, stored, rebind=rebind)
        current = api.reconcile(analysis, stored, rebind=rebind).plan
    if note := parted(candidate, plan, stored, current):
        talk.note(note)
    if source is None:
        with talk.steps("making samples") as making:
            source = restorer_for(analysis, replace(request or SampleOptions(), seed=options.seed), tell=making)
    added = added_samples(analysis, calibration.add_synthetic, options.seed, talk)
    further = None if added is None else added.source
    with talk.progress("recovering") as progress:
        recovery = accuracy.recover(analysis, candidate, current, source, options, further=further, progress=progress)
    if recovery.improved and not output.dry_run:
        with talk.stage("writing"):
            check_runs(recovery.model, candidate, current.model.inputs)
            api.save(recovery.model, target, force=output.force)
    written = None if output.dry_run or not recovery.improved else target
    _show(recovery, written, made=request is not None, as_json=printing.as_json)
    if not recovery.improved:
        raise NotImprovedError(
            "recovery did not help: the error of the outputs on held-out samples did not fall; nothing was written",
            hint="try more samples, or another --method",
        )


def _show(recovery: Recovery, target: Path | None, *, made: bool, as_json: bool) -> None:
    """Print what recovery brought."""
    if as_json:
        print_json(
            {
                "command": "recover",
                "method": recovery.method,
                "improved": recovery.improved,
                "error_before": recovery.before,
                "error_after": recovery.after,
                "agreement": recovery.agreement,
                "made_samples": made,
                "samples": recovery.samples,
                "held_out": recovery.held_out,
                "layers": len(recovery.nodes),
                "left": list(recovery.left),
                "output": None if target is None else str(target),
            }
        )
        return

    from graphprune.report.text import caution, plural

    kind = ", on made samples, which is no accuracy" if made else ""
    outcome = f"{100 * recovery.before:.3g} % -> {100 * recovery.after:.3g} % of the variance of the outputs"
    lines = [
        (
            "recovered" if recovery.improved else "unchanged",
            f"{plural(len(recovery.nodes), 'layer')} by {recovery.method}",
        ),
        (
            "difference" if made else "error",
            f"{outcome}{kind}, on {plural(recovery.held_out, 'sample')} "
            f"held out of {recovery.samples + recovery.held_out}",
        ),
    ]
    if recovery.agreement is not None:
        before, after = recovery.agreement
        doubt = caution(after, recovery.held_out)
        agreeing = f"{before:.1%} -> {after:.1%} with the classes of the original{f'; {doubt}' if doubt else ''}"
        lines.append(("agreement", agreeing))
    if recovery.left:
        lines.append(("bias only", f"{plural(len(recovery.left), 'layer')} with too many inputs to be refitted"))
    if target is not None:
        lines.append(("output", str(target)))
    typer.echo("\n".join(f"{name:<10} {value}" for name, value in lines))

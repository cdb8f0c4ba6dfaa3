# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import BudgetsOrLossless
from graphprune.cli.options.channel_choice import SolvedChannels
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Printing, PrunedOutput
from graphprune.cli.options.recovery import Restoring
from graphprune.cli.options.samples import CalibrationSamples
from graphprune.cli.options.widths import MEASURING, SolvedWidths
from graphprune.cli.recovery_steps import RecoveryMaterial, RecoverySteps, find_material
from graphprune.cli.spread import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.planning.make_plan import SolveOptions

__all__ = ["solve"]


@examples(
    "graphprune solve model.onnx --flops 0.5",
    "graphprune solve model.onnx --flops 0.5 --quick",
    "graphprune solve model.onnx --flops 0.5 --solver sensitivity --calib photos/ --recover least-squares",
    'graphprune solve model.onnx --latency 8ms --skip "head*" --dry-run',
)
@spread
def solve(
    budgets: BudgetsOrLossless,
    widths: SolvedWidths,
    channels: SolvedChannels,
    reading: ModelReading,
    calibration: CalibrationSamples,
    restoring: Restoring,
    output: PrunedOutput,
    printing: Printing,
) -> None:
    """Prune a model to a budget.

    Writes MODEL.pruned.onnx and MODEL.plan.json. Finds the coupled channels, chooses
    which to remove so that the cost stays within the budget, removes them, and proves in
    onnxruntime that the result equals the original with the removed channels masked out.
    Then it brings accuracy back: from the samples of --calib, or else from what the file
    remembers of its training data. --quick leaves that out. The plan says what was done.
    """
    requests = budgets.requests()
    options = channels.solve_options(widths, lossless=budgets.lossless)
    analysed = reading.options()
    targets = output.targets(reading.model)
    restoring.check(calibration.calib)
    targets.check([reading.model, *widths.limits.inputs])

    from graphprune import api
    from graphprune.report.summary import plan_notes, uncounted_notes

    talk = printing.talk()
    with talk.stage("loading"):
        loaded = api.load(reading.model)
        training_data = restoring.training_data(calibration.images, loaded, talk)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, analysed)
    material = (
        RecoveryMaterial(calibration.open(loaded, talk))
        if budgets.lossless
        else find_material(analysis, calibration, restoring, options.seed, talk)
    )
    if material.measures and widths.measurable:
        options = replace(options, solver=MEASURING)
    with talk.steps("solving") as progress:
        plan, used = _solved(analysis, requests, options, material, progress)
    notes = (*plan_notes(plan), *uncounted_notes(analysis), *filter(None, [material.note]))
    if not used and not restoring.reads_calib:
        notes = (*notes, _unread(options))
    follows = restoring.wanted(samples=material.samples is not None)
    afterwards = RecoverySteps(restoring, options.seed, material, training_data) if follows else None
    job = Job("solve", analysis, plan, targets, output.unverified, output.bench, notes, afterwards)
    show(carry_out(job, talk), as_json=printing.as_json)


def _solved(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    material: RecoveryMaterial,
    progress: Callable[[str, int, int], None],
) -> tuple[Plan, bool]:
    """Return the plan, and whether all samples that were given were of use."""
    from graphprune import api
    from graphprune.data.source import Watched

    if material.samples is None:
        return api.solve(analysis, requests, options, progress=progress), True
    source, watched = Watched.over(material.samples)
    plan = api.solve(analysis, requests, options, data=source, dense=material.dense, progress=progress)
    return plan, watched.used


def _unread(options: SolveOptions) -> str:
    """Say that samples changed nothing, and what would look at them."""
    who = "--lossless does not look" if options.lossless else f"neither {options.solver} nor {options.criterion} looks"
    return f"the samples of --calib are not read: {who} at any; --recover, and some solvers and criteria, would"

# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphprune.cli.accuracy_report import NextStep, original_judge
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import BudgetsOrLossless
from graphprune.cli.options.channel_choice import SolvedChannels
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Printing, SolvedOutput
from graphprune.cli.options.recovery import Restoring
from graphprune.cli.options.samples import CalibrationSamples
from graphprune.cli.options.widths import SolvedWidths
from graphprune.cli.recovery_steps import RecoveryMaterial, RecoverySteps, find_material
from graphprune.cli.spread import spread
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.planning.solver_choice import SolverChoice
    from graphprune.report.summary import PruningSummary

__all__ = ["solve"]


@examples(
    "graphprune solve model.onnx --flops 0.5",
    "graphprune solve model.onnx --flops 0.5 --quick",
    "graphprune solve model.onnx --flops 0.5 --calib photos/",
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
    output: SolvedOutput,
    printing: Printing,
) -> None:
    """Prune a model to a budget.

    Writes MODEL.pruned.onnx and MODEL.plan.json. Finds the coupled channels, chooses
    which to remove so that the cost stays within the budget, removes them, and proves in
    onnxruntime that the result equals the original with the removed channels masked out.
    Then it brings accuracy back: from the samples of --calib, or else from what the file
    remembers of its training data. --quick leaves that out. It ends with what became of the
    accuracy, measured on samples that nothing was fitted to, or with the command that measures it.
    """
    requests = budgets.requests()
    options = channels.solve_options(widths, lossless=budgets.lossless)
    analysed = reading.options()
    restoring.check(calibration.calib)
    targets = output.checked_targets(reading.model, widths.limits.inputs)

    from graphprune import api
    from graphprune.report.summary import analysis_notes, plan_notes

    talk = printing.talk()
    calibration.running.select(talk)
    with talk.stage("loading"):
        loaded = api.load(reading.model)
        data = restoring.open_data(calibration.images, loaded, talk)
    with talk.stage("analysis"):
        analysis = _checked(api.analyze(loaded, analysed), requests, options)
    material = (
        RecoveryMaterial(calibration.open(loaded, talk))
        if budgets.lossless
        else find_material(analysis, calibration, restoring, options.seed, talk)
    )
    learned, judged, apart = material.with_data(data, learns=restoring.finetune)
    judge = None if judged is None or budgets.lossless else original_judge(loaded, judged, talk, apart=apart)
    measurable = widths.measurable and restoring.method is not None and not budgets.lossless
    choice = material.solver(analysis, requests) if measurable else None
    plan, used = _planned(analysis, requests, options, material, choice, talk)
    notes = (*plan_notes(plan), *analysis_notes(analysis), *filter(None, [material.note]))
    if not used and not restoring.reads_calib:
        notes = (*notes, _unread(options))
    follows = restoring.wanted(samples=material.samples is not None)
    job = Job(
        "solve",
        analysis,
        plan,
        targets,
        output.unverified,
        output.bench,
        notes,
        afterwards=RecoverySteps(restoring, options.seed, material, learned) if follows else None,
        judge=judge,
        next_step=NextStep(reading.model, targets, targets.plan),
    )
    summary = carry_out(job, talk)
    if output.report is not None:
        with talk.stage("drawing the report"):
            summary = _reported(summary, job, output.report, material)
    show(summary, as_json=printing.as_json, verbose=printing.verbose)


def _checked(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> Analysis:
    """Return the analysis that is planned with, for which the request is known to mean something."""
    from graphprune.planning.lossless import analysis_that_finds_more
    from graphprune.planning.make_plan import check_request

    if options.lossless:
        return analysis_that_finds_more(analysis)
    check_request(analysis, requests, options)
    return analysis


def _reported(summary: PruningSummary, job: Job, target: Path, material: RecoveryMaterial) -> PruningSummary:
    """Write the report of what was done; return the summary that names it."""
    from graphprune import api
    from graphprune.cli.report_file import known_scores, samples_picture, write_report
    from graphprune.report.html.report_page import ReportSubject

    analysis, plan = job.analysis, summary.plan
    made = None if material.restorer is None else material.samples
    subject = ReportSubject(
        (plan,),
        analysis,
        api.load(job.targets.output),
        known_scores(analysis, plan),
        samples=samples_picture(analysis, made),
    )
    write_report(target, plan.model.name, subject, force=job.targets.force)
    return replace(summary, files={**summary.files, "report": str(target)})


def _planned(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    material: RecoveryMaterial,
    choice: SolverChoice | None,
    talk: Talk,
) -> tuple[Plan, bool]:
    """Return the plan, and whether all samples that were given were of use.

    The solver is the one that was chosen, if one was; where the model cannot be measured, that of the options.
    """
    if choice is not None:
        talk.say("solver", f"{choice.name}: {choice.reason}")
        try:
            with talk.steps("solving") as progress:
                return _solved(analysis, requests, replace(options, solver=choice.name), material, progress)
        except UnsupportedModelError as error:
            if choice.name == options.solver:
                raise
            talk.note(f"widths are not measured, but chosen by {options.solver}: {error.message}")
    with talk.steps("solving") as progress:
        return _solved(analysis, requests, options, material, progress)


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
    source, watched = Watched.over(material.shown or material.samples)
    plan = api.solve(analysis, requests, options, data=source, dense=material.dense, progress=progress)
    return plan, watched.used


def _unread(options: SolveOptions) -> str:
    """Say that samples changed nothing, and what would look at them."""
    who = "--lossless does not look" if options.lossless else f"neither {options.solver} nor {options.criterion} looks"
    judge = "" if options.lossless else " but to judge"
    return f"the samples of --calib are not read{judge}: {who} at any; --recover, and some solvers and criteria, would"

# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`: choose what to remove under a budget, remove it, verify, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphprune.cli.accuracy_report import NextStep, original_judge
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import BudgetsOrLossless
from graphprune.cli.options.channel_choice import SolvedChannels
from graphprune.cli.options.device import verify_on
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Printing, SolvedOutput
from graphprune.cli.options.recovery import Restoring
from graphprune.cli.options.samples import CalibrationSamples
from graphprune.cli.options.widths import SolvedWidths
from graphprune.cli.quantized_report import QuantizedFile
from graphprune.cli.recovery_steps import RecoveryMaterial, RecoverySteps, find_material
from graphprune.cli.spread import spread
from graphprune.errors import DataError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.cli.targets import Targets
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
    "graphprune solve model.onnx --flops 0.5 --calib photos/ --quantize int8",
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
    widths.check_threads(budgets.latency)
    options = channels.solve_options(widths, lossless=budgets.lossless)
    analysed = reading.options()
    restoring.check(calibration.calib)
    calibration.images.check_needed(calibration.calib, restoring.data)
    read = [*widths.limits.inputs, calibration.calib, restoring.data]
    targets = output.checked_targets(reading.model, read, restoring.quantize, printing.log)

    from graphprune import api
    from graphprune.planning.make_plan import is_met
    from graphprune.planning.solver_choice import decides_channels
    from graphprune.report.summary import analysis_notes, plan_notes

    talk = printing.talk()
    calibration.running.select(talk)
    verify_on(output.verify_device, talk)
    with talk.stage("loading"):
        loaded = api.load(reading.model)
        data = restoring.open_data(calibration.images, loaded, talk)
    with talk.stage("analysis"):
        analysis = _checked(api.analyze(loaded, analysed), requests, options)
    met = not budgets.lossless and is_met(analysis, requests, options)
    known = RecoveryMaterial(calibration.open(loaded, talk) if budgets.lossless else None)
    searched = not budgets.lossless and (not met or restoring.quantize is not None)
    material = find_material(analysis, calibration, restoring, options.seed, talk) if searched else known
    further = _lower_precision(restoring, targets, material)
    learned, judged, apart = material.with_data(None if met else data, learns=restoring.finetune)
    judge = None if judged is None or budgets.lossless else original_judge(loaded, judged, talk, apart=apart)
    measurable = widths.measurable and restoring.method is not None and not (budgets.lossless or met)
    choice = (decides_channels(options) or material.solver(analysis, requests)) if measurable else None
    plan, used = _planned(analysis, requests, options, material, choice, talk)
    unread = _unread(options) if not (used or met or restoring.reads_calib) else ""
    notes = (*plan_notes(plan), *analysis_notes(analysis), *filter(None, [material.note, unread]))
    follows = not met and restoring.wanted(samples=material.samples is not None)
    job = Job(
        "solve",
        analysis,
        plan,
        targets,
        output.unverified,
        output.bench,
        options.runtime,
        notes,
        afterwards=RecoverySteps(restoring, options.seed, material, learned) if follows else None,
        judge=judge,
        next_step=NextStep(reading.model, targets, targets.plan, calib=calibration.typed),
    )
    _finish(carry_out(job, talk), job, SolvedFiles(further, output.report, material), printing, talk)


def _checked(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> Analysis:
    """Return the analysis that is planned with, for which the request is known to mean something."""
    from graphprune.planning.lossless import analysis_that_finds_more
    from graphprune.planning.make_plan import check_request
    from graphprune.verification.causes import blaming

    if options.lossless:
        return analysis_that_finds_more(analysis)
    with blaming(analysis):
        check_request(analysis, requests, options)
    return analysis


@dataclass(frozen=True)
class SolvedFiles:
    """What is written besides the pruned model and its plan.

    Attributes
    ----------
    further : QuantizedFile, optional
        The same model in lower precision.
    report : Path, optional
        A page on all of it.
    material : RecoveryMaterial
        Samples, of which the page shows those that were made.
    """

    further: QuantizedFile | None
    report: Path | None
    material: RecoveryMaterial


def _finish(summary: PruningSummary, job: Job, files: SolvedFiles, printing: Printing, talk: Talk) -> None:
    """Bring the result to lower precision and report on it, if that is wanted, and print what came of it."""
    further = files.further
    try:
        if further is not None and not job.targets.dry:
            further.write(job.plan.model.inputs, talk, force=job.targets.force)
    finally:  # the pruned model is written, whatever becomes of the other files
        try:
            summary = _reported(summary, job, files, talk)
        finally:
            show(summary, as_json=printing.as_json, verbose=printing.verbose, further=further)


def _lower_precision(restoring: Restoring, targets: Targets, material: RecoveryMaterial) -> QuantizedFile | None:
    """Return the file in lower precision that is to be written, too.

    Raises
    ------
    DataError
        If there are no samples.
    """
    if restoring.quantize is None:
        return None
    if material.samples is None:
        raise DataError(
            "there are no samples to quantise with", hint="give some with --calib SOURCE, or run `graphprune quantize`"
        )
    target = targets.further[f"{restoring.quantize} model"]
    made = material.restorer is not None
    return QuantizedFile(targets.output, target, restoring.quantize, material.samples, made=made)


def _reported(summary: PruningSummary, job: Job, files: SolvedFiles, talk: Talk) -> PruningSummary:
    """Write the report of what was done, if one is wanted; return the summary that names it."""
    target, material = files.report, files.material
    if target is None:
        return summary
    from graphprune import api
    from graphprune.cli.report_file import known_scores, quantized_tiles, samples_picture, write_report
    from graphprune.report.html.report_page import ReportSubject
    from graphprune.report.html.tiles import KnownFigures

    analysis, plan = job.analysis, summary.plan
    made = None if material.restorer is None else material.samples
    with talk.stage("drawing the report"):
        subject = ReportSubject(
            (plan,),
            analysis,
            api.load(job.targets.output),
            known_scores(analysis, plan),
            KnownFigures(summary.totals, quantized_tiles(files.further)),
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
    instead = ""
    if choice is not None:
        talk.say("solver", f"{choice.name}: {choice.reason}")
        try:
            with talk.steps("solving") as progress:
                return _solved(analysis, requests, replace(options, solver=choice.name), material, progress)
        except UnsupportedModelError as error:
            if choice.name == options.solver:
                raise
            instead = f"widths are not measured, but chosen by {options.solver}: {error.message}"
    with talk.steps("solving") as progress:
        planned = _solved(analysis, requests, options, material, progress)
    if instead:  # where nothing else could choose them either, the error alone says why
        talk.note(instead)
    return planned


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

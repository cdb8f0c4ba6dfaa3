# SPDX-License-Identifier: Apache-2.0
"""The second half of `solve` and `apply`: surgery, verification, and only then writing; a summary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.analysis.analysis import Analysis
    from graphprune.api import Reconciled
    from graphprune.cli.accuracy_report import NextStep
    from graphprune.cli.console import Talk
    from graphprune.cli.quantized_report import QuantizedFile
    from graphprune.cli.targets import Targets
    from graphprune.data.judging import Judge
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step, Timing
    from graphprune.report.summary import Outlook, PruningSummary

    Afterwards = Callable[[Analysis, Plan, Model, Talk], tuple[Model, tuple[Step, ...]]]

__all__ = ["Job", "carry_out", "show"]


@dataclass(frozen=True)
class Job:
    """What is to be carried out.

    Parameters
    ----------
    command : str
        Name of the command, for the report.
    analysis : Analysis
        Of the original model.
    plan : Plan
        What to remove.
    targets : Targets
        Where results go.
    unverified : bool
        Go on where the model cannot be run for verification.
    bench : bool
        Time both models against each other in the end.
    runtime : str
        In which runtime.
    notes : tuple of str
        For the summary.
    afterwards : callable, optional
        Brings accuracy back once pruning is proven; gives the model to write and what was done.
    reconciled : Reconciled, optional
        The plan, where it was held against the model already.
    judge : Judge, optional
        Measures what is going to be written.
    next_step : NextStep, optional
        What to type where nothing does.
    """

    command: str
    analysis: Analysis
    plan: Plan
    targets: Targets
    unverified: bool = False
    bench: bool = False
    runtime: str = "onnxruntime"
    notes: tuple[str, ...] = ()
    afterwards: Afterwards | None = None
    reconciled: Reconciled | None = None
    judge: Judge | None = None
    next_step: NextStep | None = None


def carry_out(job: Job, talk: Talk) -> PruningSummary:
    """Prune, verify, write; return what there is to report."""
    from graphprune import api
    from graphprune.plan.file import plan_bytes, write_plan
    from graphprune.report.summary import PruningSummary, count_totals
    from graphprune.verification.check_runs import check_runs

    with talk.stage("surgery"):
        reconciled = job.reconciled or api.reconcile(job.analysis, job.plan)
        pruned = api.apply(job.analysis, reconciled)
    with talk.stage("verification"):
        verification = api.verify(job.analysis, pruned, reconciled, unverified=job.unverified)
        api.mark_verified(pruned, verification)
    plan = job.plan
    if job.afterwards is not None:
        proven = pruned
        pruned, steps = job.afterwards(job.analysis, plan, pruned, talk)
        plan = replace(plan, steps=steps)
        if pruned is not proven:
            with talk.stage("running the result"):
                check_runs(pruned, job.analysis.model, plan.model.inputs)
    if job.judge is not None and not plan.is_identity:
        plan = replace(plan, steps=(*plan.steps, _judged(job.judge, pruned, talk)))
    if not job.targets.dry:
        with talk.stage("writing"):
            beside = {job.targets.plan: plan_bytes(plan)} if job.targets.plan is not None else {}
            api.save(pruned, job.targets.output, force=job.targets.force, beside=beside)
    timing = _timing(job, pruned, talk) if job.bench else None
    plan = replace(plan, timing=timing)
    if timing is not None and job.targets.plan is not None and not job.targets.dry:
        write_plan(plan, job.targets.plan, force=True)
    return PruningSummary(
        command=job.command,
        plan=plan,
        totals=count_totals(reconciled.reference, plan, pruned),
        verification=verification,
        files=_files(job),
        notes=(*job.notes, *_not_faster(job, timing)),
        outlook=_outlook(job, plan),
    )


def _judged(judge: Judge, pruned: Model, talk: Talk) -> Step:
    """Measure the result."""
    from graphprune.cli.accuracy_report import measured_step

    with talk.progress("measuring accuracy") as progress:
        return measured_step(judge.change(pruned, progress))


def _outlook(job: Job, plan: Plan) -> Outlook:
    """Return what there is to say of what was not measured or not done."""
    from graphprune.report.summary import Outlook

    return Outlook() if job.next_step is None else job.next_step.outlook(job.analysis.model, plan)


def _not_faster(job: Job, timing: Timing | None) -> tuple[str, ...]:
    """Say that a smaller network is not a faster one, and what would make it so."""
    if timing is None or timing.ratio < 1.0 or job.plan.budget.after == job.plan.budget.before:
        return ()
    aligned = isinstance(job.plan.solver.options.get("round_to"), str)
    advice = "a smaller budget" if aligned else "widths that runtimes like (--round-to auto)"
    return (f"the pruned model is not faster here; {advice} may make it so",)


def show(
    summary: PruningSummary, *, as_json: bool, verbose: bool = False, further: QuantizedFile | None = None
) -> None:
    """Print a summary; what is to be typed next stands on a line of its own, which is never broken.

    What became of a further file in lower precision, if one was written, belongs to it.
    """
    from graphprune.cli.console import print_json, print_line, print_tables
    from graphprune.report.summary import summary_json
    from graphprune.report.tables import summary_tables

    if as_json:
        print_json({**summary_json(summary), **({} if further is None else {"quantized": further.facts()})})
    else:
        print_tables(summary_tables(summary, verbose=verbose))
        for name, text in () if further is None else further.lines():
            print_line(name, text)
        if summary.outlook.command:
            print_line("next", summary.outlook.command)


def _files(job: Job) -> dict[str, str | None]:
    source, targets = job.analysis.model.path, job.targets
    written = not targets.dry
    return {
        "model": str(source) if source else None,
        "output": str(targets.output) if written else None,
        "plan": str(targets.plan) if written and targets.plan else None,
    }


def _timing(job: Job, pruned: Model, talk: Talk) -> Timing | None:
    """Time both models; where that is impossible say so, since the work itself is done."""
    from graphprune.cost.latency.bench import paired_timing
    from graphprune.errors import UnsupportedModelError
    from graphprune.export.runtime_stopwatch import stopwatch_for

    original = job.analysis.model
    try:
        with talk.stage("timing"):
            return paired_timing(
                original.path or original.proto.SerializeToString(),
                pruned.proto.SerializeToString() if job.targets.dry else job.targets.output,
                job.plan.model.inputs,
                stopwatch_for(job.runtime),
            )
    except UnsupportedModelError as error:
        talk.note(f"no timing: {error.message}")
        return None

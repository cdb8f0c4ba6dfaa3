# SPDX-License-Identifier: Apache-2.0
"""`graphprune finetune`: let a pruned model learn from the original, or from labels."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import run_on
from graphprune.cli.options.model_reading import PrunedFile
from graphprune.cli.options.output import Output, Printing
from graphprune.cli.options.samples import TrainingSamples
from graphprune.cli.options.training import FinetuneTraining
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets
from graphprune.cli.training_run import ProgressLine, check_checkpoint, missing_processes
from graphprune.errors import NotImprovedError, PlanError, UsageError
from graphprune.extras import require

if TYPE_CHECKING:
    from graphprune.cli.console import Talk
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.model.load import Model
    from graphprune.training.block_hints import Hint
    from graphprune.training.finetune import Finetuned
    from graphprune.training.made_training_data import MadeTrainingData

__all__ = ["finetune"]

_NO_PLAN = (
    "no plan of the pruned model that can be read lies beside it, so only outputs are learned, and not what the blocks "
    "before them give"
)
_NO_LABELS = "samples that are made have no labels, so there is nothing to learn from"


@examples(
    "graphprune finetune model.pruned.onnx --data training/ --teacher model.onnx",
    "graphprune finetune model.pruned.onnx --data training/ --teacher model.onnx --epochs 10 --resume",
    "graphprune finetune model.pruned.onnx --data synthetic:fine --teacher model.onnx",
)
@spread
def finetune(
    pruned: PrunedFile,
    *,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The original, whose outputs are learned.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    samples: TrainingSamples,
    training: FinetuneTraining,
    output: Output,
    printing: Printing,
) -> None:
    """Let a pruned model learn from the original, or from labels.

    Writes PRUNED.finetuned.onnx, in which nothing but weights differs. Samples that are held out judge;
    if their loss does not fall, nothing is written. `--data synthetic` makes samples from the
    original's file, and others of another kind that judge. A run that was ended is taken up with --resume.
    """
    require("train", "`graphprune finetune`")
    target = output.output or beside(pruned, ".finetuned.onnx")
    replacing = output.force or training.resume
    checkpoint = training.checkpoint_of(target)
    check_checkpoint(checkpoint, resume=training.resume, force=output.force)
    written, read = {"model": target, "checkpoint": checkpoint}, (pruned, teacher, samples.data, training.loss)
    check_targets(written, read, force=replacing, log=printing.log)

    from graphprune import api
    from graphprune.data.synthesis.make_samples import SampleOptions, read_request
    from graphprune.verification.check_runs import check_runs
    from graphprune.verification.pair import partner_note

    samples.images.check_needed(samples.data)
    request = read_request(samples.data)
    if request is not None and teacher is None:
        raise UsageError(_NO_LABELS, hint="give the original model with --teacher")
    talk = printing.talk()
    run_on(training.device, talk)
    with talk.stage("loading"):
        model = api.load(pruned)
        original = None if teacher is None else api.load(teacher)
        given = None if request is not None else samples.open(original or model, talk)
    for note in filter(None, (missing_processes(), partner_note(pruned))):
        talk.note(note)
    options, judges = training.options(checkpoint), None
    with talk.stage("importing torch"):
        from graphprune.training.finetune import finetune as run
    if given is None:
        made = _made(original or model, replace(request or SampleOptions(), seed=options.seed), talk)
        given, judges, options = made.learned.limited(samples.limit), made.judges, made.suited(options)
    hints = () if original is None else _hints(original, model, talk)
    with ProgressLine("finetuning") as meter:
        result = run(model, given, original, options, meter.listen, judges, hints)
    if not result.main:
        return
    if not result.improved:
        checkpoint.unlink(missing_ok=True)
        raise _no_gain(result)
    check_runs(result.model, model)
    api.save(result.model, target, force=replacing)
    checkpoint.unlink(missing_ok=True)
    _show(result, target, made=judges is not None, as_json=printing.as_json)


def _made(original: Model, request: SampleOptions, talk: Talk) -> MadeTrainingData:
    """Make samples to learn from, and others that judge."""
    from graphprune.training.made_training_data import make_training_data

    with talk.steps("making samples") as progress:
        return make_training_data(original, request, progress)


def _hints(original: Model, pruned: Model, talk: Talk) -> tuple[Hint, ...]:
    """Return where blocks of both networks can be compared, which the plan beside the pruned one says."""
    from graphprune import api
    from graphprune.training.block_hints import find_hints
    from graphprune.verification.pair import named_plan, plan_beside

    if not named_plan(pruned):
        return ()
    plan = plan_beside(pruned)
    if plan is None:
        talk.note(_NO_PLAN)
        return ()
    with talk.stage("analysis"):
        try:
            return find_hints(api.analyze_for(original, plan, rebind=True), plan, pruned)
        except PlanError as error:
            talk.note(f"only outputs are learned, and not what blocks give: {error.message}")
            return ()


def _no_gain(result: Finetuned) -> NotImprovedError:
    return NotImprovedError(
        f"finetuning did not help: the held-out loss is {result.before.loss:.4g} at the start and was never lower "
        f"in {result.steps} steps{' (' + result.stopped + ')' if result.stopped else ''}; nothing was written",
        hint="try more data, more --epochs, or a lower --rate",
    )


def _show(result: Finetuned, target: Path, *, made: bool, as_json: bool) -> None:
    before, after = result.before, result.after
    if as_json:
        print_json(
            {
                "command": "finetune",
                "output": str(target),
                "before": asdict(before),
                "after": asdict(after),
                "rate": result.rate,
                "searched": {str(rate): loss for rate, loss in result.searched.items() if loss < float("inf")},
                "steps": result.steps,
                "best_step": result.best_step,
                "stopped": result.stopped,
                "made_samples": made,
                **result.facts,
            }
        )
        return
    from graphprune.report.text import caution

    rows = {"held-out loss": f"{before.loss:.4g} -> {after.loss:.4g}"}
    for name, old, new in (
        ("accuracy", before.accuracy, after.accuracy),
        ("agreement", before.agreement, after.agreement),
    ):
        if old is not None and new is not None:
            doubt = caution(new, int(str(result.facts["held_out"])))
            rows[name] = f"{old:.2%} -> {new:.2%}{f' ({doubt})' if doubt else ''}"
    rows["rate"] = f"{result.rate:g}{' (the best of ' + str(len(result.searched)) + ')' if result.searched else ''}"
    rows["steps"] = f"{result.steps}, best after {result.best_step}"
    if not result.best_step:
        rows["steps"] = (
            f"{result.steps}, none better than the new statistics of BatchNormalization, which alone were kept"
        )
    if result.facts["hints"]:
        rows["learned"] = f"outputs, and what {result.facts['hints']} blocks of the original give"
    if result.facts["processes"] != 1:
        rows["processes"] = str(result.facts["processes"])
    rows["samples"] = f"{result.facts['samples']}, and {result.facts['held_out']} held out"
    if made:
        rows["samples"] += "; all of them made, so none of this is an accuracy"
    if result.stopped:
        rows["stopped"] = result.stopped
    rows["output"] = str(target)
    for name, text in rows.items():
        typer.echo(f"{name:<14} {text}")

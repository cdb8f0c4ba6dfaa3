# SPDX-License-Identifier: Apache-2.0
"""`graphprune train`: prune while training, then cut, verify and write as `solve` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.help_panels import examples
from graphprune.cli.options.budgets import Budgets
from graphprune.cli.options.channel_choice import PrunableChannels
from graphprune.cli.options.device import run_on
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Printing, TrainedOutput
from graphprune.cli.options.samples import TrainingSamples
from graphprune.cli.options.training import PruningTraining
from graphprune.cli.options.widths import TrainedWidths, parse_settings
from graphprune.cli.spread import spread
from graphprune.cli.targets import Targets, beside, check_targets
from graphprune.cli.training_run import ProgressLine, check_checkpoint, missing_processes
from graphprune.errors import quote
from graphprune.extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.api import SolveOptions
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.solvers.registry import Setting
    from graphprune.training.finetune_options import FinetuneOptions
    from graphprune.training.pruning.method import Method
    from graphprune.training.pruning.train import Trained
    from graphprune.training.trainer import Measure

__all__ = ["train"]


@examples(
    "graphprune train model.onnx --data training/ --flops 0.5 --epochs 10",
    "graphprune train model.onnx --data torchvision:CIFAR10 --params 0.3 --method slimming --finetune-epochs 5",
)
@spread
def train(
    samples: TrainingSamples,
    budgets: Budgets,
    training: PruningTraining,
    widths: TrainedWidths,
    channels: PrunableChannels,
    reading: ModelReading,
    output: TrainedOutput,
    printing: Printing,
) -> None:
    """Prune a model while it trains.

    Writes MODEL.trained.onnx, MODEL.plan.json and MODEL.pruned.onnx: the whole model with its new weights, what to
    remove from it, and what is left. That is verified as by `solve`. Samples need labels, or the outputs
    of the model as it was are learned. A run that was ended is taken up with --resume.
    """
    require("train", "`graphprune train`")
    requests = budgets.requests()
    files = _Files.of(reading.model, output, training)
    given = [reading.model, training.teacher, *widths.limits.inputs, samples.data, training.loss]
    files.check(given, printing.log)

    from graphprune import accuracy, api

    talk = printing.talk()
    run_on(training.device, talk)
    if note := missing_processes():
        talk.note(note)
    with talk.stage("loading"):
        loaded = api.load(reading.model)
        original = None if training.teacher is None else api.load(training.teacher)
        source = samples.open(loaded, talk)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, reading.options())
    with talk.stage("importing torch"):
        from graphprune.training.pruning.train import TrainOptions
    chosen = _ChosenMethod.of(training, widths)
    files.check_further(chosen.method.makes, given)
    solving = chosen.solve_options(training, widths, channels)
    with ProgressLine() as meter:
        how = training.options(files.checkpoint)
        options = TrainOptions(how, solving, original, training.recovery(), meter.listen)
        result = accuracy.train(analysis, source, requests, chosen.method, options)
    if not result.main:
        return
    job = Job(
        "train", result.analysis, result.plan, files.targets, output.unverified, output.bench, notes=_notes(result)
    )
    summary = carry_out(job, talk)
    written, notes = files.save(result)
    if training.finetune_epochs and not output.dry_run:
        closing = replace(how, epochs=training.finetune_epochs, checkpoint=None, resume=False)
        with talk.stage("finetuning"):
            notes = (*notes, _FinalFinetune(source, original or loaded, closing).save(result, files))
    summary = replace(summary, files={**summary.files, **written}, notes=(*summary.notes, *notes))
    show(summary, as_json=printing.as_json)


@dataclass(frozen=True)
class _Files:
    """Where everything goes.

    Parameters
    ----------
    targets : Targets
        The pruned model and its plan.
    trained : Path
        The whole model, trained.
    finetuned : Path, optional
        The pruned model after the final finetuning, where there is one.
    checkpoint : Path
        Where the run is saved.
    resume : bool
        Whether the run goes on from there.
    """

    targets: Targets
    trained: Path
    finetuned: Path | None
    checkpoint: Path
    resume: bool

    @classmethod
    def of(cls, model: Path, output: TrainedOutput, training: PruningTraining) -> _Files:
        """Return what the options say."""
        targets = output.targets(model)
        targets = replace(targets, force=targets.force or training.resume)
        trained = output.trained or beside(model, ".trained.onnx")
        finetuned = beside(targets.output, ".finetuned.onnx") if training.finetune_epochs else None
        return cls(targets, trained, finetuned, training.checkpoint_of(trained), training.resume)

    @property
    def _written(self) -> dict[str, Path | None]:
        """Everything that is written, by what it is."""
        whole = {"trained model": self.trained, "finetuned model": self.finetuned, "checkpoint": self.checkpoint}
        return {"model": self.targets.output, "plan": self.targets.plan, **whole}

    def check(self, inputs: Sequence[Path | str | None], log: Path | None) -> None:
        """Refuse what could not be written in the end, or would destroy an input or another result."""
        check_checkpoint(self.checkpoint, resume=self.resume, force=self.targets.force)
        check_targets(self._written, inputs, force=self.targets.force or self.targets.dry, log=log)

    def further(self, word: str) -> Path:
        """Return where another model of a method goes."""
        return beside(self.targets.output, f".{word}.onnx")

    def check_further(self, words: Sequence[str], inputs: Sequence[Path | str | None]) -> None:
        """Refuse what other models of a method could not be written to in the end."""
        further = {f"{word} model": self.further(word) for word in words}
        check_targets({**self._written, **further}, inputs, force=True)
        check_targets(further, inputs, force=self.targets.force or self.targets.dry)

    def save(self, result: Trained) -> tuple[dict[str, str], tuple[str, ...]]:
        """Write the trained model and what else the method makes; return the files and what to say of them."""
        from graphprune import api
        from graphprune.verification.check_runs import check_runs

        files: dict[str, str] = {}
        notes: list[str] = []
        if not self.targets.dry:
            for model in (result.model, *result.further.values()):
                check_runs(model, result.analysis.model, result.plan.model.inputs)
            files["model"] = str(api.save(result.model, self.trained, force=self.targets.force))
            for word, model in result.further.items():
                path = api.save(model, self.further(word), force=self.targets.force)
                notes.append(f"{word} model: {quote(str(path))}")
        self.checkpoint.unlink(missing_ok=True)
        return files, tuple(notes)


@dataclass(frozen=True)
class _FinalFinetune:
    """The finetuning that follows pruning.

    Parameters
    ----------
    samples : Source
    teacher : Model
        Whose outputs are learned.
    options : FinetuneOptions
    """

    samples: Source
    teacher: Model
    options: FinetuneOptions

    def save(self, result: Trained, files: _Files) -> str:
        """Finetune the pruned model and write it if that helped; return what to say of it."""
        from graphprune import api
        from graphprune.training.finetune import finetune
        from graphprune.verification.check_runs import check_runs

        if files.finetuned is None:
            return ""
        pruned = api.apply(result.analysis, result.plan)
        with ProgressLine("finetuning") as meter:
            tuned = finetune(pruned, self.samples, self.teacher, self.options, meter.listen)
        if not tuned.improved:
            return f"finetuning did not help: the held-out loss was {tuned.before.loss:.4g} and was never lower"
        check_runs(tuned.model, pruned, result.plan.model.inputs)
        api.save(tuned.model, files.finetuned, force=files.targets.force)
        return f"finetuned to {quote(str(files.finetuned))}, held-out {_measures(tuned.before, tuned.after)}"


@dataclass(frozen=True)
class _ChosenMethod:
    """The method, and the settings that are for the width solver.

    Parameters
    ----------
    method : Method
    settings : dict of str to Setting
        Of the solver.
    """

    method: Method
    settings: dict[str, Setting]

    @classmethod
    def of(cls, training: PruningTraining, widths: TrainedWidths) -> _ChosenMethod:
        """Return what the options name."""
        from graphprune.solvers import training as methods
        from graphprune.solvers import widths as solvers
        from graphprune.solvers.registry import chosen

        kind = methods.get(training.method)
        own, rest = chosen(parse_settings(training.settings), kind, solvers.get(widths.solver or kind.solver))
        return cls(kind(**own), rest)

    def solve_options(
        self, training: PruningTraining, widths: TrainedWidths, channels: PrunableChannels
    ) -> SolveOptions:
        """Return how widths are chosen from what training has found, for the Python API; reads the files."""
        from graphprune import api

        return api.SolveOptions(
            solver=widths.solver or self.method.solver,
            round_to=widths.limits.rounding(),
            min_keep=widths.limits.min_keep,
            seed=training.seed,
            settings=self.settings,
            constraints=channels.constraints(widths.limits),
        )


def _notes(result: Trained) -> tuple[str, ...]:
    from graphprune.report.summary import analysis_notes, plan_notes

    when = "" if result.pruned else "before pruning, "
    trained = f"{when}held-out {_measures(result.before, result.after)}"
    notes = (*plan_notes(result.plan), *analysis_notes(result.analysis), trained)
    if result.facts["processes"] != 1:
        notes = (*notes, f"{result.facts['processes']} processes trained together")
    return notes


def _measures(before: Measure, after: Measure) -> str:
    parts = [f"loss {before.loss:.4g} -> {after.loss:.4g}"]
    for name in ("accuracy", "agreement"):
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None:
            parts.append(f"{name} {old:.2%} -> {new:.2%}")
    return ", ".join(parts)

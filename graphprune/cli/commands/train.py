# SPDX-License-Identifier: Apache-2.0
"""`graphprune train`: prune while training, then cut, verify and write as `solve` does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.carry_out import Job, carry_out, show
from graphprune.cli.choices import AnalysisChoices, Budgets, Constraining, parse_settings
from graphprune.cli.commands import finetune as fine
from graphprune.cli.console import Talk
from graphprune.cli.data_options import SOURCE_HELP, LayoutOption, Limit, Mean, Std, open_data
from graphprune.cli.processes import lonely
from graphprune.cli.progress import ProgressLine
from graphprune.cli.restoring import RecoveryMethod
from graphprune.cli.spread import spread
from graphprune.cli.targets import Targets, beside, check_target
from graphprune.errors import quote

if TYPE_CHECKING:
    from graphprune.api import SolveOptions
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.recovery.recover_options import RecoverOptions
    from graphprune.report.summary import PruningSummary
    from graphprune.solvers.registry import Setting
    from graphprune.training.finetune_options import FinetuneOptions
    from graphprune.training.pruning.method import Method
    from graphprune.training.pruning.train import Trained
    from graphprune.training.trainer import Measure

__all__ = ["train"]


class Recovering(StrEnum):
    """How a removal is made good."""

    least_squares = "least-squares"
    bn = "bn"
    bias = "bias"
    none = "none"

    def options(self, seed: int) -> RecoverOptions | None:
        """Return the same for the Python API."""
        from graphprune.recovery.recover_options import RecoverOptions

        return None if self is Recovering.none else RecoverOptions(method=RecoveryMethod(self.value).value, seed=seed)


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method. Repeatable.", show_default=False),
]
Teacher = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="Whose outputs are learned: without labels the model as it was.", show_default=False
    ),
]
Recover = Annotated[
    Recovering, typer.Option(help="How a removal is made good, from the samples, before training goes on.")
]
Closing = Annotated[float, typer.Option(metavar="N", min=0.0, help="Finetune the pruned model for so long.")]
PlanTarget = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the plan goes. [default: MODEL.plan.json]", show_default=False),
]
TrainedTarget = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where the trained model goes, to which the plan belongs. [default: MODEL.trained.onnx]",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Feeding:
    """Samples to learn from, and how they are fed."""

    data: Annotated[
        str,
        typer.Option(metavar="SOURCE", help=f"Samples, with labels or without: {SOURCE_HELP}.", show_default=False),
    ]
    limit: Limit = None
    mean: Mean = None
    std: Std = None
    image_size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Size to which image files are brought.", show_default=False),
    ] = None
    layout: LayoutOption = None

    def open(self, model: Model) -> Source:
        """Open the samples."""
        return open_data(self.data, model, self.mean, self.std, (self.image_size, self.layout)).limited(self.limit)


@dataclass(frozen=True)
class Learning:
    """How the network is trained."""

    epochs: fine.Epochs = 5.0
    batch: fine.BatchSize = 128
    rate: Annotated[
        float | None, typer.Option(help="Highest learning rate: by default 0.01, 0.001 with adamw.", min=0.0)
    ] = None
    optimizer: fine.Choice = fine.Optimizer.sgd
    weight_decay: fine.Decay = 5e-4
    warmup: fine.Warmup = 0.05
    clip: fine.Clip = 1.0
    label_weight: fine.LabelWeight = None
    temperature: fine.Temperature = 4.0
    smoothing: fine.Smoothing = 0.0
    output_loss: fine.OutputLoss = None
    loss: fine.OwnLoss = None
    augment: fine.Augment = "auto"
    held_out: fine.HeldOut = None
    unfold_bn: fine.UnfoldBn = None
    device: fine.On = fine.Device.auto
    precision: fine.In = fine.Precision.no
    checkpoint: fine.Checkpoint = None
    checkpoint_every: fine.Every = 200
    resume: fine.Resume = False
    seed: fine.Seed = 0

    def options(self, state: Path) -> FinetuneOptions:
        """Return the same for the Python API; `state` is where the run is saved."""
        return fine.training_options({**vars(self), "ema": 0.0}, state)


@dataclass(frozen=True)
class Widths:
    """How widths are chosen from what training has found."""

    solver: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How widths are chosen: by default as suits the method.", show_default=False),
    ] = None
    round_to: Annotated[
        str, typer.Option(metavar="auto|INT|KIND", help="Widths are multiples of this; as in `solve`.")
    ] = "auto"
    min_keep: Annotated[int, typer.Option(metavar="INT", min=1, help="Fewest channels a group keeps.")] = 1

    def options(
        self, method: Method, settings: dict[str, Setting], constraining: Constraining, seed: int
    ) -> SolveOptions:
        """Return the same for the Python API."""
        from graphprune import api

        return api.SolveOptions(
            solver=self.solver or method.solver,
            round_to=opt.parse_rounding(self.round_to),
            min_keep=self.min_keep,
            seed=seed,
            settings=settings,
            constraints=constraining.constraints(),
        )


@spread
def train(
    model: opt.ModelFile,
    feeding: Feeding,
    budgets: Budgets,
    learning: Learning,
    choosing: Widths,
    constraining: Constraining,
    reading: AnalysisChoices,
    method: Annotated[str, typer.Option(metavar="NAME", help="How channels are found. An unknown name lists all.")] = (
        "slimming"
    ),
    settings: Settings = None,
    teacher: Teacher = None,
    recover: Recover = Recovering.least_squares,
    finetune_epochs: Closing = 0.0,
    output: opt.Output = None,
    plan: PlanTarget = None,
    trained: TrainedTarget = None,
    force: opt.Force = False,
    unverified: opt.Unverified = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time both models in onnxruntime.")] = False,
    as_json: opt.Json = False,
    dry_run: opt.DryRun = False,
    verbose: opt.Verbose = False,
) -> None:
    """Prune a model while it trains.

    Writes MODEL.trained.onnx, MODEL.plan.json and MODEL.pruned.onnx: the whole model with its new weights, what to
    remove from it, and what is left. That is verified as by `solve`. Samples need labels, or the outputs
    of the model as it was are learned. A run that was ended is taken up with --resume.
    """
    requests, again = budgets.requests(), force or learning.resume
    targets = Targets(output or beside(model, ".pruned.onnx"), plan or beside(model, ".plan.json"), again, dry_run)
    places = _Places(targets, trained or beside(model, ".trained.onnx"), finetune_epochs, learning)
    places.check([path for path in (model, teacher, constraining.widths, constraining.start) if path is not None])

    from graphprune import accuracy, api

    talk = Talk(verbose=verbose)
    if lonely():
        talk.note(lonely())
    with talk.stage("loading"):
        loaded = api.load(model)
        original = api.load(teacher) if teacher is not None else None
        samples = feeding.open(loaded)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, reading.options())
    with talk.stage("importing torch"):
        from graphprune.training.pruning.train import TrainOptions
    found, own = _method(method, settings, choosing.solver)
    places.check_further(found.makes)
    solving = choosing.options(found, own, constraining, learning.seed)
    with ProgressLine() as meter:
        training, mending = learning.options(places.state), recover.options(learning.seed)
        options = TrainOptions(training, solving, original, mending, meter.listen)
        result = accuracy.train(analysis, samples, requests, found, options)
    if result.main:
        notes = _notes(result)
        summary = carry_out(Job("train", result.analysis, result.plan, targets, unverified, bench, notes), talk)
        show(places.finished(result, summary, (samples, original or loaded), talk), as_json=as_json)


@dataclass(frozen=True)
class _Places:
    """Where everything goes.

    Parameters
    ----------
    targets : Targets
        The pruned model and its plan.
    whole : Path
        The trained model.
    epochs : float
        Of the closing finetune round; 0 for none.
    learning : Learning
    """

    targets: Targets
    whole: Path
    epochs: float
    learning: Learning

    @property
    def state(self) -> Path:
        """Where the run is saved."""
        return self.learning.checkpoint or self.whole.with_name(self.whole.name + ".checkpoint.safetensors")

    @property
    def finetuned(self) -> Path | None:
        """Where the result of the closing round goes."""
        return beside(self.targets.output, ".finetuned.onnx") if self.epochs else None

    def check(self, inputs: list[Path]) -> None:
        """Refuse what could not be written in the end."""
        self.targets.check(inputs)
        for path in (self.whole, self.finetuned):
            if path is not None and all(item.exists() for item in inputs):
                check_target(path, inputs, force=self.targets.force or self.targets.dry)
        fine.check_state(self.state, resume=self.learning.resume, force=self.targets.force)

    def further(self, word: str) -> Path:
        """Where another model of a method goes."""
        return beside(self.targets.output, f".{word}.onnx")

    def check_further(self, words: tuple[str, ...]) -> None:
        """Refuse what other models of a method could not be written to in the end."""
        for word in words:
            check_target(self.further(word), [], force=self.targets.force or self.targets.dry)

    def finished(
        self, result: Trained, summary: PruningSummary, by: tuple[Source, Model], talk: Talk
    ) -> PruningSummary:
        """Write the trained model, and finetune the pruned one if that is wanted."""
        from graphprune import api
        from graphprune.verification.check_runs import check_runs

        files, notes = dict(summary.files), summary.notes
        if not self.targets.dry:
            for model in (result.model, *result.further.values()):
                check_runs(model, by[1], result.plan.model.inputs)
            files["model"] = str(api.save(result.model, self.whole, force=self.targets.force))
            for word, model in result.further.items():
                path = api.save(model, self.further(word), force=self.targets.force)
                notes = (*notes, f"{word} model: {quote(str(path))}")
        self.state.unlink(missing_ok=True)
        target = self.finetuned
        if target is not None and not self.targets.dry:
            with talk.stage("finetuning"):
                notes = (*notes, self._finetune(target, result, *by))
        return replace(summary, files=files, notes=notes)

    def _finetune(self, target: Path, result: Trained, data: Source, teacher: Model) -> str:
        from graphprune import api
        from graphprune.training.finetune import finetune
        from graphprune.verification.check_runs import check_runs

        options = replace(self.learning.options(self.state), epochs=self.epochs, checkpoint=None, resume=False)
        pruned = api.apply(result.analysis, result.plan)
        with ProgressLine() as meter:
            found = finetune(pruned, data, teacher, options, meter.listen)
        if not found.improved:
            return f"finetuning did not help: the held-out loss was {found.before.loss:.4g} and was never lower"
        check_runs(found.model, pruned, result.plan.model.inputs)
        api.save(found.model, target, force=self.targets.force)
        return f"finetuned to {quote(str(target))}, held-out {_measures(found.before, found.after)}"


def _method(name: str, texts: list[str] | None, solver: str | None) -> tuple[Method, dict[str, Setting]]:
    """Return the method, and the settings that are for the width solver."""
    from graphprune.solvers import training, widths
    from graphprune.solvers.registry import chosen

    kind = training.get(name)
    own, rest = chosen(parse_settings(texts), kind, widths.get(solver or kind.solver))
    return kind(**own), rest


def _notes(result: Trained) -> tuple[str, ...]:
    from graphprune.report.summary import plan_notes, uncounted_notes

    when = "" if result.pruned else "before pruning, "
    trained = f"{when}held-out {_measures(result.before, result.after)}"
    notes = (*plan_notes(result.plan), *uncounted_notes(result.analysis), trained)
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

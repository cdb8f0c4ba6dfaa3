# SPDX-License-Identifier: Apache-2.0
"""`graphprune finetune`: let a pruned model learn from the original, or from labels."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli import data_options as dat
from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json
from graphprune.cli.processes import lonely
from graphprune.cli.progress import ProgressLine
from graphprune.cli.targets import beside, check_target
from graphprune.errors import InputError, NotImprovedError, OutputError, UsageError, quote

if TYPE_CHECKING:
    from graphprune.training.finetune import Finetuned
    from graphprune.training.finetune_options import FinetuneOptions
    from graphprune.training.losses import Kind

__all__ = ["check_state", "finetune", "training_options"]


class Optimizer(StrEnum):
    """What turns gradients into steps."""

    sgd = "sgd"
    adamw = "adamw"


class Device(StrEnum):
    """Where training runs."""

    auto = "auto"
    cpu = "cpu"


class Precision(StrEnum):
    """In which precision activations are computed."""

    no = "no"
    fp16 = "fp16"
    bf16 = "bf16"


class Regularizing(StrEnum):
    """What draws channels towards zero."""

    bn_l1 = "bn-l1"
    group_norm = "group-norm"
    growing = "growing"


Pruned = Annotated[Path, typer.Argument(metavar="PRUNED", help="The pruned ONNX file.", show_default=False)]
Data = Annotated[
    str,
    typer.Option("--data", metavar="SOURCE", show_default=False, help=f"With or without labels: {dat.SOURCE_HELP}."),
]
Teacher = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="The original, whose outputs are learned.", show_default=False)
]
Epochs = Annotated[float, typer.Option(help="Passes over the data.", min=0.0)]
BatchSize = Annotated[int, typer.Option(help="Samples of a step, over all processes.", min=1)]
Rate = Annotated[
    float | None, typer.Option(help="Highest learning rate; by default the best of a few that are tried.", min=0.0)
]
Choice = Annotated[Optimizer, typer.Option(help="What turns gradients into steps.")]
Decay = Annotated[float, typer.Option(help="Weight decay of matrices and kernels.", min=0.0)]
Warmup = Annotated[float, typer.Option(help="Share of the steps in which the rate grows.", min=0.0, max=0.9)]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient; 0 for any.", min=0.0)]
Ema = Annotated[float, typer.Option(help="Decay of a moving average of the weights; 0 for none.", min=0.0, max=0.99999)]
LabelWeight = Annotated[
    float | None,
    typer.Option(help="Share of the labels in the loss: by default 0.1 beside a teacher.", min=0.0, max=1.0),
]
Temperature = Annotated[float, typer.Option(help="Of the distillation of scores.", min=0.1)]
Smoothing = Annotated[float, typer.Option("--label-smoothing", help="Of labels.", min=0.0, max=0.9)]
OutputLoss = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=kl", help="How an output is compared: kl, mse, cosine or none.", show_default=False),
]
OwnLoss = Annotated[
    str | None, typer.Option("--loss", metavar="package.module:function", help="Your own loss.", show_default=False)
]
Augment = Annotated[
    str, typer.Option(help="flip, crop, resized-crop, erase joined by commas, none, or package.module:function.")
]
HeldOut = Annotated[int | None, typer.Option(help="Samples that judge: by default a tenth, 1024 at most.", min=1)]
UnfoldBn = Annotated[
    bool | None,
    typer.Option(
        "--unfold-bn/--no-unfold-bn",
        help="Put folded BatchNormalization back while training: by default where the model has none.",
        show_default=False,
    ),
]
Regularize = Annotated[
    Regularizing | None,
    typer.Option(
        help="Draw whole channels towards zero: scales of BatchNormalizations, coupled channels, or the lower half of "
        "each group ever harder. Any criterion can follow; the result is kept even if the loss rises.",
        show_default=False,
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(help="Of --regularize: by default 1e-4, and 1 with growing.", min=0.0, show_default=False),
]
On = Annotated[Device, typer.Option(help="auto, or cpu; `accelerate launch` decides for several.")]
In = Annotated[Precision, typer.Option(help="Of activations.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the run is saved; beside the output by default.", show_default=False),
]
Every = Annotated[int, typer.Option("--checkpoint-every", help="Steps between two savings.", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")]
Seed = Annotated[int, typer.Option(help="Of the order of samples and of augmentation.", min=0)]


def finetune(
    pruned: Pruned,
    data: Data,
    teacher: Teacher = None,
    output: opt.Output = None,
    epochs: Epochs = 2.0,
    batch: BatchSize = 128,
    rate: Rate = None,
    optimizer: Choice = Optimizer.sgd,
    weight_decay: Decay = 5e-4,
    warmup: Warmup = 0.05,
    clip: Clip = 1.0,
    ema: Ema = 0.0,
    label_weight: LabelWeight = None,
    temperature: Temperature = 4.0,
    smoothing: Smoothing = 0.0,
    output_loss: OutputLoss = None,
    loss: OwnLoss = None,
    augment: Augment = "auto",
    held_out: HeldOut = None,
    limit: dat.Limit = None,
    unfold_bn: UnfoldBn = None,
    regularize: Regularize = None,
    strength: Strength = None,
    device: On = Device.auto,
    precision: In = Precision.no,
    checkpoint: Checkpoint = None,
    checkpoint_every: Every = 200,
    resume: Resume = False,
    seed: Seed = 0,
    mean: dat.Mean = None,
    std: dat.Std = None,
    size: dat.Size = None,
    layout: dat.LayoutOption = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Let a pruned model learn from the original, or from labels, and keep it if that helped.

    Writes PRUNED.finetuned.onnx, in which nothing but weights differs. Samples that are held out judge;
    if their loss does not fall, nothing is written. A run that was ended is taken up with --resume.
    """
    target = output or beside(pruned, ".finetuned.onnx")
    given = {name: value for name, value in locals().items() if name not in ("target", "output")}
    inputs = [path for path in (pruned, teacher) if path is not None]
    check_target(target, inputs, force=force or resume)
    state = checkpoint or target.with_name(target.name + ".checkpoint.safetensors")
    check_state(state, resume=resume, force=force)
    result = _run(given, state)
    if not result.main:
        return
    if not result.improved:
        state.unlink(missing_ok=True)
        raise NotImprovedError(
            f"finetuning did not help: the held-out loss is {result.before.loss:.4g} at the start and was never lower "
            f"in {result.steps} steps{' (' + result.stopped + ')' if result.stopped else ''}; nothing was written",
            hint="try more data, more --epochs, or a lower --rate",
        )
    from graphprune import api
    from graphprune.verification.check_runs import check_runs

    check_runs(result.model, api.load(pruned))
    api.save(result.model, target, force=force or resume)
    state.unlink(missing_ok=True)
    _show(result, target, as_json=as_json)


def check_state(state: Path, *, resume: bool, force: bool) -> None:
    """Refuse a checkpoint that is in the way, or is wanted and not there.

    Raises
    ------
    OutputError, InputError
    """
    if state.exists() and not (resume or force):
        raise OutputError(f"{quote(str(state))} exists", hint="go on with --resume, or start anew with --force")
    if resume and not state.exists():
        raise InputError(
            f"there is no run to go on with: {quote(str(state))} does not exist", hint="leave out --resume"
        )


def _run(given: dict[str, Any], state: Path) -> Finetuned:
    """Read models and data, and train."""
    from graphprune import api

    talk = Talk(verbose=given["verbose"])
    if lonely():
        talk.note(lonely())
    with talk.stage("loading"):
        model = api.load(given["pruned"])
        original = api.load(given["teacher"]) if given["teacher"] is not None else None
        shape = given["size"], given["layout"]
        source = dat.open_data(given["data"], original or model, given["mean"], given["std"], shape)
        source = source.limited(given["limit"])
    with talk.stage("importing torch"):
        from graphprune.training.finetune import finetune as train
    meter = ProgressLine()
    with meter:
        return train(model, source, original, training_options(given, state), meter.listen)


def training_options(given: dict[str, Any], state: Path) -> FinetuneOptions:
    """Return the options by name for the Python API; `state` is where the run is saved."""
    from graphprune.training.finetune_options import FinetuneOptions
    from graphprune.training.losses import load_function
    from graphprune.training.trainer import Optimisation

    how = {name: given[name] for name in ("weight_decay", "warmup", "clip", "ema")}
    same = ("epochs", "batch", "rate", "label_weight", "temperature", "smoothing", "augment", "held_out")
    return FinetuneOptions(
        optimisation=Optimisation(optimizer=given["optimizer"].value, **how),
        kinds=_kinds(given["output_loss"]),
        loss=load_function(given["loss"], "--loss") if given["loss"] else None,  # type: ignore[arg-type]
        unfold=given["unfold_bn"],
        device=given["device"].value,
        precision=given["precision"].value,
        checkpoint=state,
        checkpoint_every=given["checkpoint_every"],
        resume=given["resume"],
        seed=given["seed"],
        regularize=given["regularize"].value if given.get("regularize") else "",
        strength=given.get("strength"),
        **{name: given[name] for name in same},
    )


def _kinds(texts: list[str] | None) -> dict[str, Kind]:
    found: dict[str, Any] = {}
    for text in texts or []:
        name, separator, kind = text.rpartition("=")
        if not (name and separator):
            raise UsageError(
                f"--output-loss cannot be {quote(text)}", hint="name an output, e.g. --output-loss logits=kl"
            )
        found[name] = kind
    return found


def _show(result: Finetuned, target: Path, *, as_json: bool) -> None:
    before, after = result.before, result.after
    if as_json:
        print_json(
            {
                "command": "finetune",
                "output": str(target),
                "before": vars(before),
                "after": vars(after),
                "rate": result.rate,
                "searched": {str(rate): loss for rate, loss in result.searched.items() if loss < float("inf")},
                "steps": result.steps,
                "best_step": result.best_step,
                "stopped": result.stopped,
                **result.facts,
            }
        )
        return
    rows = {"held-out loss": f"{before.loss:.4g} -> {after.loss:.4g}"}
    for name, old, new in (
        ("accuracy", before.accuracy, after.accuracy),
        ("agreement", before.agreement, after.agreement),
    ):
        if old is not None and new is not None:
            rows[name] = f"{old:.2%} -> {new:.2%}"
    rows["rate"] = f"{result.rate:g}{' (the best of ' + str(len(result.searched)) + ')' if result.searched else ''}"
    rows["steps"] = f"{result.steps}, best after {result.best_step}"
    if not result.best_step:
        rows["steps"] = (
            f"{result.steps}, none better than the new statistics of BatchNormalization, which alone were kept"
        )
    if result.facts["processes"] != 1:
        rows["processes"] = str(result.facts["processes"])
    rows["samples"] = f"{result.facts['samples']}, and {result.facts['held_out']} held out"
    if result.stopped:
        rows["stopped"] = result.stopped
    rows["output"] = str(target)
    for name, text in rows.items():
        typer.echo(f"{name:<14} {text}")

# SPDX-License-Identifier: Apache-2.0
"""Training: how a network learns, and how a run is kept and taken up again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from graphprune.choices import Device, Optimizer, Precision, Regularization
from graphprune.cli.completion import training_methods
from graphprune.errors import UsageError, quote
from graphprune.recovery.recover_options import Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.recovery.recover_options import RecoverOptions
    from graphprune.training.finetune_options import FinetuneOptions
    from graphprune.training.losses import Kind

__all__ = ["FinetuneTraining", "PruningTraining", "Training"]

_Epochs = Annotated[float, typer.Option(metavar="NUMBER", help="Passes over the data.", min=0.0)]


@dataclass(frozen=True)
class Training:
    """What `finetune` and `train` share."""

    panel: ClassVar[str] = "Training"

    epochs: _Epochs = 2.0
    batch: Annotated[int, typer.Option(metavar="INT", help="Samples of a step, over all processes.", min=1)] = 128
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Highest learning rate; by default the best of a few that are tried.", min=0.0
        ),
    ] = None
    optimizer: Annotated[Optimizer, typer.Option(help="What turns gradients into steps.")] = "sgd"
    weight_decay: Annotated[
        float, typer.Option(metavar="RATE", help="Weight decay of matrices and kernels.", min=0.0)
    ] = 5e-4
    warmup: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the steps in which the rate grows.", min=0.0, max=0.9)
    ] = 0.05
    clip: Annotated[float, typer.Option(metavar="NORM", help="Largest norm of the gradient; 0 for any.", min=0.0)] = 1.0
    label_weight: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Share of the labels in the loss: by default 0.1 beside a teacher.", min=0.0, max=1.0
        ),
    ] = None
    temperature: Annotated[float, typer.Option(metavar="NUMBER", help="Of the distillation of scores.", min=0.1)] = 4.0
    smoothing: Annotated[
        float, typer.Option("--label-smoothing", metavar="SHARE", help="Of labels.", min=0.0, max=0.9)
    ] = 0.0
    output_loss: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=kl", help="How an output is compared: kl, mse, cosine or none.", show_default=False),
    ] = None
    loss: Annotated[
        str | None, typer.Option(metavar="package.module:function", help="Your own loss.", show_default=False)
    ] = None
    augment: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="flip, crop, resized-crop, erase, cutmix joined by commas, none, or package.module:function.",
        ),
    ] = "auto"
    held_out: Annotated[
        int | None, typer.Option(metavar="INT", help="Samples that judge: by default a tenth, 1024 at most.", min=1)
    ] = None
    unfold_bn: Annotated[
        bool | None,
        typer.Option(
            "--unfold-bn/--no-unfold-bn",
            help="Put folded BatchNormalization back while training: by default where the model has none.",
            show_default=False,
        ),
    ] = None
    device: Annotated[
        Device,
        typer.Option(
            envvar="GRAPHPRUNE_DEVICE",
            help="Where it learns. auto: on the graphics processor if it is there and works; `accelerate launch` "
            "decides for several.",
            case_sensitive=False,
        ),
    ] = "auto"
    precision: Annotated[Precision, typer.Option(help="Of activations.")] = "no"
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the run is saved; beside the output by default.", show_default=False),
    ] = None
    checkpoint_every: Annotated[int, typer.Option(metavar="INT", help="Steps between two savings.", min=1)] = 200
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False
    seed: Annotated[int, typer.Option(metavar="INT", help="Of the order of samples and of augmentation.", min=0)] = 0

    def checkpoint_of(self, output: Path) -> Path:
        """Return where the run that makes `output` is saved."""
        return self.checkpoint or output.with_name(output.name + ".checkpoint.safetensors")

    def options(self, checkpoint: Path) -> FinetuneOptions:
        """Return the same for the Python API; the run is saved to `checkpoint`.

        Raises
        ------
        UsageError
            If a value has no meaning.
        """
        from graphprune.training.finetune_options import FinetuneOptions
        from graphprune.training.losses import load_function
        from graphprune.training.trainer import Optimisation

        return FinetuneOptions(
            epochs=self.epochs,
            batch=self.batch,
            rate=self.rate,
            optimisation=Optimisation(
                optimizer=self.optimizer, weight_decay=self.weight_decay, warmup=self.warmup, clip=self.clip
            ),
            label_weight=self.label_weight,
            temperature=self.temperature,
            smoothing=self.smoothing,
            kinds=_parse_output_losses(self.output_loss),
            loss=load_function(self.loss, "--loss") if self.loss else None,  # type: ignore[arg-type]
            augment=self.augment,
            held_out=self.held_out,
            unfold=self.unfold_bn,
            device=self.device,
            precision=self.precision,
            checkpoint=checkpoint,
            checkpoint_every=self.checkpoint_every,
            resume=self.resume,
            seed=self.seed,
        )


@dataclass(frozen=True)
class FinetuneTraining(Training):
    """How `finetune` lets a pruned network learn."""

    ema: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Decay of a moving average of the weights; 0 for none.", min=0.0, max=0.99999
        ),
    ] = 0.0
    regularize: Annotated[
        Regularization | None,
        typer.Option(
            help="Draw whole channels towards zero: scales of BatchNormalizations, coupled channels, or the lower half "
            "of each group ever harder. Any criterion can follow; the result is kept even if the loss rises.",
            show_default=False,
        ),
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Of --regularize: by default 1e-4, and 1 with growing.", min=0.0, show_default=False
        ),
    ] = None

    def options(self, checkpoint: Path) -> FinetuneOptions:
        """Return the same for the Python API; the run is saved to `checkpoint`."""
        shared = super().options(checkpoint)
        return replace(
            shared,
            optimisation=replace(shared.optimisation, ema=self.ema),
            regularize=self.regularize or "",
            strength=self.strength,
        )


@dataclass(frozen=True)
class PruningTraining(Training):
    """How `train` finds channels while the network learns, and makes good what goes."""

    epochs: _Epochs = 5.0
    rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Highest learning rate: by default 0.01, 0.001 with adamw.", min=0.0),
    ] = None
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How channels are found. An unknown name lists all.", autocompletion=training_methods
        ),
    ] = "slimming"
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method. Repeatable.", show_default=False),
    ] = None
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="Whose outputs are learned: without labels the model as it was.", show_default=False
        ),
    ] = None
    recover: Annotated[
        Literal[Method, "none"],
        typer.Option(
            help="How a removal is made good, from the samples, before training goes on.", rich_help_panel="Recovery"
        ),
    ] = "least-squares"
    finetune_epochs: Annotated[
        float,
        typer.Option(metavar="N", min=0.0, help="Finetune the pruned model for so long.", rich_help_panel="Recovery"),
    ] = 0.0

    def recovery(self) -> RecoverOptions | None:
        """Return how a removal is made good, for the Python API."""
        from graphprune.recovery.recover_options import RecoverOptions

        return None if self.recover == "none" else RecoverOptions(method=self.recover, seed=self.seed)


def _parse_output_losses(texts: Sequence[str] | None) -> dict[str, Kind]:
    """Return the loss of each output by name; whether there is such a loss is seen where the outputs are known."""
    kinds: dict[str, Any] = {}
    for text in texts or []:
        name, separator, kind = text.rpartition("=")
        if not (name and separator):
            raise UsageError(
                f"--output-loss cannot be {quote(text)}", hint="name an output, e.g. --output-loss logits=kl"
            )
        kinds[name] = kind
    return kinds

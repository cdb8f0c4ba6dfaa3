# SPDX-License-Identifier: Apache-2.0
"""Recovery: how accuracy is brought back after pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import NumberFormat, Recover
from graphprune.cli.options.samples import AddSynthetic, check_added
from graphprune.errors import UsageError
from graphprune.extras import require
from graphprune.recovery.recover_options import Method

if TYPE_CHECKING:
    from graphprune.cli.console import Talk
    from graphprune.cli.options.samples import ImageOptions
    from graphprune.data.source import Source
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.model.load import Model
    from graphprune.recovery.recover_options import RecoverOptions

__all__ = ["Refitting", "Restoring"]

Copies = Annotated[
    int,
    typer.Option(
        "--copies",
        metavar="N",
        min=0,
        max=64,  # MOST_COPIES of graphprune.data.varied, which is not imported for the sake of --help
        help="Where images are few, also fit to N changed copies of each: its mirror image, then pieces of it, "
        "enlarged. For networks to which left and right are alike.",
        rich_help_panel="Recovery",
    ),
]


@dataclass(frozen=True)
class Restoring:
    """What `solve` does after pruning."""

    panel: ClassVar[str] = "Recovery"

    recover: Annotated[
        Recover,
        typer.Option(
            help="Bring accuracy back without training. auto: by least squares, from the samples of --calib, or from "
            "samples that are made by what the file remembers. blocks: then let blocks learn from the original."
        ),
    ] = "auto"
    quick: Annotated[bool, typer.Option("--quick", help="Only prune, in seconds: the same as --recover none.")] = False
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Then let it learn from the original (see `graphprune finetune`).")
    ] = False
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Measure the accuracy before and after on these: against labels, or else the original. --finetune "
            "learns from most of them, by default from those of --calib, or from made ones.",
            show_default=False,
            rich_help_panel="Samples",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Passes of --finetune over them. [default: 2]", min=0.0, show_default=False
        ),
    ] = None

    copies: Copies = 0
    add_synthetic: AddSynthetic = None
    quantize: Annotated[
        NumberFormat | None,
        typer.Option(
            help="In the end also write the result in 8-bit integers or float16 (see `graphprune quantize`).",
            show_default=False,
            case_sensitive=False,
        ),
    ] = None

    @property
    def method(self) -> Method | None:
        """How a network is recovered; None if it is not."""
        if self.quick or self.recover == "none":
            return None
        return "least-squares" if self.recover == "auto" else self.recover

    @property
    def automatic(self) -> bool:
        """Whether nobody said how accuracy is brought back."""
        return self.recover == "auto" and not self.quick

    @property
    def makes_samples(self) -> bool:
        """Whether samples are made where none are given."""
        from graphprune.data.synthesis.make_samples import read_request

        learned = self.data if self.finetune else None
        return self.automatic and (learned is None or read_request(learned) is not None)

    def wanted(self, *, samples: bool) -> bool:
        """Whether anything follows pruning, given whether there are samples to recover from."""
        return (samples and self.method is not None) or self.finetune

    @property
    def reads_calib(self) -> bool:
        """Whether the samples of ``--calib`` are read after pruning."""
        return self.method is not None or (self.finetune and self.data is None)

    def open_data(self, images: ImageOptions, model: Model, talk: Talk) -> Source | SampleOptions | None:
        """Return the samples of ``--data``; or, where ones that are made are learned from, how they are made.

        Raises
        ------
        DataError, UsageError
            If they cannot be opened.
        """
        from graphprune.data.synthesis.make_samples import read_request

        if self.data is None:
            return None
        request = read_request(self.data) if self.finetune else None
        return images.open_source(self.data, model, talk) if request is None else request

    def check(self, calib: str | None) -> None:
        """Refuse what cannot be done, before anything is.

        Raises
        ------
        UsageError
            If there is nothing to recover or to learn from, or no torch to learn with.
        """
        if self.quick and self.recover not in ("auto", "none"):
            raise UsageError(f"--quick recovers nothing, so it does not go with --recover {self.recover}")
        if self.method is not None and not self.automatic and calib is None:
            raise UsageError(
                "--recover needs samples",
                hint="give some with --calib SOURCE; labels are not needed, and --calib synthetic makes some",
            )
        if self.finetune and self.data is None and calib is None and not self.makes_samples:
            raise UsageError("--finetune needs samples", hint="give some with --data SOURCE or --calib SOURCE")
        if self.quantize is not None and self.quick and calib is None:
            raise UsageError(
                "--quantize needs samples, and --quick makes none",
                hint="give some with --calib SOURCE, or leave --quick out",
            )
        if self.epochs is not None and not self.finetune:
            raise UsageError("--epochs is how long --finetune learns", hint="add --finetune, or leave it out")
        check_added(self.add_synthetic, calib)
        if self.add_synthetic is not None and self.method is None:
            raise UsageError("--add-synthetic is for recovery, and there is none", hint="leave it or --quick out")
        if self.copies and self.method is None:
            raise UsageError("--copies is for recovery, and there is none", hint="leave it or --quick out")
        if self.finetune:
            require("train", "--finetune")
        if self.method == "blocks":
            require("train", "--recover blocks")


@dataclass(frozen=True)
class Refitting:
    """What `recover` does."""

    panel: ClassVar[str] = "Recovery"

    method: Annotated[
        Method,
        typer.Option(
            help="Refit weights; refit them, and let blocks learn from the original (needs torch); estimate "
            "BatchNormalization anew; or shift biases only."
        ),
    ] = "least-squares"
    rescale: Annotated[
        bool, typer.Option("--rescale", help="After least squares, give every output the variance of its target.")
    ] = False
    copies: Copies = 0
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For the sampled positions.")] = 0

    def options(self, samples: int) -> RecoverOptions:
        """Return the same for the Python API.

        Raises
        ------
        UsageError
            If a value does not go with the method.
        """
        from graphprune.recovery.recover_options import RecoverOptions

        if self.method == "blocks":
            require("train", "--method blocks")
        if self.rescale and self.method != "least-squares":
            raise UsageError(f"--rescale goes with least squares, not with {self.method}")
        return RecoverOptions(
            method=self.method, samples=samples, rescale=self.rescale, seed=self.seed, copies=self.copies
        )

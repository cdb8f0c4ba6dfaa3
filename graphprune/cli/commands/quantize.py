# SPDX-License-Identifier: Apache-2.0
"""`graphprune quantize`: 8-bit integers or float16 after pruning, held to the float model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import CalibrationMethod
from graphprune.cli.console import print_json, print_line
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import RunningDevice
from graphprune.cli.options.model_reading import ModelFile
from graphprune.cli.options.output import DryOutput, Printing
from graphprune.cli.options.samples import ImageOptions
from graphprune.cli.quantized_report import quantized_facts, quantized_lines
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.cli.console import Talk
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["quantize"]


@dataclass(frozen=True, kw_only=True)
class _RangeSamples:
    """Samples without labels, for ranges and for comparison."""

    panel: ClassVar[str] = "Samples"

    calib: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Samples, labels are not needed: a folder of images, .npz, .npy, package.module:function, "
            "torchvision:NAME, or synthetic[:fine][:N].",
        ),
    ] = "synthetic"
    samples: Annotated[
        int, typer.Option(metavar="N", min=2, help="The most samples used; a half, 256 at most, are held out.")
    ] = 512
    original: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="What it was made of: remembers more of its training data, for made samples and for how images are "
            "normalised. [default: what the plan beside it names, for images]",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None
    images: ImageOptions
    running: RunningDevice

    def open(self, model: Model, talk: Talk) -> tuple[Source, bool]:
        """Open the samples; whether they are made is told as well."""
        from graphprune import accuracy, api
        from graphprune.data.synthesis.make_samples import read_request

        self.images.check_needed(self.calib)
        if read_request(self.calib) is None:
            return self._read(model, talk), False
        with talk.stage("making samples"):
            return accuracy.samples(model if self.original is None else api.load(self.original), self.calib), True

    def _read(self, model: Model, talk: Talk) -> Source:
        """Open samples as the original is fed, where that is known: it remembers most of how it was trained."""
        from graphprune import api
        from graphprune.verification.pair import named_plan, original_beside

        original = api.load(self.original) if self.original is not None else original_beside(model)
        if original is not None:
            return self.images.open_source(self.calib, original, talk)
        try:
            return self.images.open_source(self.calib, model, talk)
        except UsageError as error:
            if named_plan(model):
                more = "or name the file that it was pruned from, which remembers more: --original MODEL"
                error.hint = f"{error.hint}; {more}" if error.hint else more
            raise


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """What numbers become."""

    panel: ClassVar[str] = "Precision"

    fp16: Annotated[bool, typer.Option("--fp16", help="float16 instead of 8-bit integers.")] = False
    limit: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="The largest squared error of the outputs on held-out samples, relative to their variance; what loses "
            "most stays float until that holds.",
        ),
    ] = 0.05
    method: Annotated[
        CalibrationMethod, typer.Option(help="How ranges of activations follow from samples.", case_sensitive=False)
    ] = "minmax"
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits, whose products do not saturate on x86 without VNNI. [default: as this processor "
            "needs]",
            show_default=False,
        ),
    ] = None


@examples(
    "graphprune quantize model.pruned.onnx --calib photos/",
    "graphprune quantize model.pruned.onnx --calib synthetic --original model.onnx",
    "graphprune quantize model.pruned.onnx --fp16",
)
@spread
def quantize(
    model: ModelFile, *, numbers: _Numbers, calibration: _RangeSamples, output: DryOutput, printing: Printing
) -> None:
    """Bring a network, pruned or not, to 8-bit integers or float16.

    Writes MODEL.int8.onnx (QDQ, weights per channel) or MODEL.fp16.onnx. Some samples are held out: where the outputs
    on these lose more than --limit, the layers that lose most stay float.
    """
    suffix = ".fp16.onnx" if numbers.fp16 else ".int8.onnx"
    target = output.output or beside(model, suffix)
    given = (model, calibration.original, calibration.calib)
    check_targets({"model": target}, given, force=output.force or output.dry_run, log=printing.log)

    from graphprune import api
    from graphprune.export.quantize import QuantizeOptions
    from graphprune.export.quantize import quantize as run

    options = QuantizeOptions(
        "fp16" if numbers.fp16 else "int8", calibration.samples, numbers.limit, numbers.method, numbers.reduce_range
    )
    talk = printing.talk()
    calibration.running.select(talk)
    with talk.stage("loading"):
        loaded = api.load(model)
    source, made = calibration.open(loaded, talk)
    with talk.steps("quantising") as progress:
        result = run(loaded, source, options, progress=progress)
    if not output.dry_run:
        with talk.stage("writing"):
            api.save(result.model, target, force=output.force)
    written = None if output.dry_run else target
    if printing.as_json:
        print_json({"command": "quantize", "model": str(model), **quantized_facts(result, written, made=made)})
        return
    for name, text in quantized_lines(result, written, made=made):
        print_line(name, text)
    if written is not None:
        print_line("next", shlex.join(["graphprune", "deploy", str(written), "--original", str(model)]))

# SPDX-License-Identifier: Apache-2.0
"""`graphprune init`: a graphprune.toml beside a model, with what can be found of its preprocessing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import ModelFile
from graphprune.cli.options.output import Printing
from graphprune.cli.options.samples import CalibrationSamples
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_targets
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.cli.console import Talk
    from graphprune.data.preprocessing import ImageInput
    from graphprune.model.load import Model

__all__ = ["init"]


@examples("graphprune init model.onnx --calib photos/", "graphprune init model.onnx --mean 0.5 --std 0.5")
@spread
def init(
    model: ModelFile,
    *,
    calibration: CalibrationSamples,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace an existing file.", rich_help_panel="Output")
    ] = False,
    printing: Printing,
) -> None:
    """Write a graphprune.toml: how a model is fed 8-bit images.

    It lies beside the model. Size and layout come from the model's input. With --calib the normalisation that the
    model was trained with is found from what the file remembers; without, it stays to be filled in.
    """
    from graphprune import api
    from graphprune.data.preprocessing import SETTINGS
    from graphprune.data.settings_text import settings_text
    from graphprune.model.write import write_bytes_atomically

    target = model.parent / SETTINGS
    check_targets({"settings": target}, [model, calibration.calib], force=force, log=printing.log)
    talk = printing.talk()
    calibration.running.select(talk)
    with talk.stage("loading"):
        image = _image(api.load(model), calibration, talk)
    text = settings_text(image)
    write_bytes_atomically(text.encode("utf-8"), target, force=force)
    if printing.as_json:
        mean, std = image.preprocessing.scale
        known = image.preprocessing.mean is not None
        facts = {"mean": list(mean) if known else None, "std": list(std) if known else None, "layout": image.layout}
        sizes = None if image.height is None or image.width is None else [image.height, image.width]
        print_json({"command": "init", "output": str(target), **facts, "image_size": sizes})
    else:
        typer.echo(f"{text}\noutput  {target}")


def _image(model: Model, calibration: CalibrationSamples, talk: Talk) -> ImageInput:
    """Return how images are fed; a file that is already there is not asked.

    Raises
    ------
    UsageError
        If the model takes no images.
    """
    from graphprune.data.normalisation import image_input
    from graphprune.data.signature import input_specs

    specs = input_specs(model)
    if len(specs) != 1 or not specs[0].is_image:
        shown = ", ".join(map(str, specs))
        raise UsageError(f"graphprune.toml says how images are fed, and the model takes other inputs: {shown}")
    alone = model.replaced(model.proto)  # without a path, and so without a file beside it
    source = calibration.open(alone, talk)
    found = None if source is None else image_input(source.reader)
    if found is not None:
        return found
    settings = calibration.images.preprocessing(alone)
    return replace(settings, origin="given" if settings.mean or settings.std else "").for_input(specs[0])

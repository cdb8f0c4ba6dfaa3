# SPDX-License-Identifier: Apache-2.0
"""The options that say which data is fed to a model and how, common to all commands that need some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["SOURCE_HELP", "Calibrating", "Layout", "LayoutOption", "Limit", "Mean", "Size", "Std", "open_data"]

SOURCE_HELP = "a folder of images, .npz, .npy, package.module:function, or torchvision:NAME"

Mean = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="Mean of 8-bit images, in units of full scale.", show_default=False),
]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Their deviation, likewise.", show_default=False)]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", "--image-size", metavar="HxW", help="Size to which image files are brought.", show_default=False
    ),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use this many samples, evenly spaced.", show_default=False)
]


class Layout(StrEnum):
    """Where a model has its channels."""

    nchw = "NCHW"
    nhwc = "NHWC"


LayoutOption = Annotated[
    Layout | None,
    typer.Option(
        "--layout",
        help="Where the model has its channels, if its input does not tell.",
        show_default=False,
        case_sensitive=False,
    ),
]


@dataclass(frozen=True)
class Calibrating:
    """Samples without labels, and how they are fed."""

    calib: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help=f"Samples, labels are not needed: {SOURCE_HELP}.", show_default=False),
    ] = None
    mean: Mean = None
    std: Std = None
    image_size: Annotated[  # `size` is a budget where this is used
        str | None,
        typer.Option("--image-size", metavar="HxW", help="Size to which image files are brought.", show_default=False),
    ] = None
    layout: LayoutOption = None

    def open(self, model: Model) -> Source | None:
        """Open the samples, if some are given."""
        if self.calib is None:
            return None
        return open_data(self.calib, model, self.mean, self.std, (self.image_size, self.layout))


def open_data(
    text: str, model: Model, mean: str | None, std: str | None, shape: tuple[str | None, Layout | None]
) -> Source:
    """Open what ``--data`` or ``--calib`` names; options win over ``graphprune.toml`` beside the model.

    Parameters
    ----------
    shape : tuple
        ``--size`` and ``--layout``.

    Raises
    ------
    DataError, UsageError
        If an option has no meaning, or the data does not fit the model.
    """
    from graphprune import accuracy
    from graphprune.data.arrays import ArrayReader
    from graphprune.data.preprocessing import parse_numbers, parse_size, read_settings

    size, layout = shape
    settings = read_settings(model.path)
    if mean is not None:
        settings = replace(settings, mean=parse_numbers(mean, "--mean"))
    if std is not None:
        settings = replace(settings, std=parse_numbers(std, "--std"))
    if size is not None:
        settings = replace(settings, size=parse_size(size))
    if layout is not None:
        settings = replace(settings, layout=layout.value)
    found = accuracy.open_data(text, model, settings)
    for option, value in (("--mean", mean), ("--std", std), ("--size", size)):
        if value is not None and isinstance(found.reader, ArrayReader) and not found.reader.images:
            raise UsageError(
                f"{option} is for images of 8 bits; {quote(text)} holds none, and its arrays are fed as they are",
                hint="leave it out, or store images as uint8 of shape (samples, height, width, channels)",
            )
    return found

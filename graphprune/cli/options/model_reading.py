# SPDX-License-Identifier: Apache-2.0
"""The model, and how it is read: the sizes of its inputs, and which channels depend on one another."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import Attention, Grouped
from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.api import AnalyzeOptions

__all__ = ["ExactReading", "GraphReading", "ModelFile", "ModelReading", "PlanFile", "PrunedFile", "Rebind"]

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.", show_default=False)]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan file.", show_default=False)]
PrunedFile = Annotated[Path, typer.Argument(metavar="PRUNED", help="The pruned ONNX file.", show_default=False)]
Rebind = Annotated[
    bool,
    typer.Option(
        "--rebind", help="Accept another checkpoint or re-export of the same structure.", rich_help_panel="Model"
    ),
]

_SHAPE = re.compile(r"(?P<name>.+)=(?P<dims>\d{1,9}(x\d{1,9})*|)", re.DOTALL | re.ASCII)
_SHAPE_FORM = "name an input and its sizes, e.g. --input-shape input=1x3x224x224"


@dataclass(frozen=True, kw_only=True)
class ExactReading:
    """How a model is read where all groups have to be exact."""

    panel: ClassVar[str] = "Model"

    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape",
            metavar="NAME=1x3x224x224",
            help="Shape of an input with dynamic dimensions, for which costs are counted. Repeatable.",
            show_default=False,
        ),
    ] = None
    attention: Annotated[
        Attention, typer.Option(help="What goes from an attention layer: whole heads, or the same part of each.")
    ] = "heads"

    def options(self) -> AnalyzeOptions:
        """Return the same for the Python API.

        Raises
        ------
        UsageError
            If a shape means nothing.
        """
        from graphprune import api

        return api.AnalyzeOptions(_parse_shapes(self.input_shape), self.attention)


@dataclass(frozen=True, kw_only=True)
class GraphReading(ExactReading):
    """How a model is read."""

    allow_approximate: Annotated[
        bool,
        typer.Option(
            "--allow-approximate",
            help="Prune through normalisations over channels (embedding widths); such groups are not exact.",
        ),
    ] = False

    grouped: Annotated[
        Grouped,
        typer.Option(
            help="What goes from a grouped convolution: whole groups, the same slice of each (slices), a slice of each "
            "group's own (own), or what reaches further (auto)."
        ),
    ] = "auto"

    def options(self) -> AnalyzeOptions:
        """Return the same for the Python API."""
        return replace(super().options(), approximate=self.allow_approximate, grouped=self.grouped)


@dataclass(frozen=True, kw_only=True)
class ModelReading(GraphReading):
    """A model, and how it is read."""

    model: ModelFile


def _parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Return shapes by input name.

    Raises
    ------
    UsageError
        If a text does not have the form ``NAME=1x3x224x224``, a size is 0, or an input is named twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or []:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(f"--input-shape cannot be {quote(text)}", hint=_SHAPE_FORM)
        name, dims = match["name"], match["dims"]
        shape = tuple(int(size) for size in dims.split("x")) if dims else ()
        if 0 in shape:
            raise UsageError(f"--input-shape {quote(text)} has a size of 0", hint=_SHAPE_FORM)
        if name in shapes:
            raise UsageError(f"--input-shape gives {quote(name)} twice", hint=_SHAPE_FORM)
        shapes[name] = shape
    return shapes

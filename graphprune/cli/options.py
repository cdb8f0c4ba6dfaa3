# SPDX-License-Identifier: Apache-2.0
"""Options and arguments that several commands share, and how their text is read."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from graphprune.errors import UsageError, quote

__all__ = [
    "Approximate",
    "Attention",
    "AttentionAxis",
    "DryRun",
    "Force",
    "InputShapes",
    "Json",
    "ModelFile",
    "Output",
    "PlanFile",
    "Unverified",
    "Verbose",
    "parse_rounding",
    "parse_shapes",
]

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.", show_default=False)]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan file.", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the result goes.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what takes how long.")]
Unverified = Annotated[
    bool,
    typer.Option("--unverified", help="Write even where onnxruntime cannot run the model to verify the result."),
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=1x3x224x224",
        help="Shape of an input with dynamic dimensions, for which costs are counted. Repeatable.",
        show_default=False,
    ),
]


class Attention(StrEnum):
    """What goes from an attention layer."""

    heads = "heads"
    head_dim = "head-dim"


AttentionAxis = Annotated[
    Attention, typer.Option(help="What goes from an attention layer: whole heads, or the same part of each.")
]
Approximate = Annotated[
    bool,
    typer.Option(
        "--allow-approximate",
        help="Prune through normalisations over channels (embedding widths); such groups are not exact.",
    ),
]

_SHAPE = re.compile(r"(?P<name>.+)=(?P<dims>\d{1,9}(x\d{1,9})*|)", re.DOTALL | re.ASCII)
_SHAPE_FORM = "name an input and its sizes, e.g. --input-shape input=1x3x224x224"


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
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


def parse_rounding(text: str) -> int | str:
    """Return what ``--round-to`` means.

    Raises
    ------
    UsageError
        If it is neither ``auto``, the name of a rule, nor a positive integer.
    """
    from graphprune.solvers.moves.levels import AUTO, RULES

    text = text.strip()
    if text in (AUTO, *RULES):
        return text
    if re.fullmatch(r"0*[1-9]\d{0,5}", text, re.ASCII):
        return int(text)
    hint = (
        f"give auto, a kind of machine ({', '.join(RULES)}), "
        "or the number that every width shall be a multiple of; 1 switches alignment off"
    )
    raise UsageError(f"--round-to cannot be {quote(text)}", hint=hint)

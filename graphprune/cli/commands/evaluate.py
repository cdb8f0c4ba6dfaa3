# SPDX-License-Identifier: Apache-2.0
"""`graphprune eval`: what a model is worth on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import data_options as dat
from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json

if TYPE_CHECKING:
    from graphprune.data.evaluation import Evaluation

__all__ = ["evaluate"]


def evaluate(
    model: opt.ModelFile,
    data: Annotated[str, typer.Option(metavar="SOURCE", help=f"What to run it on: {dat.SOURCE_HELP}.")],
    teacher: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Compare with this model's outputs.", show_default=False)
    ] = None,
    limit: dat.Limit = None,
    mean: dat.Mean = None,
    std: dat.Std = None,
    size: dat.Size = None,
    layout: dat.LayoutOption = None,
    as_json: opt.Json = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure a model on data.

    With labels: how often the right class comes first, and among the first five. With --teacher: how often both
    models choose the same class, how far apart their probabilities are, and the error of all outputs.
    """
    from dataclasses import asdict

    from graphprune import accuracy, api

    talk = Talk(verbose=verbose)
    with talk.stage("loading"):
        loaded = api.load(model)
        other = None if teacher is None else api.load(teacher)
        source = dat.open_data(data, loaded, mean, std, (size, layout)).limited(limit)
    with talk.progress("evaluating") as progress:
        found = accuracy.evaluate(loaded, source, other, progress=progress)
    if as_json:
        facts = {"model": str(model), "data": data, "teacher": None if teacher is None else str(teacher)}
        print_json({"command": "eval", **facts, **asdict(found)})
    else:
        typer.echo("\n".join(f"{name:<13} {value}" for name, value in _lines(found)))


def _lines(found: Evaluation) -> list[tuple[str, str]]:
    """Return what there is to print, name by name."""
    lines = [("samples", f"{found.samples:,}")]
    shares = (("top-1", found.top1), ("top-5", found.top5), ("agreement", found.agreement))
    lines += [(name, f"{100 * value:.2f} %") for name, value in shares if value is not None]
    if found.kl is not None:
        lines.append(("KL", f"{found.kl:.4f} nats"))
    if found.output_error is not None:
        lines.append(("output error", f"{100 * found.output_error:.3g} % of the variance"))
    return lines

# SPDX-License-Identifier: Apache-2.0
"""`graphprune eval`: what a model is worth on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import RunningDevice
from graphprune.cli.options.model_reading import ModelFile
from graphprune.cli.options.output import Printing
from graphprune.cli.options.samples import TrainingSamples
from graphprune.cli.spread import spread

if TYPE_CHECKING:
    from graphprune.data.evaluation import Evaluation

__all__ = ["evaluate"]

_SEED = 1
"""Of samples that are made: others than those that a network is recovered from."""


@examples(
    "graphprune eval model.pruned.onnx --data validation/",
    "graphprune eval model.pruned.onnx --data samples.npz --teacher model.onnx",
)
@spread
def evaluate(
    model: ModelFile,
    *,
    samples: TrainingSamples,
    device: RunningDevice,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="Compare with this model's outputs.", rich_help_panel="Model", show_default=False
        ),
    ] = None,
    printing: Printing,
) -> None:
    """Measure a model on data.

    With labels: how often the right class comes first, and among the first five. With --teacher: how often both
    models choose the same class, how far apart their probabilities are, and the error of all outputs.
    """
    from dataclasses import asdict

    from graphprune import accuracy, api
    from graphprune.data.synthesis.make_samples import read_request

    samples.images.check_needed(samples.data)
    talk = printing.talk()
    device.select(talk)
    with talk.stage("loading"):
        loaded = api.load(model)
        other = None if teacher is None else api.load(teacher)
        made = read_request(samples.data) is not None
        source = accuracy.samples(other or loaded, samples.data, seed=_SEED) if made else samples.open(loaded, talk)
    if made:
        talk.note("samples that are made show how near two networks are on such samples, which is no accuracy")
    with talk.progress("evaluating") as progress:
        evaluation = accuracy.evaluate(loaded, source, other, progress=progress)
    if printing.as_json:
        facts = {"model": str(model), "data": samples.data, "teacher": None if teacher is None else str(teacher)}
        print_json({"command": "eval", **facts, **asdict(evaluation)})
    else:
        typer.echo("\n".join(f"{name:<13} {value}" for name, value in _lines(evaluation)))


def _lines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return what there is to print, name by name."""
    from graphprune.report.text import caution

    lines = [("samples", f"{evaluation.samples:,}")]
    shares = (("top-1", evaluation.top1), ("top-5", evaluation.top5), ("agreement", evaluation.agreement))
    known = [(name, value, caution(value, evaluation.samples)) for name, value in shares if value is not None]
    lines += [(name, f"{100 * value:.2f} %{f'  ({doubt})' if doubt else ''}") for name, value, doubt in known]
    if evaluation.kl is not None:
        lines.append(("KL", f"{evaluation.kl:.4f} nats"))
    if evaluation.output_error is not None:
        lines.append(("output error", f"{100 * evaluation.output_error:.3g} % of the variance"))
    return lines

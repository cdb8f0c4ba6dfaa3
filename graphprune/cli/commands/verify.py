# SPDX-License-Identifier: Apache-2.0
"""`graphprune verify`: compare a pruned file with the masked original of its plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import VerifyDevice, verify_on
from graphprune.cli.options.model_reading import ModelFile, PlanFile, Rebind
from graphprune.cli.options.output import Printing
from graphprune.cli.spread import spread
from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from graphprune.model.load import Model

__all__ = ["verify"]


@examples(
    "graphprune verify model.onnx model.pruned.onnx model.plan.json",
    "graphprune verify model.onnx model.pruned.onnx model.plan.json --json",
)
@spread
def verify(
    model: ModelFile,
    pruned: Annotated[
        Path, typer.Argument(metavar="PRUNED", help="The file that is to be checked.", show_default=False)
    ],
    plan: PlanFile,
    *,
    rebind: Rebind = False,
    verify_device: VerifyDevice = "cpu",
    printing: Printing,
) -> None:
    """Compare a pruned model with the masked original.

    Compares the files field by field, then runs both in onnxruntime and compares outputs and
    intermediate tensors. Exit code 101 if they differ.
    """
    from dataclasses import asdict

    from graphprune import api
    from graphprune.plan.file import read_plan
    from graphprune.report.tables import check_text
    from graphprune.verification.pair import parted

    talk = printing.talk()
    verify_on(verify_device, talk)
    stored = read_plan(plan)
    with talk.stage("loading"):
        original, candidate = api.load(model), api.load(pruned)
    with talk.stage("analysis"):
        analysis = api.analyze_for(original, stored, rebind=rebind)
        current = api.reconcile(analysis, stored, rebind=rebind)
    _check_precision(original, candidate)
    for note in filter(None, (*current.notes, parted(candidate, plan, stored, current.plan))):
        talk.note(note)
    with talk.stage("verification"):
        verification = api.verify(analysis, candidate, current)
    if printing.as_json:
        files = {"model": str(model), "pruned": str(pruned), "plan": str(plan)}
        print_json({"command": "verify", **files, **asdict(verification)})
    else:
        typer.echo(check_text(verification, verbose=printing.verbose))


def _check_precision(original: Model, candidate: Model) -> None:
    """Refuse a quantised file: its numbers are others than those of the plan.

    Raises
    ------
    UsageError
    """
    from graphprune.surgery.marks import quantized

    kind = quantized(candidate.proto)
    if kind and not quantized(original.proto):
        raise UsageError(
            f"{quote(str(candidate.path))} is in lower precision ({kind}) than the plan and its original",
            hint="verify the float model that it was made of; `quantize` held it to that one",
        )

# SPDX-License-Identifier: Apache-2.0
"""`graphprune normalize`: write the graph as the analysis sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import ModelFile
from graphprune.cli.options.output import DryOutput, Printing
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["normalize"]


@examples(
    "graphprune normalize model.onnx",
    "graphprune normalize model.onnx -o folded.onnx",
)
@spread
def normalize(model: ModelFile, output: DryOutput, printing: Printing) -> None:
    """Write the graph as the analysis sees it, folded and inlined.

    Writes MODEL.normalized.onnx, for looking and checking: names in a plan that are not in the
    original file are in this one.
    """
    target = output.output or beside(model, ".normalized.onnx")
    check_targets({"model": target}, [model], force=output.force or output.dry_run, log=printing.log)

    from graphprune import api
    from graphprune.verification.check_runs import check_runs

    talk = printing.talk()
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("normalizing"):
        normalized = api.normalize(loaded)
    if not output.dry_run:
        check_runs(normalized, loaded, equal=True)
        api.save(normalized, target, force=output.force)
    counts = {
        what: {"before": before, "after": after}
        for (what, before), after in zip(_count(loaded.proto).items(), _count(normalized.proto).values(), strict=True)
    }
    written = None if output.dry_run else str(target)
    if printing.as_json:
        print_json({"command": "normalize", "model": str(model), "output": written, **counts})
    else:
        for what, count in counts.items():
            typer.echo(f"{what:<14}{count['before']} -> {count['after']}")
        typer.echo(f"{'output':<14}{written or 'not written (--dry-run)'}")


def _count(proto: ModelProto) -> dict[str, int]:
    """Return how many of each there are: inlining, folding and removing change these numbers."""
    graph = proto.graph
    return {"functions": len(proto.functions), "nodes": len(graph.node), "initializers": len(graph.initializer)}

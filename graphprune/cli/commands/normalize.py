# SPDX-License-Identifier: Apache-2.0
"""`graphprune normalize`: write the graph as the analysis sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json
from graphprune.cli.targets import beside, check_target

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["normalize"]


def normalize(
    model: opt.ModelFile,
    output: opt.Output = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
    dry_run: opt.DryRun = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write the graph as the analysis sees it, folded and inlined.

    Writes MODEL.normalized.onnx, for looking and checking: names in a plan that are not in the
    original file are in this one.
    """
    target = output or beside(model, ".normalized.onnx")
    check_target(target, [model], force=force or dry_run)

    from graphprune import api
    from graphprune.verification.check_runs import check_runs

    talk = Talk(verbose=verbose)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("normalizing"):
        result = api.normalize(loaded)
    if not dry_run:
        check_runs(result, loaded, equal=True)
        api.save(result, target, force=force)
    counts = {
        what: {"before": before, "after": after}
        for (what, before), after in zip(_count(loaded.proto).items(), _count(result.proto).values(), strict=True)
    }
    written = None if dry_run else str(target)
    if as_json:
        print_json({"command": "normalize", "model": str(model), "output": written, **counts})
    else:
        for what, count in counts.items():
            typer.echo(f"{what:<14}{count['before']} -> {count['after']}")
        typer.echo(f"{'output':<14}{written or 'not written (--dry-run)'}")


def _count(proto: ModelProto) -> dict[str, int]:
    """Return how many of each there are: inlining, folding and removing change these numbers."""
    graph = proto.graph
    return {"functions": len(proto.functions), "nodes": len(graph.node), "initializers": len(graph.initializer)}

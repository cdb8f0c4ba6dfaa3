# SPDX-License-Identifier: Apache-2.0
"""`graphprune normalize`: write the graph as the analysis sees it."""

from __future__ import annotations

import typer

from graphprune.cli import options as opt
from graphprune.cli.console import Talk, print_json
from graphprune.cli.targets import beside, check_target

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

    talk = Talk(verbose=verbose)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("normalizing"):
        result = api.normalize(loaded)
    if not dry_run:
        api.save(result, target, force=force)
    nodes = {"before": len(loaded.proto.graph.node), "after": len(result.proto.graph.node)}
    written = None if dry_run else str(target)
    if as_json:
        print_json({"command": "normalize", "model": str(model), "output": written, "nodes": nodes})
    else:
        typer.echo(f"nodes   {nodes['before']} -> {nodes['after']}")
        typer.echo(f"output  {written or 'not written (--dry-run)'}")

# SPDX-License-Identifier: Apache-2.0
"""`graphprune widen`: the same function with more channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.cli.console import print_json, print_tables
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import ExactReading, ModelFile
from graphprune.cli.options.output import Printing, UnverifiedOutput
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graphprune.analysis.analysis import Analysis
    from graphprune.widening.widen import Widened

__all__ = ["widen"]


@examples(
    "graphprune widen model.onnx",
    "graphprune widen model.onnx --factor 1.5 --noise 0.1 -o wide.onnx",
)
@spread
def widen(
    model: ModelFile,
    *,
    factor: Annotated[
        float, typer.Option(metavar="F", help="How many times as wide each group becomes.", rich_help_panel="Widths")
    ] = 2.0,
    noise: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Let copies share weights unequally, by so many standard deviations.",
            rich_help_panel="Widths",
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the noise.", rich_help_panel="Widths")] = 0,
    reading: ExactReading,
    output: UnverifiedOutput,
    printing: Printing,
) -> None:
    """Copy channels without changing what the network computes.

    Writes MODEL.wide.onnx. Every group that `solve` can prune gets wider; readers take a share of each copy. Both
    networks are run and all tensors compared before anything is written. `solve --lossless` takes the copies out.
    """
    target = output.output or beside(model, ".wide.onnx")
    check_targets({"model": target}, [model], force=output.force or output.dry_run, log=printing.log)

    from graphprune import api
    from graphprune.widening.widen import WidenOptions
    from graphprune.widening.widen import widen as carry_out

    talk = printing.talk()
    options = WidenOptions(factor, noise, seed, verify=not output.unverified)
    with talk.stage("loading"):
        loaded = api.load(model)
    with talk.stage("analysis"):
        analysis = api.analyze(loaded, reading.options())
    with talk.stage("widening"):
        widened = carry_out(analysis, options)
    if not output.dry_run:
        api.save(widened.model, target, force=output.force)
    facts = _facts(analysis, widened)
    written = None if output.dry_run else str(target)
    if printing.as_json:
        print_json({"command": "widen", "model": str(model), "output": written, **facts})
    else:
        print_tables(_tables(facts, written))


def _facts(analysis: Analysis, widened: Widened) -> dict[str, Any]:
    """Return what there is to report."""
    cost = analysis.cost
    check = widened.verification
    return {
        "flops": {"before": cost.flops(cost.sizes), "after": widened.flops},
        "groups": [
            {"id": group.id, "name": group.name, "before": group.before, "after": group.after, "why": group.why}
            for group in widened.groups
        ],
        "fixed": [
            {"kind": each.kind, "node": each.node, "why": each.text, "layers": each.layers} for each in analysis.frozen
        ],
        "verification": None
        if check is None
        else {"error": check.error, "tensor": check.tensor, "compared": check.compared, "note": check.note},
    }


def _tables(facts: dict[str, Any], written: str | None) -> RenderableType:
    from rich.console import Group as Stack

    from graphprune.report.tables import cell, grid, table
    from graphprune.report.text import count, name, plural

    groups = table("group", "made by", "width", "note", right=["width"], names=["made by", "note"])
    for group in facts["groups"]:
        width = f"{group['before']} -> {group['after']}" if group["after"] != group["before"] else str(group["before"])
        groups.add_row(group["id"], cell(group["name"]), width, cell(group["why"]))
    flops, check = facts["flops"], facts["verification"]
    rows = [("flops", f"{count(flops['before'], 'FLOPs')} -> {count(flops['after'], 'FLOPs')}")]
    for each in facts["fixed"]:
        layers = plural(each["layers"], "layer")
        rows.append(("fixed", f"channels of {layers}: {name(each['node'])} {each['why']}".replace(":  ", ": ")))
    if check is None:
        rows.append(("not proven", "the models were not run"))
    else:
        equal = f"{plural(check['compared'], 'tensor')} as in the original, with copies, to {check['error']:.1e}"
        rows += [("verified", equal), *([("note", check["note"])] if check["note"] else [])]
    rows.append(("output", written or "not written (--dry-run)"))
    return Stack(groups, grid(rows))

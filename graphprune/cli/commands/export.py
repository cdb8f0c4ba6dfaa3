# SPDX-License-Identifier: Apache-2.0
"""`graphprune export`: a torch module becomes an ONNX file that is good to prune."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from graphprune.choices import Exporter
from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.output import Printing
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_targets
from graphprune.errors import UsageError, quote
from graphprune.extras import require

__all__ = ["export"]


Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="torchvision:NAME or package.module:factory.", show_default=False),
]
Result = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="The ONNX file.", rich_help_panel="Output", show_default=False),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="[NAME=]1x3x224x224",
        help="Shape of each argument, in order; 1x3x224x224 by default.",
        rich_help_panel="Model",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A state dictionary: .safetensors, .pt or .pth.",
        rich_help_panel="Model",
        show_default=False,
    ),
]
_SHAPE = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<dims>\d{1,6}(x\d{1,6})*)", re.ASCII)


@examples(
    "graphprune export torchvision:resnet18 -o resnet18.onnx --weights resnet18.pth",
    "graphprune export mypackage.models:make_net -o net.onnx --input-shape image=1x3x32x32",
)
@spread
def export(
    source: Source,
    *,
    input_shape: Shape = None,
    weights: Weights = None,
    exporter: Annotated[
        Exporter, typer.Option(help="Which exporter of torch is used.", rich_help_panel="Model")
    ] = "auto",
    output: Result,
    opset: Annotated[
        int, typer.Option(metavar="INT", help="Operator set of the file.", rich_help_panel="Output", min=13, max=23)
    ] = 18,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace existing files.", rich_help_panel="Output")
    ] = False,
    printing: Printing,
) -> None:
    """Export a torch module to ONNX; its BatchNormalization stays.

    So do names, and the batch size stays open. The file is run in onnxruntime and compared with the module before it
    is written.
    """
    require("train", "`graphprune export`")
    check_targets({"model": output}, [weights, source], force=force, log=printing.log)
    shapes = _shapes(input_shape)

    from graphprune import api
    from graphprune.verification.check_runs import check_runs

    talk = printing.talk()
    with talk.stage("importing torch"):
        from graphprune.export.factory import load_weights, make_module
        from graphprune.export.from_torch import ExportOptions, export_module
    with talk.stage("building the network"):
        module = make_module(source)
    if weights is not None:
        load_weights(module, weights)
    elif source.startswith("torchvision:"):
        talk.note("the weights are random; give trained ones with --weights")
    names = [name for name, _ in shapes if name]
    with talk.stage("exporting"):
        options = ExportOptions([dims for _, dims in shapes], names, exporter, opset, talk.note)
        model = export_module(module, options)
    inputs = [value.name for value in model.proto.graph.input]
    with talk.stage("running the result"):
        check_runs(model, shapes=dict(zip(inputs, options.shapes, strict=False)))
    api.save(model, output, force=force)
    graph = model.proto.graph
    facts = {
        "nodes": len(graph.node),
        "initializers": len(graph.initializer),
        "batch_normalizations": sum(node.op_type == "BatchNormalization" for node in graph.node),
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
    }
    if printing.as_json:
        print_json({"command": "export", "output": str(output), **facts})
        return
    for name, value in facts.items():
        shown = ", ".join(map(quote, value)) if isinstance(value, list) else value
        typer.echo(f"{name.replace('_', ' '):<22}{shown}")
    typer.echo(f"{'output':<22}{output}")


def _shapes(texts: list[str] | None) -> list[tuple[str, tuple[int, ...]]]:
    """Return name (perhaps empty) and sizes of each input."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for text in texts or ["1x3x224x224"]:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise UsageError(f"--input-shape cannot be {quote(text)}", hint="e.g. --input-shape 1x3x224x224")
        shapes.append((match["name"] or "", tuple(int(size) for size in match["dims"].split("x"))))
    if len({bool(name) for name, _ in shapes}) > 1:
        raise UsageError("--input-shape names some inputs and others not")
    return shapes

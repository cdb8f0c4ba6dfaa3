# SPDX-License-Identifier: Apache-2.0
"""`graphprune deploy`: what runtimes make of a pruned network, and the network in their own formats."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.cli.completion import runtimes
from graphprune.cli.console import print_json, print_line, print_tables
from graphprune.cli.help_panels import examples
from graphprune.cli.options.model_reading import PrunedFile
from graphprune.cli.options.output import Printing
from graphprune.cli.options.samples import ImageOptions
from graphprune.cli.spread import spread
from graphprune.cli.targets import check_apart
from graphprune.errors import RequestError, RuntimeMismatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.cli.console import Talk
    from graphprune.data.source import Source
    from graphprune.export.deployment import Deployment, DeployOptions
    from graphprune.model.load import Model

__all__ = ["RuntimeChecking", "deploy"]


@dataclass(frozen=True, kw_only=True)
class RuntimeChecking:
    """In which runtimes a network is tried, and how."""

    panel: ClassVar[str] = "Runtimes"

    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="onnxruntime, openvino, mnn, ncnn, opencv, tflite, tensorrt, cuda; several with commas. "
            "[default: all that are known]",
            show_default=False,
            autocompletion=runtimes,
        ),
    ] = None
    to: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            metavar="NAME DIR",
            help="Write what a runtime with files of its own (openvino, mnn, ncnn, tflite) is given there; that one "
            "is checked.",
            show_default=False,
        ),
    ] = None
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="The largest difference from onnxruntime that counts as rounding, of the largest value of an output. "
            "[default: 0.001; of networks in 8 bits 0.05, in float16 0.01]",
            show_default=False,
        ),
    ] = None
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", min=1.0, help="How long each runtime may take for a network.")
    ] = 300.0
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time both networks in turn.")] = True

    @property
    def names(self) -> tuple[str, ...]:
        """The runtimes that are asked for by name."""
        named = tuple(name.strip() for name in (self.check or "").split(",") if name.strip())
        if self.check is not None and not named:
            raise UsageError("--check names no runtime", hint="for example --check onnxruntime,openvino")
        return named if self.to is None else tuple(dict.fromkeys((*named, self.to[0])))


@dataclass(frozen=True, kw_only=True)
class _Feeding:
    """What is fed."""

    panel: ClassVar[str] = "Samples"

    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Feed samples, as --calib of `solve` takes them. [default: random inputs]",
            show_default=False,
        ),
    ] = None
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="How many inputs are compared.")] = 2
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape",
            metavar="NAME=1x3x224x224",
            help="Shape of an input with dynamic dimensions. Repeatable.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="Of random inputs.")] = 0
    images: ImageOptions

    def open(self, model: Model, talk: Talk) -> Source | None:
        """Open the samples, if some are given."""
        self.images.check_needed(self.data)
        return None if self.data is None else self.images.open_source(self.data, model, talk)


@examples(
    "graphprune deploy model.pruned.onnx --original model.onnx",
    "graphprune deploy model.pruned.onnx --original model.onnx --check openvino,mnn --data photos/",
    "graphprune deploy model.pruned.onnx --to openvino model-openvino",
)
@spread
def deploy(
    pruned: PrunedFile,
    *,
    original: Annotated[
        Path | None,
        typer.Option(
            "--original",
            metavar="MODEL",
            help="What it was made of: is tried beside it, and timed against it.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    checking: RuntimeChecking,
    feeding: _Feeding,
    printing: Printing,
) -> None:
    """Try a pruned network in the runtimes that it may be meant for.

    Each converts it, loads it and runs it, in a process of its own; its outputs are compared with those of onnxruntime,
    and its time with that of the original, on one thread. Ends with exit code 1 where the original works in a runtime
    and the pruned network does not, or where a runtime of --check is not installed. `pip install
    'graphprune[runtimes]'` installs OpenVINO, MNN, ncnn and OpenCV.
    """
    from graphprune import api
    from graphprune.export.deploy import check_folder, check_names, require_one, require_runtimes
    from graphprune.export.deploy import deploy as run
    from graphprune.report.runtime_table import deployment_tables

    check_names(checking.names)
    require_one(checking.names)
    if checking.to is not None:
        require_runtimes(checking.to[:1])
        check_folder(*checking.to)
        check_apart({"folder": checking.to[1], "log": printing.log})
    options = _options(checking, feeding)
    talk = printing.talk()
    with talk.stage("loading"):
        model = api.load(pruned)
        dense = None if original is None else api.load(original)
        source = feeding.open(dense or model, talk)
    written = {} if checking.to is None else dict([checking.to])
    with talk.steps("checking runtimes") as progress:
        deployment = run(model, dense, source, options, written=written, progress=progress)
    if printing.as_json:
        print_json(_facts(deployment, pruned, original, checking.to))
    else:
        print_tables(deployment_tables(deployment))
        if checking.to is not None:
            print_line("written", str(checking.to[1]))
        if dense is None:
            print_line("next", f"graphprune deploy {pruned} --original MODEL")
        if note := _without_format(deployment):
            print_line("note", note)
    _raise_what_is_wrong(deployment, checking.names)


_STORED = {"int8": "in 8 bits", "fp16": "in float16"}


def _without_format(deployment: Deployment) -> str:
    """Say which runtimes take no networks that are stored like this one; empty if all do."""
    names = deployment.without_format
    if not names:
        return ""
    take = "takes" if len(names) == 1 else "take"
    stored = _STORED[deployment.lowered]
    return f"{', '.join(names)} {take} no ONNX files {stored}, pruned or not: give the float network there"


def _raise_what_is_wrong(deployment: Deployment, named: Sequence[str]) -> None:
    """End with an error where the pruned network alone does not work, or a runtime that was named is not installed.

    What a runtime does not take because of how numbers are stored counts only where it was named.

    Raises
    ------
    RuntimeMismatchError, RequestError
    """
    worse = [name for name in deployment.worse if name in named or name not in deployment.without_format]
    if worse:
        network = f"network {_STORED[deployment.lowered]}" if deployment.lowered else "pruned network"
        hint = "if `graphprune verify` accepts it, please report it with both files"
        if deployment.lowered:
            hint = "it is quantised: whether pruning is at fault, `graphprune deploy` says of the float network"
        if set(worse) <= set(deployment.without_format):
            hint = _without_format(deployment)
        raise RuntimeMismatchError(f"the original works in {', '.join(worse)}, and the {network} does not", hint=hint)
    absent = [check for check in deployment.checks if check.missing and check.runtime in named]
    if absent:
        names = ", ".join(check.runtime for check in absent)
        raise RequestError(f"not installed here, and so not tried: {names}", hint=absent[0].advice or None)


def _options(checking: RuntimeChecking, feeding: _Feeding) -> DeployOptions:
    from graphprune.cli.options.model_reading import ExactReading
    from graphprune.export.deployment import DeployOptions

    shapes = ExactReading(input_shape=feeding.input_shape).options().input_shapes
    return DeployOptions(
        checking.names,
        dict(shapes or {}),
        feeding.samples,
        checking.tolerance,
        checking.timing,
        checking.patience,
        feeding.seed,
    )


def _facts(
    deployment: Deployment, pruned: Path, original: Path | None, written: tuple[str, Path] | None
) -> dict[str, object]:
    """Return the same for machines."""
    return {
        "command": "deploy",
        "model": str(pruned),
        "original": None if original is None else str(original),
        "inputs": {name: list(shape) for name, shape in deployment.inputs.items()},
        "fed": deployment.fed,
        "runtimes": [asdict(check) for check in deployment.checks],
        "worse": list(deployment.worse),
        "lowered": deployment.lowered or None,
        "without_format": list(deployment.without_format),
        "output": None if written is None else str(written[1]),
    }

# SPDX-License-Identifier: Apache-2.0
"""A torch module becomes an ONNX model that is good to prune: BatchNormalization kept, names kept, any batch size.

torch's default exporter folds BatchNormalization into convolutions, and with it the scales that tell channels
apart. The TorchScript exporter can keep it and writes the plainest graphs, so it is tried first; what it cannot trace
goes through the dynamo exporter without its optimiser, whose constants are folded here.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx

from graphprune.choices import Exporter
from graphprune.data.user_code import FAILURES, reason
from graphprune.errors import UnsupportedModelError, UsageError, VerificationError, quote
from graphprune.extras import require
from graphprune.model.load import Model, load

require("train", "exporting from torch")
import torch  # noqa: E402 - where it is missing, the line above says what to install
from torch import Tensor, nn  # noqa: E402

__all__ = ["ExportOptions", "Exporter", "export_module"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TOLERANCE = 1e-3
"""Largest difference between file and module, relative to the largest output."""
_LATEST_TORCHSCRIPT = 17


_KINDS = {"random": 1.0, "negated": -1.0, "large": 10.0, "zero": 0.0}
"""What the examples are multiplied by, so that what depends on values goes several ways."""


def _ignore_note(text: str) -> None:
    """Say nothing: nobody listens."""


@dataclass(frozen=True)
class ExportOptions:
    """How a module is exported.

    Parameters
    ----------
    shapes : sequence of tuple of int
        One for each argument of the module, in order; the first size is the batch, which stays open.
    names : sequence of str, optional
        Of the inputs: by default ``input``, or ``input_0``, ``input_1``, ... where there are several.
    exporter : {"auto", "torchscript", "dynamo"}
    opset : int
    note : callable, optional
        Is told what else there is to know of the result.
    """

    shapes: Sequence[tuple[int, ...]]
    names: Sequence[str] = ()
    exporter: Exporter = "auto"
    opset: int = 18
    note: Callable[[str], None] = _ignore_note

    def __post_init__(self) -> None:
        if self.exporter not in get_args(Exporter):
            raise UsageError(f"there is no exporter {quote(self.exporter)}", hint="auto, torchscript or dynamo")
        if not self.shapes or any(not shape or min(shape) < 1 for shape in self.shapes):
            raise UsageError("an input needs a shape with sizes of at least 1", hint="e.g. --input-shape 1x3x224x224")
        if self.names and len(self.names) != len(self.shapes):
            raise UsageError(f"{len(self.names)} names are given for {len(self.shapes)} inputs")

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        if self.names:
            return list(self.names)
        return ["input"] if len(self.shapes) == 1 else [f"input_{number}" for number in range(len(self.shapes))]


class _Flat(nn.Module):
    """A module whose outputs are tensors by name: dictionaries and nested tuples are laid out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all tensors that the module returns."""
        return tuple(_named(self.module(*inputs)).values())


def export_module(module: nn.Module, options: ExportOptions) -> Model:
    """Export a module in evaluation mode and check the result against it.

    Parameters
    ----------
    module : nn.Module
        Its mode of training is restored.
    options : ExportOptions

    Raises
    ------
    UnsupportedModelError
        If no exporter can do it, or torch cannot run the module.
    VerificationError
        If the file computes something else, or BatchNormalization was lost.
    """
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        examples = tuple(_example(shape, batch=2) for shape in options.shapes)
        outputs, normalised = _observe(module, examples)
        proto = _export(module, examples, list(outputs), options)
        model = load(proto)
        _check(module, model, options, normalised)
    finally:
        for child, mode in modes.items():
            child.training = mode
    return model


def _example(shape: tuple[int, ...], batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn((batch, *shape[1:]), generator=generator)


def _observe(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], int]:
    """Return the outputs of a module, and how many times it normalises with running statistics."""
    calls: list[nn.Module] = []
    norms = [child for child in module.modules() if isinstance(child, _NORMS) and child.track_running_stats]
    hooks = [child.register_forward_hook(lambda own, *_: calls.append(own)) for child in norms]
    try:
        return _run(module, inputs), len(calls)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _run(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return the outputs of a module by name."""
    try:
        outputs = _named(module(*inputs))
    except FAILURES as error:
        shapes = [list(value.shape) for value in inputs]
        said = reason(error) if isinstance(error, SystemExit) else quote(str(error))
        raise UnsupportedModelError(
            f"the module {quote(type(module).__qualname__)} does not run on inputs of shape {shapes}: {said}",
            hint="give its shape with --input-shape",
        ) from error
    if not outputs:
        raise UnsupportedModelError("the module returns no tensors")
    return outputs


def _named(value: Any, name: str = "output") -> dict[str, Tensor]:
    """Lay out what a module returns: the keys of dictionaries and the fields of tuples become names."""
    if isinstance(value, Tensor):
        return {name: value}
    entries: Mapping[Any, Any] = {}
    if isinstance(value, Mapping):
        entries = value
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None) or [f"{name}_{number}" for number in range(len(value))]
        entries = dict(zip(fields, value, strict=True))
    return {inner: tensor for key, part in entries.items() for inner, tensor in _named(part, str(key)).items()}


def _export(module: nn.Module, examples: tuple[Tensor, ...], outputs: list[str], options: ExportOptions) -> Any:
    """Try the exporters in turn."""
    flat = module if outputs == ["output"] else _Flat(module)
    ways = {"torchscript": _torchscript, "dynamo": _dynamo}
    wanted = list(ways) if options.exporter == "auto" else [options.exporter]
    failures: list[str] = []
    for way in wanted:
        try:
            with warnings.catch_warnings(record=True) as said, _quiet("torch.onnx", "onnxscript", "onnx_ir"):
                warnings.simplefilter("always")
                proto = ways[way](flat, examples, outputs, options)
        except Exception as error:  # exporters raise whatever they like
            failures.append(f"{way}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}")
            continue
        _tell(said, options)  # but not all: each exporter recommends the other
        return _renamed(proto) if flat is not module else proto
    raise UnsupportedModelError(
        f"the module cannot be exported: {quote('; '.join(failures))}", hint="try another --exporter or --input-shape"
    )


def _tell(said: Sequence[warnings.WarningMessage], options: ExportOptions) -> None:
    """Name the places where the module decided by a value, which the file cannot."""
    deciding = [item for item in said if any(kind in str(item.message) for kind in _DECIDING)]
    places = dict.fromkeys(f"{Path(item.filename).name}:{item.lineno}" for item in deciding)
    if places:
        shown = ", ".join(quote(place) for place in list(places)[:3])
        more = f" and {len(places) - 3} more places" if len(places) > 3 else ""
        options.note(
            f"the module decides by values or sizes of tensors ({shown}{more}), and the file always goes the way "
            "of the example"
        )


_DECIDING = ("to a Python boolean", "to a Python float", "to a Python number", "to a Python list")
"""How torch says that a trace follows what a value was in the example."""


class _quiet:  # noqa: N801 - reads like a function
    """Loggers say nothing but errors for as long as this lasts."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]
        self.levels = [logger.level for logger in self.loggers]

    def __enter__(self) -> None:
        for logger in self.loggers:
            logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)


def _torchscript(
    module: nn.Module, examples: tuple[Tensor, ...], outputs: list[str], options: ExportOptions
) -> onnx.ModelProto:
    """Export through TorchScript; with the mode of training preserved, BatchNormalization is not folded."""
    buffer: Any = io.BytesIO()  # accepted by this exporter, though torch declares paths only
    torch.onnx.export(
        module,
        examples,
        buffer,
        dynamo=False,
        opset_version=min(options.opset, _LATEST_TORCHSCRIPT),
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=options.inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*options.inputs, *outputs)},
    )
    return _unshared(onnx.load_model_from_string(buffer.getvalue()))


def _unshared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every parameter its own values again: the exporter stores equal ones once, behind `Identity` nodes."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in list(proto.graph.node):
        if node.op_type == "Identity" and node.input[0] in stored:
            copy = proto.graph.initializer.add()
            copy.CopyFrom(stored[node.input[0]])
            copy.name = node.output[0]
            proto.graph.node.remove(node)
    return proto


def _dynamo(
    module: nn.Module, examples: tuple[Tensor, ...], outputs: list[str], options: ExportOptions
) -> onnx.ModelProto:
    """Export through dynamo, with its constants folded and nothing fused."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    batch = torch.export.Dim("batch")
    shapes: Any = [{0: batch} for _ in examples]
    program = torch.onnx.export(
        module,
        examples,
        dynamo=True,
        optimize=False,
        opset_version=options.opset,
        input_names=options.inputs,
        output_names=outputs,
        dynamic_shapes=(tuple(shapes),) if isinstance(module, _Flat) else tuple(shapes),
        verbose=False,
    )
    if program is None:
        raise UnsupportedModelError("the dynamo exporter returned nothing")
    optimizer.fold_constants(program.model)
    common.LiftConstantsToInitializersPass()(program.model)
    common.RemoveUnusedNodesPass()(program.model)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give parameters the names that they have in the module, without that of the wrapper."""
    prefix = "module."
    names = {t.name: t.name.removeprefix(prefix) for t in proto.graph.initializer if t.name.startswith(prefix)}
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)
    for value in (*proto.graph.input, *proto.graph.value_info):
        value.name = names.get(value.name, value.name)
    return proto


def _check(module: nn.Module, model: Model, options: ExportOptions, wanted: int) -> None:
    """Compare the file with the module at two batch sizes and on several kinds of values; no layer may be lost."""
    import onnxruntime as ort

    kept = sum(node.op_type == "BatchNormalization" for node in model.proto.graph.node)
    if kept < wanted:
        raise VerificationError(
            f"{wanted - kept} of {wanted} BatchNormalizations were lost in the export", hint="try another --exporter"
        )
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 4
    session = ort.InferenceSession(model.proto.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        examples = tuple(_example(shape, batch) for shape in options.shapes)
        for kind, factor in _KINDS.items():
            inputs = tuple(value * factor for value in examples)
            _compare(session, _run(module, inputs), (options.inputs, inputs), (batch, kind))


def _compare(
    session: Any, expected: Mapping[str, Tensor], fed: tuple[list[str], tuple[Tensor, ...]], case: tuple[int, str]
) -> None:
    """Run the file on a batch, and compare its outputs with those of the module."""
    batch, kind = case
    taken = {entry.name for entry in session.get_inputs()}
    feeds = {name: value.numpy() for name, value in zip(*fed, strict=True) if name in taken}
    try:
        outputs = session.run(list(expected), feeds)
    except Exception as error:  # onnxruntime raises classes of its own
        raise VerificationError(f"the exported file does not run on a batch of {batch}: {quote(str(error))}") from error
    for (name, value), got in zip(expected.items(), outputs, strict=True):
        worst = _difference(value.numpy(), got)
        if not worst <= _TOLERANCE:
            raise VerificationError(
                f"output {quote(name)} of the exported file differs from the module by {worst:.1e} "
                f"(batch {batch}, {kind} inputs)",
                hint=None
                if kind == "random"
                else "what the module does seems to depend on values (an if, a loop), which an export does not follow",
            )


def _difference(expected: Any, got: Any) -> float:
    """Return the largest difference relative to the largest value; infinite for other shapes or non-finite places."""
    if expected.shape != got.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return float("inf")
    one, two = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    return float(np.abs(one - two).max(initial=0.0)) / max(float(np.abs(one).max(initial=0.0)), 1e-3)

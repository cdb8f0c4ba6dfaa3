# SPDX-License-Identifier: Apache-2.0
"""The bridge is checked in both directions: module and file have to compute the same in onnxruntime.

The converter knows hundreds of operators and is young. A model that it gets wrong is refused before training,
with the first node that differs; a file that does not compute what was trained is not handed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, helper
from torch import Tensor, fx

from graphprune.array_types import Array
from graphprune.data.signature import batch_size, input_specs
from graphprune.errors import UnsupportedModelError, VerificationError, quote
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.model.tensors import DATA_FIELDS
from graphprune.model.write import save
from graphprune.training.bridge import Trainable, constant_tensors
from graphprune.training.loader import Samples

__all__ = ["TOLERANCE", "as_taken", "check_converted", "check_written", "run_file"]


TOLERANCE = 1e-3
"""Largest difference, relative to the largest value, that counts as rounding."""

# Near-ties make their results jump; what lies behind them is not compared.
_DISCRETE = frozenset({"ArgMax", "ArgMin", "Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})


def check_converted(net: Trainable, model: Model, samples: Samples) -> float:
    """Compare a converted module with its file.

    Returns
    -------
    float
        The largest relative difference.

    Raises
    ------
    UnsupportedModelError
        If they differ, naming the first node that does.
    """
    names, samples = _compared(net), as_taken(model, samples)
    worst = _worst(run_file(model, samples, names, net), _module_values(net, samples, names))
    if worst > TOLERANCE:
        _blame(net, samples, worst)
    return worst


def check_written(net: Trainable, written: Model, samples: Samples) -> float:
    """Compare a model with the module whose weights it got, and with the model that it was made from.

    Returns
    -------
    float
        The largest relative difference of the outputs.

    Raises
    ------
    VerificationError
        If the outputs differ, or anything beside the weights does.
    """
    if _without_weights(net, net.model.proto) != _without_weights(net, written.proto):
        raise VerificationError("the finetuned model differs from the pruned one in more than its weights")
    names, samples = _compared(net), as_taken(written, samples)
    worst = _worst(run_file(written, samples, names, net), _module_values(net, samples, names))
    if worst > TOLERANCE:
        raise VerificationError(
            f"the finetuned file differs from the trained module by {worst:.1e} ({TOLERANCE:.0e} is allowed)",
            hint="nothing was written; this is a fault of graphprune, please report it",
        )
    return worst


def _without_weights(net: Trainable, proto: ModelProto) -> bytes:
    """Return a model as bytes, without the values of what training may change."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    tensors = constant_tensors(copy)
    for name in net.written:
        for entry in DATA_FIELDS:
            tensors[name].ClearField(entry)
    return copy.SerializeToString(deterministic=True)


def _compared(net: Trainable) -> tuple[str, ...]:
    """Return the outputs that do not jump, or where all of them do what they are computed from."""
    jumping: set[str] = set()
    read: dict[str, None] = {}
    for node in net.graph.nodes:
        if node.op_type in _DISCRETE:
            read.update((name, None) for name in node.inputs if name in net.graph.producer and name not in jumping)
        if node.op_type in _DISCRETE or any(name in jumping for name in (*node.inputs, *node.captured)):
            jumping.update(node.outputs)
    smooth = tuple(name for name in net.graph.outputs if name not in jumping)
    return smooth or tuple(read)


def as_taken(model: Model, samples: Samples) -> Samples:
    """Return as many of the samples as a model takes at once; all where it takes any number."""
    fixed = batch_size(input_specs(model))
    if fixed is None or fixed == samples.count:
        return samples
    return samples.taken(torch.arange(fixed) % samples.count)


def run_file(model: Model, samples: Samples, names: tuple[str, ...], net: Trainable) -> dict[str, Array]:
    """Return values of a model that is run in onnxruntime as it is stored."""
    import onnxruntime as ort

    if not set(names) <= set(net.graph.outputs):
        exposed = ModelProto()
        exposed.CopyFrom(inline_functions(model.proto))
        present = {value.name for value in exposed.graph.output}
        exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
        model = model.replaced(exposed)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    feeds = {name: value.cpu().numpy() for name, value in samples.feeds.items()}
    with scratch_folder() as folder:
        path = save(model, folder / "model.onnx")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return dict(zip(names, session.run(list(names), feeds), strict=True))
        except Exception as error:  # onnxruntime raises classes of its own
            raise UnsupportedModelError(f"onnxruntime cannot run the model: {quote(str(error))}") from error


@torch.no_grad()
def _module_values(net: Trainable, samples: Samples, names: tuple[str, ...]) -> dict[str, Array]:
    """Return values of the module by their names in the file."""
    values: dict[str, Array] = {}
    wanted = {net.values[name]: name for name in names if name in net.values}

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            try:
                value = super().run_node(n)
            except Exception as error:  # torch raises whatever it likes
                raise _node_failure(net, n, error) from error
            if n in wanted and isinstance(value, Tensor):
                values[wanted[n]] = value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
            return value

    Keep(net.module).run(*(samples.feeds[name] for name in net.inputs))
    return values


def _node_failure(net: Trainable, at: fx.Node, error: Exception) -> UnsupportedModelError:
    """Name the node of the file that fails in torch."""
    index = next((number for number, made in enumerate(net.made) if at in made), None)
    node = "the model" if index is None else f"node {net.graph.nodes[index]!r}"
    return UnsupportedModelError(
        f"converted for training, {node} does not run: {quote(str(error))}",
        hint="this model can be pruned, but not be finetuned by graphprune; or the data does not fit it",
    )


def _worst(expected: Mapping[str, Array], got: Mapping[str, Array]) -> float:
    return max((_difference(value, got[name]) for name, value in expected.items() if name in got), default=0.0)


def _difference(expected: object, got: Array) -> float:
    """Return the largest difference relative to the largest value; infinite for other shapes or types."""
    if not isinstance(expected, np.ndarray) or expected.dtype.kind != "f" or not expected.size:
        return 0.0
    if expected.shape != got.shape:
        return float("inf")
    expected = expected.astype(np.float64)
    scale = float(np.abs(expected).max())
    worst = float(np.abs(expected - got).max())
    return worst / max(scale, 1e-6) if np.isfinite(worst) else float("inf")


def _blame(net: Trainable, samples: Samples, worst: float) -> None:
    """Name the first node whose result differs."""
    names = tuple(name for node in net.graph.nodes for name in node.outputs if name in net.values)
    expected = run_file(net.model, samples, names, net)
    got = _module_values(net, samples, names)
    blamed = next((name for name in names if name in got and _difference(expected[name], got[name]) > TOLERANCE), None)
    where = "its outputs"
    if blamed is not None:
        node = net.graph.producer[blamed]
        where = f"node {quote(node.label)} ({node.op_type})"
    raise UnsupportedModelError(
        f"converted for training, {where} differs from onnxruntime; the outputs are off by {worst:.1e}",
        hint="this model can be pruned, but not be finetuned by graphprune",
    )

# SPDX-License-Identifier: Apache-2.0
"""The masked oracle in this process: what the verification does in a child, fast enough for a thousand models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto, TensorProto, ValueInfoProto

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept
from graphprune.verification.deviation import FLOOR_FACTOR, WIDEST, deviation, tolerance
from graphprune.verification.oracle import build_oracle

__all__ = ["Arrays", "compare", "counted_flops", "feeds", "moved", "run", "worst"]

Arrays = dict[str, npt.NDArray[Any]]


def run(proto: ModelProto, inputs: Mapping[str, npt.NDArray[Any]], *, intermediates: bool = False) -> Arrays:
    """Run a model without graph optimisation; returns outputs, and with `intermediates` everything that nodes make."""
    exposed = ModelProto()
    exposed.CopyFrom(proto)
    if intermediates:
        present = {value.name for value in exposed.graph.output}
        names = [name for node in exposed.graph.node for name in node.output if name and name not in present]
        exposed.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def feeds(analysis: Analysis, seed: int = 0) -> Arrays:
    """Draw inputs of the analysed shapes."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in analysis.input_shapes.items()
        if analysis.graph.inputs[name].tensor_type.elem_type == TensorProto.FLOAT
    }


def compare(analysis: Analysis, keep: Mask, pruned: ModelProto | None = None) -> Arrays:
    """Assert that a pruned model equals the masked original in every tensor they share; returns all its tensors."""
    pruned = prune(analysis, keep) if pruned is None else pruned
    kept = Kept(analysis, keep)
    oracle = build_oracle(analysis, kept.mask)
    inputs = feeds(analysis)
    expected = run(oracle.model, {**inputs, **oracle.masks}, intermediates=True)
    nearby = run(oracle.model, {**moved(inputs), **oracle.masks}, intermediates=True)
    found = run(pruned, inputs, intermediates=True)
    for name, value in found.items():
        if name not in expected or name not in analysis.scope.values or value.dtype.kind != "f":
            continue
        masks = kept.masks(analysis.scope.values[name])
        wanted, noise = _cut(expected[name], masks), deviation(expected[name], nearby[name])
        assert wanted.shape == value.shape, f"{name}: {wanted.shape} and {value.shape}"
        # What is nothing but rounding (the mean of normalised values) cannot be compared.
        if FLOOR_FACTOR * noise <= WIDEST:
            error, allowed = deviation(wanted, value), tolerance(value.dtype, noise)
            assert error <= allowed, f"{name}: {error:.2e} > {allowed:.1e}"
    return found


def moved(inputs: Arrays) -> Arrays:
    """Move inputs by as much as rounding does."""
    random = np.random.default_rng(1)
    unit = np.finfo(np.float32).eps
    return {
        name: value * (1 + unit * random.choice([-1.0, 1.0], value.shape)).astype(value.dtype)
        for name, value in inputs.items()
    }


def _cut(value: npt.NDArray[Any], masks: Sequence[Mask]) -> npt.NDArray[Any]:
    for axis, mask in enumerate(masks):
        value = np.compress(mask, value, axis=axis)
    return value


def worst(expected: Arrays, found: Arrays) -> float:
    """Return the largest relative deviation over equally named arrays."""
    assert set(expected) == set(found)
    return max((deviation(expected[name], found[name]) for name in expected), default=0.0)


def counted_flops(proto: ModelProto, tensors: Arrays) -> int:
    """Count two FLOPs per multiply-add from the tensors of a run, constants folded."""
    shapes = {name: value.shape for name, value in tensors.items()}
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in proto.graph.initializer)
    inputs = {value.name for value in proto.graph.input} - {tensor.name for tensor in proto.graph.initializer}
    varying = set(inputs)
    total = 0
    for node in proto.graph.node:
        if node.op_type == "Shape" or not varying.intersection(node.input):
            continue
        varying.update(node.output)
        if node.op_type in _COUNTS:
            total += 2 * _COUNTS[node.op_type](
                shapes.get(node.input[0], ()),
                shapes[node.input[1]],
                shapes[node.output[0]],
                node,
            )
    return total


def _matrix(a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...], node: Any) -> int:
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(y) * a[0 if turned else -1]


_COUNTS: dict[str, Any] = {
    "Conv": lambda _x, w, y, _node: prod(y) * prod(w[1:]),
    "ConvTranspose": lambda x, w, _y, _node: prod(x) * prod(w[1:]),
    "Gemm": _matrix,
    "MatMul": _matrix,
}

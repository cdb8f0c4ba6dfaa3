# SPDX-License-Identifier: Apache-2.0
"""Quantisation as it is rarely written: each network must be pruned exactly, or not at all."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
from graphprune import BudgetRequest

HEAD = '<ir_version: 9, opset_import: ["" : 19, "com.microsoft" : 1]>\n'
RANDOM = np.random.default_rng(0)


def real(*shape: int) -> Any:
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


def integers(*shape: int, dtype: Any = np.int8) -> Any:
    return RANDOM.integers(-100, 100, shape).astype(dtype)


def scales(size: int) -> Any:
    return RANDOM.uniform(0.005, 0.02, size).astype(np.float32)


FAKE_QUANTISED = """g (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    stored = QuantizeLinear <axis = 0> (weight, scale, zeros)
    filters = DequantizeLinear <axis = 0> (stored, scale, zeros)
    a = Conv (x, filters, bias)
    b = Relu (a)
    c = QuantizeLinear (b, step, zero)
    d = DequantizeLinear (c, step, zero)
    e = Conv (d, last)
    f = GlobalAveragePool (e)
    y = Flatten (f)
}"""
SHARED_BIAS = """g (float[n, 12] x) => (float[n, 4] y, float[n, 4] z) {
    filters = DequantizeLinear <axis = 0> (stored, scale)
    turned = Transpose <perm = [1, 0]> (filters)
    bias = DequantizeLinear <axis = 0> (bias_stored, bias_scale)
    a = MatMul (x, turned)
    b = Add (a, bias)
    c = Relu (b)
    d = MatMul (x, other)
    e = Add (d, bias)
    f = Sigmoid (e)
    y = MatMul (c, last)
    z = MatMul (f, last_other)
}"""
SHARED_WEIGHT = """g (float[n, 16] x) => (float[n, 4] y) {
    filters = DequantizeLinear <axis = 1> (stored, scale)
    a = MatMul (x, first)
    b = Relu (a)
    c = MatMul (b, filters)
    d = Relu (c)
    e = MatMul (d, filters)
    f = Relu (e)
    y = MatMul (f, last)
}"""
CONTRIB = """g (float[n, 12] x) => (float[n, 4] y) {
    filters = com.microsoft.DequantizeLinear <axis = 1> (stored, scale, zeros)
    a = MatMul (x, filters)
    b = Relu (a)
    c = com.microsoft.QuantizeLinear (b, step, zero)
    d = com.microsoft.DequantizeLinear (c, step, zero)
    y = MatMul (d, last)
}"""
ACTIVATION_SCALES = """g (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    a = Conv (x, weight)
    b = QuantizeLinear <axis = 1> (a, scale, zero)
    c = MaxPool <kernel_shape = [2, 2]> (b)
    d = DequantizeLinear <axis = 1> (c, scale, zero)
    e = Conv (d, last)
    f = GlobalAveragePool (e)
    y = Flatten (f)
}"""
ROUNDED = """g (float[n, 12] x) => (float[n, 4] y) {
    a = MatMul (x, weight)
    b = Div (a, step)
    c = Round (b)
    d = Mul (c, step)
    y = MatMul (d, last)
}"""
FLOAT8 = """g (float[n, 12] x) => (float[n, 4] y) {
    a = MatMul (x, weight)
    b = QuantizeLinear (a, step, zero)
    c = DequantizeLinear (b, step, zero)
    y = MatMul (c, last)
}"""
INTEGER = """g (uint8[4, 12] x) => (float[4, 4] y) {
    a = MatMulInteger (x, stored, zero, zeros)
    b = Cast <to = 1> (a)
    c = Relu (b)
    y = MatMul (c, last)
}"""
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "weights quantised in the graph": (
        FAKE_QUANTISED,
        {"weight": real(16, 3, 3, 3), "scale": scales(16), "zeros": np.zeros(16, np.int8), "bias": real(16)}
        | {"step": np.float32(0.02), "zero": np.uint8(3), "last": real(4, 16, 1, 1)},
    ),
    "a bias of two layers": (
        SHARED_BIAS,
        {"stored": integers(16, 12), "scale": scales(16), "bias_stored": integers(16, dtype=np.int32)}
        | {"bias_scale": scales(16), "other": real(12, 16), "last": real(16, 4), "last_other": real(16, 4)},
    ),
    "a weight of two layers": (
        SHARED_WEIGHT,
        {"stored": integers(16, 16), "scale": scales(16), "first": real(16, 16), "last": real(16, 4)},
    ),
    "operators of onnxruntime": (
        CONTRIB,
        {"stored": integers(12, 16, dtype=np.int16), "scale": scales(16), "zeros": np.zeros(16, np.int16)}
        | {"step": np.float32(0.001), "zero": np.uint16(9), "last": real(16, 4)},
    ),
    "activations with a scale per channel": (
        ACTIVATION_SCALES,
        {"weight": real(16, 3, 3, 3), "scale": 3 * scales(16), "last": real(4, 16, 1, 1)}
        | {"zero": RANDOM.integers(90, 140, 16).astype(np.uint8)},
    ),
    "rounded floats": (ROUNDED, {"weight": real(12, 16), "step": np.float32(0.02), "last": real(16, 4)}),
    "activations in 8-bit floats": (
        FLOAT8,
        {"weight": real(12, 16), "step": np.float32(0.02), "last": real(16, 4)}
        | {"zero": np.zeros((), ml_dtypes.float8_e4m3fn)},
    ),
    "integer products": (
        INTEGER,
        {"stored": integers(12, 16), "zero": np.uint8(7), "zeros": integers(16), "last": real(16, 4)},
    ),
}


def network(text: str, values: dict[str, Any]) -> ModelProto:
    proto: ModelProto = onnx.parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    return proto


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_exactly(name: str) -> None:
    analysis = graphprune.analyze(graphprune.load(network(*NETWORKS[name])))
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.5))
    pruned = graphprune.apply(analysis, plan)
    found = graphprune.verify(analysis, pruned, plan)
    assert found.status == "verified"
    assert found.effect > 0.01


def test_a_zero_point_for_each_row_of_an_activation_freezes() -> None:
    text, values = NETWORKS["integer products"]
    proto = network(text, values | {"zero": np.arange(4, dtype=np.uint8)})
    analysis = graphprune.analyze(graphprune.load(proto))
    assert not analysis.groups
